//! Streams of events, one for each listener, and what holds workers back while one has taken too little.
//!
//! What comes together is told together, and taken together: a listener who is woken for each is asleep again before the
//! next, and two threads that take a lock for each stand in each other's way.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;

use super::{Event, WorkerHandle};
use crate::message::Message;
use crate::primary::{Flow, HANDLE_BYTES};

/// How many messages and lines may wait to be taken; more are not read from workers.
const MOST: usize = 4096;

/// How many bytes of them.
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// How many bytes of them are kept for a listener that has not come yet.
const KEPT_BYTES: usize = 1024 * 1024;

/// How many events are taken together, and bytes of them.
const TOGETHER: usize = 64;
const TOGETHER_BYTES: usize = 64 * 1024;

/// What happens, as one listener hears it.
///
/// Each stream gets every event. One that is not read holds back what workers write (after 4,096 messages and lines, or
/// 16 MiB of them), so drop those that you do not read. Those that are there before anybody asks for them, the cluster's own
/// and one of each worker, hold back nobody until then: what they had no room for is [told](Event::Missed) first. Nor do they keep
/// a socket open that came with a message: it is there for who asks first, and closed when all who were told of it have dropped it.
#[derive(Debug)]
pub struct Events {
    queue: Arc<Queue>,
    /// What comes before all that is in the queue. It has no weight any more.
    taken: VecDeque<Event>,
}

#[derive(Debug)]
struct Queue {
    state: Mutex<State>,
    arrived: Notify,
    flow: Arc<Flow>,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<Event>,
    /// How many of them are messages or lines, and their bytes.
    held: usize,
    bytes: usize,
    reader: Reader,
    missed: Missed,
    /// It holds back what workers write.
    is_full: bool,
    is_over: bool,
}

/// What there was no room for while the reader was awaited.
#[derive(Clone, Copy, Debug, Default)]
struct Missed {
    events: u64,
    handles: u64,
}

impl Missed {
    fn take(&mut self) -> Option<Event> {
        let Self { events, handles } = std::mem::take(self);
        (events > 0).then_some(Event::Missed { events, handles })
    }
}

/// Who reads from a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reader {
    /// Nobody has asked for it so far: the oldest is dropped where there is too much.
    Awaited,
    /// Somebody has: nothing is dropped any more.
    #[default]
    There,
    /// Nobody will any more.
    Gone,
}

impl State {
    fn push(&mut self, mut event: Event) {
        if let Event::Message { message, .. } = &mut event {
            match self.reader {
                Reader::Awaited => message.shelve(),
                Reader::There | Reader::Gone => message.tell(),
            }
        }
        if let Some(bytes) = weight(&event) {
            self.held += 1;
            self.bytes += bytes;
        }
        self.events.push_back(event);
        if self.reader == Reader::Awaited {
            while self.events.len() > MOST || self.bytes > KEPT_BYTES {
                self.drop_oldest();
            }
        }
    }

    /// Somebody asks for what there is, now or since long.
    fn ask(&mut self) {
        if std::mem::replace(&mut self.reader, Reader::There) == Reader::Awaited {
            for event in &mut self.events {
                if let Event::Message { message, .. } = event {
                    message.tell();
                }
            }
        }
    }

    fn pop(&mut self) -> Option<Event> {
        if let Some(missed) = self.missed.take() {
            return Some(missed);
        }
        let event = self.events.pop_front()?;
        self.unweigh(&event);
        Some(event)
    }

    /// What workers say goes first, and what became of them only when there is nothing else.
    fn drop_oldest(&mut self) {
        let oldest = self.events.iter().position(|event| weight(event).is_some());
        if let Some(event) = self.events.remove(oldest.unwrap_or(0)) {
            self.unweigh(&event);
            self.missed.events += 1;
            let has_handle = matches!(&event, Event::Message { message, .. } if message.came_with_handle());
            self.missed.handles += u64::from(has_handle);
        }
    }

    fn unweigh(&mut self, event: &Event) {
        if let Some(bytes) = weight(event) {
            self.held -= 1;
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }

    fn is_beyond(&self) -> bool {
        self.reader == Reader::There && (self.held >= MOST || self.bytes >= MOST_BYTES)
    }
}

/// What workers produce without limit, or could, has a weight. It is the same whenever it is asked for.
fn weight(event: &Event) -> Option<usize> {
    match event {
        Event::Message { message, .. } if message.came_with_handle() => {
            Some(message.json().len() + HANDLE_BYTES)
        }
        Event::Message { message, .. } => Some(message.json().len()),
        Event::Output { line, .. } => Some(line.len()),
        Event::Listening { address, .. } => Some(address.address.as_ref().map_or(0, String::len)),
        _ => None,
    }
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings the flow in line with how much is held.
    fn regulate(&self, state: &mut State) {
        let is_full = state.is_beyond();
        if is_full != std::mem::replace(&mut state.is_full, is_full) {
            if is_full {
                self.flow.close();
            } else {
                self.flow.open();
            }
        }
    }

    fn push(&self, events: impl Iterator<Item = Event>) {
        let mut state = self.state();
        if state.reader == Reader::Gone {
            // By somebody else, since the hub looked.
            return;
        }
        events.for_each(|event| state.push(event));
        self.regulate(&mut state);
        drop(state);
        self.arrived.notify_one();
    }

    fn end(&self) {
        self.state().is_over = true;
        self.arrived.notify_one();
    }
}

impl Events {
    fn new(flow: Arc<Flow>, reader: Reader) -> Self {
        let state = Mutex::new(State { reader, ..State::default() });
        Self { queue: Arc::new(Queue { state, arrived: Notify::new(), flow }), taken: VecDeque::new() }
    }

    /// A stream of what has happened, to which nothing is added.
    pub(super) fn over(told: impl IntoIterator<Item = Event>) -> Self {
        let events = Self::new(Arc::default(), Reader::There);
        {
            let mut state = events.queue.state();
            told.into_iter().for_each(|event| state.push(event));
            state.is_over = true;
        }
        events
    }

    /// The same, of which nothing is dropped any more.
    pub(super) fn asked_for(self) -> Self {
        {
            let mut state = self.queue.state();
            state.ask();
            self.queue.regulate(&mut state);
        }
        self
    }

    /// What has not been taken.
    pub(super) fn into_rest(mut self) -> Vec<Event> {
        let taken = std::mem::take(&mut self.taken);
        let mut state = self.queue.state();
        let missed = state.missed.take();
        taken.into_iter().chain(missed).chain(std::mem::take(&mut state.events)).collect()
    }

    /// Waits for what happens next; `None` when nothing more will.
    ///
    /// # Cancel safety
    ///
    /// Safe: an event that is not returned stays.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.taken.pop_front() {
                return Some(event);
            }
            if self.take_some() {
                return None;
            }
            if self.taken.is_empty() {
                self.queue.arrived.notified().await;
            }
        }
    }

    /// Takes what is there, but not too much. True if there is nothing and will be nothing.
    fn take_some(&mut self) -> bool {
        let mut state = self.queue.state();
        state.ask();
        let mut bytes = 0;
        while self.taken.len() < TOGETHER && bytes < TOGETHER_BYTES {
            let Some(event) = state.pop() else { break };
            bytes += weight(&event).unwrap_or(0);
            self.taken.push_back(event);
        }
        self.queue.regulate(&mut state);
        state.is_over && self.taken.is_empty()
    }

    /// Waits for the next message, and passes over everything else, [`Event::Missed`] too; `None` when none will come.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn next_message(&mut self) -> Option<(WorkerHandle, Message)> {
        loop {
            if let Event::Message { worker, message } = self.next().await? {
                return Some((worker, message));
            }
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        let rest = std::mem::take(&mut state.events);
        (state.held, state.bytes, state.reader) = (0, 0, Reader::Gone);
        self.queue.regulate(&mut state);
        drop(state);
        // Among it may be the last handle of a worker, which has streams of its own.
        drop(rest);
    }
}

/// Where events go out to all who listen.
#[derive(Debug)]
pub(super) struct Hub {
    flow: Arc<Flow>,
    streams: Mutex<Streams>,
}

#[derive(Debug, Default)]
struct Streams {
    open: Vec<Weak<Queue>>,
    is_over: bool,
}

impl Hub {
    pub(super) fn new(flow: Arc<Flow>) -> Self {
        Self { flow, streams: Mutex::default() }
    }

    pub(super) fn flow(&self) -> &Arc<Flow> {
        &self.flow
    }

    pub(super) fn subscribe(&self) -> Events {
        self.subscribe_as(Reader::There)
    }

    /// A stream for who may ask for it later, and may never.
    pub(super) fn subscribe_ahead(&self) -> Events {
        self.subscribe_as(Reader::Awaited)
    }

    fn subscribe_as(&self, reader: Reader) -> Events {
        let events = Events::new(Arc::clone(&self.flow), reader);
        let mut streams = self.streams();
        if streams.is_over {
            events.queue.end();
        } else {
            streams.open.retain(|queue| queue.strong_count() > 0);
            streams.open.push(Arc::downgrade(&events.queue));
        }
        events
    }

    pub(super) fn push(&self, event: Event) {
        self.push_all(std::iter::once(event));
    }

    pub(super) fn push_all(&self, events: impl Iterator<Item = Event> + Clone) {
        let streams = self.streams();
        let mut queues = streams.open.iter().filter_map(Weak::upgrade).peekable();
        while let Some(queue) = queues.next() {
            if queues.peek().is_none() {
                return queue.push(events);
            }
            queue.push(events.clone());
        }
    }

    /// Nothing more will happen.
    pub(super) fn end(&self) {
        let mut streams = self.streams();
        streams.is_over = true;
        for queue in streams.open.drain(..).filter_map(|queue| queue.upgrade()) {
            queue.end();
        }
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
