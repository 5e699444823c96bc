//! The primary: the process that keeps the workers.
//!
//! One task owns everything; all others hold a [`Handle`]. What happened is told through [`Event`]s, after it is true.

mod event;
mod settings;
mod snapshot;

pub use event::{Event, Holder, Outcome, Stream, WorkerRef};
pub use settings::{Output, Policy, Settings};
pub use snapshot::{AppSnapshot, LaneSnapshot, LastExit, WorkerSnapshot};

/// Commands a running primary; cheap to clone, usable from any task.
#[derive(Clone, Debug)]
pub struct Handle {}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

impl Handle {
    /// Drains and stops every worker. Always accepted; the primary's `run` returns when it is done.
    pub fn stop(&self) {}

    /// Kills every worker at once. Always accepted.
    pub fn stop_now(&self) {}

    /// Changes the number of workers, and waits until that many are ready and the surplus has drained and gone.
    pub async fn scale(&self, workers: u16) -> Result<AppSnapshot, Refusal> {
        let _ = workers;
        Err(Refusal("not built yet".into()))
    }

    /// Reads the present state.
    pub async fn snapshot(&self) -> AppSnapshot {
        std::future::pending().await
    }
}

/// A primary that has its settings and has not started a worker yet.
#[derive(Debug)]
pub struct Primary {}

impl Primary {
    /// Checks what can be checked before the first worker starts.
    pub fn new(settings: Settings) -> Result<Self, std::io::Error> {
        let _ = settings;
        Ok(Self {})
    }

    /// Gives out a handle.
    pub fn handle(&self) -> Handle {
        Handle {}
    }

    /// Runs until it is stopped or can't go on. Must be awaited on the main thread, on a current-thread runtime:
    /// workers are told of the primary's death through the thread that forked them.
    pub async fn run(self, mut observe: impl FnMut(Event<'_>)) -> Outcome {
        observe(Event::Stopping);
        Outcome::Stopped
    }
}
