//! What the pool wants done, and what it wants told.

use std::time::Duration;

use crate::exit::ExitStatus;
use crate::worker::{Slot, WorkerId};

/// What is to be performed, in the order given.
///
/// [`Retire`](Self::Retire) and [`Kill`](Self::Kill) only ever name a worker whose `Spawned` was delivered: one that
/// is no longer wanted while its process is being made is asked to go as soon as it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Make a worker's process and answer with `Spawned` or `SpawnFailed`.
    Spawn {
        /// The new worker.
        id: WorkerId,
        /// Its place.
        slot: Slot,
        /// The generation that it belongs to.
        generation: u32,
        /// A hung worker of the same slot, whose lanes it shares.
        replaces: Option<WorkerId>,
    },
    /// Says whether new connections may be sent to a worker. At first they may not.
    Steer {
        /// Which worker.
        id: WorkerId,
        /// True exactly when it became ready.
        on: bool,
    },
    /// Refuse new connections at the address from now on.
    StopAccepting,
    /// Watch a worker's queues and connections, and tell when it is `Quiet`.
    Drain {
        /// Which worker.
        id: WorkerId,
    },
    /// Ask a worker to stop: by its channel, or by SIGTERM to its process group.
    Retire {
        /// Which worker.
        id: WorkerId,
    },
    /// Send SIGKILL to a worker's whole process group.
    Kill {
        /// Which worker.
        id: WorkerId,
    },
    /// Tell what has just become true.
    Announce(Announcement),
    /// No worker is left and none will be started. Comes once, last.
    Finished(Verdict),
}

/// What has become true. Told after it holds, in the order in which it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announcement {
    /// A worker's process exists.
    Forked {
        /// Which worker.
        id: WorkerId,
    },
    /// A worker runs its program.
    Online {
        /// Which worker.
        id: WorkerId,
    },
    /// A worker gets new connections: for the first time, or again.
    Ready {
        /// Which worker.
        id: WorkerId,
    },
    /// A worker has stalled and gets no new connections.
    Hung {
        /// Which worker.
        id: WorkerId,
    },
    /// A worker began to drain.
    Draining {
        /// Which worker.
        id: WorkerId,
    },
    /// A worker is gone.
    Exited {
        /// Which worker.
        id: WorkerId,
        /// How it ended.
        status: ExitStatus,
        /// It was asked to go, or killed by us.
        is_expected: bool,
        /// How long its process lived.
        uptime: Duration,
    },
    /// A slot gets a new worker after this wait.
    Respawning {
        /// The slot.
        slot: Slot,
        /// The wait; zero after a good run and after the first early exit.
        delay: Duration,
    },
    /// A slot's workers exited early too often in a row. Told again each time the number has doubled.
    CrashLoop {
        /// The slot.
        slot: Slot,
        /// How many early exits in a row, failures to spawn among them.
        exits: u32,
        /// How the slot's last worker ended.
        status: ExitStatus,
    },
    /// The pool began to stop.
    Stopping,
}

/// How the pool ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was asked to stop.
    Stopped,
    /// Every slot was in a crash loop and no worker was ever ready.
    NeverReady {
        /// How the last worker to crash ended.
        status: ExitStatus,
    },
    /// As `NeverReady`, and every worker ended by itself with exit code 0: the command is no server.
    NotAServer,
    /// As `NeverReady`, and not one process could be made.
    NeverSpawned,
}
