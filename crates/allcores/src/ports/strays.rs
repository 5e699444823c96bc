//! Connections in lanes that no worker accepts from: taken out, to be passed on.
//!
//! There should be none: a lane is steered away from long before it is parked. A handshake whose last packet was
//! lost, or a program that a worker detached, can still bring one.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::Ports;
use super::lane::{Kind, set_nonblocking};

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
        for group in self.groups.iter().filter(|group| group.address.is_tcp() && !group.is_handoff()) {
            let Some(address) = group.address.socket() else { continue };
            let is_served =
                group.lanes.iter().any(|lane| lane.users.iter().any(|user| self.serving.contains(user)));
            if !is_served || self.is_closing {
                continue;
            }
            // The primary's own is emptied into hands, if there are any.
            let has_hands = group.is_spread() || group.desk.core().is_served();
            let deserted = group.lanes.iter().filter(|lane| {
                lane.is_listening
                    && (lane.kind != Kind::Waiting || !has_hands)
                    && lane.users.is_empty()
                    && now.saturating_sub(lane.free_since) >= PATIENCE
            });
            for lane in deserted.filter(|lane| lane.depth().is_some_and(|depth| depth > 0)) {
                // Nobody else has it now, so its flags are ours.
                if set_nonblocking(&lane.socket, true).is_ok() {
                    strays.extend(accept_all(&lane.socket).map(|connection| Stray { connection, address }));
                }
            }
        }
        self.strays += strays.len() as u64;
        strays
    }
}

fn accept_all(socket: impl AsFd) -> impl Iterator<Item = OwnedFd> {
    let flags = rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK;
    std::iter::from_fn(move || rustix::net::accept_with(&socket, flags).ok())
}
