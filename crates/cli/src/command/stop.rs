//! `allcores stop`: asks apps to stop and waits until their primaries have gone.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use allcores::Signal;
use allcores::primary::Leftovers;
use anyhow::{Context as _, anyhow};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::sync::oneshot;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, timeout};

use super::{ANSWER_PATIENCE, explain, not_running, say, unresponsive};
use crate::args::StopArgs;
use crate::client::{Client, RequestError};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::readable;
use crate::runtime_folder::{AppFolder, Presence, wait_until_free};
use crate::settings::AppName;
use crate::target::{self, All};

/// How often it is asked whose connection breaks.
const ATTEMPTS: usize = 3;

/// How long after.
const PAUSE: Duration = Duration::from_millis(20);

/// How long what a killed primary has left may take to go: as long as a worker may where nobody says.
const COURTESY: Duration = Duration::from_secs(5);

/// Stops the apps, all at once.
pub(super) async fn execute(args: &StopArgs) -> Result<ExitCode, Failure> {
    let mut stopping = JoinSet::new();
    for folder in target::folders("stop", &args.leaving.names, All::RunningOrLeft)? {
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
    let (name, started) = (folder.name(), Instant::now());
    let mut is_anothers = false;
    loop {
        let rest = patience.saturating_sub(started.elapsed());
        let life = match folder.look() {
            Presence::Free if is_anothers => return say(&format!("{name}: it has gone meanwhile\n")),
            Presence::Free => return Err(not_running(folder, "stop")),
            Presence::Left(_) => match end(folder, now, rest).await? {
                Left::Ended => return Ok(ExitCode::Success),
                Left::Nobody if is_anothers => continue,
                Left::Nobody => return say(&format!("{name}: it was killed, and had left nothing\n")),
                Left::ToAnother => None,
            },
            Presence::Held { lock } => {
                // Taken first: by its end it is too late.
                let life = Life::of(folder, lock).await?;
                ask(folder, now).await?.then_some(life)
            }
        };
        let Some(life) = life else {
            // Its name is had by who is about to listen, or who ends what a killed one has left.
            if rest.is_zero() {
                return Err(not_heard(folder, patience));
            }
            is_anothers = true;
            sleep(PAUSE).await;
            continue;
        };
        if !wait(life, patience.saturating_sub(started.elapsed())).await? {
            return Err(not_gone(name, now, patience));
        }
        return say(&format!("{name}: stopped\n"));
    }
}

/// What became of that which a killed primary has left.
enum Left {
    Ended,
    /// There was nothing.
    Nobody,
    /// Somebody else has the name by now: who ends it, too, or starts the app.
    ToAnother,
}

/// Ends what a killed primary has left, and clears up in its place; says whether it was this that has ended anybody.
pub(super) async fn end_left(folder: &AppFolder, now: bool, patience: Duration) -> Result<bool, Failure> {
    Ok(matches!(end(folder, now, patience).await?, Left::Ended))
}

async fn end(folder: &AppFolder, now: bool, patience: Duration) -> Result<Left, Failure> {
    // With the name in hand, so that none of it is a new primary's.
    let claim = match folder.claim("stop") {
        Err(failure) if failure.code() == ExitCode::NameInUse => return Ok(Left::ToAnother),
        claim => claim?,
    };
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
    if pids.is_empty() {
        return Ok(Left::Nobody);
    }
    say(&format!("{name}: it was killed; what it had left is ended: {}\n", readable::list(&pids)))?;
    Ok(Left::Ended)
}

/// What lasts as long as a primary.
enum Life {
    Lock(File),
    /// Of one whose lock file somebody has removed.
    Process(OwnedFd),
}

impl Life {
    /// Of the primary that has this lock.
    async fn of(folder: &AppFolder, lock: Option<File>) -> Result<Self, Failure> {
        match lock {
            Some(lock) => Ok(Self::Lock(lock)),
            None => process_of(folder).await.map(Self::Process),
        }
    }
}

/// The primary's process, as it says itself.
async fn process_of(folder: &AppFolder) -> Result<OwnedFd, Failure> {
    let status = super::ask(folder, "stop", ANSWER_PATIENCE, Client::new(folder).status()).await?;
    let pid = i32::try_from(status.pid).ok().and_then(Pid::from_raw);
    let process = pid.map_or(Err(Errno::SRCH), |pid| pidfd_open(pid, PidfdFlags::empty()));
    let process = process.with_context(|| format!("look at process {}, to wait for its end", status.pid));
    process.map_err(Failure::from)
}

/// Waits until an app has gone that was asked to stop.
pub(super) async fn wait_until_gone(folder: &AppFolder, patience: Duration) -> Result<(), Failure> {
    let life = match folder.look() {
        Presence::Free | Presence::Left(_) => return Ok(()),
        Presence::Held { lock } => Life::of(folder, lock).await?,
    };
    if wait(life, patience).await? { Ok(()) } else { Err(not_gone(folder.name(), false, patience)) }
}

/// Waits for the end of a primary; says whether it has come in time.
async fn wait(life: Life, patience: Duration) -> Result<bool, Failure> {
    match timeout(patience, gone(life)?).await {
        Ok(ended) => {
            ended
                .context("the thread that waits for the end died")?
                .context("wait for the end of the primary")?;
            Ok(true)
        }
        Err(_) => Ok(false),
    }
}

/// Asks it to stop; false if nobody listens.
async fn ask(folder: &AppFolder, now: bool) -> Result<bool, Failure> {
    let mut broken = 0;
    while broken < ATTEMPTS {
        match timeout(ANSWER_PATIENCE, Client::new(folder).stop(now)).await {
            Ok(Ok(())) => return Ok(true),
            // It has gone faster than it answered.
            Ok(Err(RequestError::NotRunning)) => return Ok(broken > 0),
            // Either it has gone, or an upgrade has ended the connection, perhaps before it was heard. To stop twice does no harm.
            Ok(Err(RequestError::Broken(_))) => {
                broken += 1;
                sleep(PAUSE).await;
            }
            Ok(Err(error)) => return Err(explain(folder, "stop", error)),
            Err(_) => return Err(unresponsive(folder, "stop", ANSWER_PATIENCE)),
        }
    }
    // Whether it goes, the lock tells.
    Ok(true)
}

/// Waits on a thread of its own, which may outlast this command's patience and ends with the program.
fn gone(life: Life) -> Result<oneshot::Receiver<io::Result<()>>, Failure> {
    let (tell, told) = oneshot::channel();
    let wait = move || match life {
        Life::Lock(lock) => wait_until_free(&lock),
        Life::Process(process) => wait_for_end(&process),
    };
    thread::Builder::new()
        .name("wait".into())
        .spawn(move || tell.send(wait()))
        .context("start the thread that waits for the end")?;
    Ok(told)
}

fn wait_for_end(process: &OwnedFd) -> io::Result<()> {
    loop {
        match poll(&mut [PollFd::new(process, PollFlags::IN)], None) {
            Err(Errno::INTR) => {}
            result => return Ok(result.map(drop)?),
        }
    }
}

fn not_heard(folder: &AppFolder, patience: Duration) -> Failure {
    let (name, patience) = (folder.name(), readable::duration(patience));
    let holder = super::holder_of(folder);
    let text =
        format!("stop {name}: {holder} has its name, and neither listens nor has gone after {patience}");
    Failure::from(anyhow!(text)).next("wait longer (--timeout), or see what it does")
}

fn not_gone(name: &AppName, now: bool, patience: Duration) -> Failure {
    let patience = readable::duration(patience);
    Failure::from(anyhow!("stop {name}: it has accepted, and is still there after {patience}")).next(if now {
        format!("see what is left of it: allcores status {name}")
    } else {
        format!("wait longer (--timeout), or give up its connections: allcores stop {name} --now")
    })
}
