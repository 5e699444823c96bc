//! A reload under way as data, as a part of a saved pool.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Course, Fault, Rollout};
use crate::pool::Lack;
use crate::pool::saved::{ExitSaved, PlanSaved};
use crate::worker::{Slot, WorkerId};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::pool) struct RolloutSaved {
    plan: PlanSaved,
    generation: u32,
    target: u32,
    course: CourseSaved,
    began: Duration,
    since: Duration,
    done: Vec<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum CourseSaved {
    Trial,
    Watch { id: u32, until: Duration },
    Forth,
    Back { id: u32, slot: u16, fault: FaultSaved },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FaultSaved {
    NotSpawned,
    Exited(ExitSaved),
    NotReady(LackSaved),
    Hung,
    NotListening,
    Unhealthy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LackSaved {
    Listening,
    Word,
    Health,
}

impl From<&Rollout> for RolloutSaved {
    fn from(rollout: &Rollout) -> Self {
        let course = match rollout.course {
            Course::Trial => CourseSaved::Trial,
            Course::Watch { id, until } => CourseSaved::Watch { id: id.0, until },
            Course::Forth => CourseSaved::Forth,
            Course::Back { id, slot, fault } => {
                CourseSaved::Back { id: id.0, slot: slot.0, fault: fault.into() }
            }
        };
        Self {
            plan: rollout.plan.into(),
            generation: rollout.generation,
            target: rollout.target,
            course,
            began: rollout.began,
            since: rollout.since,
            done: rollout.done.iter().map(|slot| slot.0).collect(),
        }
    }
}

impl From<RolloutSaved> for Rollout {
    fn from(saved: RolloutSaved) -> Self {
        let course = match saved.course {
            CourseSaved::Trial => Course::Trial,
            CourseSaved::Watch { id, until } => Course::Watch { id: WorkerId(id), until },
            CourseSaved::Forth => Course::Forth,
            CourseSaved::Back { id, slot, fault } => {
                Course::Back { id: WorkerId(id), slot: Slot(slot), fault: fault.into() }
            }
        };
        Self {
            plan: saved.plan.into(),
            generation: saved.generation,
            target: saved.target,
            course,
            began: saved.began,
            since: saved.since,
            done: saved.done.into_iter().map(Slot).collect(),
        }
    }
}

impl From<Fault> for FaultSaved {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::NotSpawned => Self::NotSpawned,
            Fault::Exited { status } => Self::Exited(status.into()),
            Fault::NotReady { lack } => Self::NotReady(lack.into()),
            Fault::Hung => Self::Hung,
            Fault::NotListening => Self::NotListening,
            Fault::Unhealthy => Self::Unhealthy,
        }
    }
}

impl From<FaultSaved> for Fault {
    fn from(saved: FaultSaved) -> Self {
        match saved {
            FaultSaved::NotSpawned => Self::NotSpawned,
            FaultSaved::Exited(status) => Self::Exited { status: status.into() },
            FaultSaved::NotReady(lack) => Self::NotReady { lack: lack.into() },
            FaultSaved::Hung => Self::Hung,
            FaultSaved::NotListening => Self::NotListening,
            FaultSaved::Unhealthy => Self::Unhealthy,
        }
    }
}

impl From<Lack> for LackSaved {
    fn from(lack: Lack) -> Self {
        match lack {
            Lack::Listening => Self::Listening,
            Lack::Word => Self::Word,
            Lack::Health => Self::Health,
        }
    }
}

impl From<LackSaved> for Lack {
    fn from(saved: LackSaved) -> Self {
        match saved {
            LackSaved::Listening => Self::Listening,
            LackSaved::Word => Self::Word,
            LackSaved::Health => Self::Health,
        }
    }
}
