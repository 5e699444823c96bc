//! Leading new connections past a listener that workers share, while one of them leaves.
//!
//! Nobody can be steered away from a listener that is shared: whoever is to go would accept until he closes it, and node
//! from 26.4 on closes in the same turn what it has just accepted. So the address gets a second socket, of which only the
//! primary knows. While somebody leaves, the kernel brings new connections there, and they are handed to the others; what
//! is in the shared queue is accepted by whoever is first, and soon there is nothing in it. Workers that can't be handed
//! connections leave another way: they are held still.

use std::io;

use allcores_core::selector::Chosen;
use allcores_core::worker::{Slot, WorkerId};

use super::Ports;
use super::group::Group;
use super::lane::{Kind, Lane};
use super::table::Key;

impl Ports {
    /// A worker is to get nothing more; or serves after all, or is gone.
    pub(super) fn divert(&mut self, worker: WorkerId, is_leaving: bool) {
        // Once the pool stops nothing new comes, anywhere.
        let is_leaving = is_leaving && !self.is_closing;
        let keys: Vec<Key> =
            self.groups.iter().filter(|group| group.can_divert()).map(|group| group.key).collect();
        for key in keys {
            let group = &mut self.groups[key];
            let is_its = group.lanes.iter().any(|lane| lane.users.contains(&worker) && lane.is_listening);
            if is_leaving && is_its {
                group.leaving.insert(worker);
                // Without one the worker goes all the same, as it would if there were no such thing.
                if group.room().is_none()
                    && self.add_room(key).is_ok()
                    && let Some(room) = self.groups[key].room()
                {
                    let _ = self.steering.watch_desk(room);
                }
            } else {
                group.leaving.remove(&worker);
            }
            self.groups[key].redirect();
        }
    }

    fn add_room(&mut self, key: Key) -> io::Result<()> {
        let backlog = self.groups[key].make_way()?;
        self.open_room(key, backlog).map(drop)
    }

    /// Opens a waiting room, beside the workers' lanes or a listener that they share; tells where it stands.
    pub(super) fn open_room(&mut self, key: Key, backlog: i32) -> io::Result<usize> {
        let at = self.groups.add_lane(key, Slot(u16::MAX))?;
        self.groups[key].lanes[at].kind = Kind::Waiting;
        self.groups[key].listen(at, backlog)?;
        Ok(at)
    }
}

impl Group {
    /// Whether it is one listener for workers that can be handed connections.
    fn can_divert(&self) -> bool {
        self.is_shared() && self.address.is_tcp() && self.lanes.iter().any(|lane| lane.kind == Kind::Handed)
    }

    /// The socket of which workers do not know.
    pub(super) fn room(&self) -> Option<&Lane> {
        self.lanes.iter().find(|lane| lane.kind == Kind::Waiting)
    }

    /// Has the kernel bring all that come to the shared socket, before there is a second: it would spread over both. Tells what
    /// backlog that is to have.
    fn make_way(&mut self) -> io::Result<i32> {
        let own = Chosen::one(self.number_of_own().ok_or(io::ErrorKind::Unsupported)?);
        self.attach(own.clone());
        if self.is_attached(&own) != Some(true) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(self.lanes.iter().map(|lane| lane.backlog).max().unwrap_or_default())
    }

    /// The kernel's number of the socket that workers share: the first, until it has listened anew beside the other.
    fn number_of_own(&self) -> Option<u32> {
        self.lanes.first().and_then(|lane| self.number_of(lane.id))
    }

    /// The kernel's number of the other one.
    fn number_of_room(&self) -> Option<u32> {
        self.room().and_then(|room| self.number_of(room.id))
    }

    /// Brings the kernel's choice in line with who leaves.
    pub(super) fn redirect(&mut self) {
        let Some((room, own)) = self.number_of_room().zip(self.number_of_own()) else { return };
        let wanted = Chosen::one(if self.is_diverted() { room } else { own });
        if self.is_shared() && self.is_attached(&wanted) == Some(false) {
            self.attach(wanted);
        }
    }

    /// Who leaves last leaves what comes to whoever is next. But where others serve who can't be handed anything, it has to be
    /// theirs.
    fn is_diverted(&self) -> bool {
        let is_used = |worker: &WorkerId| self.lanes.iter().any(|lane| lane.users.contains(worker));
        let mut users = self.lanes.iter().flat_map(|lane| &lane.users);
        let is_last = users.all(|user| self.leaving.contains(user));
        self.leaving.iter().any(is_used) && (is_last || self.desk.core().is_served())
    }

    /// Whether nothing new comes to what this worker accepts from: whether the kernel was told so.
    pub(super) fn is_diverted_from(&self, worker: WorkerId) -> bool {
        let is_told = |number: u32| self.is_attached(&Chosen::one(number)) == Some(true);
        self.is_shared() && self.leaving.contains(&worker) && self.number_of_room().is_some_and(is_told)
    }
}

#[cfg(test)]
mod tests;
