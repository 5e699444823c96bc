//! Connections that the primary has and no worker has taken: accepted by itself, or taken from a busy worker's lane.
//!
//! Who gets which is decided in [`allcores_core::handoff`]. Here are the connections, each kept until a worker has said
//! that it took it: one that dies, or refuses, costs its client nothing.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use allcores_core::handoff::Ticket;
use allcores_core::worker::{Slot, WorkerId};

use super::desk::Desk;
use super::group::Group;
use super::heads::{Read, Unread};
use super::{LaneId, Ports};

/// A connection that is to go to a worker.
#[derive(Debug)]
pub(crate) struct Delivery {
    /// Where it came.
    pub(crate) lane: LaneId,
    pub(crate) ticket: Ticket,
    pub(crate) worker: WorkerId,
    pub(crate) connection: Arc<OwnedFd>,
}

impl Ports {
    /// Takes note that a worker, which can be handed connections, listens on a lane.
    pub(crate) fn join(&mut self, id: LaneId, worker: WorkerId, slot: Slot) {
        let is_serving = self.serving.contains(&worker);
        if let Some(desk) = self.desk(id) {
            desk.join(worker, slot, is_serving);
        }
    }

    /// A worker has closed a listener, or can't be told anything any more: what it has not said yes to is others'.
    pub(crate) fn leave(&mut self, id: LaneId, worker: WorkerId) {
        if let Some(desk) = self.desk(id) {
            desk.leave(worker);
        }
    }

    /// The desk of a lane's address, where something is about to change. The lane itself may be closed by then.
    fn desk(&mut self, id: LaneId) -> Option<&mut Desk> {
        self.groups.get(id.group())?;
        self.groups.stir(id.group());
        Some(&mut self.groups[id.group()].desk)
    }

    /// A worker can't be told anything any more.
    pub(crate) fn leave_all(&mut self, worker: WorkerId) {
        for key in self.groups.keys_of(worker) {
            self.groups[key].desk.leave(worker);
            self.groups.stir(key);
        }
    }

    /// A worker was asked to go.
    pub(crate) fn dismiss(&mut self, worker: WorkerId) {
        for key in self.groups.keys_of(worker) {
            self.groups[key].desk.dismiss(worker);
            self.groups.stir(key);
        }
    }

    /// Accepts where the primary does so itself, and picks who gets what.
    pub(crate) fn hand_off(&mut self, now: Duration) -> Vec<Delivery> {
        let mut deliveries = Vec::new();
        self.groups.visit_stirred(|group| {
            let Some(lane) = group.lanes.first() else { return };
            let ours = group.desk_lane().map(|lane| lane.id);
            if let Some(ours) = group.lanes.iter().find(|lane| Some(lane.id) == ours)
                && group.desk.accept(ours, now)
            {
                self.steering.wind_desk(ours);
            }
            group.desk.assign(lane.id, now, &mut deliveries);
            self.unread.extend(group.desk.take_unread());
            if let Some(shortage) = group.desk.take_shortage() {
                self.shortage = Some((group.address.to_string(), shortage));
            }
        });
        deliveries
    }

    /// Connections that were accepted and whose heads are to be read.
    pub(crate) fn take_unread(&mut self) -> Vec<Unread> {
        std::mem::take(&mut self.unread)
    }

    /// A connection's head has been read.
    pub(crate) fn take_read(&mut self, read: Read) {
        if let Some(desk) = self.desk(read.lane) {
            desk.take_read(read);
        }
    }

    /// A head is not read for now, but again later.
    pub(crate) fn give_back(&mut self, unread: Unread) {
        if let Some(desk) = self.desk(unread.lane) {
            desk.give_back(unread);
        }
    }

    /// Whether all heads that were to be read have been, or have been given back.
    pub(crate) fn has_all_back(&self) -> bool {
        self.groups.iter().all(|group| group.desk.has_all_back())
    }

    /// When that should be asked again, if nothing happens until then.
    pub(crate) fn next_hand_off(&self, now: Duration) -> Option<Duration> {
        self.groups.stirred().filter_map(|group| group.desk.next_deadline(now)).min()
    }

    /// A worker took a connection.
    pub(crate) fn accepted(&mut self, id: LaneId, worker: WorkerId, ticket: Ticket, now: Duration) {
        self.full.unwatch(worker, id);
        if let Some(desk) = self.desk(id) {
            desk.accepted(ticket, now);
        }
    }

    /// A worker refused a connection, or could not receive it.
    pub(crate) fn refused(&mut self, id: LaneId, worker: WorkerId, ticket: Ticket, now: Duration) {
        self.full.watch(worker, id, now);
        let key = id.group();
        let Some(group) = self.groups.get_mut(key) else { return };
        let is_about_worker =
            |connection: &OwnedFd| group.openings.iter().any(|opening| opening.is(connection));
        if group.desk.connection(ticket).is_some_and(is_about_worker) {
            // Any other's answer would be taken for this worker's.
            group.desk.accepted(ticket, now);
        } else {
            group.desk.refused(ticket, now);
        }
        self.groups.stir(key);
    }

    /// Connections that a worker was handed and has not answered for.
    pub(crate) fn unanswered(&self, worker: WorkerId) -> usize {
        let groups = self.groups.keys_of(worker).into_iter();
        groups.map(|key| self.groups[key].desk.core().unanswered(worker)).sum()
    }

    /// Whether connections have come that `worker` may still have to take, now that the pool stops.
    pub(super) fn owes(&self, worker: WorkerId) -> bool {
        let has_come = |group: &Group| {
            group.desk.is_ready()
                || group.lanes.iter().any(|lane| lane.depth().is_some_and(|depth| depth > 0))
        };
        self.groups.keys_of(worker).into_iter().any(|key| {
            let group = &self.groups[key];
            group.desk.core().may_take(worker)
                && (group.desk.pending() > 0 || (group.desk_lane().is_some() && has_come(group)))
        })
    }

    /// Workers that have not answered for a connection for so long.
    pub(crate) fn silent(&self, limit: Duration, now: Duration) -> Vec<WorkerId> {
        let oldest = self.groups.iter().flat_map(|group| group.desk.core().oldest(now));
        oldest.filter(|(_, age)| *age >= limit).map(|(worker, _)| worker).collect()
    }

    /// Why nothing can be accepted at an address, where that has not been said.
    pub(crate) fn take_shortage(&mut self) -> Option<(String, io::Error)> {
        self.shortage.take()
    }
}
