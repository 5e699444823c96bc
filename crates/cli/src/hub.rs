//! Events for those who ask for them, as they happen: a queue for each, bounded, so that who reads slowly misses some and
//! holds up nobody.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use allcores::primary::{Event, Outcome};

use crate::report::json;
use crate::verdict::Verdict;

/// How much may wait for one subscriber, in bytes.
const LIMIT: usize = 1024 * 1024;

/// How many there may be; each costs its queue.
pub(crate) const MAX_SUBSCRIBERS: usize = 64;

/// Tells subscribers what happens to one app. Clones tell the same.
#[derive(Clone)]
pub(crate) struct Hub {
    app: Arc<str>,
    subscribers: Arc<Mutex<Vec<Subscriber>>>,
}

struct Subscriber {
    has_output: bool,
    queue: Arc<Mutex<Queue>>,
}

#[derive(Default)]
struct Queue {
    lines: VecDeque<Arc<[u8]>>,
    bytes: usize,
    dropped: u64,
    is_ended: bool,
    /// Its reader has gone.
    is_left: bool,
    waker: Option<Waker>,
}

/// One subscriber's end: lines of JSON, ends included. Dropping it ends the subscription.
pub(crate) struct Subscription {
    app: Arc<str>,
    queue: Arc<Mutex<Queue>>,
}

impl Hub {
    /// Makes one for an app.
    pub(crate) fn new(app: &str) -> Self {
        Self { app: app.into(), subscribers: Arc::default() }
    }

    /// Begins to tell somebody; with what workers write, or without. `None` if there are too many who want to be told.
    pub(crate) fn subscribe(&self, has_output: bool) -> Option<Subscription> {
        let mut subscribers = lock(&self.subscribers);
        subscribers.retain(|subscriber| !lock(&subscriber.queue).is_left);
        if subscribers.len() >= MAX_SUBSCRIBERS {
            return None;
        }
        let queue = Arc::<Mutex<Queue>>::default();
        subscribers.push(Subscriber { has_output, queue: Arc::clone(&queue) });
        Some(Subscription { app: Arc::clone(&self.app), queue })
    }

    /// Tells of an event. Costs next to nothing while nobody listens, and never blocks.
    pub(crate) fn observe(&self, event: &Event<'_>) {
        let is_output = matches!(event, Event::Output { .. });
        let mut subscribers = lock(&self.subscribers);
        if !subscribers.iter().any(|subscriber| subscriber.has_output || !is_output) {
            return;
        }
        let line: Arc<[u8]> = json::event(&self.app, event).into();
        subscribers.retain(|subscriber| {
            let mut queue = lock(&subscriber.queue);
            if subscriber.has_output || !is_output {
                queue.push(&line);
            }
            !queue.is_left
        });
    }

    /// Tells how the run ended; nothing follows.
    pub(crate) fn conclude(&self, outcome: &Outcome, verdict: &Verdict) {
        let line: Arc<[u8]> = json::stopped(&self.app, outcome, verdict).into();
        for subscriber in lock(&self.subscribers).drain(..) {
            let mut queue = lock(&subscriber.queue);
            queue.is_ended = true;
            queue.push(&line);
        }
    }
}

impl Queue {
    fn push(&mut self, line: &Arc<[u8]>) {
        // Alone, even a line longer than the limit gets through.
        if self.bytes > 0 && self.bytes + line.len() > LIMIT {
            self.dropped += 1;
        } else {
            self.bytes += line.len();
            self.lines.push_back(Arc::clone(line));
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Subscription {
    /// Waits for the next line; `None` after the last.
    pub(crate) fn poll_next(&self, context: &Context<'_>) -> Poll<Option<Arc<[u8]>>> {
        let mut queue = lock(&self.queue);
        if let Some(line) = queue.lines.pop_front() {
            queue.bytes -= line.len();
            return Poll::Ready(Some(line));
        }
        match std::mem::take(&mut queue.dropped) {
            0 if queue.is_ended => Poll::Ready(None),
            0 => {
                queue.waker = Some(context.waker().clone());
                Poll::Pending
            }
            dropped => Poll::Ready(Some(json::dropped(&self.app, dropped).into())),
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        lock(&self.queue).is_left = true;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
