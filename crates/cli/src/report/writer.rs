//! Gets lines out on a thread of its own, so that a reader who doesn't read, or a disk that doesn't write, holds up nobody.
//!
//! A queue bounded by bytes stands between. When it is full, workers' lines are dropped and counted, and the count
//! is told in their place; our own lines are few and wait for room in a reserve.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use allcores::primary::spawn_deaf;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// Lines to one stream are written together, up to this many bytes at once.
const CHUNK: usize = 64 * 1024;

/// How much more than the limit our own lines may take, in bytes.
const RESERVE: usize = 1024 * 1024;

/// Which stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sink {
    Stdout,
    Stderr,
}

/// Where lines go. May take its time: it has a thread for itself.
pub(crate) trait Out: Send + 'static {
    /// Writes whole lines. What can't be written is its own affair.
    fn write(&mut self, sink: Sink, lines: &[u8]);

    /// Opens anew what it writes to.
    fn reopen(&mut self) {}
}

/// Two streams. Where one is gone (EPIPE), what would go there is thrown away.
pub(super) struct Streams<A, B> {
    stdout: Option<A>,
    stderr: Option<B>,
}

impl<A: AsFd, B: AsFd> Streams<A, B> {
    pub(super) fn new(stdout: A, stderr: B) -> Self {
        Self { stdout: Some(stdout), stderr: Some(stderr) }
    }
}

impl<A: AsFd + Send + 'static, B: AsFd + Send + 'static> Out for Streams<A, B> {
    fn write(&mut self, sink: Sink, lines: &[u8]) {
        match sink {
            Sink::Stdout => self.stdout = self.stdout.take().filter(|fd| write_chunk(fd, lines).is_ok()),
            Sink::Stderr => self.stderr = self.stderr.take().filter(|fd| write_chunk(fd, lines).is_ok()),
        }
    }
}

/// The queue's end that never blocks.
pub(super) struct Writer {
    queue: Arc<Queue>,
}

/// Puts a count of lost lines into words.
type Note = Box<dyn Fn(u64) -> (Sink, Vec<u8>) + Send + Sync>;

struct Queue {
    limit: usize,
    note: Note,
    state: Mutex<State>,
    pushed: Condvar,
    drained: Condvar,
}

#[derive(Default)]
struct State {
    chunks: VecDeque<Chunk>,
    /// Bytes in `chunks` and in the writing thread's hands.
    waiting: usize,
    /// Lines, since it was told last.
    dropped: u64,
    all_dropped: u64,
    is_closed: bool,
}

enum Chunk {
    Lines { sink: Sink, bytes: Vec<u8> },
    Reopen,
}

impl Chunk {
    fn len(&self) -> usize {
        match self {
            Self::Lines { bytes, .. } => bytes.len(),
            Self::Reopen => 0,
        }
    }
}

impl Writer {
    /// Starts the thread. `note` puts into words how many lines were lost.
    pub(super) fn start(
        limit: usize,
        out: impl Out,
        note: impl Fn(u64) -> (Sink, Vec<u8>) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let queue = Arc::new(Queue {
            limit,
            note: Box::new(note),
            state: Mutex::default(),
            pushed: Condvar::new(),
            drained: Condvar::new(),
        });
        let writing = Arc::clone(&queue);
        spawn_deaf("writer", move || writing.write_all(out))?;
        Ok(Self { queue })
    }

    /// Hands in a line of our own, its end included.
    pub(super) fn push(&self, sink: Sink, line: &[u8]) {
        self.queue.push(sink, line, self.queue.limit + RESERVE);
    }

    /// Hands in a worker's line, its end included; dropped if the queue is full.
    pub(super) fn push_line(&self, sink: Sink, line: &[u8]) {
        self.queue.push(sink, line, self.queue.limit);
    }

    /// Has it opened anew what is written to, behind what was handed in before.
    pub(super) fn reopen(&self) {
        let mut state = self.queue.lock();
        if !state.is_closed {
            state.chunks.push_back(Chunk::Reopen);
            self.queue.pushed.notify_one();
        }
    }

    /// How many lines were dropped until now.
    pub(super) fn dropped_in_all(&self) -> u64 {
        self.queue.lock().all_dropped
    }

    /// Waits until all that was handed in is written, and no longer than `patience`. Says whether it is.
    pub(super) fn flush(&self, patience: Duration) -> bool {
        let state = self.queue.lock();
        let (state, _) = self
            .queue
            .drained
            .wait_timeout_while(state, patience, |state| !state.is_done())
            .unwrap_or_else(PoisonError::into_inner);
        state.is_done()
    }

    /// Waits until all is written, and no longer than `patience`. Says whether it is. Nothing can be handed in after.
    pub(super) fn finish(&self, patience: Duration) -> bool {
        let mut state = self.queue.lock();
        state.is_closed = true;
        self.queue.pushed.notify_one();
        let (state, _) = self
            .queue
            .drained
            .wait_timeout_while(state, patience, |state| !state.is_done())
            .unwrap_or_else(PoisonError::into_inner);
        state.is_done()
    }
}

impl State {
    fn is_done(&self) -> bool {
        self.waiting == 0 && self.dropped == 0
    }

    fn add(&mut self, sink: Sink, line: &[u8]) {
        self.waiting += line.len();
        match self.chunks.back_mut() {
            Some(Chunk::Lines { sink: last, bytes })
                if *last == sink && bytes.len() + line.len() <= CHUNK =>
            {
                bytes.extend_from_slice(line);
            }
            _ => self.chunks.push_back(Chunk::Lines { sink, bytes: line.to_vec() }),
        }
    }

    /// Puts the count of lost lines where they would have been.
    fn add_note(&mut self, note: &Note) {
        if self.dropped > 0 {
            let (sink, text) = note(std::mem::take(&mut self.dropped));
            self.add(sink, &text);
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, sink: Sink, line: &[u8], limit: usize) {
        let mut state = self.lock();
        if state.is_closed {
            return;
        }
        // Alone, even a line longer than the limit gets through.
        if state.waiting > 0 && state.waiting + line.len() > limit {
            state.dropped += 1;
            state.all_dropped += 1;
            return;
        }
        state.add_note(&self.note);
        state.add(sink, line);
        self.pushed.notify_one();
    }

    /// The thread's life: ends when all is written and nothing more can come.
    fn write_all(&self, mut out: impl Out) {
        while let Some(chunk) = self.next_chunk() {
            match &chunk {
                Chunk::Lines { sink, bytes } => out.write(*sink, bytes),
                Chunk::Reopen => out.reopen(),
            }
            let mut state = self.lock();
            state.waiting -= chunk.len();
            if state.waiting == 0 {
                state.add_note(&self.note);
            }
            if state.is_done() {
                self.drained.notify_all();
            }
        }
    }

    fn next_chunk(&self) -> Option<Chunk> {
        let mut state = self.lock();
        loop {
            if let Some(chunk) = state.chunks.pop_front() {
                return Some(chunk);
            }
            if state.is_closed {
                return None;
            }
            state = self.pushed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Writes it all. A stream that somebody who shares it made non-blocking is waited for.
fn write_chunk(fd: &impl AsFd, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => match poll(&mut [PollFd::new(fd, PollFlags::OUT)], None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            },
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
