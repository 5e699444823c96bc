//! `allcores stop`: asks apps to stop and waits until their primaries have gone.

use std::fs::File;
use std::io;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
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

/// Stops the apps, all at once.
pub(super) async fn execute(args: &StopArgs) -> Result<ExitCode, Failure> {
    let mut stopping = JoinSet::new();
    for folder in target::folders("stop", &args.leaving.names)? {
        let (now, timeout) = (args.now, args.leaving.timeout);
        stopping.spawn(async move { stop(&folder, now, timeout).await });
    }
    let mut failures = Vec::new();
    while let Some(stopped) = stopping.join_next().await {
        failures.extend(stopped.context("stop an app")?.err());
    }
    Failure::of_all(failures)
}

/// Stops an app. Done when the kernel has let go of the primary's lock.
pub(super) async fn stop(folder: &AppFolder, now: bool, patience: Duration) -> Result<ExitCode, Failure> {
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
