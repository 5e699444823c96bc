//! Notices the moment when all workers of an app are ready for the first time.

use std::collections::BTreeSet;

use allcores::Slot;
use allcores::primary::Event;
use serde::{Deserialize, Serialize};

use crate::readable;

/// Which slots are ready, until all have been.
#[derive(Debug)]
pub(crate) struct Readiness {
    wanted: usize,
    ready: BTreeSet<Slot>,
    addresses: Vec<String>,
    is_told: bool,
}

/// The same, written down.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ReadinessSaved {
    ready: Vec<u16>,
    addresses: Vec<String>,
    is_told: bool,
}

impl Readiness {
    /// Waits for so many workers.
    pub(crate) fn new(workers: u16) -> Self {
        Self { wanted: workers.into(), ready: BTreeSet::new(), addresses: Vec::new(), is_told: false }
    }

    /// Goes on where the program before was.
    pub(super) fn again(workers: u16, saved: ReadinessSaved) -> Self {
        let ReadinessSaved { ready, addresses, is_told } = saved;
        Self { wanted: workers.into(), ready: ready.into_iter().map(Slot).collect(), addresses, is_told }
    }

    /// Whether it was said.
    pub(super) fn is_told(&self) -> bool {
        self.is_told
    }

    pub(super) fn save(&self) -> ReadinessSaved {
        ReadinessSaved {
            ready: self.ready.iter().map(|slot| slot.0).collect(),
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
                self.ready.insert(worker.slot);
            }
            Event::Exited { worker, .. } | Event::Draining { worker } => {
                self.ready.remove(&worker.slot);
            }
            _ => {}
        }
        (self.ready.len() >= self.wanted).then(|| {
            self.is_told = true;
            format!("{} ready on {}", readable::count(self.wanted, "worker"), self.addresses.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use allcores::primary::{Event, Policy, WorkerRef};
    use allcores::{Rung, Slot, WorkerId};

    use super::Readiness;

    fn worker(slot: u16) -> WorkerRef {
        WorkerRef { id: WorkerId(u32::from(slot) + 1), slot: Slot(slot), pid: 1 }
    }

    #[test]
    fn it_is_said_once_when_all_slots_are_ready_at_the_same_time() {
        let mut readiness = Readiness::new(2);
        let listening = |slot| {
            let (rung, policy) = (Rung::Adopted, &Policy::Lanes);
            Event::Listening { worker: worker(slot), address: "[::]:80", rung, policy }
        };
        let ready = |slot| Event::Ready { worker: worker(slot) };
        for event in [listening(0), ready(0), Event::Draining { worker: worker(0) }, listening(1), ready(1)] {
            assert_eq!(readiness.observe(&event), None, "{event:?}");
        }
        assert_eq!(readiness.observe(&ready(0)).as_deref(), Some("2 workers ready on [::]:80"));
        assert_eq!(readiness.observe(&ready(0)), None);
    }
}
