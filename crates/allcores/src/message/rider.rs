//! The socket that came with a message, among all clones of that.
//!
//! Streams of events are there before anybody asks for them, and nobody may ever. What is shelved in one of them must be there
//! for who asks first, and must not keep a socket open that somebody else was told of and did not want: its client would wait
//! for ever.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::handle::Handle;

/// See the module.
#[derive(Debug)]
pub(super) struct Rider {
    shared: Arc<Mutex<Shared>>,
    is_shelved: bool,
}

#[derive(Debug)]
struct Shared {
    handle: Option<Handle>,
    /// How many clones are not shelved.
    holders: usize,
    /// Somebody was told of one.
    is_told: bool,
}

impl Rider {
    pub(super) fn new(handle: Handle) -> Self {
        let shared = Shared { handle: Some(handle), holders: 1, is_told: false };
        Self { shared: Arc::new(Mutex::new(shared)), is_shelved: false }
    }

    pub(super) fn is_there(&self) -> bool {
        self.shared().handle.is_some()
    }

    pub(super) fn take(&self) -> Option<Handle> {
        self.shared().handle.take()
    }

    /// Somebody is told of this clone: with the last such the socket is closed.
    pub(super) fn tell(&mut self) {
        let was_shelved = std::mem::take(&mut self.is_shelved);
        let mut shared = self.shared();
        shared.is_told = true;
        shared.holders += usize::from(was_shelved);
    }

    /// Nobody has asked for this clone so far.
    pub(super) fn shelve(&mut self) {
        if !std::mem::replace(&mut self.is_shelved, true) {
            self.release();
        }
    }

    fn release(&self) {
        let mut shared = self.shared();
        shared.holders -= 1;
        let unwanted = if shared.is_told && shared.holders == 0 { shared.handle.take() } else { None };
        drop(shared);
        drop(unwanted);
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clone for Rider {
    fn clone(&self) -> Self {
        self.shared().holders += usize::from(!self.is_shelved);
        Self { shared: Arc::clone(&self.shared), is_shelved: self.is_shelved }
    }
}

impl Drop for Rider {
    fn drop(&mut self) {
        if !self.is_shelved {
            self.release();
        }
    }
}
