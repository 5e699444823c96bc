//! The groups of the port table, found without a search: by number, by address, by who may have a lane there, and by a lane's
//! socket.
//!
//! A worker may have a thousand listeners and the table four thousand addresses. What is done for each connection, on each
//! tick and for each question of a worker must not cost more for that, so nothing there walks over all groups. Decides
//! nothing about them.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::io;
use std::ops::{Bound, Deref, DerefMut, Index, IndexMut, RangeInclusive};
use std::time::Duration;

use allcores_core::worker::{Slot, WorkerId};

use super::LaneId;
use super::group::Group;
use super::lane::Lane;
use super::socket_file::SocketFile;
use crate::address::Address;

/// Names one group; never reused. Numbers grow in the order in which groups came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key(u64);

/// How many bits of a lane's name say which of its group's lanes it is. What is left for groups is enough for ten thousand
/// new ones in each second of two months.
const LANE_BITS: u32 = 28;

impl Key {
    /// As a number, for who writes it down.
    pub(super) fn number(self) -> u64 {
        self.0
    }

    /// The group of this number.
    pub(super) fn of_number(number: u64) -> Self {
        Self(number)
    }

    /// Names the nth lane of the group.
    pub(super) fn lane(self, nth: u64) -> LaneId {
        LaneId((self.0 << LANE_BITS) | nth)
    }
}

impl LaneId {
    /// The group that the lane is, or was, in.
    pub(super) fn group(self) -> Key {
        Key(self.0 >> LANE_BITS)
    }

    /// All that can ever be in the same group.
    pub(crate) fn siblings(self) -> RangeInclusive<Self> {
        self.group().lane(0)..=self.group().lane((1 << LANE_BITS) - 1)
    }
}

/// The lanes of a group, in the order of their names. Only the table adds and removes any, as it finds them by their sockets.
#[derive(Debug)]
pub(super) struct Lanes(Vec<Lane>);

impl Lanes {
    /// Those of a group that is about to be inserted.
    pub(super) fn new(lanes: Vec<Lane>) -> Self {
        Self(lanes)
    }
}

impl Deref for Lanes {
    type Target = [Lane];

    fn deref(&self) -> &[Lane] {
        &self.0
    }
}

impl DerefMut for Lanes {
    fn deref_mut(&mut self) -> &mut [Lane] {
        &mut self.0
    }
}

impl<'a> IntoIterator for &'a Lanes {
    type Item = &'a Lane;
    type IntoIter = std::slice::Iter<'a, Lane>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a> IntoIterator for &'a mut Lanes {
    type Item = &'a mut Lane;
    type IntoIter = std::slice::IterMut<'a, Lane>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

/// All groups.
#[derive(Debug, Default)]
pub(super) struct Table {
    groups: BTreeMap<Key, Group>,
    last: u64,
    /// Where a port is 0, the number tells apart what was asked for alike; else it is 0.
    by_address: HashMap<(Address, u64), Key>,
    /// What the files of Unix sockets are called in their folders.
    by_file: BTreeSet<(OsString, Key)>,
    /// The lanes that each worker uses.
    by_worker: HashMap<WorkerId, BTreeSet<LaneId>>,
    /// The lanes by the inodes of their sockets.
    by_inode: HashMap<u64, LaneId>,
    /// Groups at whose desks something may be done. All others are as they were left.
    stirred: BTreeSet<Key>,
}

impl Table {
    /// One that begins with these groups, and names others after the `last`.
    pub(super) fn restore(groups: Vec<Group>, last: u64) -> Self {
        let mut table = Self { last, ..Self::default() };
        for group in groups {
            let key = table.insert(group);
            table.stir(key);
        }
        table
    }

    /// The number of the group that was named last.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// A name for a group that is about to be made.
    pub(super) fn next_key(&mut self) -> Key {
        self.last += 1;
        Key(self.last)
    }

    pub(super) fn insert(&mut self, group: Group) -> Key {
        let key = group.key;
        for name in names(&group) {
            // Two of one name are not made; if they were, the first would be the one to be found.
            self.by_address.entry(name).or_insert(key);
        }
        self.by_file.extend(file_names(&group).map(|name| (name, key)));
        for lane in &group.lanes {
            self.note_socket(lane);
            for user in &lane.users {
                self.by_worker.entry(*user).or_default().insert(lane.id);
            }
        }
        self.groups.insert(key, group);
        key
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<Group> {
        let group = self.groups.remove(&key)?;
        for name in names(&group) {
            if self.by_address.get(&name) == Some(&key) {
                self.by_address.remove(&name);
            }
        }
        self.stirred.remove(&key);
        for name in file_names(&group) {
            self.by_file.remove(&(name, key));
        }
        for lane in &group.lanes {
            self.forget_lane(lane);
        }
        Some(group)
    }

    /// Adds a lane to a group; tells where it stands there.
    pub(super) fn add_lane(&mut self, key: Key, slot: Slot) -> io::Result<usize> {
        let lane = self[key].next_lane(slot)?;
        self.note_socket(&lane);
        let lanes = &mut self[key].lanes.0;
        lanes.push(lane);
        Ok(lanes.len() - 1)
    }

    /// Closes a lane of a group that stays.
    pub(super) fn remove_lane(&mut self, id: LaneId) {
        if let Some((key, at)) = self.locate(id) {
            let lane = self[key].lanes.0.remove(at);
            self.forget_lane(&lane);
        }
    }

    fn note_socket(&mut self, lane: &Lane) {
        // One that was taken in twice is found as the first.
        self.by_inode.entry(lane.inode).or_insert(lane.id);
    }

    fn forget_lane(&mut self, lane: &Lane) {
        if self.by_inode.get(&lane.inode) == Some(&lane.id) {
            self.by_inode.remove(&lane.inode);
        }
        for user in &lane.users {
            self.forget(*user, lane.id);
        }
    }

    /// Has a group be found by its address no more, and gives up its file.
    pub(super) fn disown(&mut self, key: Key) {
        let Some(group) = self.groups.get_mut(&key) else { return };
        for name in file_names(group) {
            self.by_file.remove(&(name, key));
        }
        group.file = SocketFile::default();
        for name in names(group) {
            if self.by_address.get(&name) == Some(&key) {
                self.by_address.remove(&name);
            }
        }
    }

    /// Removes all. Names go on.
    pub(super) fn clear(&mut self) {
        *self = Self { last: self.last, ..Self::default() };
    }

    /// Lanes that come after this one, or before it once all others have had their turn, so many at most.
    pub(super) fn lanes_after(&self, id: LaneId, count: usize) -> Vec<LaneId> {
        let after = self.groups.range(id.group()..).flat_map(|(_, group)| &group.lanes);
        let before = self.groups.range(..=id.group()).flat_map(|(_, group)| &group.lanes);
        let after = after.map(|lane| lane.id).filter(|lane| *lane > id);
        after.chain(before.map(|lane| lane.id).take_while(|lane| *lane <= id)).take(count).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.groups.len()
    }

    pub(super) fn get(&self, key: Key) -> Option<&Group> {
        self.groups.get(&key)
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Group> {
        self.groups.get_mut(&key)
    }

    /// The group that is bound to an address, or that was asked for by it as the `index`th on any port.
    pub(super) fn find(&self, address: &Address, index: u64) -> Option<Key> {
        let index = if is_any_port(address) { index } else { 0 };
        self.by_address.get(&(address.clone(), index)).copied()
    }

    /// Whether any group has a file.
    pub(super) fn has_files(&self) -> bool {
        !self.by_file.is_empty()
    }

    /// The groups that have a file of this name in whatever folder.
    pub(super) fn files_named(&self, name: &OsStr) -> impl Iterator<Item = Key> {
        let all = (name.to_owned(), Key(0))..=(name.to_owned(), Key(u64::MAX));
        self.by_file.range(all).map(|(_, key)| *key)
    }

    /// The groups that have a file.
    pub(super) fn with_files(&self) -> BTreeSet<Key> {
        self.by_file.iter().map(|(_, key)| *key).collect()
    }

    /// The lane that is the socket with this inode.
    pub(super) fn by_inode(&self, inode: u64) -> Option<LaneId> {
        self.by_inode.get(&inode).copied()
    }

    /// In which group a lane is, and where there.
    pub(super) fn locate(&self, lane: LaneId) -> Option<(Key, usize)> {
        let key = lane.group();
        Some((key, self.get(key)?.position(lane)?))
    }

    /// All groups, in the order in which they came.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Group> {
        self.groups.values()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Group> {
        self.groups.values_mut()
    }

    /// The next groups behind one, and from the first again behind the last: so many, and each once.
    pub(super) fn round(&self, behind: Key, most: usize) -> Vec<Key> {
        let rest = self.groups.range((Bound::Excluded(behind), Bound::Unbounded));
        rest.chain(self.groups.range(..=behind)).take(most).map(|(key, _)| *key).collect()
    }

    /// Gives a worker the use of a lane.
    pub(super) fn lend(&mut self, lane: LaneId, worker: WorkerId) {
        if let Some((key, at)) = self.locate(lane) {
            let group = &mut self[key];
            if group.lanes[at].users.insert(worker) && group.lanes[at].users.len() > 1 {
                group.doubt_openings(lane);
            }
            self.by_worker.entry(worker).or_default().insert(lane);
        }
    }

    /// Takes a lane from a worker, who does not use it any more.
    pub(super) fn take_back(&mut self, lane: LaneId, worker: WorkerId, now: Duration) {
        self.forget(worker, lane);
        if let Some((key, at)) = self.locate(lane) {
            self[key].lanes[at].release(worker, now);
        }
    }

    fn forget(&mut self, worker: WorkerId, lane: LaneId) {
        if let Entry::Occupied(mut lanes) = self.by_worker.entry(worker) {
            lanes.get_mut().remove(&lane);
            if lanes.get().is_empty() {
                lanes.remove();
            }
        }
    }

    /// The lanes that a worker uses, by group.
    pub(super) fn lanes_of(&self, worker: WorkerId) -> impl Iterator<Item = (&Group, &Lane)> {
        let lanes = self.by_worker.get(&worker).into_iter().flatten();
        lanes.filter_map(|lane| {
            let (key, at) = self.locate(*lane)?;
            Some((&self[key], &self[key].lanes[at]))
        })
    }

    /// Visits the lanes that a worker uses.
    pub(super) fn visit_lanes_of(&mut self, worker: WorkerId, mut visit: impl FnMut(&mut Lane)) {
        for lane in self.by_worker.get(&worker).into_iter().flatten() {
            if let Some(group) = self.groups.get_mut(&lane.group())
                && let Some(at) = group.position(*lane)
            {
                visit(&mut group.lanes[at]);
            }
        }
    }

    /// The names of the lanes that a worker uses, for a walk that changes them.
    pub(super) fn ids_of(&self, worker: WorkerId) -> Vec<LaneId> {
        self.by_worker.get(&worker).into_iter().flatten().copied().collect()
    }

    /// The names of the groups in which a worker uses lanes, each once, for a walk that changes them.
    pub(super) fn keys_of(&self, worker: WorkerId) -> Vec<Key> {
        let mut keys: Vec<Key> =
            self.by_worker.get(&worker).into_iter().flatten().map(|lane| lane.group()).collect();
        // A lane's name begins with its group's.
        keys.dedup();
        keys
    }

    /// How many lanes a worker uses.
    pub(super) fn count_of(&self, worker: WorkerId) -> usize {
        self.by_worker.get(&worker).map_or(0, BTreeSet::len)
    }

    /// Takes note that there may be something to do at a group's desk.
    pub(super) fn stir(&mut self, key: Key) {
        self.stirred.insert(key);
    }

    /// Visits the groups at whose desks something may be done, which are the same next time unless they are left idle.
    pub(super) fn visit_stirred(&mut self, mut visit: impl FnMut(&mut Group)) {
        let groups = &mut self.groups;
        self.stirred.retain(|key| {
            groups.get_mut(key).is_some_and(|group| {
                visit(group);
                !group.desk.is_idle()
            })
        });
    }

    /// The groups at whose desks something may be done.
    pub(super) fn stirred(&self) -> impl Iterator<Item = &Group> {
        self.stirred.iter().filter_map(|key| self.get(*key))
    }
}

impl Index<Key> for Table {
    type Output = Group;

    fn index(&self, key: Key) -> &Group {
        &self.groups[&key]
    }
}

impl IndexMut<Key> for Table {
    fn index_mut(&mut self, key: Key) -> &mut Group {
        self.groups.get_mut(&key).expect("whoever has its name has just found the group")
    }
}

/// What a group is found by.
fn names(group: &Group) -> impl Iterator<Item = (Address, u64)> {
    [Some((group.address.clone(), 0)), group.asked.clone()].into_iter().flatten()
}

/// What its file is called, and by its second name.
fn file_names(group: &Group) -> impl Iterator<Item = OsString> {
    let spare = group.file.names().map(|(_, spare)| spare);
    let paths = [group.address.path(), spare].into_iter().flatten();
    paths.filter_map(|path| Some(path.file_name()?.to_owned()))
}

fn is_any_port(address: &Address) -> bool {
    address.socket().is_some_and(|socket| socket.port() == 0)
}
