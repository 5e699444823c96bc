//! The pool by example, and, in `model`, against a small simulated world.

mod crash;
mod fork;
mod leave;
mod model;
mod ready;
mod reload;
mod renew;
mod saved;
mod serve;

use std::time::Duration;

use super::{Announcement, Effect, Input, Pool, PoolSettings, SlotView, Verdict};
use crate::exit::ExitStatus;
use crate::worker::{Slot, State, WorkerId};

const FAILED: ExitStatus = ExitStatus::Code(1);
const KILLED: ExitStatus = ExitStatus::Signal(9);

/// One worker, which is not kept and has this long to go.
fn disconnect_settings(limit: Duration) -> PoolSettings {
    PoolSettings { least: 0, keep: false, disconnect_timeout: limit, ..PoolSettings::default() }
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A pool, its clock, and what it wanted last.
struct Rig {
    pool: Pool,
    now: Duration,
}

impl Rig {
    fn new(settings: PoolSettings) -> Self {
        Self { pool: Pool::new(settings, 7), now: Duration::ZERO }
    }

    /// `workers` workers by default settings, not one of them started.
    fn of(workers: u16) -> Self {
        Self::new(PoolSettings { workers, ..PoolSettings::default() })
    }

    /// A pool that only carries out what it is told.
    fn unkept(workers: u16) -> Self {
        Self::new(PoolSettings { workers, least: 0, keep: false, ..PoolSettings::default() })
    }

    /// All workers are ready, and up long enough to have started well.
    fn ready(workers: u16) -> Self {
        let mut rig = Self::of(workers);
        rig.give(Input::Start);
        for id in 1..=u32::from(workers) {
            rig.raise(id);
        }
        rig.pass(ms(1000));
        rig
    }

    fn give(&mut self, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.pool.handle(input, self.now, &mut effects);
        effects
    }

    /// Lets time pass and wakes the pool once, at the end.
    fn pass(&mut self, time: Duration) -> Vec<Effect> {
        self.now += time;
        self.give(Input::Wake)
    }

    fn spawned(&mut self, id: u32) -> Vec<Effect> {
        self.give(Input::Spawned { id: WorkerId(id), pid: 1000 + id })
    }

    /// Makes a worker ready.
    fn raise(&mut self, id: u32) -> Vec<Effect> {
        self.spawned(id);
        self.give(Input::Online { id: WorkerId(id) });
        self.give(Input::Listening { id: WorkerId(id) })
    }

    fn exit(&mut self, id: u32, status: ExitStatus) -> Vec<Effect> {
        self.give(Input::Exited { id: WorkerId(id), status })
    }

    fn disconnect(&mut self, id: u32) -> Vec<Effect> {
        self.give(Input::Disconnect { id: WorkerId(id) })
    }

    fn stall(&mut self, id: u32) -> Vec<Effect> {
        self.give(Input::Stalled { id: WorkerId(id) })
    }

    fn state(&self, id: u32) -> State {
        self.pool.worker(WorkerId(id)).map_or(State::Exited, |view| view.state)
    }

    fn slot(&self, slot: u16) -> SlotView {
        self.pool.slots().nth(slot.into()).unwrap()
    }
}

fn spawn(id: u32, slot: u16) -> Effect {
    Effect::Spawn { id: WorkerId(id), slot: Slot(slot), generation: 1, replaces: None }
}

fn spawn_of(generation: u32, id: u32, slot: u16) -> Effect {
    Effect::Spawn { id: WorkerId(id), slot: Slot(slot), generation, replaces: None }
}

fn replace(id: u32, slot: u16, hung: u32) -> Effect {
    Effect::Spawn { id: WorkerId(id), slot: Slot(slot), generation: 1, replaces: Some(WorkerId(hung)) }
}

fn steer(id: u32, on: bool) -> Effect {
    Effect::Steer { id: WorkerId(id), on }
}

fn drain(id: u32) -> Effect {
    Effect::Drain { id: WorkerId(id) }
}

fn land(id: u32) -> Effect {
    Effect::Land { id: WorkerId(id) }
}

fn urge(id: u32) -> Effect {
    Effect::Urge { id: WorkerId(id) }
}

fn hang_up(id: u32) -> Effect {
    Effect::HangUp { id: WorkerId(id) }
}

fn retire(id: u32) -> Effect {
    Effect::Retire { id: WorkerId(id) }
}

fn kill(id: u32) -> Effect {
    Effect::Kill { id: WorkerId(id) }
}

fn forked(id: u32) -> Effect {
    Effect::Announce(Announcement::Forked { id: WorkerId(id) })
}

fn ready(id: u32) -> Effect {
    Effect::Announce(Announcement::Ready { id: WorkerId(id) })
}

fn draining(id: u32) -> Effect {
    Effect::Announce(Announcement::Draining { id: WorkerId(id) })
}

fn exited(id: u32, status: ExitStatus, is_expected: bool, uptime: Duration) -> Effect {
    Effect::Announce(Announcement::Exited { id: WorkerId(id), status, is_expected, uptime })
}

fn respawning(slot: u16, delay: Duration) -> Effect {
    Effect::Announce(Announcement::Respawning { slot: Slot(slot), delay })
}

fn stopping() -> [Effect; 2] {
    [Effect::Announce(Announcement::Stopping), Effect::StopAccepting]
}

fn delay(effects: &[Effect]) -> Option<Duration> {
    effects.iter().find_map(|effect| match effect {
        Effect::Announce(Announcement::Respawning { delay, .. }) => Some(*delay),
        _ => None,
    })
}

fn verdict(effects: &[Effect]) -> Option<Verdict> {
    effects.iter().find_map(|effect| match effect {
        Effect::Finished(verdict) => Some(*verdict),
        _ => None,
    })
}
