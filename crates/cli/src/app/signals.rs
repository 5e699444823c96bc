//! What signals to the primary mean.

use std::io;
use std::time::Duration;

use allcores::primary::Upgrade;
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use super::Commander;
use crate::control::Control as _;
use crate::readable;

/// Who has no connection open has gone by then.
const AT_ONCE: Duration = Duration::from_millis(500);

const TTIN: i32 = Signal::TTIN.as_raw();
const TTOU: i32 = Signal::TTOU.as_raw();

/// Obeys signals from now on: TERM and INT stop in peace, a second INT and QUIT stop now, HUP reloads, USR1 opens the
/// log anew, USR2 upgrades, TTIN and TTOU scale by one.
///
/// # Errors
///
/// The signals' handlers could not be set.
pub(super) fn obey(commander: Commander) -> io::Result<JoinHandle<()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut user1 = signal(SignalKind::user_defined1())?;
    let mut upgrade = signal(SignalKind::user_defined2())?;
    let mut more = signal(SignalKind::from_raw(TTIN))?;
    let mut fewer = signal(SignalKind::from_raw(TTOU))?;
    Ok(tokio::spawn(async move {
        let mut is_interrupted = false;
        loop {
            tokio::select! {
                _ = terminate.recv() => commander.stop(),
                _ = interrupt.recv() => {
                    if is_interrupted {
                        commander.stop_now();
                    } else {
                        commander.stop();
                        tokio::spawn(explain_wait(commander.clone()));
                    }
                    is_interrupted = true;
                }
                _ = quit.recv() => commander.stop_now(),
                _ = hangup.recv() => commander.reload_signalled(),
                _ = user1.recv() => commander.reopen_log(),
                _ = upgrade.recv() => drop(commander.upgrade(Upgrade::default())),
                _ = more.recv() => commander.scale_unasked(1),
                _ = fewer.recv() => commander.scale_unasked(-1),
            }
        }
    }))
}

/// Says how long it may take, and what can be done about that, to whom the end does not come at once.
async fn explain_wait(commander: Commander) {
    tokio::time::sleep(AT_ONCE).await;
    // Nobody answers any more where all have gone.
    if commander.status().await.is_ok()
        && let Some(options) = commander.options()
    {
        let limit = readable::duration(options.drain_timeout);
        commander.explain(&format!("connections may take {limit} to end; Ctrl-C again stops now"));
    }
}
