//! Event loops that watch a socket since before it was bound: Netty's and SwiftNIO's, which watch all that they have from its
//! beginning.
//!
//! An epoll instance watches an open file, whatever has its number later. So with the caller's socket goes what was to be
//! told of it, and the program, which thinks that it is there, waits for ever, or is told that there is nothing to be changed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use super::take_copy;
use crate::proc::{self, Watched};
use crate::sys;

/// How many descriptors of a program are looked at, for as long as nobody else is answered. Event loops are made early, and
/// one that has ten thousand connections may bind again and again.
pub(super) const MOST: usize = 4096;

/// What watches a socket that is to be replaced.
pub(super) struct Watchers(Option<(OwnedFd, Vec<(OwnedFd, Watched)>)>);

impl Watchers {
    /// What of `process` watches its socket `fd`, which has this inode.
    ///
    /// # Errors
    ///
    /// If there is something, and we may not have copies of it and of the socket.
    pub(super) fn of(process: u32, fd: RawFd, inode: u64) -> io::Result<Self> {
        // Who may not be looked into has been found out before.
        let mut watched = proc::watched_by(process, MOST).unwrap_or_default();
        watched.retain(|watched| watched.inode == inode);
        if watched.is_empty() {
            return Ok(Self(None));
        }
        let socket = take_copy(process, fd)?;
        let with_loop = |watched: Watched| Ok((take_copy(process, watched.epoll)?, watched));
        Ok(Self(Some((socket, watched.into_iter().map(with_loop).collect::<io::Result<_>>()?))))
    }

    /// Has them watch the lane that has taken the socket's place.
    ///
    /// # Errors
    ///
    /// If they can't be made to; the socket they may have forgotten already.
    pub(super) fn turn_to(&self, lane: BorrowedFd<'_>) -> io::Result<()> {
        let Some((socket, loops)) = &self.0 else { return Ok(()) };
        for (epoll, watched) in loops {
            let files = [socket.as_fd(), lane];
            match sys::epoll::succeed(epoll.as_fd(), files, watched.number, watched.events, watched.data) {
                // The program has done it in between; or has the instance twice, and then it is done.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                result => result?,
            }
        }
        Ok(())
    }
}
