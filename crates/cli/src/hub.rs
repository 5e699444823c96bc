//! Events for those who ask for them, as they happen: a queue for each, bounded, so that who reads slowly misses some and
//! holds up nobody.
//!
//! When it is full, workers' lines are dropped and counted, and the count is told in their place; other events are few and have
//! a reserve. The last of all always gets in.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use allcores::primary::{Event, Outcome};

use crate::report::json;
use crate::verdict::Verdict;

/// More waiting for one subscriber than this, in bytes, and workers' lines are dropped.
const LIMIT: usize = 1024 * 1024;

/// How much more than the limit all other events may take, in bytes.
const RESERVE: usize = 1024 * 1024;

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
        let limit = if is_output { LIMIT } else { LIMIT + RESERVE };
        subscribers.retain(|subscriber| {
            let mut queue = lock(&subscriber.queue);
            if subscriber.has_output || !is_output {
                queue.push(&self.app, &line, limit);
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
            queue.push(&self.app, &line, usize::MAX);
        }
    }
}

impl Queue {
    fn push(&mut self, app: &str, line: &Arc<[u8]>, limit: usize) {
        // Alone, even a line longer than the limit gets through.
        if self.bytes > 0 && self.bytes + line.len() > limit {
            self.dropped += 1;
            return;
        }
        self.add_note(app);
        self.add(Arc::clone(line));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn add(&mut self, line: Arc<[u8]>) {
        self.bytes += line.len();
        self.lines.push_back(line);
    }

    /// Puts what is said about dropped lines where they would have been.
    fn add_note(&mut self, app: &str) {
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            self.add(json::dropped(app, dropped).into());
        }
    }
}

impl Subscription {
    /// Waits for the next line; `None` after the last.
    pub(crate) fn poll_next(&self, context: &Context<'_>) -> Poll<Option<Arc<[u8]>>> {
        let mut queue = lock(&self.queue);
        if queue.lines.is_empty() {
            queue.add_note(&self.app);
        }
        match queue.lines.pop_front() {
            Some(line) => {
                queue.bytes -= line.len();
                Poll::Ready(Some(line))
            }
            None if queue.is_ended => Poll::Ready(None),
            None => {
                queue.waker = Some(context.waker().clone());
                Poll::Pending
            }
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
