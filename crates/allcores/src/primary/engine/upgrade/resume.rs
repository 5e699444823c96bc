//! Going on with what the program before has left.

use std::ffi::OsString;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use allcores_core::channel::Speaker;
use allcores_core::handoff::Ticket;
use allcores_core::pool::Pool;
use allcores_core::worker::{Slot, WorkerId};
use tokio::sync::{mpsc, oneshot};

use super::saved::{CareSaved, EngineSaved, HandoffsSaved, HeartSaved, ToldSaved, WorkerSaved, monotonic};
use crate::carry::Inherited;
use crate::cgroup::Cgroup;
use crate::ports::{LaneId, Ports};
use crate::primary::Settings;
use crate::primary::engine::clock;
use crate::primary::engine::generations::Generations;
use crate::primary::engine::handoff::Handed;
use crate::primary::engine::notify::Heart;
use crate::primary::engine::rendezvous::Rendezvous;
use crate::primary::engine::{Engine, Observe, Subject};
use crate::primary::launch::Launcher;
use crate::primary::relay::Relay;
use crate::primary::worker::{Seen, Worker};
use crate::sys::Watch;

impl Engine {
    /// Makes the engine again that was taken down. Workers are watched from now on.
    ///
    /// # Errors
    ///
    /// If something that it needs was not left, or the kernel refuses what every primary needs.
    pub(in crate::primary) fn resume(
        settings: Settings,
        saved: EngineSaved,
        inherited: &mut Inherited,
        seen: mpsc::Sender<Seen>,
        observe: Observe,
    ) -> io::Result<Self> {
        let mut engine = Self::new(settings, None, seen, observe)?;
        let age = monotonic().saturating_sub(saved.started);
        engine.started = Instant::now().checked_sub(age).unwrap_or_else(Instant::now);
        engine.started_at = SystemTime::UNIX_EPOCH + saved.started_at.min(MOST);
        let now = engine.now();
        // Nobody saw in between what workers did.
        let blind = now.saturating_sub(saved.saved_at);
        engine.pool = Pool::restore(engine.settings.pool.clone(), saved.pool).map_err(io::Error::other)?;
        let tuning = clock::tuning_from_env();
        let (policy, pending) = (engine.settings.policy.clone(), engine.settings.pending);
        engine.ports = Ports::restore(policy, pending, tuning, saved.ports, inherited, (now, blind))?;
        engine.generations = Generations::restore(saved.generations).map_err(io::Error::other)?;
        for worker in saved.workers {
            engine.take_up(worker, inherited)?;
        }
        if let Some((name, socket)) = saved.rendezvous {
            engine.generations.set_rendezvous(&name);
            let socket = Watch::readable(inherited.take(socket)?)?;
            engine.watch_rendezvous(Rendezvous { name, socket });
        }
        for relay in saved.relays {
            engine.relay(Relay::restore(relay, inherited)?);
        }
        engine.resume_handoffs(saved.handoffs);
        engine.inquiries.mute = saved.mute.into_iter().map(WorkerId).collect();
        engine.resume_care(saved.care);
        engine.resume_hearts(saved.hearts, blind);
        engine.last_tail = saved.last_tail.into_iter().map(Vec::from).collect();
        engine.last_spawn_failure = saved.last_spawn_failure;
        engine.last_ids = saved.last_ids.into_iter().map(|(slot, id)| (Slot(slot), WorkerId(id))).collect();
        engine.condemned = saved.condemned.into_iter().collect();
        engine.oom_exits = saved.oom_exits.into_iter().collect();
        engine.out_of_memory_kills = saved.out_of_memory_kills.or(engine.out_of_memory_kills);
        engine.hints.text = saved.hint;
        engine.unavailable = saved.unavailable.map(Into::into);
        for told in saved.told {
            match told {
                ToldSaved::Stranger => engine.is_stranger_reported = true,
                ToldSaved::Adoption => engine.is_adoption_reported = true,
                ToldSaved::Background => engine.is_background_reported = true,
                ToldSaved::Checks => engine.care.is_told = true,
                ToldSaved::Starving => engine.relays.is_told = true,
                ToldSaved::NoHandoff => engine.handoffs.is_lack_told = true,
                ToldSaved::Unseen => engine.hints.is_unseen_told = true,
                ToldSaved::Unknown => {}
            }
        }
        Ok(engine)
    }

    /// Takes up a worker where it was left.
    fn take_up(&mut self, saved: WorkerSaved, inherited: &mut Inherited) -> io::Result<()> {
        let (id, slot) = (WorkerId(saved.id), Slot(saved.slot));
        let mut worker = Worker::new(slot, id, saved.generation, saved.pid, inherited.take(saved.pidfd)?);
        let lane = LaneId::of_number;
        worker.replaces = saved.replaces.map(WorkerId);
        worker.user = self.generations.of(saved.generation).and_then(Launcher::user);
        worker.awaited = saved.awaited;
        worker.has_spoken = saved.has_spoken;
        worker.speaker = Speaker::from_number(saved.next_number);
        for (key, number) in saved.keys {
            worker.keys.insert(key, lane(number));
        }
        worker.rung = saved.rung.map(Into::into);
        worker.lanes = saved.lanes.into_iter().map(|(number, rung)| (lane(number), rung.into())).collect();
        worker.aside = saved.aside.into_iter().map(lane).collect();
        worker.announced = saved.announced.into_iter().map(lane).collect();
        worker.tail = saved.tail.into_iter().map(Vec::from).collect();
        worker.is_retired = saved.is_retired;
        worker.stop_signal = (!saved.is_urged).then_some(self.settings.stop_signal);
        worker.has_come = saved.has_come;
        worker.said_status = saved.said_status;
        worker.cgroup = saved.cgroup.map(|path| Cgroup::resume(OsString::from(path).into()));
        let (parts, sender) = saved.parts.restore(Arc::clone(&worker.pidfd), inherited)?;
        worker.channel = sender;
        let around = self.around(&worker);
        for part in parts {
            worker.watch(part, around.clone());
        }
        // The time that it had to call `listen` begins again.
        for unannounced in worker.lanes.keys().filter(|lane| !worker.announced.contains(lane)) {
            if self.ports.has_listened(*unannounced) {
                self.await_listen(id, *unannounced);
            }
        }
        // And the time that it had to go by itself.
        if worker.is_retired && worker.channel.is_none() && worker.stop_signal.is_some() {
            self.expect_its_end(id);
        }
        self.workers.insert(id, worker);
        self.look_later(id);
        Ok(())
    }

    fn resume_handoffs(&mut self, saved: HandoffsSaved) {
        for handed in saved.sent {
            let key = (WorkerId(handed.worker), handed.number);
            let handed = Handed {
                lane: LaneId::of_number(handed.lane),
                ticket: Ticket::of_number(handed.ticket),
                since: handed.since,
                is_relief: handed.is_relief,
            };
            self.handoffs.sent.insert(key, handed);
        }
        self.handoffs.taken_at = saved.taken_at.into_iter().map(|(id, at)| (WorkerId(id), at)).collect();
        self.handoffs.wishes_told = saved.wishes_told;
    }

    fn resume_care(&mut self, saved: CareSaved) {
        for (subject, check) in saved.checks {
            self.care.checks.resume(subject.into(), check);
        }
        self.care.reasons =
            saved.reasons.into_iter().map(|(subject, reason)| (Subject::from(subject), reason)).collect();
        for (id, number) in saved.questions {
            let id = WorkerId(id);
            let (sender, taken) = oneshot::channel();
            self.care.handed.insert((id, number), sender);
            if self.inquiries.mute.contains(&id) {
                self.await_life(id, taken);
            }
        }
    }

    fn resume_hearts(&mut self, saved: Vec<HeartSaved>, blind: Duration) {
        for HeartSaved { worker, last, interval, is_late, has_failed } in saved {
            let last = last.saturating_add(blind);
            self.hearts.hearts.insert(WorkerId(worker), Heart { last, interval, is_late, has_failed });
        }
    }
}

/// As far from 1970 as a calendar's time can be, and more.
const MOST: Duration = Duration::from_secs(1 << 40);
