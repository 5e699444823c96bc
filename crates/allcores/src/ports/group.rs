//! All sockets of one address.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use allcores_core::selector;
use allcores_core::worker::{Slot, WorkerId};

use super::lane::{self, Kind, Lane, Profile, Unavailable};
use super::{Applicant, LaneId};
use crate::address::Address;
use crate::primary::Policy;
use crate::sys::socket as raw;

/// How long every queue must have stood still before new connections are kept out of all of them. A pool that is only
/// short of cores moves within that time, and is served best by the kernel's way. Chosen, with [`super::relief`]'s, by
/// `cargo xtask bench mixed throughput`.
const HELD_UP: Duration = Duration::from_millis(10);

/// What a worker listens on.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    pub(crate) address: Address,
    /// `Lanes` or `Shared`.
    pub(crate) policy: Policy,
}

/// All sockets of one address.
#[derive(Debug)]
pub(crate) struct Group {
    /// What the sockets are bound to.
    pub(super) address: Address,
    /// What was asked for where that differs: port 0, and which of several such wishes.
    pub(super) asked: Option<(Address, u64)>,
    /// Whether there is a lane for each worker, or one listener for all.
    pub(super) is_spread: bool,
    pub(super) lanes: Vec<Lane>,
    /// Lanes in the order in which they began to listen: the kernel's numbering.
    order: Vec<LaneId>,
    /// The numbers that the program in force picks from.
    attached: Option<Vec<u32>>,
    /// When a connection was last taken for a worker that was free.
    pub(super) relieved_at: Duration,
    pub(super) files: SocketFiles,
}

impl Group {
    /// Binds the address.
    pub(super) fn open(
        id: LaneId,
        address: &Address,
        index: u64,
        policy: Policy,
        profile: &Profile,
    ) -> Result<Self, Unavailable> {
        let socket = lane::bind_first(address)?;
        profile.apply(&socket)?;
        let mut group = Self {
            address: address.clone(),
            asked: None,
            is_spread: !matches!(address, Address::Unix(_)) && policy != Policy::Shared,
            lanes: Vec::new(),
            order: Vec::new(),
            attached: None,
            relieved_at: Duration::ZERO,
            files: SocketFiles::default(),
        };
        if address.socket().is_some_and(|socket| socket.port() == 0) {
            let bound = socket2::SockRef::from(&socket).local_addr()?.as_socket();
            group.address = address.with_port(bound.map_or(0, |bound| bound.port()));
            group.asked = Some((address.clone(), index));
        }
        if let Some(path) = address.path() {
            group.files = SocketFiles::keep(path.to_owned());
        }
        // Slot 0 until the applicant's is known, at once, in `obtain`.
        let lane = Lane::new(id, socket, Slot(0))?;
        group.lanes.push(Lane { is_stream: !address.is_udp(), ..lane });
        Ok(group)
    }

    /// A group around a Unix socket that its first worker binds by itself.
    pub(super) fn around_unix(
        id: LaneId,
        applicant: Applicant,
        address: &Address,
        socket: OwnedFd,
    ) -> io::Result<Self> {
        let mut lane = Lane::new(id, socket, applicant.slot)?;
        lane.users.insert(applicant.worker);
        Ok(Self {
            address: address.clone(),
            asked: None,
            is_spread: false,
            lanes: vec![lane],
            order: Vec::new(),
            attached: None,
            relieved_at: Duration::ZERO,
            files: SocketFiles::default(),
        })
    }

    pub(super) fn listener(&self) -> Listener {
        let policy = if self.is_spread { Policy::Lanes } else { Policy::Shared };
        Listener { address: self.address.clone(), policy }
    }

    /// The lane that `applicant` should have, if it exists: the one of its slot that nobody has, or that a hung
    /// worker has which it replaces; or any that nobody has and nobody is coming back to.
    pub(super) fn free_lane(&self, applicant: Applicant, target: u16) -> Option<usize> {
        if !self.is_spread {
            return Some(0);
        }
        let is_free = |lane: &Lane| lane.users.is_empty() && lane.kind != Kind::Waiting;
        let has_own = |lane: &Lane| lane.slot == applicant.slot;
        let shared_with_hung = |lane: &Lane| {
            let has_hung = applicant.replaces.is_some_and(|hung| lane.users.contains(&hung));
            has_hung && !lane.users.contains(&applicant.worker)
        };
        let position = |test: &dyn Fn(&Lane) -> bool| self.lanes.iter().position(test);
        position(&|lane| is_free(lane) && has_own(lane))
            .or_else(|| position(&|lane| is_free(lane) && lane.slot.0 >= target))
            .or_else(|| position(&|lane| is_free(lane) && !lane.is_listening))
            .or_else(|| position(&shared_with_hung))
    }

    /// Adds a lane; returns where it stands.
    pub(super) fn add_lane(&mut self, id: LaneId, slot: Slot) -> io::Result<usize> {
        let mut lane = Lane::new(id, lane::bind_next(&self.address)?, slot)?;
        lane.is_stream = !self.address.is_udp();
        self.lanes.push(lane);
        Ok(self.lanes.len() - 1)
    }

    /// Whether a waiting room is missing: where workers can be handed connections, there is one queue of ours besides
    /// their lanes, for when all of them are busy.
    pub(super) fn wants_waiting_room(&self) -> bool {
        let has_kind = |kind: Kind| self.lanes.iter().any(|lane| lane.kind == kind);
        self.address.is_tcp() && self.is_spread && has_kind(Kind::Handed) && !has_kind(Kind::Waiting)
    }

    /// Makes a lane listen, or sees to it that one that does has at least this backlog.
    pub(super) fn listen(&mut self, at: usize, backlog: i32) -> io::Result<()> {
        if !self.lanes[at].is_stream {
            self.lanes[at].is_listening = true;
            return Ok(());
        }
        let lane = &mut self.lanes[at];
        let is_new = !lane.is_listening;
        lane.is_given_up = false;
        lane.backlog = lane.backlog.max(backlog);
        if is_new
            && self.address.is_tcp()
            && self.is_spread
            && !self.order.is_empty()
            && self.attached.is_none()
        {
            // So that the new one gets nothing before it is ready to: the old ones' numbers, by a program.
            let all: Vec<u32> = (0..u32::try_from(self.order.len()).unwrap_or(u32::MAX)).collect();
            self.attach(all);
        }
        let lane = &mut self.lanes[at];
        socket2::SockRef::from(&lane.socket).listen(lane.backlog)?;
        if is_new {
            lane.is_listening = true;
            self.order.push(lane.id);
        }
        if self.address.path().is_some() && self.files.is_unknown() {
            self.files =
                self.address.path().map(|path| SocketFiles::keep(path.to_owned())).unwrap_or_default();
        }
        Ok(())
    }

    /// Brings the program in line with who serves.
    pub(super) fn refresh(&mut self, serving: &HashSet<WorkerId>, target: u16, now: Duration) {
        if !self.address.is_tcp() || !self.is_spread || self.order.is_empty() {
            return;
        }
        let wanted = self.wanted(serving, target, now);
        if self.attached.as_ref() != Some(&wanted) && (self.order.len() > 1 || self.attached.is_some()) {
            self.attach(wanted);
        }
    }

    /// The kernel's numbers of the lanes that should get connections: of workers that serve and are not busy; if
    /// none serves, of those that a worker will come back to.
    fn wanted(&self, serving: &HashSet<WorkerId>, target: u16, now: Duration) -> Vec<u32> {
        let numbered = || {
            let lanes = self.order.iter().filter_map(|id| self.lanes.iter().find(|lane| lane.id == *id));
            (0_u32..).zip(lanes)
        };
        let serves = |lane: &Lane| lane.users.iter().any(|user| serving.contains(user));
        let (numbers, lanes): (Vec<u32>, Vec<&Lane>) = numbered().filter(|(_, lane)| serves(lane)).unzip();
        let watches: Vec<_> = lanes.iter().map(|lane| &lane.watch).collect();
        let is_waiting_room = |lane: &Lane| lane.kind == Kind::Waiting;
        let room = numbered().find(|(_, lane)| is_waiting_room(lane));
        if let Some((number, room)) = room.filter(|_| lanes.iter().all(|lane| lane.kind == Kind::Handed)) {
            let is_held_up = |lane: &&Lane| lane.watch.is_busy() && lane.watch.stalled_for(now) >= HELD_UP;
            // Who comes now comes after those who wait already, as long as anybody is held up.
            let has_waiting = room.watch.depth() > 0 && lanes.iter().any(|lane| lane.watch.is_busy());
            if !lanes.is_empty() && (has_waiting || lanes.iter().all(is_held_up)) {
                return vec![number];
            }
        }
        if !numbers.is_empty() {
            let chosen = allcores_core::steering::choose(&watches);
            return numbers
                .into_iter()
                .zip(chosen)
                .filter(|(_, is_chosen)| *is_chosen)
                .map(|(number, _)| number)
                .collect();
        }
        let expected: Vec<u32> = numbered()
            .filter(|(_, lane)| lane.slot.0 < target && !lane.is_given_up)
            .map(|(number, _)| number)
            .collect();
        let any = numbered().filter(|(_, lane)| !is_waiting_room(lane));
        if expected.is_empty() { any.map(|(number, _)| number).collect() } else { expected }
    }

    fn attach(&mut self, numbers: Vec<u32>) {
        let Some(lane) = self.lanes.iter().find(|lane| lane.is_listening) else { return };
        if raw::attach_selector(&lane.socket, &selector::pick_random(&numbers)).is_ok() {
            self.attached = Some(numbers);
        }
    }

    /// Puts back what a worker may have changed: a lane is the same open file in the worker and here.
    pub(super) fn reassert(&mut self) {
        let most = somaxconn();
        for lane in self.lanes.iter().filter(|lane| lane.is_listening && lane.is_stream) {
            let Ok(queue) = raw::accept_queue(&lane.socket) else { continue };
            let limit = u32::try_from(lane.backlog).unwrap_or(u32::MAX).min(most);
            if queue.is_listening && queue.limit >= limit {
                continue;
            }
            let _ = socket2::SockRef::from(&lane.socket).listen(lane.backlog);
            if !queue.is_listening
                && let Some(at) = self.order.iter().position(|id| *id == lane.id)
            {
                // The kernel's own numbering: the last took its place when it left, and it comes back as the last.
                self.order.swap_remove(at);
                self.order.push(lane.id);
            }
        }
        if let Some(numbers) = self.attached.take() {
            self.attach(numbers);
        }
    }

    /// Lets handshakes under way complete and answers no new one.
    pub(super) fn refuse_new(&mut self) {
        if !self.address.is_tcp() {
            return;
        }
        for lane in &self.lanes {
            let _ = raw::attach_filter(&lane.socket, &selector::refuse_new_connections());
        }
    }
}

fn somaxconn() -> u32 {
    fs::read_to_string("/proc/sys/net/core/somaxconn")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(128)
}

/// The file of a Unix socket, and a second name for it in the same folder.
///
/// Programs unlink a socket's path before they bind it; the second worker to do so would cut off all others. From
/// the second name the file can be put back.
#[derive(Debug, Default)]
pub(super) struct SocketFiles {
    names: Option<(PathBuf, PathBuf)>,
}

impl SocketFiles {
    fn keep(path: PathBuf) -> Self {
        let Some(name) = path.file_name() else { return Self::default() };
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".allcores-{}", std::process::id()));
        let spare = path.with_file_name(hidden);
        let _ = fs::remove_file(&spare);
        let _ = fs::hard_link(&path, &spare);
        Self { names: Some((path, spare)) }
    }

    fn is_unknown(&self) -> bool {
        self.names.is_none()
    }

    /// Puts the file back where a worker has removed it.
    pub(super) fn restore(&self) {
        if let Some((path, spare)) = &self.names
            && !path.exists()
        {
            let _ = fs::hard_link(spare, path);
        }
    }
}

impl Drop for SocketFiles {
    fn drop(&mut self) {
        if let Some((path, spare)) = &self.names {
            let same = |a: &fs::Metadata, b: &fs::Metadata| {
                std::os::unix::fs::MetadataExt::ino(a) == std::os::unix::fs::MetadataExt::ino(b)
            };
            let is_ours = matches!((fs::metadata(path), fs::metadata(spare)), (Ok(a), Ok(b)) if same(&a, &b));
            if is_ours {
                let _ = fs::remove_file(path);
            }
            let _ = fs::remove_file(spare);
        }
    }
}
