//! Connections that starve in the lane of a worker that takes none for long, while others have time.
//!
//! Workers that have a channel are relieved within milliseconds (`relief.rs`). Of others nobody can be handed anything,
//! and most that stand still for a moment are back soon. But a program that accepts no more connections than it has
//! threads, all of which are kept busy by clients that never pause, leaves what came next in its queue for as long as
//! they go on. Such a connection is taken out, to be passed on as a stray is.

use std::time::Duration;

use super::lane::{Kind, Lane};
use super::relief::accept;
use super::{Ports, Stray};

/// How long connections must have stood still. A client is patient for longer, and a worker at work on one request
/// mostly is back by then: to be passed on costs a connection its source address.
const STARVING: Duration = Duration::from_secs(2);

/// For how long the worker gets no new ones then, unless all others are busy: as long as it has taken none, within these.
const RESPITE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

impl Ports {
    /// Takes connections out of lanes where they starve: one for each lane whose worker has time.
    pub(crate) fn take_starving(&mut self, now: Duration) -> Vec<Stray> {
        let mut starving = Vec::new();
        if !self.steering.tuning.is_on || self.is_closing {
            return starving;
        }
        // What waits was looked at, so it is hot.
        for key in self.hot_groups() {
            let Some(group) = self.groups.get_mut(key).filter(|group| group.is_spread()) else { continue };
            let Some(address) = group.address.socket().filter(|_| group.can_be_passed_on()) else { continue };
            // What waits may be a connection of our own, about this very worker.
            let is_asked = |lane: &Lane| group.openings.iter().any(|opening| opening.to == lane.id);
            let starves = |lane: &Lane| {
                lane.kind == Kind::Own
                    && !lane.users.is_empty()
                    && lane.watch.depth() > 0
                    && lane.watch.stalled_for(now) >= STARVING
                    && !is_asked(lane)
            };
            let at: Vec<usize> = (0..group.lanes.len()).filter(|at| starves(&group.lanes[*at])).collect();
            if at.is_empty() || self.descriptors.are_short() {
                continue;
            }
            let has_time = |lane: &&Lane| {
                lane.is_listening
                    && lane.kind != Kind::Waiting
                    && lane.users.iter().any(|user| self.serving.contains(user))
                    && lane.watch.depth() == 0
                    && !lane.watch.is_busy()
            };
            let mut room = group.lanes.iter().filter(has_time).count();
            for at in at {
                let lane = &mut group.lanes[at];
                while room > 0 && lane.watch.depth() > 0 {
                    let Some(connection) = accept(&lane.socket) else { break };
                    let (least, most) = RESPITE;
                    let respite = lane.watch.standing_for(now).clamp(least, most);
                    lane.watch.relieve(now + respite);
                    starving.push(Stray { connection, address });
                    room -= 1;
                }
            }
        }
        self.strays += starving.len() as u64;
        starving
    }
}

#[cfg(test)]
mod tests;
