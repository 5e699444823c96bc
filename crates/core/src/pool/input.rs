//! What the pool is told.

use crate::exit::ExitStatus;
use crate::worker::WorkerId;

/// What the pool is told: a command, something seen of a worker, or that a deadline has come.
///
/// The first input about a worker is [`Spawned`](Self::Spawned) or [`SpawnFailed`](Self::SpawnFailed), the last one
/// [`Exited`](Self::Exited). Inputs that come twice, too late, or about a worker that is gone change nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Start all workers. Comes first, and once.
    Start,
    /// Keep this many workers from now on; zero counts as one. Ignored while stopping.
    Scale(u16),
    /// Drain and stop all workers.
    Stop,
    /// Kill all workers.
    StopNow,
    /// The process of a worker exists.
    Spawned {
        /// Which worker.
        id: WorkerId,
        /// Its process.
        pid: u32,
    },
    /// The process of a worker could not be made. Counts as an early exit of its slot.
    SpawnFailed {
        /// Which worker.
        id: WorkerId,
    },
    /// A worker runs its program.
    Online {
        /// Which worker.
        id: WorkerId,
    },
    /// A worker was seen to listen and meets every other condition for traffic. May come without `Online`.
    Listening {
        /// Which worker.
        id: WorkerId,
    },
    /// A worker has closed all its listeners.
    NotListening {
        /// Which worker.
        id: WorkerId,
    },
    /// The process of a worker is gone.
    Exited {
        /// Which worker.
        id: WorkerId,
        /// How it ended.
        status: ExitStatus,
    },
    /// Connections wait for a worker and it has taken none for the hang timeout.
    Stalled {
        /// Which worker.
        id: WorkerId,
    },
    /// A stalled worker takes connections again.
    Moving {
        /// Which worker.
        id: WorkerId,
    },
    /// A worker that is watched since [`Effect::Drain`](super::Effect::Drain) has empty queues and no connection left.
    Quiet {
        /// Which worker.
        id: WorkerId,
    },
    /// The time of [`Pool::next_deadline`](super::Pool::next_deadline) has come.
    Wake,
}
