//! The engine as data: what it is while nothing is under way that somebody waits for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use allcores_core::health::CheckSaved;
use allcores_core::pool::{Pool, PoolSaved};
use allcores_core::worker::{Rung, WorkerId};
use rustix::time::ClockId;
use serde::{Deserialize, Serialize};

use super::Frozen;
use crate::carry::{BytesSaved, FdSaved, Manifest};
use crate::ports::PortsSaved;
use crate::primary::engine::generations::GenerationsSaved;
use crate::primary::engine::{Engine, Subject};
use crate::primary::relay::RelaySaved;
use crate::primary::upgrade::SettingsSaved;
use crate::primary::worker::{PartsSaved, Worker};
use crate::primary::{Holder, Outcome, Settings};

/// The engine as data. Times without a name are since the primary's start.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::primary) struct EngineSaved {
    pub(in crate::primary) settings: SettingsSaved,
    pub(super) generations: GenerationsSaved,
    #[serde(default)]
    pub(super) rendezvous: Option<(String, FdSaved)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) relays: Vec<RelaySaved>,
    pub(in crate::primary) pool: PoolSaved,
    pub(super) ports: PortsSaved,
    pub(super) workers: Vec<WorkerSaved>,
    /// When the primary started, by the kernel's monotonic clock and by the calendar's (since 1970).
    pub(super) started: Duration,
    pub(super) started_at: Duration,
    /// When this was written down.
    pub(super) saved_at: Duration,
    pub(super) handoffs: HandoffsSaved,
    pub(super) care: CareSaved,
    pub(super) hearts: Vec<HeartSaved>,
    /// Workers that have not taken a connection of ours in time.
    pub(super) mute: Vec<u32>,
    pub(super) last_tail: Vec<BytesSaved>,
    pub(super) last_spawn_failure: String,
    /// The last worker of each slot.
    pub(super) last_ids: Vec<(u16, u32)>,
    pub(super) condemned: Vec<u32>,
    pub(super) oom_exits: Vec<Duration>,
    #[serde(default)]
    pub(super) out_of_memory_kills: Option<u64>,
    #[serde(default)]
    pub(super) hint: Option<String>,
    #[serde(default)]
    pub(super) unavailable: Option<UnavailableSaved>,
    /// What was told once and is not to be told again.
    pub(super) told: BTreeSet<ToldSaved>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that are independent of each other, as the worker has them"
)]
pub(super) struct WorkerSaved {
    pub(super) id: u32,
    pub(super) slot: u16,
    pub(super) pid: u32,
    pub(super) generation: u32,
    #[serde(default)]
    pub(super) replaces: Option<u32>,
    pub(super) awaited: BTreeSet<String>,
    pub(super) pidfd: FdSaved,
    pub(super) parts: PartsSaved,
    pub(super) has_spoken: bool,
    /// The number of the next message to it.
    pub(super) next_number: u64,
    pub(super) keys: BTreeMap<String, u64>,
    #[serde(default)]
    pub(super) rung: Option<RungSaved>,
    pub(super) lanes: Vec<(u64, RungSaved)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) aside: Vec<u64>,
    pub(super) announced: Vec<u64>,
    pub(super) tail: Vec<BytesSaved>,
    pub(super) is_retired: bool,
    /// It has had the stop signal.
    #[serde(default)]
    pub(super) is_urged: bool,
    pub(super) has_come: bool,
    #[serde(default)]
    pub(super) said_status: Option<String>,
    /// The folder of its cgroup.
    #[serde(default)]
    pub(super) cgroup: Option<BytesSaved>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RungSaved {
    Crate,
    Node,
    Adopted,
    Inherited,
}

/// What workers were handed and have not answered for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct HandoffsSaved {
    pub(super) sent: Vec<HandedSaved>,
    pub(super) taken_at: Vec<(u32, Duration)>,
    pub(super) wishes_told: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct HandedSaved {
    pub(super) worker: u32,
    pub(super) number: u64,
    pub(super) lane: u64,
    pub(super) ticket: u64,
    pub(super) since: Duration,
    pub(super) is_relief: bool,
}

/// Health checks; those that are under way are not there.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct CareSaved {
    pub(super) checks: Vec<(SubjectSaved, CheckSaved)>,
    pub(super) reasons: Vec<(SubjectSaved, String)>,
    /// Whose word that it took a connection of ours is waited for, and the number of the message.
    pub(super) questions: Vec<(u32, u64)>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SubjectSaved {
    Worker(u32),
    App,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct HeartSaved {
    pub(super) worker: u32,
    pub(super) last: Duration,
    pub(super) interval: Duration,
    pub(super) is_late: bool,
    pub(super) has_failed: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct UnavailableSaved {
    pub(super) address: String,
    pub(super) reason: String,
    #[serde(default)]
    pub(super) holder: Option<(u32, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ToldSaved {
    Stranger,
    Adoption,
    Background,
    Checks,
    NoHandoff,
    Unseen,
    Starving,
    /// Something that a later version tells of.
    #[serde(other)]
    Unknown,
}

/// What the monotonic clock shows.
pub(super) fn monotonic() -> Duration {
    Duration::try_from(rustix::time::clock_gettime(ClockId::Monotonic)).unwrap_or_default()
}

impl Engine {
    /// Takes down all that it is, and what is to be left to the next program. What watches workers has been called back.
    pub(super) fn save(&self, frozen: &Frozen, manifest: &mut Manifest) -> EngineSaved {
        let now = self.now();
        let worker = |worker: &Worker| {
            let parts = frozen.parts.get(&worker.about.id).map(Vec::as_slice).unwrap_or_default();
            WorkerSaved::of(worker, parts, manifest)
        };
        let workers = self.workers.values().map(worker).collect();
        let rendezvous = frozen.rendezvous.as_ref();
        let rendezvous = rendezvous.map(|place| (place.name.clone(), manifest.note(&place.socket)));
        EngineSaved {
            settings: (&self.settings).into(),
            generations: self.generations.save(),
            rendezvous,
            relays: frozen.relays.iter().map(|relay| relay.save(manifest)).collect(),
            pool: self.pool.save(),
            ports: self.ports.save(manifest),
            workers,
            started: monotonic().saturating_sub(now),
            started_at: self.started_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default(),
            saved_at: now,
            handoffs: self.save_handoffs(),
            care: self.save_care(now),
            hearts: self.save_hearts(),
            mute: self.inquiries.mute.iter().map(|id| id.0).collect(),
            last_tail: self.last_tail.iter().map(|line| line.as_slice().into()).collect(),
            last_spawn_failure: self.last_spawn_failure.clone(),
            last_ids: self.last_ids.iter().map(|(slot, id)| (slot.0, id.0)).collect(),
            condemned: self.condemned.iter().copied().collect(),
            oom_exits: self.oom_exits.iter().copied().collect(),
            out_of_memory_kills: self.out_of_memory_kills,
            hint: self.hints.text.clone(),
            unavailable: self.unavailable.as_ref().and_then(UnavailableSaved::of),
            told: self.save_told(),
        }
    }

    fn save_handoffs(&self) -> HandoffsSaved {
        let sent = self.handoffs.sent.iter().map(|((worker, number), handed)| HandedSaved {
            worker: worker.0,
            number: *number,
            lane: handed.lane.number(),
            ticket: handed.ticket.number(),
            since: handed.since,
            is_relief: handed.is_relief,
        });
        HandoffsSaved {
            sent: sent.collect(),
            taken_at: self.handoffs.taken_at.iter().map(|(id, at)| (id.0, *at)).collect(),
            wishes_told: self.handoffs.wishes_told.clone(),
        }
    }

    fn save_care(&self, now: Duration) -> CareSaved {
        let checks = self.care.checks.save(now).into_iter().map(|(subject, saved)| (subject.into(), saved));
        let reasons = self.care.reasons.iter().map(|(subject, reason)| ((*subject).into(), reason.clone()));
        let questions = self.care.handed.iter().filter(|(_, waiting)| !waiting.is_closed());
        CareSaved {
            checks: checks.collect(),
            reasons: reasons.collect(),
            questions: questions.map(|((id, number), _)| (id.0, *number)).collect(),
        }
    }

    fn save_hearts(&self) -> Vec<HeartSaved> {
        let hearts = self.hearts.hearts.iter().map(|(worker, heart)| HeartSaved {
            worker: worker.0,
            last: heart.last,
            interval: heart.interval,
            is_late: heart.is_late,
            has_failed: heart.has_failed,
        });
        hearts.collect()
    }

    fn save_told(&self) -> BTreeSet<ToldSaved> {
        let told = [
            (self.is_stranger_reported, ToldSaved::Stranger),
            (self.is_adoption_reported, ToldSaved::Adoption),
            (self.is_background_reported, ToldSaved::Background),
            (self.care.is_told, ToldSaved::Checks),
            (self.handoffs.is_lack_told, ToldSaved::NoHandoff),
            (self.hints.is_unseen_told, ToldSaved::Unseen),
            (self.relays.is_told, ToldSaved::Starving),
        ];
        told.into_iter().filter(|(is_told, _)| *is_told).map(|(_, what)| what).collect()
    }
}

impl EngineSaved {
    /// Says what contradicts itself, if anything does.
    pub(in crate::primary) fn check(&self) -> Result<(), String> {
        let mut settings = Settings::try_from(self.settings.clone())?;
        settings.pool.wait_healthy = settings.upkeep.health.is_some();
        let pool = Pool::restore(settings.pool, self.pool.clone()).map_err(|why| why.to_string())?;
        if !pool.is_calm() {
            return Err("something is under way, or over, that can't be gone on with".into());
        }
        self.generations.check(pool.generation())?;
        self.ports.check()?;
        let known: BTreeSet<u32> = self.pool.workers().map(|id| id.0).collect();
        let here: BTreeSet<u32> = self.workers.iter().map(|worker| worker.id).collect();
        if here != known || here.len() != self.workers.len() {
            return Err("the workers are not those of the pool".into());
        }
        let lanes: BTreeSet<u64> = self.ports.lanes().collect();
        let named = self.workers.iter().flat_map(WorkerSaved::named_lanes);
        if named.chain(self.handoffs.sent.iter().map(|sent| sent.lane)).any(|lane| !lanes.contains(&lane)) {
            return Err("a worker has a lane that there is not".into());
        }
        match pool.workers().find(|view| view.pid.is_none()) {
            Some(view) => Err(format!("worker {} has no process", view.id)),
            None => Ok(()),
        }
    }
}

impl WorkerSaved {
    fn of(worker: &Worker, parts: &[crate::primary::worker::Part], manifest: &mut Manifest) -> Self {
        Self {
            id: worker.about.id.0,
            slot: worker.about.slot.0,
            pid: worker.about.pid,
            generation: worker.generation,
            replaces: worker.replaces.map(|id| id.0),
            awaited: worker.awaited.clone(),
            pidfd: manifest.note(worker.pidfd.as_ref()),
            parts: PartsSaved::of(parts, manifest),
            has_spoken: worker.has_spoken,
            next_number: worker.speaker.next_number(),
            keys: worker.keys.iter().map(|(key, lane)| (key.to_owned(), lane.number())).collect(),
            rung: worker.rung.map(RungSaved::from),
            lanes: worker.lanes.iter().map(|(lane, rung)| (lane.number(), (*rung).into())).collect(),
            aside: worker.aside.iter().map(|lane| lane.number()).collect(),
            announced: worker.announced.iter().map(|lane| lane.number()).collect(),
            tail: worker.tail.iter().map(|line| line.as_slice().into()).collect(),
            is_retired: worker.is_retired,
            is_urged: worker.stop_signal.is_none(),
            has_come: worker.has_come,
            said_status: worker.said_status.clone(),
            cgroup: worker.cgroup.as_ref().map(|cgroup| cgroup.path().as_os_str().into()),
        }
    }

    fn named_lanes(&self) -> impl Iterator<Item = u64> + '_ {
        let keys = self.keys.values().copied();
        let lanes = self.lanes.iter().map(|(lane, _)| *lane);
        keys.chain(lanes).chain(self.aside.iter().copied()).chain(self.announced.iter().copied())
    }
}

impl UnavailableSaved {
    fn of(outcome: &Outcome) -> Option<Self> {
        let Outcome::AddressUnavailable { address, reason, holder } = outcome else { return None };
        let holder = holder.as_ref().map(|Holder { pid, command }| (*pid, command.clone()));
        Some(Self { address: address.clone(), reason: reason.clone(), holder })
    }
}

impl From<UnavailableSaved> for Outcome {
    fn from(saved: UnavailableSaved) -> Self {
        let holder = saved.holder.map(|(pid, command)| Holder { pid, command });
        Self::AddressUnavailable { address: saved.address, reason: saved.reason, holder }
    }
}

impl From<Rung> for RungSaved {
    fn from(rung: Rung) -> Self {
        match rung {
            Rung::Crate => Self::Crate,
            Rung::Node => Self::Node,
            Rung::Adopted => Self::Adopted,
            Rung::Inherited => Self::Inherited,
        }
    }
}

impl From<RungSaved> for Rung {
    fn from(saved: RungSaved) -> Self {
        match saved {
            RungSaved::Crate => Self::Crate,
            RungSaved::Node => Self::Node,
            RungSaved::Adopted => Self::Adopted,
            RungSaved::Inherited => Self::Inherited,
        }
    }
}

impl From<Subject> for SubjectSaved {
    fn from(subject: Subject) -> Self {
        match subject {
            Subject::Worker(id) => Self::Worker(id.0),
            Subject::App => Self::App,
        }
    }
}

impl From<SubjectSaved> for Subject {
    fn from(saved: SubjectSaved) -> Self {
        match saved {
            SubjectSaved::Worker(id) => Self::Worker(WorkerId(id)),
            SubjectSaved::App => Self::App,
        }
    }
}
