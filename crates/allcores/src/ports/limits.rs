//! How much of the port table one worker may have, and all of them together.
//!
//! Whoever asks for more is told so by an error number. The limits are far beyond what a server listens on.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, getrlimit};

use super::lane::Unavailable;
use super::{Applicant, LaneId, Ports};

/// How many listeners one worker may have.
pub(crate) const MOST_OF_WORKER: usize = 1024;

/// How many addresses there may be.
const MOST: usize = 4096;

/// For how long nobody must have used an address before it is closed for want of room.
const UNUSED: Duration = Duration::from_secs(10);

impl Ports {
    /// Sees to it that a worker may have one listener more. Programs that have no channel close theirs without a word,
    /// so that is looked up.
    pub(super) fn check_share(
        &mut self,
        applicant: &Applicant,
        mut still_has: impl FnMut(LaneId, u64) -> bool,
    ) -> Result<(), Unavailable> {
        let worker = applicant.worker;
        if self.groups.count_of(worker) < MOST_OF_WORKER {
            return Ok(());
        }
        if !applicant.is_by_channel {
            let own = self.groups.lanes_of(worker);
            let closed = own.filter(|(_, lane)| !still_has(lane.id, lane.inode)).map(|(_, lane)| lane.id);
            for lane in closed.collect::<Vec<_>>() {
                self.give_up(worker, lane, self.now);
                self.closed.push((worker, lane));
            }
        }
        if self.groups.count_of(worker) < MOST_OF_WORKER {
            return Ok(());
        }
        Err(too_many_listeners())
    }

    /// Sees to it that there is room for one address more.
    pub(super) fn check_room(&mut self) -> Result<(), Unavailable> {
        if self.groups.len() >= MOST {
            self.close_forgotten();
        }
        if self.groups.len() >= MOST {
            let text = format!("there are {MOST} addresses, and there can't be more");
            return Err(Unavailable::beyond_limit(libc::ENFILE, text));
        }
        if self.descriptors.are_short() { Err(too_few_descriptors()) } else { Ok(()) }
    }

    /// Whether descriptors are left only for what there is already.
    pub(crate) fn is_short(&mut self) -> bool {
        self.descriptors.are_short()
    }

    /// Closes what workers that have gone listened on, and nobody since.
    fn close_forgotten(&mut self) {
        let long_ago = self.now.saturating_sub(UNUSED);
        self.give_away(|group| {
            group.lanes.iter().all(|lane| {
                lane.users.is_empty() && !lane.free_since.is_zero() && lane.free_since <= long_ago
            })
        });
    }
}

pub(crate) fn too_many_listeners() -> Unavailable {
    let text = format!("it has {MOST_OF_WORKER} listeners, and no worker may have more");
    Unavailable::beyond_limit(libc::EMFILE, text)
}

pub(super) fn too_few_descriptors() -> Unavailable {
    let text =
        "the primary has used most of its descriptors; raise its limit of open files (ulimit -n)".into();
    Unavailable::beyond_limit(libc::ENFILE, text)
}

/// The primary's own descriptors. Some are kept for everything else: workers to be started, connections, questions.
#[derive(Debug, Default)]
pub(super) struct Descriptors {
    /// `/proc/self/fd`: its size is their number (Linux 6.2).
    folder: Option<OwnedFd>,
}

impl Descriptors {
    /// Whether there are too few left for another listener.
    pub(super) fn are_short(&mut self) -> bool {
        let Some(limit) = getrlimit(Resource::Nofile).current else { return false };
        if self.folder.is_none() {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            self.folder = rustix::fs::open("/proc/self/fd", flags, Mode::empty()).ok();
        }
        let size = self.folder.as_ref().and_then(|folder| rustix::fs::fstat(folder).ok());
        let open = size.and_then(|stat| u64::try_from(stat.st_size).ok()).unwrap_or(0);
        open >= limit - limit / 4
    }
}
