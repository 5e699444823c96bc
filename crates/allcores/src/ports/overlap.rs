//! Addresses that the kernel lets a program have only one of: all of IPv4 and one of these, say.
//!
//! What is in the way of a worker is what it would be in the way of as well if it were alone: what it listens on itself, and
//! strangers. What others of the app have is not: each of them is to find what the first one found. Their sockets and its own
//! can be bound beside each other, as all of them are ours, and the kernel then prefers the address that says more.

use std::collections::HashSet;
use std::time::Duration;

use allcores_core::worker::WorkerId;

use super::lane::{Profile, Unavailable};
use super::{LaneId, Ports};
use crate::address::Address;
use crate::proc::{Protocol, Taken};

/// How long a worker may have a socket open that it has said to have closed: node says so first.
const GOING: Duration = Duration::from_secs(1);

impl Ports {
    /// Sees to it that nothing which a worker has itself is in the way of another address. What it has closed without a word,
    /// having only tried whether it can be had, it has no more.
    pub(super) fn check_overlap(
        &mut self,
        worker: WorkerId,
        address: &Address,
        profile: &Profile,
        mut still_has: impl FnMut(LaneId, u64) -> bool,
    ) -> Result<(), Unavailable> {
        let own = self.groups.lanes_of(worker);
        let own = own.filter(|(group, _)| group.address != *address && group.address.overlaps(address));
        let own: Vec<_> = own.map(|(_, lane)| (lane.id, lane.inode, lane.is_listening)).collect();
        // A socket that does not listen is in nobody's way, where both allow that (SO_REUSEADDR), as servers' do.
        let may_share = profile.is_reuse_port || profile.is_reuse_address;
        let mut is_in_the_way = false;
        for (lane, inode, is_listening) in own {
            if still_has(lane, inode) {
                is_in_the_way |= is_listening && !may_share;
            } else {
                self.give_up(worker, lane, self.now);
                self.closed.push((worker, lane));
            }
        }
        if is_in_the_way { Err(Unavailable::errno(libc::EADDRINUSE)) } else { Ok(()) }
    }

    /// Whether a worker may have bound a lane only to see whether it can: at no place that somebody else has bound, or that has
    /// a file.
    pub(crate) fn is_triable(&self, id: LaneId) -> bool {
        self.lane(id).is_some_and(|(group, _)| group.address.socket().is_some() && group.given.is_none())
    }

    /// Forgets sockets that workers have had time to close, too.
    pub(super) fn forget_gone(&mut self) {
        self.gone.retain(|(_, since)| since.elapsed() < GOING);
    }

    /// Whether an address can't be bound because of sockets of ours, and of nobody else's.
    pub(super) fn is_only_ours(&mut self, address: &Address) -> bool {
        self.forget_gone();
        let Some(socket) = address.socket() else { return false };
        let of_port = self
            .groups
            .iter()
            .filter(|group| group.address.socket().is_some_and(|other| other.port() == socket.port()));
        let lanes = of_port.flat_map(|group| &group.lanes).map(|lane| lane.inode);
        let ours: HashSet<u64> = lanes.chain(self.gone.iter().map(|(inode, _)| *inode)).collect();
        let protocol = if address.is_udp() { Protocol::Udp } else { Protocol::Tcp };
        !ours.is_empty() && Taken { protocol, address: socket }.is_only_by(|inode| ours.contains(&inode))
    }
}
