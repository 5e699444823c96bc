//! Keeping connections from workers that are not ready while nobody else is.
//!
//! Where somebody serves, others get nothing. Where nobody does, connections would come to whoever listens; so, where
//! workers are to show that they are ready, new ones are not answered until one has: their clients try again, after a
//! second at first. Our own get through.

use std::collections::HashSet;

use allcores_core::selector::{self, Detour};
use allcores_core::worker::WorkerId;

use super::group::Group;
use crate::sys::socket as raw;

/// What is in force: how many sockets are held, and whose connections get through.
pub(super) type Hold = (usize, Vec<Detour>);

impl Group {
    /// Holds new connections off while nobody serves, and lets them in as soon as somebody does.
    pub(super) fn hold(&mut self, serving: &HashSet<WorkerId>) {
        if !self.address.is_tcp() || !self.is_spread() {
            return;
        }
        let is_served = self.lanes.iter().any(|lane| lane.users.iter().any(|user| serving.contains(user)));
        let listening = || self.lanes.iter().filter(|lane| lane.is_listening);
        let wanted: Option<Hold> = (!is_served).then(|| (listening().count(), self.passes()));
        if self.held == wanted {
            return;
        }
        for lane in listening() {
            let _ = match &wanted {
                Some((_, passes)) => {
                    let refuse = selector::refuse_new_connections();
                    raw::attach_filter(&lane.socket, &selector::with_detours(passes, refuse))
                }
                None => raw::detach_filter(&lane.socket),
            };
        }
        self.held = wanted;
    }

    /// To the filter of a socket any number is as good as another, as long as it is not shorter than the packet.
    fn passes(&self) -> Vec<Detour> {
        let open = self.openings.iter().filter(|opening| !opening.is_connected);
        open.map(|opening| Detour { from: opening.from, to: u32::MAX }).collect()
    }
}
