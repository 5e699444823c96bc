//! Watching workers that are to go: when have they finished what they have?
//!
//! Asks the kernel, so that it works for a program without a line of shutdown code.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use allcores_core::pool::Input;
use allcores_core::worker::WorkerId;
use rustix::process::Signal;

use super::Engine;
use crate::primary::Event;
use crate::proc;

/// How often the kernel is asked while somebody drains.
const INTERVAL: Duration = Duration::from_millis(20);

/// Workers that are being watched.
#[derive(Debug, Default)]
pub(super) struct Drains {
    watched: BTreeMap<WorkerId, Hold>,
    next: Option<Duration>,
}

/// A worker that accepts from the same listener as others can't be steered away from. It is held still for an
/// instant; if it has no connection then, it is asked to go without a chance to take one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    Free,
    Still,
}

impl Drains {
    pub(super) fn watch(&mut self, id: WorkerId) {
        self.watched.entry(id).or_insert(Hold::Free);
        self.next.get_or_insert(Duration::ZERO);
    }

    /// Whether it is held still; it is watched no more.
    pub(super) fn forget(&mut self, id: WorkerId) -> bool {
        self.watched.remove(&id) == Some(Hold::Still)
    }

    pub(super) fn next_look(&self) -> Option<Duration> {
        self.next.filter(|_| !self.watched.is_empty())
    }
}

impl<O: FnMut(Event<'_>)> Engine<O> {
    pub(super) fn look_at_drains(&mut self) {
        let now = self.now();
        if self.drains.next_look().is_none_or(|next| now < next) {
            return;
        }
        self.drains.next = Some(now + INTERVAL);
        let open: HashSet<u64> = proc::established_inodes(&self.ports.tcp_ports()).into_iter().collect();
        let watched: Vec<(WorkerId, Hold)> =
            self.drains.watched.iter().map(|(id, hold)| (*id, *hold)).collect();
        for (id, hold) in watched {
            self.look_at_drain(id, hold, &open);
        }
    }

    fn look_at_drain(&mut self, id: WorkerId, hold: Hold, open: &HashSet<u64>) {
        let Some(worker) = self.workers.get(&id) else {
            self.drains.forget(id);
            return;
        };
        let mut members = proc::session_members(worker.about.pid);
        members.push(worker.about.pid);
        let is_idle = proc::open_sockets(&members).is_disjoint(open);
        // By its channel a worker can be told to stop accepting, without a signal.
        let needs_hold = worker.channel.is_none() && self.ports.is_sharing(id) && !self.pool.is_stopping();
        match (hold, is_idle, needs_hold) {
            (Hold::Free, true, true) => {
                self.drains.watched.insert(id, Hold::Still);
                self.signal(id, Signal::STOP);
            }
            (Hold::Still, false, _) => {
                self.drains.watched.insert(id, Hold::Free);
                self.signal(id, Signal::CONT);
            }
            (Hold::Still, true, _) => self.tell(Input::Quiet { id }),
            (Hold::Free, true, false) if !self.ports.has_waiting(id) => self.tell(Input::Quiet { id }),
            _ => {}
        }
    }
}
