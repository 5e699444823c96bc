//! `allcores delete`: stops apps and forgets them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use tokio::time::sleep;

use super::{ANSWER_PATIENCE, ask, not_running, say, stop};
use crate::args::DeleteArgs;
use crate::client::Client;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::log;
use crate::runtime_folder::{AppFolder, Presence, RuntimeFolder};
use crate::screen;
use crate::state_folder::StateFolder;
use crate::target::Target;

/// How long to let be whose name is had by nobody who listens.
const PAUSE: Duration = Duration::from_millis(20);

/// What to do about a log that stays.
const REMEDY: &str = "remove its logs yourself, once no app writes to them";

/// Deletes the apps.
pub(super) async fn execute(args: &DeleteArgs) -> Result<ExitCode, Failure> {
    let (state, runtime) = (StateFolder::from_env()?, RuntimeFolder::from_env()?);
    let (mut names, mut left, mut explicit) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    for target in &args.leaving.names {
        match target {
            Target::App(name) => {
                names.push(name.clone());
                explicit.insert(name);
            }
            // Those that don't run, too.
            Target::All => {
                names.extend(state.names()?);
                let saved = state.saved()?.map(|list| list.apps).unwrap_or_default();
                names.extend(saved.iter().map(|app| app.record.name().clone()));
                if args.logs {
                    left.extend(state.logs_left()?);
                }
            }
        }
    }
    let mut met = BTreeSet::new();
    names.retain(|name| met.insert(name.clone()));
    left.retain(|name| !met.contains(name));
    if names.is_empty() && left.is_empty() {
        // As after `ls`: it is as it was asked for.
        screen::tell("no app is known; nothing to delete");
    }
    let mut failures = Vec::new();
    for name in names {
        let deleted = delete(&runtime.find(&name)?, &state, args, explicit.contains(&name)).await;
        failures.extend(deleted.err());
    }
    for name in left {
        failures.extend(delete_left(&runtime.find(&name)?, &state).err());
    }
    Failure::of_all(failures)
}

async fn delete(
    folder: &AppFolder,
    state: &StateFolder,
    args: &DeleteArgs,
    is_named: bool,
) -> Result<(), Failure> {
    let name = folder.name();
    let (mut was_running, mut was_left) = (false, false);
    let Forgotten { was_known, log } = loop {
        match folder.look() {
            Presence::Held { .. } => {
                // What is known of it may be of before: by now somebody runs another in the foreground.
                if !is_named {
                    match holder(folder, args.leaving.timeout).await? {
                        Holder::Background => {}
                        Holder::Foreground { pid } => return forget_behind(folder, state, pid),
                        Holder::Nobody => continue,
                    }
                }
                stop::stop(folder, false, args.leaving.timeout).await?;
                was_running = true;
            }
            Presence::Left(_) => was_left |= stop::end_left(folder, false, args.leaving.timeout).await?,
            Presence::Free => {}
        }
        // Somebody may have started it again.
        if let Some(forgotten) = forget(folder, state, args.logs)? {
            break forgotten;
        }
    };
    match (log, was_known || was_running || was_left) {
        (Log::Stays(failure), _) => Err(failure.next(format!("{name} is stopped and forgotten; {REMEDY}"))),
        (_, true) => say(&format!("{name}: deleted\n")).map(drop),
        (Log::Deleted, false) => say_log_is_deleted(folder),
        (Log::Untouched, false) => Err(not_running(folder, "delete")),
    }
}

/// Who has an app's name.
enum Holder {
    Background,
    Foreground {
        pid: u32,
    },
    /// It has gone.
    Nobody,
}

/// Asks who has the name, and waits for one that does not listen yet, or is about to go.
async fn holder(folder: &AppFolder, patience: Duration) -> Result<Holder, Failure> {
    let started = Instant::now();
    loop {
        match ask(folder, "delete", ANSWER_PATIENCE, Client::new(folder).describe()).await {
            Ok(description) if description.background => return Ok(Holder::Background),
            Ok(description) => return Ok(Holder::Foreground { pid: description.pid }),
            Err(_) if !folder.is_running() => return Ok(Holder::Nobody),
            Err(failure) if failure.code() == ExitCode::NotRunning && started.elapsed() < patience => {
                sleep(PAUSE).await;
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// Forgets what is known of the time before an app ran in the foreground, as this process. It goes on, and keeps its log.
fn forget_behind(folder: &AppFolder, state: &StateFolder, pid: u32) -> Result<(), Failure> {
    let name = folder.name();
    state.change(|change| {
        // Who has the name by now may have been started in the background, and said so.
        if folder.holder() != Some(pid) {
            let text = format!("delete {name}: it can't be told any more who has its name");
            return Err(Failure::from(anyhow!(text)).next("try again; `allcores ls` shows which apps run"));
        }
        change.unsave(name)?;
        change.forget(name)
    })?;
    say(&format!("{name}: forgotten; it runs in the foreground, and goes on\n")).map(drop)
}

/// Deletes the log of an app that is not known: it failed to start, or was deleted without its log. One that runs by now is in
/// the foreground, and not meant by `all`.
fn delete_left(folder: &AppFolder, state: &StateFolder) -> Result<(), Failure> {
    match forget(folder, state, true)?.unwrap_or_default().log {
        Log::Deleted => say_log_is_deleted(folder),
        Log::Stays(failure) => Err(failure.next(REMEDY)),
        Log::Untouched => Ok(()),
    }
}

fn say_log_is_deleted(folder: &AppFolder) -> Result<(), Failure> {
    say(&format!("{}: its log is deleted\n", folder.name())).map(drop)
}

/// What was forgotten.
#[derive(Default)]
struct Forgotten {
    was_known: bool,
    log: Log,
}

/// What became of an app's log.
#[derive(Default)]
enum Log {
    /// There is none, or it is not to be deleted.
    #[default]
    Untouched,
    Deleted,
    Stays(Failure),
}

/// Forgets an app, so that it is not resurrected either, and deletes its log if that is wished; `None` if it runs. Who starts it
/// meanwhile has its name before it says how it is started.
fn forget(folder: &AppFolder, state: &StateFolder, has_log: bool) -> Result<Option<Forgotten>, Failure> {
    if !state.is_there() {
        return Ok(Some(Forgotten::default()));
    }
    let name = folder.name();
    state.change(|change| {
        if folder.is_running() {
            return Ok(None);
        }
        let log = state.record(name)?.map(|record| record.log()).or_else(|| state.log_left(name));
        // First of all: it may be what fills the disk, and the list is written anew.
        let log = match log.filter(|_| has_log).map(|log| log::delete(&log)) {
            None => Log::Untouched,
            Some(Ok(())) => Log::Deleted,
            Some(Err(error)) => Log::Stays(error.into()),
        };
        let was_saved = change.unsave(name)?;
        Ok(Some(Forgotten { was_known: change.forget(name)? || was_saved, log }))
    })
}
