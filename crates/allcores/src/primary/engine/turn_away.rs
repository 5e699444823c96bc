//! Having a worker take no more from a listener that it shares with others, though it goes on serving.
//!
//! Nobody can be steered away from a queue that is everybody's. But most servers learn of new connections from an event
//! loop, and that can be had forget the listener, from outside. What the worker has goes on; and when it closes
//! the listener, its event loop is asked to forget it again, an error that programs pass over.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd};

use allcores_core::worker::WorkerId;

use super::Engine;
use crate::adopt::take_copy;
use crate::{proc, sys};

impl Engine {
    /// Has the event loops of a worker's processes forget what it shares. False if one of them may still accept: it asks
    /// otherwise, or we may not look into it.
    pub(super) fn turn_away(&self, id: WorkerId) -> bool {
        let listeners: HashMap<u64, BorrowedFd<'_>> = self.ports.shared_listeners(id).collect();
        self.members(id).into_iter().all(|pid| forgets(pid, &listeners))
    }
}

fn forgets(pid: u32, listeners: &HashMap<u64, BorrowedFd<'_>>) -> bool {
    let (Ok(watched), Ok(sockets)) = (proc::watched_by(pid, usize::MAX), proc::all_sockets_of(pid)) else {
        return false;
    };
    let has = |inode: &u64| listeners.contains_key(inode);
    let mut open: HashSet<u64> = sockets.into_iter().map(|(_, inode)| inode).filter(has).collect();
    for watched in watched {
        let Some(listener) = listeners.get(&watched.inode) else { continue };
        // One that arms it each time would be told that it is not there, and might give up.
        let is_forgotten = !watched.is_once()
            && take_copy(pid, watched.epoll)
                .and_then(|epoll| sys::epoll::forget(epoll.as_fd(), *listener, watched.number))
                .is_ok();
        if !is_forgotten {
            return false;
        }
        open.remove(&watched.inode);
    }
    open.is_empty()
}
