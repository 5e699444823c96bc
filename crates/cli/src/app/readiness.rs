//! Notices the moment when all workers of an app are ready for the first time.

use std::collections::{BTreeMap, BTreeSet};

use allcores::primary::Event;
use allcores::{Slot, WorkerId};
use serde::{Deserialize, Serialize};

use crate::readable;

/// Which workers are ready, until all have been. While one replaces another, a slot has two.
#[derive(Debug)]
pub(crate) struct Readiness {
    wanted: u16,
    ready: BTreeMap<WorkerId, Slot>,
    addresses: Vec<String>,
    is_told: bool,
}

/// The same, written down.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ReadinessSaved {
    /// `None` if it was written by a program that did not know of scaling.
    #[serde(default)]
    wanted: Option<u16>,
    /// The id and the slot of each.
    #[serde(default)]
    workers: Vec<(u32, u16)>,
    addresses: Vec<String>,
    is_told: bool,
}

impl Readiness {
    /// Waits for so many workers.
    pub(crate) fn new(workers: u16) -> Self {
        Self { wanted: workers, ready: BTreeMap::new(), addresses: Vec::new(), is_told: false }
    }

    /// Goes on where the program before was.
    pub(super) fn again(workers: u16, saved: ReadinessSaved) -> Self {
        let ReadinessSaved { wanted, workers: ready, addresses, is_told } = saved;
        let ready = ready.into_iter().map(|(id, slot)| (WorkerId(id), Slot(slot))).collect();
        Self { wanted: wanted.unwrap_or(workers), ready, addresses, is_told }
    }

    /// Whether it was said.
    pub(super) fn is_told(&self) -> bool {
        self.is_told
    }

    pub(super) fn save(&self) -> ReadinessSaved {
        ReadinessSaved {
            wanted: Some(self.wanted),
            workers: self.ready.iter().map(|(id, slot)| (id.0, slot.0)).collect(),
            addresses: self.addresses.clone(),
            is_told: self.is_told,
        }
    }

    /// Takes an event; says so, once, when all workers are ready.
    pub(crate) fn observe(&mut self, event: &Event<'_>) -> Option<String> {
        if self.is_told {
            return None;
        }
        match event {
            Event::Listening { address, .. } if !self.addresses.iter().any(|known| known == address) => {
                self.addresses.push((*address).to_owned());
            }
            Event::Ready { worker } => {
                self.ready.insert(worker.id, worker.slot);
            }
            Event::Exited { worker, .. } | Event::Draining { worker } => {
                self.ready.remove(&worker.id);
            }
            Event::Scaling { workers, .. } => self.wanted = *workers,
            _ => {}
        }
        let served: BTreeSet<Slot> =
            self.ready.values().copied().filter(|slot| slot.0 < self.wanted).collect();
        (served.len() >= usize::from(self.wanted)).then(|| {
            self.is_told = true;
            let workers = readable::count(self.wanted, "worker");
            match self.addresses.as_slice() {
                [] => format!("{workers} ready"),
                addresses => format!("{workers} ready on {}", addresses.join(", ")),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use allcores::primary::{Event, Policy, WorkerRef};
    use allcores::{Rung, Slot, WorkerId};

    use super::Readiness;

    fn worker(id: u32, slot: u16) -> WorkerRef {
        WorkerRef { id: WorkerId(id), slot: Slot(slot), pid: 1 }
    }

    fn ready(id: u32, slot: u16) -> Event<'static> {
        Event::Ready { worker: worker(id, slot) }
    }

    fn draining(id: u32, slot: u16) -> Event<'static> {
        Event::Draining { worker: worker(id, slot) }
    }

    #[test]
    fn it_is_said_once_when_all_slots_are_ready_at_the_same_time() {
        let mut readiness = Readiness::new(2);
        let listening = |slot| {
            let (rung, policy) = (Rung::Adopted, &Policy::Lanes);
            Event::Listening { worker: worker(1, slot), address: "[::]:80", rung, policy }
        };
        for event in [listening(0), ready(1, 0), draining(1, 0), listening(1), ready(2, 1)] {
            assert_eq!(readiness.observe(&event), None, "{event:?}");
        }
        assert_eq!(readiness.observe(&ready(3, 0)).as_deref(), Some("2 workers ready on [::]:80"));
        assert_eq!(readiness.observe(&ready(3, 0)), None);
    }

    #[test]
    fn a_slot_whose_worker_goes_for_another_that_is_ready_stays_ready() {
        let mut readiness = Readiness::new(2);
        for event in [ready(1, 0), ready(3, 0), draining(1, 0)] {
            assert_eq!(readiness.observe(&event), None, "{event:?}");
        }
        assert!(readiness.observe(&ready(4, 1)).is_some());
    }

    #[test]
    fn workers_that_are_not_wanted_any_more_are_not_waited_for() {
        let mut readiness = Readiness::new(4);
        for event in [ready(1, 0), ready(2, 1), ready(4, 3)] {
            assert_eq!(readiness.observe(&event), None, "{event:?}");
        }
        // The highest slots go.
        let told = readiness.observe(&Event::Scaling { before: 4, workers: 2 });
        assert!(told.is_some_and(|text| text.starts_with("2 workers")));
    }

    #[test]
    fn workers_that_are_wanted_besides_are_waited_for() {
        let mut readiness = Readiness::new(2);
        for event in [ready(1, 0), Event::Scaling { before: 2, workers: 3 }, ready(2, 1)] {
            assert_eq!(readiness.observe(&event), None, "{event:?}");
        }
        assert!(readiness.observe(&ready(3, 2)).is_some());
    }
}
