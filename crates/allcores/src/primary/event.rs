//! What a primary tells of its doings.

use std::path::Path;
use std::time::Duration;

use allcores_core::exit::ExitStatus;
use allcores_core::pool::{Lack, Reason};
use allcores_core::worker::{Rung, Slot, WorkerId};

use super::{Policy, ReloadFailure};

/// The worker that an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerRef {
    /// Never reused.
    pub id: WorkerId,
    /// Its place in the pool.
    pub slot: Slot,
    /// Its process.
    pub pid: u32,
}

/// Which of a worker's two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Descriptor 1.
    Stdout,
    /// Descriptor 2.
    Stderr,
}

/// A process that holds an address which was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// Its command line, arguments separated by spaces.
    pub command: String,
}

/// What happened. Told after it is true, in the order in which it happened.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// A worker was forked.
    Forked {
        /// Which.
        worker: WorkerRef,
    },
    /// A worker runs its program.
    Online {
        /// Which.
        worker: WorkerRef,
    },
    /// A worker was seen to listen on an address (once for each address).
    Listening {
        /// Which.
        worker: WorkerRef,
        /// As in [`AppSnapshot::listening`](super::AppSnapshot::listening).
        address: &'a str,
        /// How it became a worker.
        rung: Rung,
        /// The policy in force on this address, never `Auto`.
        policy: &'a Policy,
    },
    /// A worker listens and every condition for traffic held.
    Ready {
        /// Which.
        worker: WorkerRef,
    },
    /// Connections wait in a worker's queue and it has taken none for `stalled`.
    Hung {
        /// Which.
        worker: WorkerRef,
        /// For how long nothing moved.
        stalled: Duration,
    },
    /// A worker was not ready within `limit`. It is stopped, and counts as one that ended early.
    NotReady {
        /// Which.
        worker: WorkerRef,
        /// What was missing.
        lack: Lack,
        /// What it had.
        limit: Duration,
    },
    /// A worker has failed too many health checks.
    Unhealthy {
        /// Which.
        worker: WorkerRef,
        /// In words.
        reason: &'a str,
    },
    /// A worker gets a successor, and goes when that is ready.
    Renewing {
        /// Which.
        worker: WorkerRef,
        /// Why.
        reason: Reason,
        /// How much memory it was found to have, and may have, in bytes, where that is why.
        memory: Option<(u64, u64)>,
    },
    /// A worker began to drain.
    Draining {
        /// Which.
        worker: WorkerRef,
    },
    /// A worker is gone.
    Exited {
        /// Which.
        worker: WorkerRef,
        /// Code or signal.
        status: ExitStatus,
        /// Killed by the kernel for want of memory, as far as that can be told.
        is_oom: bool,
        /// It was asked to go.
        is_expected: bool,
        /// How long it ran.
        uptime: Duration,
        /// CPU time that it used, with its children that ended before it.
        cpu: Duration,
    },
    /// A slot gets a new worker after this wait.
    Respawning {
        /// The slot.
        slot: Slot,
        /// The wait; zero for a worker that had been up for long enough.
        delay: Duration,
    },
    /// Workers of a slot exited early too often in a row. The primary keeps trying at the longest backoff.
    CrashLoop {
        /// The slot.
        slot: Slot,
        /// How many early exits in a row.
        exits: u32,
        /// How the last one ended.
        status: ExitStatus,
        /// The last lines of the last worker's output, without line ends.
        last_output: &'a [Vec<u8>],
        /// A worker of the app was ready, once; else the primary gives up when all slots are like that.
        has_served: bool,
    },
    /// A worker could not be started.
    SpawnFailed {
        /// The slot.
        slot: Slot,
        /// What was tried, why it failed.
        reason: &'a str,
    },
    /// A worker asked for an address that could not be had.
    AddressUnavailable {
        /// Which worker asked.
        worker: WorkerRef,
        /// The address.
        address: &'a str,
        /// Why, and what to do, in words.
        reason: &'a str,
        /// Who holds it, where that can be told.
        holder: Option<&'a Holder>,
    },
    /// Something the operator should know, e.g. that adoption is not available here and what is used instead.
    Notice {
        /// In words.
        text: &'a str,
    },
    /// There are to be more workers than before, or fewer.
    Scaling {
        /// How many there were to be.
        before: u16,
        /// How many there are to be.
        workers: u16,
    },
    /// A reload began.
    Reloading {
        /// What it is to bring.
        generation: u32,
        /// How many slots there are.
        slots: u16,
    },
    /// The first new worker of a reload is ready, and is watched.
    Watching {
        /// Which.
        worker: WorkerRef,
        /// For how long.
        time: Duration,
    },
    /// A slot has what it is to have by the reload, and nothing else.
    Replaced {
        /// Which.
        slot: Slot,
        /// How many slots are like that.
        done: u16,
        /// Of so many.
        slots: u16,
    },
    /// A new worker is no good, and what was replaced is put back.
    RollingBack {
        /// Why.
        failure: &'a ReloadFailure,
    },
    /// A reload is over: every worker is of the new generation, and ready.
    Reloaded {
        /// The new generation.
        generation: u32,
        /// How long it took.
        took: Duration,
    },
    /// A reload is over, and the new generation was no good.
    ReloadFailed {
        /// Why.
        failure: &'a ReloadFailure,
        /// Every worker is of the old generation, and ready. Else each slot has kept what served.
        is_rolled_back: bool,
    },
    /// A program is asked whether it can go on in this one's place.
    Upgrading {
        /// Which.
        executable: &'a Path,
    },
    /// Another program was to take this one's place, and does not. Nothing has changed.
    UpgradeRefused {
        /// Which.
        executable: &'a Path,
        /// It has been asked, so [`Upgrading`](Self::Upgrading) was told of it.
        was_asked: bool,
        /// Why, in words.
        reason: &'a str,
    },
    /// This program has taken another one's place. Comes first.
    Upgraded {
        /// The version of the one before.
        before: &'a str,
        /// How many there have been since the primary's start.
        count: u32,
    },
    /// The primary began to stop.
    Stopping,
    /// A line of a worker's output, without its line end; a line longer than 64 KiB comes in pieces.
    Output {
        /// Which.
        worker: WorkerRef,
        /// Which stream.
        stream: Stream,
        /// The bytes, as written.
        line: &'a [u8],
        /// No line end came behind it: it is a piece of a longer line, or the last that the worker wrote.
        is_partial: bool,
    },
}

/// How a primary ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was asked to stop, and every worker is gone.
    Stopped,
    /// Every slot is in a crash loop and no worker ever became ready.
    NeverReady {
        /// How the last worker ended.
        status: ExitStatus,
        /// The last lines of its output.
        last_output: Vec<Vec<u8>>,
    },
    /// No worker could even be started.
    NeverStarted {
        /// What was tried last and why it failed, in words.
        reason: String,
    },
    /// Every worker ended by itself with exit code 0 without ever having listened: the command is no server.
    NotAServer,
    /// No worker ever became ready, and the reason is an address that could not be had.
    AddressUnavailable {
        /// The address.
        address: String,
        /// Why, and what to do, in words.
        reason: String,
        /// Who holds it, where that can be told.
        holder: Option<Holder>,
    },
    /// The command does not exist.
    CommandNotFound {
        /// What was looked for.
        program: String,
        /// What to do, in words.
        reason: String,
    },
    /// The command exists and can't be run.
    NotExecutable {
        /// What was tried.
        program: String,
        /// Why, in words.
        reason: String,
    },
}
