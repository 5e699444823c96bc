//! One worker of the pool: where it stands, and what is true of it only there.

use std::time::Duration;

use super::Reason;
use crate::worker::{Slot, State, WorkerId};

/// One worker. What it replaces and what replaces it follows from who else is in its slot, and is not kept twice.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) id: WorkerId,
    pub(super) slot: Slot,
    pub(super) generation: u32,
    pub(super) started: Duration,
    pub(super) since: Duration,
    pub(super) gate: Gate,
    /// Since when it has got connections, but for interruptions.
    pub(super) served_from: Option<Duration>,
    /// Why it is to be replaced though it serves, and how far that has come.
    pub(super) renewal: Option<Renewal>,
    /// When it will have served for long enough; `Duration::MAX` is never.
    pub(super) expires: Duration,
    /// It was not ready in time: it goes as one that has failed.
    pub(super) has_failed: bool,
    /// It was disconnected: it may take as long as that allows.
    pub(super) is_disconnected: bool,
    pub(super) life: Life,
}

/// What a worker has to show, besides that it listens, before it gets connections. What was shown once stays so.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Gate {
    /// It said that it is ready.
    pub(super) has_said_so: bool,
    /// It has passed a health check.
    pub(super) is_healthy: bool,
    /// It has run for as long as one has to that need not listen.
    pub(super) has_run: bool,
}

/// A worker that serves is to be replaced by another.
///
/// ```text
/// wanted ──its turn──→ begun: another is on its way up ──that is ready──→ it drains
/// ```
#[derive(Clone, Copy, Debug)]
pub(super) struct Renewal {
    pub(super) reason: Reason,
    pub(super) has_begun: bool,
}

/// ```text
/// Spawning ──Spawned──→ Running ──Exited──→ gone
///     └──SpawnFailed────────────────────────↗
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// Its process was asked for.
    Spawning { then: Then },
    /// Its process exists.
    Running { pid: u32, stage: Stage },
}

/// What is to become of a worker once its process exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    Serve,
    Retire,
    Kill,
}

/// ```text
/// Starting ─→ Online ⇄ Online, listens ⇄ Ready ⇄ Hung
///    └──────────┴──┬──────────┴─────────┴──────┘
///                  ├─ was ready before ───────→ Lingering ─→ Emptying ─┐
///                  ├─ the same, disconnected ─→ Landing ───────────────┤
///                  └─ never was; hung and not scaled away ─────────────┴→ Retiring ─→ Killed
/// ```
///
/// Who hangs is retired at once where it is stopped, disconnected, or replaced by a reload: it takes nothing, so nothing is
/// waited for. Who lands goes on by lingering where its pool stops or its slot goes. Straight to `Killed` goes everybody on
/// `StopNow` and when the pool gives up, and `Hung` when the replacement is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// `exec` is not yet known to have happened.
    Starting,
    /// Runs its program; does not listen, or some other condition for traffic does not hold. One that was ready before
    /// may still have connections.
    Online { has_been_ready: bool, listens: bool },
    /// Listens; new connections are sent to it.
    Ready,
    /// Listens and takes nothing. A replacement is under way, or its slot waits for one.
    Hung,
    /// Steered away from; accepts handshakes under way.
    Lingering { until: Duration },
    /// Steered away from and disconnected; takes what is on its way to it.
    Landing { until: Duration },
    /// Finishes its connections.
    Emptying { until: Duration },
    /// Asked to stop; asked otherwise when it has not gone by then, once; and its connections ended at last.
    Retiring { urged_at: Duration, hung_up_at: Duration, until: Duration },
    /// Sent SIGKILL.
    Killed,
}

impl Worker {
    pub(super) fn new(id: WorkerId, slot: Slot, generation: u32, now: Duration) -> Self {
        let life = Life::Spawning { then: Then::Serve };
        Self {
            id,
            slot,
            generation,
            started: now,
            since: now,
            gate: Gate::default(),
            served_from: None,
            renewal: None,
            expires: Duration::MAX,
            has_failed: false,
            is_disconnected: false,
            life,
        }
    }

    pub(super) fn pid(&self) -> Option<u32> {
        match self.life {
            Life::Spawning { .. } => None,
            Life::Running { pid, .. } => Some(pid),
        }
    }

    /// Its stage, once its process exists.
    pub(super) fn stage(&self) -> Option<Stage> {
        match self.life {
            Life::Spawning { .. } => None,
            Life::Running { stage, .. } => Some(stage),
        }
    }

    pub(super) fn state(&self) -> State {
        match self.life {
            Life::Spawning { then: Then::Serve } => State::Starting,
            Life::Spawning { then: Then::Retire | Then::Kill } => State::Draining,
            Life::Running { stage, .. } => match stage {
                Stage::Starting => State::Starting,
                Stage::Online { listens: false, .. } => State::Online,
                Stage::Online { listens: true, .. } => State::Listening,
                Stage::Ready => State::Ready,
                Stage::Hung => State::Hung,
                Stage::Lingering { .. }
                | Stage::Landing { .. }
                | Stage::Emptying { .. }
                | Stage::Retiring { .. }
                | Stage::Killed => State::Draining,
            },
        }
    }

    /// Its slot relies on it: it serves, or is on its way there.
    pub(super) fn is_serving(&self) -> bool {
        matches!(self.state(), State::Starting | State::Online | State::Listening | State::Ready)
    }

    /// It is to go: its exit is expected.
    pub(super) fn is_leaving(&self) -> bool {
        self.state() == State::Draining
    }

    /// It was disconnected, and is nobody's any more: it finishes what it has, which may take for ever, and what is to follow
    /// it has done so. Nobody waits for it, unless it is sent away once more, with a limit.
    pub(super) fn is_let_go(&self) -> bool {
        self.is_disconnected && self.is_leaving()
    }

    pub(super) fn is_ready(&self) -> bool {
        self.stage() == Some(Stage::Ready)
    }

    /// It serves until another has taken its place.
    pub(super) fn is_outgoing(&self) -> bool {
        self.renewal.is_some_and(|renewal| renewal.has_begun) && !self.is_leaving()
    }

    /// It runs its program, whether that listens or not.
    pub(super) fn is_up(&self) -> bool {
        matches!(self.state(), State::Online | State::Listening | State::Ready)
    }

    pub(super) fn is_hung(&self) -> bool {
        self.stage() == Some(Stage::Hung)
    }

    /// When something is to be done about it, if nothing happens until then.
    pub(super) fn deadline(&self) -> Option<Duration> {
        match self.stage()? {
            Stage::Lingering { until } | Stage::Landing { until } | Stage::Emptying { until } => Some(until),
            Stage::Retiring { urged_at, hung_up_at, until } => Some(urged_at.min(hung_up_at).min(until)),
            Stage::Starting | Stage::Online { .. } | Stage::Ready | Stage::Hung | Stage::Killed => None,
        }
    }

    pub(super) fn live(&mut self, life: Life, now: Duration) {
        let before = self.state();
        self.life = life;
        if self.state() != before {
            self.since = now;
        }
    }

    /// Moves on to another stage. Nothing happens to a worker that has no process.
    pub(super) fn enter(&mut self, stage: Stage, now: Duration) {
        if let Life::Running { pid, .. } = self.life {
            self.live(Life::Running { pid, stage }, now);
        }
    }
}
