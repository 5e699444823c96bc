//! What reloads an app without anybody asking for it: files that change, and times.
//!
//! Says only that it is time; the reload goes the way of all others. A burst of changes is one reload, and those that come during
//! one are the next.

mod tree;

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use croner::Cron;
use jiff::Zoned;
use notify::{EventKind, RecursiveMode, Watcher as _};
use tokio::task::JoinHandle;

use self::tree::Tree;
use super::Commander;
use crate::args::TriggerArgs;

/// How long a look at the clock may be trusted: it may be set, and a machine may sleep.
const LOOK: Duration = Duration::from_secs(20);

/// What reloads the app. Dropped, nothing does any more.
pub(super) struct Triggers {
    clock: Option<JoinHandle<()>>,
}

impl Triggers {
    /// Begins to look out. What can't be watched is told, and the app runs without.
    pub(super) fn start(args: TriggerArgs, commander: &Commander) -> Self {
        let TriggerArgs { watch, watch_ignore, watch_delay, cron_restart } = args;
        if !watch.is_empty()
            && let Err(error) = watch_files(watch, watch_ignore, watch_delay, commander.clone())
        {
            commander.notice(&format!("files are not watched: {error:#}"));
        }
        let clock = cron_restart.map(|cron| tokio::spawn(watch_clock(cron, commander.clone())));
        Self { clock }
    }
}

impl Drop for Triggers {
    fn drop(&mut self) {
        if let Some(clock) = &self.clock {
            clock.abort();
        }
    }
}

/// Reloads at the times of an expression.
async fn watch_clock(cron: Cron, commander: Commander) {
    loop {
        let Ok(next) = cron.find_next_occurrence(&Zoned::now(), false) else {
            return commander.notice(&format!("`--cron-restart {cron}` names no time that will come"));
        };
        while let Ok(wait) = Duration::try_from(Zoned::now().duration_until(&next)) {
            if wait.is_zero() {
                break;
            }
            tokio::time::sleep(wait.min(LOOK)).await;
        }
        commander.notice(&format!("it is {}: reloading", next.strftime("%F %T")));
        commander.reload_unasked();
    }
}

/// Reloads when files have changed, from a thread that lives as long as the program.
fn watch_files(
    folders: Vec<PathBuf>,
    ignored: Vec<String>,
    delay: Duration,
    commander: Commander,
) -> anyhow::Result<()> {
    let mut tree = Tree::read(folders, ignored)?;
    let (sender, changes) = channel();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // That somebody reads a file is no change, and we do so ourselves.
        if !event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
            let _ = sender.send(());
        }
    })
    .context("ask the kernel for changes of files")?;
    let mut look = move |tree: &mut Tree| -> anyhow::Result<Option<PathBuf>> {
        // What is in a folder before it is watched, nobody tells: it is looked at again.
        let mut file = tree.refresh();
        loop {
            let folders = tree.take_new_folders();
            if folders.is_empty() {
                return Ok(file);
            }
            for folder in folders {
                let hint = "more folders than fs.inotify.max_user_watches allows?";
                let result = watcher.watch(&folder, RecursiveMode::NonRecursive);
                result.with_context(|| format!("watch {} ({hint})", folder.display()))?;
            }
            file = file.or(tree.refresh());
        }
    };
    look(&mut tree)?;
    let runtime = tokio::runtime::Handle::current();
    let look_out = move || {
        while settles(&changes, delay, || tree.is_moving()) {
            match look(&mut tree) {
                Ok(None) => {}
                Ok(Some(file)) => {
                    commander.notice(&format!("{} has changed: reloading", file.display()));
                    let _entered = runtime.enter();
                    commander.reload_unasked();
                }
                Err(error) => commander.notice(&format!("{error:#}")),
            }
        }
    };
    std::thread::Builder::new().name("watch".into()).spawn(look_out).context("start a thread")?;
    Ok(())
}

/// Waits for a change, and until there was none for this long. False when nobody tells of them any more.
///
/// The kernel tells of what is ignored, too: where it goes on telling, `is_moving` says whether files that count have
/// changed since it was asked last.
fn settles(changes: &Receiver<()>, delay: Duration, mut is_moving: impl FnMut() -> bool) -> bool {
    if changes.recv().is_err() {
        return false;
    }
    let mut last_look = Instant::now();
    loop {
        match changes.recv_timeout(delay) {
            Ok(()) if last_look.elapsed() < delay => {}
            Ok(()) if !is_moving() => return true,
            Ok(()) => last_look = Instant::now(),
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_without_end_is_looked_at() {
        let (sender, changes) = channel();
        let delay = Duration::from_millis(300);
        std::thread::spawn(move || {
            while sender.send(()).is_ok() {
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let (begin, mut looks) = (Instant::now(), 0);
        let is_moving = || {
            looks += 1;
            looks < 3
        };
        assert!(settles(&changes, delay, is_moving));
        assert_eq!(looks, 3);
        assert!(begin.elapsed() >= delay * 3, "{:?}", begin.elapsed());
    }

    #[test]
    fn what_is_told_no_more_has_settled() {
        let (sender, changes) = channel();
        sender.send(()).unwrap();
        assert!(settles(&changes, Duration::from_millis(20), || unreachable!("it is quiet")));
        drop(sender);
        assert!(!settles(&changes, Duration::from_millis(20), || true));
    }
}
