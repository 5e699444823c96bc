//! Who leaves, and what is closed then: workers that go or close a listener, versions that are taken back, and the pool
//! that stops. What waits in a queue stays for who comes next, as long as somebody is to come.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use allcores_core::worker::WorkerId;

use super::group::{Group, Standing};
use super::lane::{Kind, Lane, Vacancy};
use super::table::Key;
use super::{LaneId, Ports, name_put_away};
use crate::address::Address;
use crate::sys::socket as raw;

impl Ports {
    /// Forgets a worker that is gone. Its lanes stay open, with what waits in them, for the next.
    pub(crate) fn release(&mut self, worker: WorkerId, now: Duration) {
        self.serving.remove(&worker);
        let keys = self.groups.keys_of(worker);
        let lanes: Vec<LaneId> = self.groups.ids_of(worker);
        for lane in &lanes {
            self.groups.take_back(*lane, worker, now);
        }
        for key in keys {
            if !self.is_closing {
                // Before another listens: the kernel numbers them by who came when.
                self.listen_again(key, now, |lane| lanes.contains(&lane.id));
            }
            let Some(group) = self.groups.get_mut(key) else { continue };
            group.desk.leave(worker);
            group.park();
            // A Unix socket whose first user went before it listened was never bound.
            let is_unix = matches!(group.address, Address::Unix(_));
            if is_unix && group.lanes.iter().all(|lane| !lane.is_listening) {
                group.standing = Standing::Unwanted;
            }
            if !self.sweep(key) {
                self.groups[key].file.forget(worker);
                self.groups.stir(key);
                self.refresh(key);
            }
        }
        self.divert(worker, false);
        self.steering.forget_process(worker);
        self.full.forget(worker);
        self.close_surplus_udp();
    }

    /// Has lanes listen that workers have shut down. One that can't any more is closed: whoever has it has done that to itself, and
    /// listens there no more.
    pub(super) fn listen_again(&mut self, key: Key, now: Duration, is_meant: impl Fn(&Lane) -> bool) {
        let Some(group) = self.groups.get_mut(key) else { return };
        let spoilt = group.listen_again(is_meant);
        if !group.is_spread() {
            // There is no other, and whoever comes next tries again.
            return;
        }
        for id in spoilt {
            for worker in self.users(id).collect::<Vec<_>>() {
                self.give_up(worker, id, now);
                self.closed.push((worker, id));
            }
            self.close_spoilt(id);
        }
    }

    /// Closes a lane that can't listen, so that nobody is given it.
    pub(super) fn close_spoilt(&mut self, id: LaneId) {
        let Some((key, at)) = self.locate(id) else { return };
        let group = &mut self.groups[key];
        self.steering.forget(&group.lanes[at]);
        // What somebody else has bound is kept for who tries again.
        if !group.is_given(id) {
            self.groups.remove_lane(id);
        }
        if self.groups[key].lanes.is_empty() {
            self.close_group(key);
        }
    }

    /// A worker has closed one of its listeners by choice. An address that every worker has closed is closed, if we have bound it.
    pub(crate) fn give_up(&mut self, worker: WorkerId, id: LaneId, now: Duration) {
        let Some((key, lane)) = self.locate(id) else { return };
        self.groups.take_back(id, worker, now);
        self.groups[key].lanes[lane].vacancy = Vacancy::GivenUp;
        self.groups[key].desk.leave(worker);
        self.groups[key].leaving.remove(&worker);
        self.groups.stir(key);
        self.close_unread(key, lane);
        let group = &mut self.groups[key];
        let is_left = |lane: &Lane| lane.users.is_empty() && lane.vacancy != Vacancy::Awaited;
        if group.lanes.iter().all(|lane| lane.kind == Kind::Waiting || is_left(lane)) {
            group.standing = Standing::Unwanted;
        }
        if !self.sweep(key) {
            self.refresh(key);
        }
    }

    /// Closes an address if nobody has it and nobody is to any more. Says whether it was so.
    pub(super) fn sweep(&mut self, key: Key) -> bool {
        let is_left = self.groups.get(key).is_some_and(Group::is_left);
        if is_left {
            self.close_group(key);
        }
        is_left
    }

    /// Nobody is to come to such addresses any more: they are closed when the last who has them goes.
    pub(super) fn give_away(&mut self, is_meant: impl Fn(&Group) -> bool) {
        let meant: Vec<Key> =
            self.groups.iter().filter(|group| is_meant(group)).map(|group| group.key).collect();
        for key in meant {
            self.groups[key].standing = Standing::Unwanted;
            self.sweep(key);
        }
    }

    pub(super) fn close_group(&mut self, key: Key) {
        let Some(group) = self.groups.remove(key) else { return };
        self.forget_gone();
        self.gone.extend(group.lanes.iter().map(|lane| (lane.inode, Instant::now())));
        for lane in &group.lanes {
            self.steering.forget(lane);
        }
        if let (Some(depot), Some(name)) = (&self.depot, name_put_away(&group)) {
            // Of what is put away there is another descriptor for a while, and it is not to be found listening.
            for lane in &group.lanes {
                let _ = rustix::net::shutdown(&lane.socket, rustix::net::Shutdown::Both);
            }
            drop(group);
            depot.discard(&name);
        }
    }

    /// Closes an address unless a worker has a lane there.
    pub(crate) fn close_if_unused(&mut self, address: &Address) {
        if let Some(key) = self.groups.find(address, 0) {
            self.give_away(|group| group.key == key && !group.is_used());
        }
    }

    /// Refuses new connections everywhere and keeps those that wait: the pool stops.
    pub(crate) fn close_to_new(&mut self) {
        self.is_closing = true;
        let all: Vec<Key> = self.groups.iter().map(|group| group.key).collect();
        for key in all {
            self.groups[key].refuse_new();
            self.groups[key].desk.close();
            self.groups.stir(key);
        }
    }

    /// Takes new connections again, after all.
    pub(crate) fn reopen(&mut self) {
        self.is_closing = false;
        let all: Vec<Key> = self.groups.iter().map(|group| group.key).collect();
        for key in all {
            if self.groups[key].reopen() {
                // Who was to stop may have removed it.
                let _ = self.groups[key].file.link();
                self.groups.stir(key);
                self.refresh(key);
            } else {
                // Who had it serves what has come; who asks for its address gets another.
                self.groups.disown(key);
            }
        }
    }

    /// A version on trial has taken the place of the one before: its addresses are kept as any.
    pub(crate) fn keep_tried(&mut self) {
        for group in self.groups.iter_mut().filter(|group| group.standing == Standing::OnTrial) {
            group.standing = Standing::Kept;
        }
    }

    /// A version on trial is taken back. Addresses that only its workers have asked for are closed as soon as these have
    /// gone: nobody comes after them. Where one of them stays after all, its address does.
    pub(crate) fn close_tried(&mut self, stays: impl Fn(WorkerId) -> bool) {
        self.give_away(|group| group.standing == Standing::OnTrial && !group.is_used_by(&stays));
        self.keep_tried();
    }

    /// A version may listen elsewhere than the one before. Addresses where nobody of those who stay listens are closed as soon as
    /// those have gone who do.
    pub(crate) fn close_unused(&mut self, stays: impl Fn(WorkerId) -> bool) {
        self.give_away(|group| !group.is_used_by(&stays));
    }

    /// Closes everything and removes the files of Unix sockets. What is asked for afterwards is made anew. Who connects to a
    /// socket that somebody else has bound waits there for whoever is next.
    pub(crate) fn close(&mut self) {
        for lane in self.groups.iter().flat_map(|group| &group.lanes) {
            self.steering.forget(lane);
        }
        let given = self.groups.iter().filter(|group| group.given.is_some());
        let firsts = given.filter_map(|group| Some(Arc::clone(&group.lanes.first()?.socket)));
        let firsts: Vec<Arc<OwnedFd>> = firsts.collect();
        self.groups.clear();
        // Not before: what comes then could still be a lane's.
        for socket in &firsts {
            let _ = raw::detach_filter(socket);
        }
    }
}
