//! One worker of the pool: where it stands, and what is true of it only there.

use std::time::Duration;

use crate::worker::{Slot, State, WorkerId};

/// One worker. What it replaces and what replaces it follows from who else is in its slot, and is not kept twice.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) id: WorkerId,
    pub(super) slot: Slot,
    pub(super) generation: u32,
    pub(super) started: Duration,
    pub(super) since: Duration,
    pub(super) life: Life,
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
/// Starting ─→ Online ⇄ Ready ⇄ Hung
///    └──────────┴──┬─────┴───────┘
///                  ├─ was ready before ───────→ Lingering ─→ Emptying ─┐
///                  └─ never was; hung at Stop ─────────────────────────┴→ Retiring ─→ Killed
/// ```
///
/// And straight to `Killed` from every stage on `StopNow`, and from `Hung` when the replacement is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// `exec` is not yet known to have happened.
    Starting,
    /// Runs its program, does not listen. One that was ready before may still have connections.
    Online { has_been_ready: bool },
    /// Listens; new connections are sent to it.
    Ready,
    /// Listens and takes nothing. A replacement is under way, or its slot waits for one.
    Hung,
    /// Steered away from; accepts handshakes under way.
    Lingering { until: Duration },
    /// Finishes its connections.
    Emptying { until: Duration },
    /// Asked to stop.
    Retiring { until: Duration },
    /// Sent SIGKILL.
    Killed,
}

impl Worker {
    pub(super) fn new(id: WorkerId, slot: Slot, generation: u32, now: Duration) -> Self {
        let life = Life::Spawning { then: Then::Serve };
        Self { id, slot, generation, started: now, since: now, life }
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
                Stage::Online { .. } => State::Online,
                Stage::Ready => State::Ready,
                Stage::Hung => State::Hung,
                Stage::Lingering { .. } | Stage::Emptying { .. } | Stage::Retiring { .. } | Stage::Killed => {
                    State::Draining
                }
            },
        }
    }

    /// Its slot relies on it: it serves, or is on its way there.
    pub(super) fn is_serving(&self) -> bool {
        matches!(self.state(), State::Starting | State::Online | State::Ready)
    }

    /// It is to go: its exit is expected.
    pub(super) fn is_leaving(&self) -> bool {
        self.state() == State::Draining
    }

    pub(super) fn is_ready(&self) -> bool {
        self.stage() == Some(Stage::Ready)
    }

    pub(super) fn is_hung(&self) -> bool {
        self.stage() == Some(Stage::Hung)
    }

    /// When something is to be done about it, if nothing happens until then.
    pub(super) fn deadline(&self) -> Option<Duration> {
        match self.stage()? {
            Stage::Lingering { until } | Stage::Emptying { until } | Stage::Retiring { until } => Some(until),
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
