//! Back-pressure from those who read what workers write: while they have taken too little, no more is read.
//!
//! Only what workers produce without limit is held back, messages and output. What happens to workers is told at once.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// How many bytes a descriptor counts for among what is held back.
pub(crate) const HANDLE_BYTES: usize = 64 * 1024;

/// Whether more is wanted. Closed while at least one reader is full.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    full: AtomicUsize,
    opened: Notify,
}

impl Flow {
    /// One reader more is full.
    pub(crate) fn close(&self) {
        self.full.fetch_add(1, Ordering::AcqRel);
    }

    /// One reader less is.
    pub(crate) fn open(&self) {
        if self.full.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.opened.notify_waiters();
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.full.load(Ordering::Acquire) == 0
    }

    /// Waits until more is wanted.
    pub(crate) async fn wait(&self) {
        while !self.is_open() {
            let opened = self.opened.notified();
            if self.is_open() {
                return;
            }
            opened.await;
        }
    }
}
