//! Messages that have come and have not been taken.
//!
//! Before the program asks for any, so many are kept and further ones are dropped: it may never ask. Once it has, none
//! is lost, and the channel is read no further while it is behind.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc;

use crate::Message;

/// How many messages may wait.
pub(super) const LIMIT: usize = 4096;

#[derive(Debug)]
pub(super) struct Inbox {
    arrivals: Mutex<Option<mpsc::UnboundedSender<Message>>>,
    waiting: tokio::sync::Mutex<mpsc::UnboundedReceiver<Message>>,
    count: AtomicUsize,
    has_reader: AtomicBool,
}

impl Default for Inbox {
    fn default() -> Self {
        let (arrivals, waiting) = mpsc::unbounded_channel();
        Self {
            arrivals: Mutex::new(Some(arrivals)),
            waiting: tokio::sync::Mutex::new(waiting),
            count: AtomicUsize::new(0),
            has_reader: AtomicBool::new(false),
        }
    }
}

impl Inbox {
    /// Puts a message at the end.
    pub(super) fn push(&self, message: Message) {
        if self.is_at_limit() && !self.has_reader.load(Ordering::Acquire) {
            return;
        }
        let arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(arrivals) = arrivals.as_ref() {
            self.count.fetch_add(1, Ordering::AcqRel);
            let _ = arrivals.send(message);
        }
    }

    /// Whether a reader is so far behind that no more should be read for it.
    pub(super) fn is_full(&self) -> bool {
        self.is_at_limit() && self.has_reader.load(Ordering::Acquire)
    }

    fn is_at_limit(&self) -> bool {
        self.count.load(Ordering::Acquire) >= LIMIT
    }

    /// Takes the message that has waited longest; `None` when all have been taken and none can come any more.
    pub(super) async fn next(&self) -> Option<Message> {
        self.has_reader.store(true, Ordering::Release);
        let message = self.waiting.lock().await.recv().await?;
        self.count.fetch_sub(1, Ordering::AcqRel);
        Some(message)
    }

    /// Lets nothing in any more.
    pub(super) fn close(&self) {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}
