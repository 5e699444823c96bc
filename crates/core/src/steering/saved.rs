//! What is known of a lane as data, to go on in another process.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::LaneWatch;

/// What is known of a lane, as data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneWatchSaved {
    depth: u32,
    #[serde(default)]
    waiting_since: Option<Duration>,
    is_busy: bool,
    alive_at: Duration,
    relieved_until: Duration,
    #[serde(default)]
    relieved_since: Option<Duration>,
    open: u32,
    #[serde(default)]
    floor: Option<(u32, u32)>,
    window_ends: Duration,
    settled_at: Duration,
    first: u32,
    came: u32,
}

impl From<LaneWatch> for LaneWatchSaved {
    fn from(watch: LaneWatch) -> Self {
        let LaneWatch {
            depth,
            waiting_since,
            // For moments only: what was not looked at in between says nothing.
            still_since: _,
            work: _,
            ran: _,
            is_busy,
            alive_at,
            relieved_until,
            relieved_since,
            open,
            floor,
            window_ends,
            settled_at,
            first,
            came,
        } = watch;
        Self {
            depth,
            waiting_since,
            is_busy,
            alive_at,
            relieved_until,
            relieved_since,
            open,
            floor,
            window_ends,
            settled_at,
            first,
            came,
        }
    }
}

impl LaneWatch {
    /// For so long nobody looked: what was not seen to move may have.
    pub fn excuse(&mut self, time: Duration) {
        let later = |at: Duration| at.saturating_add(time);
        self.waiting_since = self.waiting_since.map(later);
        self.still_since = self.still_since.map(later);
        self.relieved_since = self.relieved_since.map(later);
        self.relieved_until = later(self.relieved_until);
    }
}

impl From<LaneWatchSaved> for LaneWatch {
    fn from(saved: LaneWatchSaved) -> Self {
        Self {
            depth: saved.depth,
            waiting_since: saved.waiting_since,
            still_since: saved.waiting_since,
            work: None,
            ran: None,
            is_busy: saved.is_busy,
            alive_at: saved.alive_at,
            relieved_until: saved.relieved_until,
            relieved_since: saved.relieved_since,
            open: saved.open,
            floor: saved.floor,
            window_ends: saved.window_ends,
            settled_at: saved.settled_at,
            first: saved.first,
            came: saved.came,
        }
    }
}
