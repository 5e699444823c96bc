//! What reloads an app without anybody asking for it: files that change, and times.
//!
//! Says only that it is time; the reload goes the way of all others. A burst of changes is one reload, and those that come during
//! one are the next.

mod tree;
mod watches;

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use allcores::primary::spawn_deaf;
use anyhow::Context as _;
use croner::Cron;
use jiff::Zoned;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use self::tree::Tree;
use self::watches::Watches;
use super::{Commander, lock};
use crate::args::TriggerArgs;

/// How long a look at the clock may be trusted: it may be set, and a machine may sleep.
const LOOK: Duration = Duration::from_secs(20);

/// What the watched files were like when the app was begun, or last asked to reload as they had changed; `None` where that is not
/// known. The next program goes by it: what changes while nobody looks is not missed. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub(super) struct Baseline(Arc<Mutex<Option<u64>>>);

impl Baseline {
    pub(super) fn restore(saved: Option<u64>) -> Self {
        Self(Arc::new(Mutex::new(saved)))
    }

    pub(super) fn save(&self) -> Option<u64> {
        *lock(&self.0)
    }

    fn set(&self, digest: u64) {
        *lock(&self.0) = Some(digest);
    }
}

/// What reloads the app. Dropped, nothing does any more.
pub(super) struct Triggers {
    clock: Option<JoinHandle<()>>,
    /// Ends when files are watched, or are not to be.
    watching: oneshot::Receiver<Infallible>,
}

impl Triggers {
    /// Begins to look out. What can't be watched is told, and the app runs without.
    pub(super) fn start(args: TriggerArgs, commander: &Commander, baseline: Baseline) -> Self {
        let TriggerArgs { watch, watch_ignore, watch_delay, cron_restart } = args;
        let (begun, watching) = oneshot::channel();
        if !watch.is_empty() {
            let (tree, watcher) = (Tree::new(watch, watch_ignore), commander.clone());
            let runtime = tokio::runtime::Handle::current();
            // To read it all may take long, and the primary has others to look after.
            let started = spawn_deaf("watch", move || {
                let _entered = runtime.enter();
                let Err(error) = watch_files(tree, watch_delay, &watcher, &baseline, begun);
                watcher.notice(&format!("files are not watched: {error:#}"));
            });
            if let Err(error) = started {
                commander.notice(&format!("files are not watched: start a thread: {error}"));
            }
        }
        let clock = cron_restart.map(|cron| tokio::spawn(watch_clock(cron, commander.clone())));
        Self { clock, watching }
    }

    /// Waits until no change is missed any more.
    pub(super) async fn begun(&mut self) {
        // It never says anything.
        let Err(_) = (&mut self.watching).await;
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

/// Reloads when files have changed, for as long as the program lives. Lets go of `begun` when no change is missed any more.
fn watch_files(
    mut tree: Tree,
    delay: Duration,
    commander: &Commander,
    baseline: &Baseline,
    begun: oneshot::Sender<Infallible>,
) -> anyhow::Result<Infallible> {
    let mut watches = Watches::new().context("ask the kernel for changes of files")?;
    let mut said = String::new();
    let mut look = |tree: &mut Tree, watches: &mut Watches| {
        let mut file = tree.refresh();
        let mut refusals = Vec::new();
        // What is in a folder before it is watched, nobody tells: it is looked at again.
        while watches.follow(tree, |error| refusals.push(format!("{error:#}"))) {
            file = file.or(tree.refresh());
        }
        // One stands for all: the kernel has no room for more, as a rule.
        let refused = refusals.into_iter().next().unwrap_or_default();
        if !refused.is_empty() && refused != said {
            commander.notice(&refused);
        }
        said = refused;
        file
    };
    look(&mut tree, &mut watches);
    let now = tree.digest();
    let mut seen = baseline.save().unwrap_or(now);
    baseline.set(seen);
    drop(begun);
    // What has changed while nobody looked is as good as told.
    let mut is_told = seen != now;
    loop {
        let wait = |limit| if std::mem::take(&mut is_told) { Ok(true) } else { watches.wait(limit) };
        settle(wait, delay, || tree.is_moving()).context("wait for changes of files")?;
        let (file, digest) = (look(&mut tree, &mut watches), tree.digest());
        if std::mem::replace(&mut seen, digest) != digest {
            let what = file.map_or("files have".into(), |file| format!("{} has", file.display()));
            commander.notice(&format!("{what} changed: reloading"));
            let baseline = baseline.clone();
            // Not before it is asked for: an upgrade that comes first leaves it to the next program.
            commander.reload_unasked_then(move || baseline.set(digest));
        }
    }
}

/// Waits for a change, and until there was none for this long. `wait` says whether there is one in the time that it is given.
///
/// The kernel tells of what is ignored, too: where it goes on telling, `is_moving` says whether files that count have
/// changed since it was asked last.
fn settle(
    mut wait: impl FnMut(Option<Duration>) -> io::Result<bool>,
    delay: Duration,
    mut is_moving: impl FnMut() -> bool,
) -> io::Result<()> {
    while !wait(None)? {}
    let mut last_look = Instant::now();
    while wait(Some(delay))? {
        if last_look.elapsed() < delay {
            continue;
        }
        if !is_moving() {
            break;
        }
        last_look = Instant::now();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_without_end_is_looked_at() {
        let delay = Duration::from_millis(300);
        let (begin, mut looks) = (Instant::now(), 0);
        let is_moving = || {
            looks += 1;
            looks < 3
        };
        let wait = |_| {
            std::thread::sleep(Duration::from_millis(5));
            Ok(true)
        };
        settle(wait, delay, is_moving).unwrap();
        assert_eq!(looks, 3);
        assert!(begin.elapsed() >= delay * 3, "{:?}", begin.elapsed());
    }

    #[test]
    fn what_is_told_no_more_has_settled() {
        let (delay, mut told) = (Duration::from_millis(20), vec![Ok(false), Ok(true)]);
        let mut limits = Vec::new();
        let wait = |limit| {
            limits.push(limit);
            told.pop().unwrap()
        };
        settle(wait, delay, || unreachable!("it is quiet")).unwrap();
        assert_eq!(limits, [None, Some(delay)]);
        assert!(settle(|_| Err(io::Error::other("gone")), delay, || true).is_err());
    }
}
