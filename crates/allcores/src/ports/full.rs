//! Workers that refuse connections because they have as many as they want: when they have closed one, they are tried again.
//!
//! A worker says that it is full by refusing, and says nothing when it is not any more. But while connections wait for
//! it, the number of its descriptors can be watched for the price of an fstat (Linux 6.2). One that has become smaller is a
//! reason to try; elsewhere the pauses of `core/handoff` are all there is.

use std::collections::BTreeMap;
use std::time::Duration;

use allcores_core::worker::WorkerId;

use super::table::Key;
use super::{LaneId, Ports};

/// How long after a refusal a worker is looked at, and then again. What it refused it has closed by then.
const SOON: Duration = Duration::from_millis(10);

/// The same of one that goes on refusing: it doubles with each refusal up to this. One that opens and closes other things
/// all the time is tried so often in vain.
const LATE: Duration = Duration::from_millis(50);

/// Workers that are watched, each at an address where it refused.
#[derive(Debug, Default)]
pub(super) struct Full {
    workers: BTreeMap<(WorkerId, Key), Watched>,
}

#[derive(Debug)]
struct Watched {
    wait: Duration,
    due: Duration,
    /// The most descriptors that it has been seen to have since it refused.
    most: Option<u32>,
}

impl Full {
    /// A worker has refused a connection that came to this lane.
    pub(super) fn watch(&mut self, worker: WorkerId, lane: LaneId, now: Duration) {
        let its = (worker, lane.group());
        let before = self.workers.get(&its).map(|watched| watched.wait);
        let wait = before.map_or(SOON, |wait| (wait * 2).min(LATE));
        self.workers.insert(its, Watched { wait, due: now + wait, most: None });
    }

    /// A worker has taken one that came there: what it refused before is no matter.
    pub(super) fn unwatch(&mut self, worker: WorkerId, lane: LaneId) {
        self.workers.remove(&(worker, lane.group()));
    }

    pub(super) fn forget(&mut self, worker: WorkerId) {
        self.workers.retain(|(watched, _), _| *watched != worker);
    }
}

impl Ports {
    /// When workers that refused should be looked at, if connections wait for them.
    pub(crate) fn next_look_at_full(&self) -> Option<Duration> {
        let wanted = self.full.workers.iter().filter(|((_, key), _)| self.is_wanted(*key));
        wanted.map(|(_, watched)| watched.due).min()
    }

    /// Has those tried again that have closed something since they refused. Once it is time for one, all are looked at.
    pub(crate) fn look_at_full(&mut self, now: Duration) {
        if self.next_look_at_full().is_none_or(|due| now < due) {
            return;
        }
        let wanted = self.full.workers.iter().filter(|((_, key), _)| self.is_wanted(*key));
        let settled = wanted.filter(|(_, watched)| watched.due <= now || watched.most.is_some());
        for its in settled.map(|(its, _)| *its).collect::<Vec<_>>() {
            let (worker, key) = its;
            if !self.groups[key].desk.core().paused(now).any(|paused| paused == worker) {
                // It is tried in any case, or has gone.
                self.full.workers.remove(&its);
                continue;
            }
            let open = self.steering.descriptors_of(worker);
            let Some(watched) = self.full.workers.get_mut(&its) else { continue };
            watched.due = now + watched.wait;
            if open.zip(watched.most).is_some_and(|(open, most)| open < most) {
                self.groups[key].desk.nudge(worker, now);
                self.groups.stir(key);
            } else {
                watched.most = open;
            }
        }
    }

    /// Whether connections wait at an address.
    fn is_wanted(&self, key: Key) -> bool {
        self.groups.get(key).is_some_and(|group| group.desk.core().waiting() > 0)
    }
}
