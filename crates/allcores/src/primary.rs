//! The primary: the process that keeps the workers.
//!
//! One task owns everything; all others hold a [`Handle`]. What happened is told through [`Event`]s, after it is true.

mod engine;
mod event;
mod launch;
mod settings;
mod snapshot;
mod worker;

use std::io;

use tokio::sync::{mpsc, oneshot};

use engine::{Command, Engine};

pub use event::{Event, Holder, Outcome, Stream, WorkerRef};
pub use settings::{Output, Policy, Settings};
pub use snapshot::{AppSnapshot, LaneSnapshot, LastExit, WorkerSnapshot};

/// Commands a running primary; cheap to clone, usable from any task.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::UnboundedSender<Command>,
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// Why a primary could not be made.
#[derive(Debug, thiserror::Error)]
#[error("{action}")]
pub struct StartError {
    action: &'static str,
    #[source]
    source: io::Error,
}

impl Handle {
    /// Drains and stops every worker. Always accepted; the primary's `run` returns when it is done.
    pub fn stop(&self) {
        let _ = self.commands.send(Command::Stop);
    }

    /// Kills every worker at once. Always accepted.
    pub fn stop_now(&self) {
        let _ = self.commands.send(Command::StopNow);
    }

    /// Changes the number of workers, and waits until that many are ready and the surplus has drained and gone.
    ///
    /// # Errors
    ///
    /// If the app stops, the new workers keep exiting, or another number is asked for meanwhile.
    pub async fn scale(&self, workers: u16) -> Result<AppSnapshot, Refusal> {
        let gone = || Refusal("the app has stopped".into());
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Scale(workers, reply)).map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Reads the present state.
    ///
    /// # Errors
    ///
    /// If the app has stopped.
    pub async fn snapshot(&self) -> Result<AppSnapshot, Refusal> {
        let gone = || Refusal("the app has stopped".into());
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Snapshot(reply)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }
}

/// How many sightings may wait for the engine; more, and who sees them waits.
const SIGHTINGS: usize = 1024;

/// A primary that has its settings and has not started a worker yet.
#[derive(Debug)]
pub struct Primary {
    settings: Settings,
    commands: mpsc::UnboundedSender<Command>,
    received: mpsc::UnboundedReceiver<Command>,
}

impl Primary {
    /// Takes the settings. Nothing is started.
    pub fn new(settings: Settings) -> Self {
        let (commands, received) = mpsc::unbounded_channel();
        Self { settings, commands, received }
    }

    /// Gives out a handle.
    pub fn handle(&self) -> Handle {
        Handle { commands: self.commands.clone() }
    }

    /// Runs until it is stopped or can't go on; tells `observe` what happens.
    ///
    /// Unblocks all signals of the calling thread, since the ends of children are told by one.
    ///
    /// Must be awaited on the main thread, on a current-thread runtime: workers are told of the primary's death
    /// through the thread that forked them. `observe` is called in between everything else and must not block.
    ///
    /// # Errors
    ///
    /// If the kernel refuses what every primary needs (a timer, an epoll descriptor).
    pub async fn run(self, observe: impl FnMut(Event<'_>)) -> Result<Outcome, StartError> {
        let failed = |action| move |source| StartError { action, source };
        crate::sys::process::unblock_signals();
        // Orphans of workers become our children, so that none outlives its worker unseen.
        let own = rustix::process::getpid();
        rustix::process::set_child_subreaper(Some(own))
            .map_err(io::Error::from)
            .map_err(failed("becoming a subreaper"))?;
        let (seen, sightings) = mpsc::channel(SIGHTINGS);
        let engine = Engine::new(self.settings, seen, observe).map_err(failed("making timers"))?;
        Ok(engine.run(self.received, sightings).await)
    }
}
