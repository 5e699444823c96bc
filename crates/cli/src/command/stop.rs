//! `allcores stop`: asks apps to stop and waits until their primaries have gone.

use std::fs::File;
use std::io;
use std::thread;
use std::time::Duration;

use allcores::Signal;
use allcores::primary::Leftovers;
use anyhow::{Context as _, anyhow};
use tokio::sync::oneshot;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, timeout};

use super::{ANSWER_PATIENCE, explain, not_running, say, unresponsive};
use crate::args::StopArgs;
use crate::client::{Client, RequestError};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::readable;
use crate::runtime_folder::{AppFolder, wait_until_free};
use crate::settings::AppName;
use crate::target;

/// How often it is asked whose connection breaks.
const ATTEMPTS: usize = 3;

/// How long after.
const PAUSE: Duration = Duration::from_millis(20);

/// How long what a killed primary has left may take to go: as long as a worker may where nobody says.
const COURTESY: Duration = Duration::from_secs(5);

/// Stops the apps, all at once.
pub(super) async fn execute(args: &StopArgs) -> Result<ExitCode, Failure> {
    let mut stopping = JoinSet::new();
    for folder in target::folders("stop", &args.leaving.names)? {
        let (now, background, timeout) = (args.now, args.background, args.leaving.timeout);
        stopping.spawn(async move {
            if background && !(folder.is_running() && super::is_background(&folder, "stop").await?) {
                return Ok(ExitCode::Success);
            }
            stop(&folder, now, timeout).await
        });
    }
    let mut failures = Vec::new();
    while let Some(stopped) = stopping.join_next().await {
        failures.extend(stopped.context("stop an app")?.err());
    }
    Failure::of_all(failures)
}

/// Stops an app. Done when the kernel has let go of the primary's lock.
pub(super) async fn stop(folder: &AppFolder, now: bool, patience: Duration) -> Result<ExitCode, Failure> {
    if folder.left().is_some() {
        let was_left = end_left(folder, now, patience).await?;
        return if was_left { Ok(ExitCode::Success) } else { Err(not_running(folder, "stop")) };
    }
    let started = Instant::now();
    let name = folder.name();
    // Opened first: a clean exit removes the file.
    let lock = match folder.open_lock() {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(not_running(folder, "stop")),
        Err(error) => {
            return Err(anyhow::Error::new(error).context(format!("open the lock of {name}")).into());
        }
    };
    ask(folder, now).await?;
    match timeout(patience.saturating_sub(started.elapsed()), gone(lock)?).await {
        Ok(result) => {
            result
                .context("the thread that waits for the end died")?
                .context("wait for the end of the primary")?;
            say(&format!("{name}: stopped\n"))
        }
        Err(_) => Err(not_gone(name, now, patience)),
    }
}

/// Ends what a killed primary has left, and clears up in its place; says whether there was anybody to end.
pub(super) async fn end_left(folder: &AppFolder, now: bool, patience: Duration) -> Result<bool, Failure> {
    // With the name in hand, so that none of it is a new primary's.
    let claim = folder.claim()?;
    let mark = claim.mark().context("look at the lock of the primary that was killed")?;
    let (signal, patience) =
        if now { (Signal::KILL, patience) } else { (Signal::TERM, patience.min(COURTESY)) };
    let end = move || {
        let left = Leftovers::find(&mark);
        (left.pids(), left.end(signal, patience))
    };
    let ended = spawn_blocking(end).await.context("the thread that ends what is left died")?;
    let (name, (pids, alive)) = (folder.name(), ended);
    if !alive.is_empty() {
        let text = format!("stop {name}: it was killed, and what it has left does not go, even by SIGKILL");
        let alive = readable::list(&alive);
        return Err(Failure::from(anyhow!("{text}: {alive}"))
            .next("see what the kernel keeps them for: /proc/PID/stack"));
    }
    claim.clear();
    if !pids.is_empty() {
        say(&format!("{name}: it was killed; what it had left is ended: {}\n", readable::list(&pids)))?;
    }
    Ok(!pids.is_empty())
}

async fn ask(folder: &AppFolder, now: bool) -> Result<(), Failure> {
    for attempt in 1..=ATTEMPTS {
        match timeout(ANSWER_PATIENCE, Client::new(folder).stop(now)).await {
            Ok(Ok(())) => return Ok(()),
            // It has gone faster than it answered.
            Ok(Err(RequestError::NotRunning)) if attempt > 1 => return Ok(()),
            // Either that, or an upgrade has ended the connection, perhaps before it was heard. To stop twice does no harm.
            Ok(Err(RequestError::Broken(_))) => sleep(PAUSE).await,
            Ok(Err(error)) => return Err(explain(folder, "stop", error)),
            Err(_) => return Err(unresponsive(folder, "stop", ANSWER_PATIENCE)),
        }
    }
    // Whether it goes, the lock tells.
    Ok(())
}

/// Waits on a thread of its own, which may outlast this command's patience and ends with the program.
fn gone(lock: File) -> Result<oneshot::Receiver<io::Result<()>>, Failure> {
    let (tell, told) = oneshot::channel();
    thread::Builder::new()
        .name("wait".into())
        .spawn(move || tell.send(wait_until_free(&lock)))
        .context("start the thread that waits for the end")?;
    Ok(told)
}

fn not_gone(name: &AppName, now: bool, patience: Duration) -> Failure {
    let patience = readable::duration(patience);
    Failure::from(anyhow!("stop {name}: it has accepted, and is still there after {patience}")).next(if now {
        format!("see what is left of it: allcores status {name}")
    } else {
        format!("wait longer (--timeout), or give up its connections: allcores stop {name} --now")
    })
}
