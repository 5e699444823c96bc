//! What the pool is told.

use super::ReloadPlan;
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
    /// Have this many workers from now on. Ignored while stopping.
    Scale(u16),
    /// Have one worker more, in the lowest slot that is free. Ignored while stopping.
    Fork,
    /// Take a worker out of service and ask it to go, as soon as no connection is on its way to it any more. A pool that
    /// keeps its workers starts another in its slot at once.
    Disconnect {
        /// Which worker.
        id: WorkerId,
    },
    /// Disconnect all workers, and aim at none from now on.
    DisconnectAll,
    /// Replace all workers by those of a new generation. While a reload is under way it follows, once, however often it
    /// is asked for; ignored while stopping.
    Reload(ReloadPlan),
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
    /// A worker was seen to listen. May come without `Online`.
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
    /// A worker that is watched since [`Effect::Drain`](super::Effect::Drain) has empty queues and no connection left;
    /// or, since [`Effect::Land`](super::Effect::Land), nothing is on its way to it.
    Quiet {
        /// Which worker.
        id: WorkerId,
    },
    /// A worker said that it is ready.
    SaidReady {
        /// Which worker.
        id: WorkerId,
    },
    /// A worker has passed a health check: its first, or its first after it was unhealthy.
    Healthy {
        /// Which worker.
        id: WorkerId,
    },
    /// A worker has failed too many health checks.
    Unhealthy {
        /// Which worker.
        id: WorkerId,
        /// It did not answer at all.
        is_silent: bool,
    },
    /// A worker that serves is to be replaced by another. It goes on until that one is ready.
    Renew {
        /// Which worker.
        id: WorkerId,
        /// Why.
        reason: Reason,
    },
    /// The time of [`Pool::next_deadline`](super::Pool::next_deadline) has come.
    Wake,
}

/// Why a worker that serves is replaced. The first are replaced first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// It does not answer its health checks.
    Unresponsive,
    /// It fails its health checks.
    Unhealthy,
    /// It has more memory than it may have.
    Memory,
    /// It has served as many requests as it may.
    Requests,
    /// It has lived for as long as it may.
    Lifetime,
}

impl Reason {
    /// It is not well; if it recovers, it may stay.
    pub(super) fn is_of_health(self) -> bool {
        matches!(self, Self::Unresponsive | Self::Unhealthy)
    }
}
