//! What the pool wants done, and what it wants told.

use std::time::Duration;

use super::{Fault, Reason};
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
        /// A worker of the same slot that takes nothing or does not answer, whose lanes it shares.
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
    /// Take new connections again: somebody is to serve them after all.
    ResumeAccepting,
    /// Watch a worker's queues and connections, and tell when it is `Quiet`.
    Drain {
        /// Which worker.
        id: WorkerId,
    },
    /// Watch a worker's queues, and tell when it is `Quiet`: nothing is on its way to it any more.
    Land {
        /// Which worker.
        id: WorkerId,
    },
    /// Ask a worker to stop: by its channel, or by the app's stop signal to its process group.
    Retire {
        /// Which worker.
        id: WorkerId,
    },
    /// Send the stop signal to a worker that has not gone, if it has had none: half of its time has passed.
    Urge {
        /// Which worker.
        id: WorkerId,
    },
    /// Let a worker that has been asked and has not gone see the end of what its clients send: it is killed soon.
    HangUp {
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
    /// A worker was not ready in time, and is stopped.
    NotReady {
        /// Which worker.
        id: WorkerId,
        /// What was missing.
        lack: Lack,
    },
    /// A worker has failed too many health checks.
    Unhealthy {
        /// Which worker.
        id: WorkerId,
    },
    /// A worker that serves gets a successor, and goes when that is ready.
    Renewing {
        /// Which worker.
        id: WorkerId,
        /// Why.
        reason: Reason,
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
    /// A reload began. Its workers are spawned after this.
    Reloading {
        /// What it is to bring; never the same again.
        generation: u32,
    },
    /// The first new worker is ready, and is watched.
    Watching {
        /// Which.
        id: WorkerId,
        /// For how long.
        time: Duration,
    },
    /// A slot has a worker of the generation that the reload is bound for, ready, and no other any more.
    Replaced {
        /// Which.
        slot: Slot,
        /// How many slots are like that.
        done: u16,
    },
    /// A new worker is no good. Slots that have been replaced are replaced again by what they had.
    RollingBack {
        /// What the reload was to bring.
        generation: u32,
        /// The worker.
        id: WorkerId,
        /// Its slot.
        slot: Slot,
        /// What is wrong with it.
        fault: Fault,
    },
    /// A reload is over: every worker is of this generation, and ready.
    Reloaded {
        /// Which.
        generation: u32,
        /// How long it took.
        took: Duration,
    },
    /// A reload is over, and has not brought what it was to bring.
    ReloadFailed {
        /// What it was to bring.
        generation: u32,
        /// The worker that was no good.
        id: WorkerId,
        /// Its slot.
        slot: Slot,
        /// What was wrong with it.
        fault: Fault,
        /// Every worker is of the generation before, and ready. Else the old one was no good either, and each slot has
        /// kept what served.
        is_rolled_back: bool,
    },
    /// A reload is over because the pool ends, or all its workers were disconnected.
    ReloadStopped {
        /// What it was to bring.
        generation: u32,
    },
    /// The pool began to stop.
    Stopping,
}

/// What a worker lacked to be ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// It did not listen.
    Listening,
    /// It did not say that it is ready.
    Word,
    /// It did not pass a health check.
    Health,
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
