//! Hand-offs in a simulated world: whatever workers answer, in whatever order, no connection is lost or doubled, the
//! order holds, and nobody has more than it may.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop};
use proptest::{prop_assert_eq, prop_oneof, proptest};

use super::{client, ms};
use crate::handoff::{
    HELD_UP, Handoff, HandoffSaved, MEMORY, Order, Ticket, WINDOW_OF_STICKY, WINDOW_OF_TURNS,
};
use crate::worker::{Slot, WorkerId};

#[derive(Clone, Copy, Debug)]
enum Step {
    Pass(u64),
    Join(u32),
    Serve(u32, bool),
    Leave(u32),
    Dismiss(u32),
    Arrive(u64),
    Give(u32),
    Nudge(u32),
    Accept(usize),
    Refuse(usize),
    /// An answer about a connection that nobody has.
    Ghost(usize),
    Close,
    /// It goes on as one that was saved and restored.
    Save,
}

fn step() -> impl Strategy<Value = Step> {
    let worker = || 1..6_u32;
    prop_oneof![
        6 => (0..200_u64).prop_map(Step::Pass),
        3 => worker().prop_map(Step::Join),
        4 => (worker(), prop::bool::weighted(0.7)).prop_map(|(worker, on)| Step::Serve(worker, on)),
        2 => worker().prop_map(Step::Leave),
        1 => worker().prop_map(Step::Dismiss),
        20 => (0..30_u64).prop_map(Step::Arrive),
        2 => worker().prop_map(Step::Give),
        1 => worker().prop_map(Step::Nudge),
        14 => any::<usize>().prop_map(Step::Accept),
        6 => any::<usize>().prop_map(Step::Refuse),
        1 => any::<usize>().prop_map(Step::Ghost),
        2 => Just(Step::Save),
        1 => prop::bool::weighted(0.1).prop_map(|closes| if closes { Step::Close } else { Step::Pass(1) }),
    ]
}

/// What is known of a worker from outside.
#[derive(Debug, Default)]
struct Seen {
    is_serving: bool,
    is_dismissed: bool,
    /// Since its last refusal it has neither accepted anything nor been nudged, and had been told of nothing before it.
    refused_at: Option<Duration>,
}

struct World {
    order: Order,
    handoff: Handoff,
    now: Duration,
    is_closing: bool,
    workers: BTreeMap<WorkerId, Seen>,
    waiting: BTreeSet<Ticket>,
    sent: BTreeMap<Ticket, (WorkerId, Duration)>,
    /// Until when it is remembered that somebody took long to answer.
    held_up_until: Duration,
    came: u64,
    taken: BTreeSet<Ticket>,
}

impl World {
    fn new(order: Order, bound: usize) -> Self {
        Self {
            order,
            handoff: Handoff::new(order, bound),
            now: ms(0),
            is_closing: false,
            workers: BTreeMap::new(),
            waiting: BTreeSet::new(),
            sent: BTreeMap::new(),
            held_up_until: ms(0),
            came: 0,
            taken: BTreeSet::new(),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Pass(millis) => self.now += ms(millis),
            Step::Join(number) => self.join(WorkerId(number)),
            Step::Serve(number, on) => self.serve(WorkerId(number), on),
            Step::Leave(number) => self.leave(WorkerId(number)),
            Step::Dismiss(number) => self.dismiss(WorkerId(number)),
            Step::Arrive(number) => self.arrive(number),
            Step::Give(number) => self.give(WorkerId(number)),
            Step::Nudge(number) => {
                self.handoff.nudge(WorkerId(number), self.now);
                if let Some(seen) = self.workers.get_mut(&WorkerId(number)) {
                    seen.refused_at = None;
                }
            }
            Step::Accept(pick) => self.accept(pick),
            Step::Refuse(pick) => self.refuse(pick),
            Step::Ghost(pick) => {
                let Some(ticket) = self.taken.iter().nth(pick % self.taken.len().max(1)) else { return };
                assert!(!self.handoff.accepted(*ticket, self.now));
                self.handoff.refused(*ticket, self.now);
            }
            Step::Close => {
                self.is_closing = true;
                self.handoff.close();
            }
            Step::Save => self.save(),
        }
        self.assign_all();
        self.check();
    }

    fn save(&mut self) {
        let text = serde_json::to_string(&self.handoff.save()).unwrap();
        let saved: HandoffSaved = serde_json::from_str(&text).unwrap();
        let restored = Handoff::restore(self.order, self.handoff.bound, saved.clone()).unwrap();
        assert_eq!(restored.save(), saved);
        assert_eq!(restored.pending(), self.handoff.pending());
        self.handoff = restored;
    }

    fn join(&mut self, worker: WorkerId) {
        let slot = Slot(u16::try_from(worker.0).unwrap() % 3);
        self.handoff.join(worker, slot, false);
        self.workers.entry(worker).or_default().is_serving = false;
    }

    fn serve(&mut self, worker: WorkerId, is_serving: bool) {
        self.handoff.serve(worker, is_serving);
        if let Some(seen) = self.workers.get_mut(&worker) {
            seen.is_serving = is_serving;
        }
    }

    fn leave(&mut self, worker: WorkerId) {
        self.handoff.leave(worker);
        self.workers.remove(&worker);
        let returned: Vec<Ticket> =
            self.sent.extract_if(.., |_, (by, _)| *by == worker).map(|(ticket, _)| ticket).collect();
        self.waiting.extend(returned);
    }

    fn dismiss(&mut self, worker: WorkerId) {
        self.handoff.dismiss(worker);
        if let Some(seen) = self.workers.get_mut(&worker) {
            seen.is_dismissed = true;
        }
    }

    fn arrive(&mut self, number: u64) {
        if self.handoff.room() == 0 {
            return;
        }
        let ticket = self.handoff.arrive(client(number));
        self.came += 1;
        assert!(self.waiting.last().is_none_or(|last| *last < ticket) && !self.sent.contains_key(&ticket));
        assert!(self.waiting.insert(ticket));
    }

    fn give(&mut self, worker: WorkerId) {
        if self.handoff.is_free(worker, self.now) {
            let ticket = self.handoff.give(worker, self.now);
            self.came += 1;
            assert!(self.sent.insert(ticket, (worker, self.now)).is_none());
        }
    }

    fn accept(&mut self, pick: usize) {
        let Some((ticket, worker)) = self.pick(pick) else { return };
        assert!(self.handoff.accepted(ticket, self.now));
        self.answer(ticket);
        assert!(self.taken.insert(ticket), "taken twice");
        self.workers.get_mut(&worker).unwrap().refused_at = None;
    }

    fn refuse(&mut self, pick: usize) {
        let Some((ticket, worker)) = self.pick(pick) else { return };
        self.handoff.refused(ticket, self.now);
        self.answer(ticket);
        assert!(self.waiting.insert(ticket));
        self.workers.get_mut(&worker).unwrap().refused_at.get_or_insert(self.now);
    }

    fn answer(&mut self, ticket: Ticket) {
        let (_, since) = self.sent.remove(&ticket).unwrap();
        if self.now >= since + HELD_UP {
            self.held_up_until = self.now + MEMORY;
        }
    }

    fn pick(&self, pick: usize) -> Option<(Ticket, WorkerId)> {
        let nth = pick.checked_rem(self.sent.len())?;
        self.sent.iter().nth(nth).map(|(ticket, (worker, _))| (*ticket, *worker))
    }

    fn assign_all(&mut self) {
        let before = self.waiting.len();
        if before > 0 && self.sent.values().any(|(_, since)| self.now >= *since + HELD_UP) {
            self.held_up_until = self.now + MEMORY;
        }
        for nth in 0.. {
            let Some((ticket, worker)) = self.handoff.assign(self.now) else { break };
            assert!(nth <= before, "no end");
            if self.order == Order::Turns {
                assert_eq!(Some(&ticket), self.waiting.first(), "not the oldest");
            }
            assert!(self.waiting.remove(&ticket), "it did not wait");
            let had = self.sent.values().filter(|(by, _)| *by == worker).count();
            assert!(self.sent.insert(ticket, (worker, self.now)).is_none());
            let window = if self.order == Order::Turns { WINDOW_OF_TURNS } else { WINDOW_OF_STICKY };
            if had > 0 && self.order == Order::Turns {
                assert!(self.now >= self.held_up_until, "{worker} has {had} while somebody is held up");
            }
            assert!(had < window);
            let is_idle = |(other, seen): &(&WorkerId, &Seen)| {
                let is_able = !seen.is_dismissed && (seen.is_serving || self.is_closing);
                is_able && seen.refused_at.is_none() && !self.sent.values().any(|(by, _)| by == *other)
            };
            if had > 0 && self.order == Order::Turns {
                assert_eq!(self.workers.iter().find(is_idle).map(|(id, _)| id), None, "it has none");
            }
            let seen = self.workers.get_mut(&worker).expect("it listens");
            assert!(!seen.is_dismissed && (seen.is_serving || self.is_closing));
            if let Some(refused_at) = seen.refused_at.take() {
                assert!(
                    self.now >= refused_at + ms(50),
                    "again at {:?}, refused at {refused_at:?}",
                    self.now
                );
            }
        }
    }

    fn check(&self) {
        assert_eq!(self.handoff.waiting(), self.waiting.len());
        assert_eq!(self.handoff.pending(), self.waiting.len() + self.sent.len());
        assert_eq!(self.came, self.waiting.len() as u64 + self.sent.len() as u64 + self.taken.len() as u64);
        for worker in self.workers.keys() {
            let its = self.sent.values().filter(|(by, _)| by == worker).count();
            assert_eq!(self.handoff.unanswered(*worker), its);
        }
        if let Some(deadline) = self.handoff.next_deadline(self.now) {
            assert!(deadline > self.now);
        }
    }

    /// Everybody behaves from now on.
    fn calm(&mut self) {
        self.join(WorkerId(9));
        self.serve(WorkerId(9), true);
        for _ in 0..10_000 {
            self.assign_all();
            self.check();
            if self.sent.is_empty() {
                let Some(deadline) = self.handoff.next_deadline(self.now) else { break };
                self.now = deadline;
            }
            self.accept(0);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn whatever_workers_answer_no_connection_is_lost_or_doubled(
        is_sticky: bool, bound in 1..12_usize, steps in prop::collection::vec(step(), 0..150),
    ) {
        let mut world = World::new(if is_sticky { Order::Sticky } else { Order::Turns }, bound);
        for step in steps {
            world.step(step);
        }
        world.calm();
        prop_assert_eq!(world.taken.len() as u64, world.came);
    }
}
