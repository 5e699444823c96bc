//! Messages that have come and have not been taken.
//!
//! Before the program asks for any, so many are kept and further ones are dropped: it may never ask. Once it has, none
//! is lost, and the channel is read no further while it is behind. It is at any time while many sockets wait that came with
//! them: each is one of the process's descriptors, and some client's connection.
//!
//! What has come together is put in together: a reader that is woken for each message is asleep again before the next, and
//! two threads that take a lock for each stand in each other's way.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::Message;

/// How many messages may wait.
pub(super) const LIMIT: usize = 4096;

/// How many of them may have come with a socket: few of the 1,024 descriptors that a process usually may have.
pub(super) const HANDLES: usize = 64;

/// How many are put in together, while more come.
pub(super) const TOGETHER: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    arrived: Notify,
    /// No more is to be read for now. Changed under the lock.
    is_behind: AtomicBool,
    caught_up: Notify,
}

#[derive(Debug, Default)]
struct State {
    messages: VecDeque<Message>,
    /// How many of them came with a socket.
    handles: usize,
    has_reader: bool,
    /// How many readers wait to be told.
    waiting: usize,
    is_closed: bool,
}

impl State {
    fn is_full(&self) -> bool {
        (self.has_reader && self.messages.len() >= LIMIT) || self.handles >= HANDLES
    }

    /// Whether more are to be read for a reader that was behind. If that were done for each that it takes, the channel's
    /// thread would be woken for each.
    fn is_half_empty(&self) -> bool {
        self.messages.len() <= LIMIT / 2 && self.handles <= HANDLES / 2
    }

    fn pop(&mut self) -> Option<Message> {
        let message = self.messages.pop_front()?;
        self.handles -= usize::from(message.came_with_handle());
        Some(message)
    }
}

impl Inbox {
    /// Puts messages at the end, if there are any, and tells whoever waits.
    pub(super) fn push(&self, come: &mut Vec<Message>) {
        if come.is_empty() {
            return;
        }
        let mut state = self.state();
        if state.is_closed {
            come.clear();
            return;
        }
        for message in come.drain(..) {
            let with_handle = message.came_with_handle();
            if state.has_reader || with_handle || state.messages.len() < LIMIT {
                state.handles += usize::from(with_handle);
                state.messages.push_back(message);
            }
        }
        if state.is_full() {
            self.is_behind.store(true, Ordering::Relaxed);
        }
        drop(state);
        self.arrived.notify_one();
    }

    /// Whether a reader is so far behind that no more should be read for it until it has [caught up](Self::caught_up).
    pub(super) fn is_behind(&self) -> bool {
        self.is_behind.load(Ordering::Relaxed)
    }

    /// Waits until a reader that was behind is no longer. Others may have made it so again since.
    pub(super) async fn caught_up(&self) {
        self.caught_up.notified().await;
    }

    /// Takes the message that has waited longest; `None` when all have been taken and none can come any more.
    pub(super) async fn next(&self) -> Option<Message> {
        loop {
            let arrived = {
                let mut state = self.state();
                state.has_reader = true;
                let message = state.pop();
                if self.is_behind() && state.is_half_empty() {
                    self.is_behind.store(false, Ordering::Relaxed);
                    self.caught_up.notify_one();
                }
                if message.is_some() || state.is_closed {
                    let is_for_others = state.waiting > 0 && (state.is_closed || !state.messages.is_empty());
                    drop(state);
                    if is_for_others {
                        self.arrived.notify_one();
                    }
                    return message;
                }
                self.wait(state)
            };
            arrived.await;
        }
    }

    /// Lets nothing in any more.
    pub(super) fn close(&self) {
        self.state().is_closed = true;
        self.arrived.notify_one();
    }

    /// Waits to be told, as one of those who wait.
    fn wait(&self, mut state: MutexGuard<'_, State>) -> impl Future<Output = ()> {
        state.waiting += 1;
        let waits = Waits(self);
        drop(state);
        async move {
            waits.0.arrived.notified().await;
            drop(waits);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who waits. No more when this is dropped, be it that nobody polls it any longer.
struct Waits<'a>(&'a Inbox);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.state().waiting -= 1;
    }
}
