//! A pool as data, to go on in another process: the primary's next program.
//!
//! All of it, at any moment: one that is restored answers the same inputs with the same effects. What comes from
//! outside may be anything, so it is looked at before it is believed. The settings are not in it.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::crash::Crashes;
use super::reload::RolloutSaved;
use super::slot::{Jitter, SlotState};
use super::worker::{Gate, Life, Renewal, Stage, Then, Worker};
use super::{LastExit, Phase, Pool, PoolSettings, Reason, ReloadPlan, Verdict};
use crate::exit::ExitStatus;
use crate::worker::{Slot, WorkerId};

/// A pool as data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolSaved {
    phase: PhaseSaved,
    jitter: u64,
    generation: u32,
    last_generation: u32,
    #[serde(default)]
    rollout: Option<RolloutSaved>,
    #[serde(default)]
    queued: Option<PlanSaved>,
    last_id: u32,
    workers: Vec<WorkerSaved>,
    slots: Vec<SlotSaved>,
    crashes: CrashesSaved,
    has_ever_been_ready: bool,
    #[serde(default)]
    is_refusing: bool,
}

/// Why a saved state is none that there could be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unsound(pub(crate) String);

/// How a process ended, as data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitSaved {
    /// By itself.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PhaseSaved {
    New,
    Running,
    Ending(VerdictSaved),
    Finished,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum VerdictSaved {
    Stopped,
    NeverReady(ExitSaved),
    NotAServer,
    NeverSpawned,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum CrashesSaved {
    None,
    Clean,
    Unclean(ExitSaved),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PlanSaved {
    surge: u16,
    canary: Duration,
    ready_timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SlotSaved {
    generation: u32,
    spawned: u32,
    early_exits: u32,
    #[serde(default)]
    last_exit: Option<(ExitSaved, Duration)>,
    #[serde(default)]
    respawn_at: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that are independent of each other, as the worker has them"
)]
struct WorkerSaved {
    id: u32,
    slot: u16,
    generation: u32,
    started: Duration,
    since: Duration,
    has_said_so: bool,
    is_healthy: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    has_run: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    served_from: Option<Duration>,
    /// Why it gets a successor, and whether that is on its way.
    #[serde(default)]
    renewal: Option<(ReasonSaved, bool)>,
    expires: Duration,
    has_failed: bool,
    is_disconnected: bool,
    life: LifeSaved,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ReasonSaved {
    Unresponsive,
    Unhealthy,
    Memory,
    Requests,
    Lifetime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LifeSaved {
    Spawning(ThenSaved),
    Running(u32, StageSaved),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ThenSaved {
    Serve,
    Retire,
    Kill,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StageSaved {
    Starting,
    Online {
        has_been_ready: bool,
        listens: bool,
    },
    Ready,
    Hung,
    Lingering {
        until: Duration,
    },
    Landing {
        until: Duration,
    },
    Emptying {
        until: Duration,
    },
    Retiring {
        urged_at: Duration,
        #[serde(default = "never")]
        hung_up_at: Duration,
        until: Duration,
    },
    Killed,
}

fn never() -> Duration {
    Duration::MAX
}

/// Numbers that a counter never reaches in a life, and beyond which it could not count on.
const MOST: u32 = u32::MAX / 2;

impl Pool {
    /// Takes down all that it is.
    pub fn save(&self) -> PoolSaved {
        PoolSaved {
            phase: self.phase.into(),
            jitter: self.jitter.state(),
            generation: self.generation,
            last_generation: self.last_generation,
            rollout: self.rollout.as_ref().map(RolloutSaved::from),
            queued: self.queued.map(PlanSaved::from),
            last_id: self.last_id,
            workers: self.workers.values().map(WorkerSaved::from).collect(),
            slots: self.slots.iter().map(SlotSaved::from).collect(),
            crashes: self.crashes.into(),
            has_ever_been_ready: self.has_ever_been_ready,
            is_refusing: self.is_refusing,
        }
    }

    /// Makes the same pool again.
    ///
    /// # Errors
    ///
    /// If it contradicts itself.
    pub fn restore(settings: PoolSettings, saved: PoolSaved) -> Result<Self, Unsound> {
        saved.check()?;
        let mut pool = Self {
            settings,
            phase: saved.phase.into(),
            jitter: Jitter::new(saved.jitter),
            generation: saved.generation,
            last_generation: saved.last_generation,
            rollout: saved.rollout.map(Into::into),
            queued: saved.queued.map(ReloadPlan::from),
            last_id: saved.last_id,
            workers: saved.workers.into_iter().map(|worker| (WorkerId(worker.id), worker.into())).collect(),
            slots: saved.slots.into_iter().map(SlotState::from).collect(),
            crashes: saved.crashes.into(),
            has_ever_been_ready: saved.has_ever_been_ready,
            is_refusing: saved.is_refusing,
            next_deadline: None,
        };
        pool.next_deadline = pool.find_next_deadline();
        Ok(pool)
    }

    /// Whether all that is under way are workers on their way up: no reload, no renewal, nobody who is to go. So no
    /// command waits for anything.
    pub fn is_calm(&self) -> bool {
        let is_settled =
            |worker: &Worker| !worker.is_leaving() && !worker.is_outgoing() && !worker.has_failed;
        matches!(self.phase, Phase::Running)
            && self.rollout.is_none()
            && self.queued.is_none()
            && self.workers.values().all(is_settled)
    }
}

impl PoolSaved {
    /// The workers' ids, in their order.
    pub fn workers(&self) -> impl Iterator<Item = WorkerId> + '_ {
        self.workers.iter().map(|worker| WorkerId(worker.id))
    }

    fn check(&self) -> Result<(), Unsound> {
        let ids: BTreeSet<u32> = self.workers.iter().map(|worker| worker.id).collect();
        let generations = self.workers.iter().map(|worker| worker.generation);
        let generations = generations.chain(self.slots.iter().map(|slot| slot.generation));
        ensure(ids.len() == self.workers.len(), "two workers have one id")?;
        ensure(ids.last().is_none_or(|last| *last <= self.last_id), "a worker's id was not given out yet")?;
        ensure(self.last_id <= MOST && self.last_generation <= MOST, "a count is beyond all measure")?;
        ensure(u16::try_from(self.slots.len()).is_ok(), "there are more slots than there can be")?;
        let newest = generations.chain([self.generation]).max();
        ensure(newest.is_none_or(|newest| newest <= self.last_generation), "a generation has not begun yet")?;
        ensure(
            self.rollout.is_none() || matches!(self.phase, PhaseSaved::Running),
            "there is a reload, and the pool does not run",
        )?;
        ensure(
            !matches!(self.phase, PhaseSaved::New | PhaseSaved::Finished) || ids.is_empty(),
            "there are workers, and the pool has not begun or has finished",
        )
    }
}

pub(crate) fn ensure(holds: bool, otherwise: &str) -> Result<(), Unsound> {
    if holds { Ok(()) } else { Err(Unsound(otherwise.to_owned())) }
}

impl From<ExitStatus> for ExitSaved {
    fn from(status: ExitStatus) -> Self {
        match status {
            ExitStatus::Code(code) => Self::Code(code),
            ExitStatus::Signal(signal) => Self::Signal(signal),
        }
    }
}

impl From<ExitSaved> for ExitStatus {
    fn from(saved: ExitSaved) -> Self {
        match saved {
            ExitSaved::Code(code) => Self::Code(code),
            ExitSaved::Signal(signal) => Self::Signal(signal),
        }
    }
}

impl From<Phase> for PhaseSaved {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::New => Self::New,
            Phase::Running => Self::Running,
            Phase::Ending { verdict } => Self::Ending(match verdict {
                Verdict::Stopped => VerdictSaved::Stopped,
                Verdict::NeverReady { status } => VerdictSaved::NeverReady(status.into()),
                Verdict::NotAServer => VerdictSaved::NotAServer,
                Verdict::NeverSpawned => VerdictSaved::NeverSpawned,
            }),
            Phase::Finished => Self::Finished,
        }
    }
}

impl From<PhaseSaved> for Phase {
    fn from(saved: PhaseSaved) -> Self {
        match saved {
            PhaseSaved::New => Self::New,
            PhaseSaved::Running => Self::Running,
            PhaseSaved::Ending(verdict) => Self::Ending {
                verdict: match verdict {
                    VerdictSaved::Stopped => Verdict::Stopped,
                    VerdictSaved::NeverReady(status) => Verdict::NeverReady { status: status.into() },
                    VerdictSaved::NotAServer => Verdict::NotAServer,
                    VerdictSaved::NeverSpawned => Verdict::NeverSpawned,
                },
            },
            PhaseSaved::Finished => Self::Finished,
        }
    }
}

impl From<Crashes> for CrashesSaved {
    fn from(crashes: Crashes) -> Self {
        match crashes {
            Crashes::None => Self::None,
            Crashes::Clean => Self::Clean,
            Crashes::Unclean { last } => Self::Unclean(last.into()),
        }
    }
}

impl From<CrashesSaved> for Crashes {
    fn from(saved: CrashesSaved) -> Self {
        match saved {
            CrashesSaved::None => Self::None,
            CrashesSaved::Clean => Self::Clean,
            CrashesSaved::Unclean(last) => Self::Unclean { last: last.into() },
        }
    }
}

impl From<ReloadPlan> for PlanSaved {
    fn from(plan: ReloadPlan) -> Self {
        let ReloadPlan { surge, canary, ready_timeout } = plan;
        Self { surge, canary, ready_timeout }
    }
}

impl From<PlanSaved> for ReloadPlan {
    fn from(saved: PlanSaved) -> Self {
        let PlanSaved { surge, canary, ready_timeout } = saved;
        Self { surge, canary, ready_timeout }
    }
}

impl From<&SlotState> for SlotSaved {
    fn from(slot: &SlotState) -> Self {
        let SlotState { generation, spawned, early_exits, last_exit, respawn_at } = *slot;
        let last_exit = last_exit.map(|LastExit { status, at }| (status.into(), at));
        Self { generation, spawned, early_exits, last_exit, respawn_at }
    }
}

impl From<SlotSaved> for SlotState {
    fn from(saved: SlotSaved) -> Self {
        let SlotSaved { generation, spawned, early_exits, last_exit, respawn_at } = saved;
        let last_exit = last_exit.map(|(status, at)| LastExit { status: status.into(), at });
        Self { generation, spawned, early_exits, last_exit, respawn_at }
    }
}

impl From<&Worker> for WorkerSaved {
    fn from(worker: &Worker) -> Self {
        Self {
            id: worker.id.0,
            slot: worker.slot.0,
            generation: worker.generation,
            started: worker.started,
            since: worker.since,
            has_said_so: worker.gate.has_said_so,
            is_healthy: worker.gate.is_healthy,
            has_run: worker.gate.has_run,
            served_from: worker.served_from,
            renewal: worker.renewal.map(|renewal| (renewal.reason.into(), renewal.has_begun)),
            expires: worker.expires,
            has_failed: worker.has_failed,
            is_disconnected: worker.is_disconnected,
            life: worker.life.into(),
        }
    }
}

impl From<WorkerSaved> for Worker {
    fn from(saved: WorkerSaved) -> Self {
        let renewal = |(reason, has_begun): (ReasonSaved, bool)| Renewal { reason: reason.into(), has_begun };
        Self {
            id: WorkerId(saved.id),
            slot: Slot(saved.slot),
            generation: saved.generation,
            started: saved.started,
            since: saved.since,
            gate: Gate {
                has_said_so: saved.has_said_so,
                is_healthy: saved.is_healthy,
                has_run: saved.has_run,
            },
            served_from: saved.served_from,
            renewal: saved.renewal.map(renewal),
            expires: saved.expires,
            has_failed: saved.has_failed,
            is_disconnected: saved.is_disconnected,
            life: saved.life.into(),
        }
    }
}

impl From<Reason> for ReasonSaved {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Unresponsive => Self::Unresponsive,
            Reason::Unhealthy => Self::Unhealthy,
            Reason::Memory => Self::Memory,
            Reason::Requests => Self::Requests,
            Reason::Lifetime => Self::Lifetime,
        }
    }
}

impl From<ReasonSaved> for Reason {
    fn from(saved: ReasonSaved) -> Self {
        match saved {
            ReasonSaved::Unresponsive => Self::Unresponsive,
            ReasonSaved::Unhealthy => Self::Unhealthy,
            ReasonSaved::Memory => Self::Memory,
            ReasonSaved::Requests => Self::Requests,
            ReasonSaved::Lifetime => Self::Lifetime,
        }
    }
}

impl From<Life> for LifeSaved {
    fn from(life: Life) -> Self {
        match life {
            Life::Spawning { then } => Self::Spawning(match then {
                Then::Serve => ThenSaved::Serve,
                Then::Retire => ThenSaved::Retire,
                Then::Kill => ThenSaved::Kill,
            }),
            Life::Running { pid, stage } => Self::Running(
                pid,
                match stage {
                    Stage::Starting => StageSaved::Starting,
                    Stage::Online { has_been_ready, listens } => {
                        StageSaved::Online { has_been_ready, listens }
                    }
                    Stage::Ready => StageSaved::Ready,
                    Stage::Hung => StageSaved::Hung,
                    Stage::Lingering { until } => StageSaved::Lingering { until },
                    Stage::Landing { until } => StageSaved::Landing { until },
                    Stage::Emptying { until } => StageSaved::Emptying { until },
                    Stage::Retiring { urged_at, hung_up_at, until } => {
                        StageSaved::Retiring { urged_at, hung_up_at, until }
                    }
                    Stage::Killed => StageSaved::Killed,
                },
            ),
        }
    }
}

impl From<LifeSaved> for Life {
    fn from(saved: LifeSaved) -> Self {
        match saved {
            LifeSaved::Spawning(then) => Self::Spawning {
                then: match then {
                    ThenSaved::Serve => Then::Serve,
                    ThenSaved::Retire => Then::Retire,
                    ThenSaved::Kill => Then::Kill,
                },
            },
            LifeSaved::Running(pid, stage) => Self::Running {
                pid,
                stage: match stage {
                    StageSaved::Starting => Stage::Starting,
                    StageSaved::Online { has_been_ready, listens } => {
                        Stage::Online { has_been_ready, listens }
                    }
                    StageSaved::Ready => Stage::Ready,
                    StageSaved::Hung => Stage::Hung,
                    StageSaved::Lingering { until } => Stage::Lingering { until },
                    StageSaved::Landing { until } => Stage::Landing { until },
                    StageSaved::Emptying { until } => Stage::Emptying { until },
                    StageSaved::Retiring { urged_at, hung_up_at, until } => {
                        Stage::Retiring { urged_at, hung_up_at, until }
                    }
                    StageSaved::Killed => Stage::Killed,
                },
            },
        }
    }
}
