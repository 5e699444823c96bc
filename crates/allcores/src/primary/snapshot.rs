//! A look at a running primary.

use std::time::{Duration, SystemTime};

use allcores_core::exit::ExitStatus;
use allcores_core::worker::{Rung, Slot, State, WorkerId};

use super::{Policy, usage};

/// One app as it is now.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AppSnapshot {
    /// The app's name.
    pub name: String,
    /// The primary's process id.
    pub pid: u32,
    /// The version of allcores that the primary runs.
    pub version: &'static str,
    /// How often it has been upgraded.
    pub upgrades: u32,
    /// Counts reloads, from 1: what the workers are, or were before the reload that is under way.
    pub generation: u32,
    /// The reload that is under way.
    pub reload: Option<ReloadSnapshot>,
    /// The policy asked for.
    pub policy: Policy,
    /// What does not fit the program, as far as it can be seen, and what to do, in words; `None` when there is
    /// nothing to say.
    pub hint: Option<String>,
    /// Addresses that workers listen on, e.g. `127.0.0.1:8080`, `[::]:8080`, `/run/app.sock`, `udp 0.0.0.0:53`.
    pub listening: Vec<String>,
    /// The same, with how each is served.
    pub addresses: Vec<AddressSnapshot>,
    /// How many workers there should be.
    pub target: u16,
    /// Whether it has been asked to stop: no new connections are taken, and workers go as those that they have end.
    pub stopping: bool,
    /// Connections that waited in a lane whose worker took none, or that has none, and were passed on; should stay 0.
    pub strays: u64,
    /// How the app's health checks go where all workers accept from one listener, so that none of them can be asked;
    /// `None` elsewhere.
    pub health: Option<HealthSnapshot>,
    /// Since when the primary runs.
    pub since: SystemTime,
    /// Workers in the order of their slots, then ids.
    pub workers: Vec<WorkerSnapshot>,
}

impl AppSnapshot {
    /// With what workers use now.
    pub(super) async fn measured(mut self) -> Self {
        let usage = usage::measure().await;
        for worker in &mut self.workers {
            if let Some((bytes, cpu)) = worker.pid.and_then(|pid| usage.get(&pid)) {
                (worker.rss_bytes, worker.cpu) = (Some(*bytes), Some(*cpu));
            }
        }
        self
    }
}

/// One address that workers listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AddressSnapshot {
    /// As in [`AppSnapshot::listening`].
    pub address: String,
    /// The policy in force there, never [`Policy::Auto`].
    pub policy: Policy,
    /// Connections that the primary has accepted and no worker has taken; `None` where it accepts none.
    pub pending: Option<usize>,
}

/// A reload under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReloadSnapshot {
    /// What it is to bring.
    pub generation: u32,
    /// How many slots have what they are to have, and nothing else.
    pub done: u16,
    /// It has failed, and what was replaced is put back.
    pub is_rolling_back: bool,
    /// Another one follows.
    pub is_queued: bool,
}

/// One worker as it is now.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WorkerSnapshot {
    /// Never reused.
    pub id: WorkerId,
    /// Its place in the pool.
    pub slot: Slot,
    /// Which version it is: counts reloads, from 1.
    pub generation: u32,
    /// `None` while a slot waits for its backoff: then the rest tells of the last worker there.
    pub pid: Option<u32>,
    /// How far it has come.
    pub state: State,
    /// How it became a worker; `None` until it has listened.
    pub rung: Option<Rung>,
    /// When it reached this state.
    pub since: SystemTime,
    /// How many workers of this slot were replaced before it.
    pub restarts: u32,
    /// Too many workers of this slot in a row have exited early.
    pub is_crash_looping: bool,
    /// When the slot gets its next worker, while it waits for one.
    pub respawn_at: Option<SystemTime>,
    /// Its accept queues.
    pub lanes: Vec<LaneSnapshot>,
    /// Resident memory of the worker process, in bytes.
    pub rss_bytes: Option<u64>,
    /// CPU time used by the worker process.
    pub cpu: Option<Duration>,
    /// How its health checks go; `None` while it has none.
    pub health: Option<HealthSnapshot>,
    /// How it is, in its own words (`STATUS=` of sd_notify).
    pub said_status: Option<String>,
    /// How the previous worker of this slot ended.
    pub last_exit: Option<LastExit>,
}

/// How health checks go.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HealthSnapshot {
    /// How many have failed in a row.
    pub failures: u32,
    /// Why the last one failed, if it did.
    pub reason: Option<String>,
}

/// One accept queue.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LaneSnapshot {
    /// The address it belongs to.
    pub address: String,
    /// Connections that wait in it; `None` where the kernel does not tell (Unix sockets, UDP).
    pub depth: Option<u32>,
}

/// How a worker ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LastExit {
    /// Code or signal.
    pub status: ExitStatus,
    /// Killed by the kernel for want of memory, as far as that can be told.
    pub is_oom: bool,
    /// When.
    pub at: SystemTime,
}
