//! Where connections that the primary has handed over wait to be accepted.
//!
//! Between the channel's thread, which fills it, and the one task that accepts. Nothing is said of them here.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// A connection that the primary keeps a copy of until it is told what became of it.
#[derive(Debug)]
pub(super) struct Handed {
    /// The number to be answered.
    pub(super) seq: u64,
    pub(super) connection: OwnedFd,
}

/// The queue of one listener.
#[derive(Debug, Default)]
pub(super) struct Intake(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    waiting: VecDeque<Handed>,
    is_closed: bool,
    accepting: Option<Waker>,
}

/// Nothing will come any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closed;

impl Intake {
    /// Puts a connection at the end; gives it back where nobody will accept it.
    pub(super) fn push(&self, handed: Handed) -> Result<(), Handed> {
        let mut inner = self.lock();
        if inner.is_closed {
            return Err(handed);
        }
        inner.waiting.push_back(handed);
        let accepting = inner.accepting.take();
        drop(inner);
        accepting.into_iter().for_each(Waker::wake);
        Ok(())
    }

    /// Takes the connection that has waited longest. Whoever is told that it is closed is woken when it is closed again:
    /// it may have another socket to accept from until then.
    pub(super) fn poll_take(&self, context: &Context<'_>) -> Poll<Result<Handed, Closed>> {
        let mut inner = self.lock();
        if let Some(handed) = inner.waiting.pop_front() {
            return Poll::Ready(Ok(handed));
        }
        inner.accepting = Some(context.waker().clone());
        if inner.is_closed { Poll::Ready(Err(Closed)) } else { Poll::Pending }
    }

    /// Lets nothing in any more; gives out what waits.
    pub(super) fn close(&self) -> VecDeque<Handed> {
        let mut inner = self.lock();
        inner.is_closed = true;
        let waiting = std::mem::take(&mut inner.waiting);
        let accepting = inner.accepting.take();
        drop(inner);
        accepting.into_iter().for_each(Waker::wake);
        waiting
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
