//! The listeners that a worker was given over its channel: by the key that it names them by, and by lane.

use std::collections::{BTreeMap, BTreeSet};

use crate::ports::{LaneId, MOST_OF_WORKER};

/// A worker's listeners. It may have a thousand, and is asked for one with each connection that it is handed.
#[derive(Debug, Default)]
pub(in crate::primary) struct Keys {
    lanes: BTreeMap<String, LaneId>,
    /// Several where it listens more than once on what all accept from.
    keys: BTreeMap<LaneId, BTreeSet<String>>,
}

impl Keys {
    pub(in crate::primary) fn insert(&mut self, key: String, lane: LaneId) {
        self.keys.entry(lane).or_default().insert(key.clone());
        self.lanes.insert(key, lane);
    }

    /// Forgets a listener. Says where it was, and whether the worker has no other there.
    pub(in crate::primary) fn remove(&mut self, key: &str) -> Option<(LaneId, bool)> {
        let lane = self.lanes.remove(key)?;
        let others = self.keys.get_mut(&lane)?;
        others.remove(key);
        let was_last = others.is_empty();
        if was_last {
            self.keys.remove(&lane);
        }
        Some((lane, was_last))
    }

    /// Forgets all listeners at a lane.
    pub(in crate::primary) fn remove_lane(&mut self, lane: LaneId) {
        for key in self.keys.remove(&lane).into_iter().flatten() {
            self.lanes.remove(&key);
        }
    }

    /// The key of a listener on the address of this lane.
    pub(in crate::primary) fn beside(&self, lane: LaneId) -> Option<&str> {
        let (_, keys) = self.keys.range(lane.siblings()).next()?;
        keys.first().map(String::as_str)
    }

    /// Whether there are as many as any worker may have. On what all accept from, one after the other costs no lane.
    pub(in crate::primary) fn are_too_many(&self) -> bool {
        self.lanes.len() >= MOST_OF_WORKER
    }

    pub(in crate::primary) fn has_lane(&self, lane: LaneId) -> bool {
        self.keys.contains_key(&lane)
    }

    /// All listeners by their keys.
    pub(in crate::primary) fn iter(&self) -> impl Iterator<Item = (&str, LaneId)> {
        self.lanes.iter().map(|(key, lane)| (key.as_str(), *lane))
    }

    /// All lanes, each once.
    pub(in crate::primary) fn lanes(&self) -> impl Iterator<Item = LaneId> {
        self.keys.keys().copied()
    }
}
