//! Counts what happens to an app, by slot, so that the numbers outlive the workers that they are about.
//!
//! Plain data: who carries it to another process goes on counting where this one ended.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use allcores::ExitStatus;
use allcores::primary::{Event, Reason};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::view::{FailedReloadView, time};

/// What has happened since the app began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(super) slots: BTreeMap<u16, SlotTally>,
    pub(super) reloads: Reloads,
    /// How long the last reload took that succeeded.
    pub(super) last_reload: Option<Duration>,
    /// The last reload, if it has failed.
    #[serde(default)]
    failed_reload: Option<FailedReload>,
    /// Addresses that workers asked for and could not have.
    pub(super) addresses_unavailable: u64,
    /// CPU time of the workers that run, as far as it is counted in their slots.
    cpu_seen: BTreeMap<u32, Duration>,
}

/// What has happened in one slot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct SlotTally {
    pub(super) starts: u64,
    pub(super) start_failures: u64,
    pub(super) exits: BTreeMap<Exit, u64>,
    pub(super) renewals: BTreeMap<Renewal, u64>,
    pub(super) not_ready: u64,
    pub(super) hung: u64,
    pub(super) unhealthy: u64,
    pub(super) crash_loops: u64,
    pub(super) cpu: Duration,
    /// When the newest worker was started.
    pub(super) started: Option<SystemTime>,
}

/// How reloads ended. One that a stop ended is none of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reloads {
    pub(super) succeeded: u64,
    pub(super) rolled_back: u64,
    /// Failed, and the old version could not be put back everywhere.
    pub(super) failed: u64,
}

/// Why and when the last reload failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct FailedReload {
    at: SystemTime,
    reason: String,
}

/// How a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Exit {
    /// It was asked to go, and went.
    Drained,
    /// It was asked to go, and had to be killed.
    Killed,
    /// By itself, with exit code 0.
    Finished,
    /// By itself, with another exit code.
    Failed,
    /// By a signal.
    Signalled,
    /// The kernel killed it for want of memory.
    OutOfMemory,
}

/// Why a worker got a successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Renewal {
    Unresponsive,
    Unhealthy,
    Memory,
    Requests,
    Lifetime,
}

impl Exit {
    pub(super) const ALL: [Self; 6] =
        [Self::Drained, Self::Killed, Self::Finished, Self::Failed, Self::Signalled, Self::OutOfMemory];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Drained => "drained",
            Self::Killed => "killed",
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Signalled => "signalled",
            Self::OutOfMemory => "out_of_memory",
        }
    }

    fn of(status: ExitStatus, is_expected: bool, is_oom: bool) -> Self {
        match status {
            _ if is_oom => Self::OutOfMemory,
            ExitStatus::Signal(signal) if is_expected && signal == Signal::KILL.as_raw() => Self::Killed,
            _ if is_expected => Self::Drained,
            ExitStatus::Signal(_) => Self::Signalled,
            ExitStatus::Code(0) => Self::Finished,
            ExitStatus::Code(_) => Self::Failed,
        }
    }
}

impl Renewal {
    pub(super) const ALL: [Self; 5] =
        [Self::Unresponsive, Self::Unhealthy, Self::Memory, Self::Requests, Self::Lifetime];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Unresponsive => "unresponsive",
            Self::Unhealthy => "unhealthy",
            Self::Memory => "memory",
            Self::Requests => "requests",
            Self::Lifetime => "lifetime",
        }
    }

    fn of(reason: Reason) -> Self {
        match reason {
            Reason::Unresponsive => Self::Unresponsive,
            Reason::Unhealthy => Self::Unhealthy,
            Reason::Memory => Self::Memory,
            Reason::Requests => Self::Requests,
            Reason::Lifetime => Self::Lifetime,
        }
    }
}

impl Tally {
    /// Counts an event.
    pub(crate) fn observe(&mut self, event: &Event<'_>, now: SystemTime) {
        match event {
            Event::Forked { worker } => {
                self.cpu_seen.insert(worker.id.0, Duration::ZERO);
                let slot = self.slot(worker.slot);
                slot.starts += 1;
                slot.started = Some(now);
            }
            Event::Exited { worker, status, is_oom, is_expected, cpu, .. } => {
                self.cpu(worker.slot, worker.id.0, *cpu);
                self.cpu_seen.remove(&worker.id.0);
                let exit = Exit::of(*status, *is_expected, *is_oom);
                *self.slot(worker.slot).exits.entry(exit).or_default() += 1;
            }
            Event::SpawnFailed { slot, .. } => self.slot(*slot).start_failures += 1,
            Event::Renewing { worker, reason, .. } => {
                *self.slot(worker.slot).renewals.entry(Renewal::of(*reason)).or_default() += 1;
            }
            Event::NotReady { worker, .. } => self.slot(worker.slot).not_ready += 1,
            Event::Hung { worker, .. } => self.slot(worker.slot).hung += 1,
            Event::Unhealthy { worker, .. } => self.slot(worker.slot).unhealthy += 1,
            Event::CrashLoop { slot, .. } => self.slot(*slot).crash_loops += 1,
            Event::AddressUnavailable { .. } => self.addresses_unavailable += 1,
            Event::Reloaded { took, .. } => {
                self.reloads.succeeded += 1;
                self.last_reload = Some(*took);
                self.failed_reload = None;
            }
            Event::ReloadFailed { is_rolled_back, failure } => {
                let count = match is_rolled_back {
                    true => &mut self.reloads.rolled_back,
                    false => &mut self.reloads.failed,
                };
                *count += 1;
                let reason =
                    format!("worker {} (slot {}) was no good: {}", failure.id, failure.slot, failure.reason);
                self.reload_failed(reason, now);
            }
            _ => {}
        }
    }

    /// A reload has failed, be it before it began.
    pub(crate) fn reload_failed(&mut self, reason: String, at: SystemTime) {
        self.failed_reload = Some(FailedReload { at, reason });
    }

    /// The last reload, if it has failed.
    pub(crate) fn failed_reload(&self) -> Option<FailedReloadView> {
        let failed = self.failed_reload.as_ref()?;
        Some(FailedReloadView { at: time(failed.at), reason: failed.reason.clone() })
    }

    /// Takes in how much CPU time a worker has used until now. What is known never shrinks, though a worker's may: with
    /// a descendant that nobody waited for its time is gone. Who has exited was counted then: a picture of the app may be
    /// older than what was told since.
    pub(crate) fn cpu(&mut self, slot: allcores::Slot, id: u32, used: Duration) {
        let Some(seen) = self.cpu_seen.get_mut(&id) else { return };
        let more = used.saturating_sub(*seen);
        *seen += more;
        self.slot(slot).cpu += more;
    }

    fn slot(&mut self, slot: allcores::Slot) -> &mut SlotTally {
        self.slots.entry(slot.0).or_default()
    }
}
