//! Workers' answers for connections that they were handed, on their way to the engine.
//!
//! By far the most frequent of what is seen of workers, and the least: two numbers. So they have a way of their own, without a place
//! to be waited for and a permit for each. It has an end: beyond it they go the way of everything else, where each worker
//! has its share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use allcores_core::worker::WorkerId;

/// How many may wait: as many as are taken in together.
const MOST: usize = 64;

/// What a worker has said of what it was handed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) worker: WorkerId,
    /// The number of the message that it answers.
    pub(super) ack: u64,
    pub(super) is_accepted: bool,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Answers(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    answers: Vec<Answer>,
    taker: Option<Waker>,
}

impl Answers {
    /// Passes one on. False if there is no room for it.
    pub(super) fn push(&self, answer: Answer) -> bool {
        let mut waiting = self.waiting();
        if waiting.answers.len() >= MOST {
            return false;
        }
        waiting.answers.push(answer);
        // Who takes them has been woken for the first.
        let taker = if waiting.answers.len() == 1 { waiting.taker.take() } else { None };
        drop(waiting);
        taker.into_iter().for_each(Waker::wake);
        true
    }

    /// Waits until there is one.
    pub(super) fn poll_any(&self, context: &Context<'_>) -> Poll<()> {
        let mut waiting = self.waiting();
        if waiting.answers.is_empty() {
            waiting.taker = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// Moves all there are into `taken`, which is empty.
    pub(super) fn take(&self, taken: &mut Vec<Answer>) {
        std::mem::swap(&mut self.waiting().answers, taken);
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
