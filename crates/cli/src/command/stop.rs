//! `allcores stop`: asks an app to stop and waits until its primary has gone.

use std::fs::File;
use std::io;
use std::thread;

use anyhow::{Context as _, anyhow};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::{ANSWER_PATIENCE, explain, not_running, print, unresponsive};
use crate::args::StopArgs;
use crate::client::{Client, RequestError};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::readable;
use crate::runtime_folder::{AppFolder, RuntimeFolder, wait_until_free};

/// Stops the app. Done when the kernel has let go of the primary's lock.
pub(super) async fn execute(args: &StopArgs) -> Result<ExitCode, Failure> {
    let started = Instant::now();
    let folder = RuntimeFolder::from_env()?.find(&args.name)?;
    // Opened first: a clean exit removes the file.
    let lock = match folder.open_lock() {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(not_running(&folder, "stop")),
        Err(error) => {
            let context = format!("open the lock of {}", args.name);
            return Err(anyhow::Error::new(error).context(context).into());
        }
    };
    ask(&folder, args.now).await?;
    match timeout(args.timeout.saturating_sub(started.elapsed()), gone(lock)?).await {
        Ok(result) => {
            result
                .context("the thread that waits for the end died")?
                .context("wait for the end of the primary")?;
            print(format!("{}: stopped\n", args.name).as_bytes())
        }
        Err(_) => Err(not_gone(args)),
    }
}

async fn ask(folder: &AppFolder, now: bool) -> Result<(), Failure> {
    match timeout(ANSWER_PATIENCE, Client::new(folder).stop(now)).await {
        // Broken: it may go faster than it answers; whether it does, the lock tells.
        Ok(Ok(()) | Err(RequestError::Broken(_))) => Ok(()),
        Ok(Err(error)) => Err(explain(folder, "stop", error)),
        Err(_) => Err(unresponsive(folder, "stop", ANSWER_PATIENCE)),
    }
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

fn not_gone(args: &StopArgs) -> Failure {
    let (name, patience) = (&args.name, readable::duration(args.timeout));
    Failure::from(anyhow!("stop {name}: it has accepted, and is still there after {patience}")).next(
        if args.now {
            format!("see what is left of it: allcores status {name}")
        } else {
            format!("wait longer (--timeout), or give up its connections: allcores stop {name} --now")
        },
    )
}
