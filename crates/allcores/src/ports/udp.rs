//! UDP sockets that nobody reads: a worker can't be steered away from one, so the kernel would go on choosing it.

use std::time::Duration;

use allcores_core::worker::WorkerId;

use super::lane::Lane;
use super::table::Key;
use super::{LaneId, Ports};

/// How long a worker is trusted to read its UDP socket where it was just seen to have it.
const DOUBT: Duration = Duration::from_secs(5);

impl Ports {
    /// Closes a UDP socket that its worker has closed while others read theirs: the kernel would go on choosing it, and
    /// nobody would know.
    pub(super) fn close_unread(&mut self, key: Key, lane: usize) {
        let group = &self.groups[key];
        let is_unread = group.address.is_udp() && group.is_spread() && group.lanes[lane].users.is_empty();
        // What somebody else has bound is open at his place all the same.
        let is_ours = !group.is_given(group.lanes[lane].id);
        if is_unread && is_ours && group.lanes.iter().any(|lane| !lane.users.is_empty()) {
            self.groups.remove_lane(group.lanes[lane].id);
        }
    }

    /// UDP sockets in which something waits, and who has them: nobody else could tell that he has closed his, and the kernel goes
    /// on choosing it. Where there is always something, that is asked now and then.
    pub(crate) fn unread(&mut self, now: Duration) -> Vec<(WorkerId, LaneId)> {
        let mut unread = Vec::new();
        let groups = self.groups.iter_mut().filter(|group| group.address.is_udp());
        for lane in groups.flat_map(|group| &mut group.lanes) {
            let is_due = !lane.users.is_empty() && now >= lane.doubted_at + DOUBT;
            if is_due && rustix::io::ioctl_fionread(&lane.socket).is_ok_and(|waiting| waiting > 0) {
                lane.doubted_at = now;
                unread.extend(lane.users.iter().map(|user| (*user, lane.id)));
            }
        }
        unread
    }

    /// Closes UDP sockets that nobody will read again: unlike a TCP lane, one can't be steered away from.
    pub(super) fn close_surplus_udp(&mut self) {
        let mut surplus = Vec::new();
        for group in self.groups.iter().filter(|group| group.address.is_udp() && group.is_spread()) {
            // With nobody left at all, what comes may wait for whoever is next.
            let is_awaited = self.is_kept || group.lanes.iter().all(|lane| lane.users.is_empty());
            // What somebody else has bound would be chosen all the same: it is kept for who reads it next.
            let stays = |lane: &Lane| is_awaited && lane.slot.0 < self.target || group.is_given(lane.id);
            let is_surplus = |lane: &&Lane| lane.users.is_empty() && !stays(lane);
            surplus.extend(group.lanes.iter().filter(is_surplus).map(|lane| lane.id));
        }
        for lane in surplus {
            self.groups.remove_lane(lane);
        }
        let empty = self.groups.iter().filter(|group| group.lanes.is_empty()).map(|group| group.key);
        for key in empty.collect::<Vec<_>>() {
            self.close_group(key);
        }
    }
}
