//! What the engine asks of the port table, to tell or to decide. Nothing here changes it.

use std::os::fd::{AsFd as _, BorrowedFd};

use allcores_core::worker::WorkerId;

use super::Ports;
use super::group::Group;
use super::lane::{Kind, Lane};
use crate::address::Address;
use crate::primary::AddressSnapshot;

impl Ports {
    /// The lanes of one worker.
    pub(crate) fn lanes_of(&self, worker: WorkerId) -> impl Iterator<Item = (String, Option<u32>)> + '_ {
        self.groups
            .lanes_of(worker)
            .map(move |(group, lane)| (group.address.to_string(), depth_for(worker, group, lane)))
    }

    /// Whether `worker` accepts connections by any lane of its own, or is handed some.
    pub(crate) fn takes_connections(&self, worker: WorkerId) -> bool {
        self.groups.lanes_of(worker).any(|(group, lane)| depth_for(worker, group, lane).is_some())
    }

    /// Whether connections wait in any lane of `worker`, or, once the pool stops, for whoever is free.
    pub(crate) fn has_waiting(&self, worker: WorkerId) -> bool {
        let is_some = |depth: Option<u32>| depth.is_some_and(|depth| depth > 0);
        let mut own = self.groups.lanes_of(worker);
        if own.any(|(group, lane)| is_some(depth_for(worker, group, lane))) {
            return true;
        }
        let mut rooms = self.groups.iter().flat_map(|group| &group.lanes);
        self.is_closing
            && (rooms.any(|lane| lane.kind == Kind::Waiting && is_some(lane.depth())) || self.owes(worker))
    }

    /// Whether connections wait that `worker` may accept, and that are not followed by others for ever.
    pub(crate) fn has_last_waiting(&self, worker: WorkerId) -> bool {
        let is_its = |group: &Group, lane: &Lane| {
            (group.is_spread() && lane.users.iter().eq([&worker]))
                || (lane.users.contains(&worker) && group.is_diverted_from(worker))
        };
        let has_waiting = |lane: &Lane| lane.depth().is_some_and(|depth| depth > 0);
        self.groups
            .iter()
            .any(|group| group.lanes.iter().any(|lane| is_its(group, lane) && has_waiting(lane)))
    }

    /// Whether `worker` accepts from a listener that others accept from too.
    pub(crate) fn is_sharing(&self, worker: WorkerId) -> bool {
        self.groups.lanes_of(worker).any(|(group, lane)| group.is_shared() && lane.users.len() > 1)
    }

    /// What `worker` accepts from at addresses that have one listener for all, by inode.
    pub(crate) fn shared_listeners(&self, worker: WorkerId) -> impl Iterator<Item = (u64, BorrowedFd<'_>)> {
        let shared = self.groups.lanes_of(worker).filter(|(group, _)| group.is_shared());
        shared.map(|(_, lane)| (lane.inode, lane.socket.as_fd()))
    }

    /// Whether `worker` has any listener that listens.
    pub(crate) fn is_listening(&self, worker: WorkerId) -> bool {
        self.groups.lanes_of(worker).any(|(_, lane)| lane.is_listening)
    }

    /// TCP ports that workers listen on.
    pub(crate) fn tcp_ports(&self) -> Vec<u16> {
        let tcp = self.groups.iter().filter(|group| group.address.is_tcp());
        tcp.filter_map(|group| Some(group.address.socket()?.port())).collect()
    }

    /// The inodes of Unix sockets that workers listen on.
    pub(crate) fn unix_listeners(&self) -> Vec<u64> {
        let unix = self.groups.iter().filter(|group| matches!(group.address, Address::Unix(_)));
        unix.flat_map(|group| &group.lanes).map(|lane| lane.inode).collect()
    }

    /// Addresses that listen, in the order in which they came.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = AddressSnapshot> + '_ {
        let is_known = |group: &&Group| self.groups.find(&group.address, 0) == Some(group.key);
        let is_open = |group: &&Group| group.lanes.iter().any(|lane| lane.is_listening);
        let open = self.groups.iter().filter(is_open).filter(move |group| is_known(group));
        open.map(|group| AddressSnapshot {
            address: group.address.to_string(),
            policy: group.listener().policy,
            pending: group.is_handoff().then(|| group.desk.pending()),
        })
    }

    /// Connections taken out of lanes where nobody accepted them and passed on, since the start.
    pub(crate) fn strays(&self) -> u64 {
        self.strays
    }
}

/// How many connections wait for a worker in one of its lanes; `None` where the kernel does not tell.
fn depth_for(worker: WorkerId, group: &Group, lane: &Lane) -> Option<u32> {
    if group.is_handoff() {
        Some(u32::try_from(group.desk.core().queued(worker)).unwrap_or(u32::MAX))
    } else {
        lane.depth()
    }
}
