//! Connections in lanes that no worker accepts from: taken out, to be passed on.
//!
//! There should be none: a lane is steered away from long before it is parked. A handshake whose last packet was
//! lost, or a program that a worker detached, can still bring one.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::Ports;
use super::lane::{Kind, set_nonblocking};
use super::relief::accept;

/// A connection that nobody would have accepted.
#[derive(Debug)]
pub(crate) struct Stray {
    pub(crate) connection: OwnedFd,
    /// The address that it was for.
    pub(crate) address: SocketAddr,
}

/// How long a lane may be without a worker before what waits in it is passed on: a replacement is usually up by then.
const PATIENCE: Duration = Duration::from_secs(1);

impl Ports {
    /// Takes the connections out of lanes that nobody accepts from, if somebody else serves the address.
    pub(crate) fn take_strays(&mut self, now: Duration) -> Vec<Stray> {
        let mut strays = Vec::new();
        for group in self.groups.iter().filter(|group| group.can_be_passed_on() && !group.is_handoff()) {
            let Some(address) = group.address.socket() else { continue };
            let is_served =
                group.lanes.iter().any(|lane| lane.users.iter().any(|user| self.serving.contains(user)));
            if !is_served || self.is_closing {
                continue;
            }
            // The primary's own is emptied into hands, if there are any: of workers that have a channel.
            let has_hands = group.desk.core().is_served();
            let deserted = group.lanes.iter().filter(|lane| {
                lane.is_listening
                    && (lane.kind != Kind::Waiting || !has_hands)
                    && lane.users.is_empty()
                    && now.saturating_sub(lane.free_since) >= PATIENCE
            });
            for lane in deserted.filter(|lane| lane.depth().is_some_and(|depth| depth > 0)) {
                // Nobody else has it now, so its flags are ours.
                let _ = set_nonblocking(&lane.socket, true);
                // To be passed on each takes one descriptor more.
                while !self.descriptors.are_short()
                    && let Some(connection) = accept(&lane.socket)
                {
                    strays.push(Stray { connection, address });
                }
            }
        }
        self.strays += strays.len() as u64;
        strays
    }
}

#[cfg(test)]
mod tests;
