//! What signals to the primary mean.

use std::io;

use allcores::primary::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use crate::report::Reporter;

/// Obeys signals from now on: TERM and INT stop in peace, a second INT and QUIT stop now.
///
/// # Errors
///
/// The signals' handlers could not be set.
pub(super) fn obey(handle: Handle, reporter: Reporter) -> io::Result<JoinHandle<()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(tokio::spawn(async move {
        let mut is_interrupted = false;
        loop {
            tokio::select! {
                _ = terminate.recv() => handle.stop(),
                _ = interrupt.recv() => {
                    if is_interrupted {
                        handle.stop_now();
                    } else {
                        handle.stop();
                    }
                    is_interrupted = true;
                }
                _ = quit.recv() => handle.stop_now(),
                _ = hangup.recv() => reporter.notice("SIGHUP ignored: there is no reload yet"),
            }
        }
    }))
}
