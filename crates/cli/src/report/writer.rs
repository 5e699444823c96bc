//! Gets lines out on a thread of its own, so that a reader who doesn't read, or a disk that doesn't write, holds up nobody.
//!
//! A queue bounded by bytes stands between. When it is full, workers' lines are dropped and counted, and the count
//! is told in their place; our own lines are few and wait for room in a reserve.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use allcores::primary::spawn_deaf;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;

use super::loss::{Dropped, Loss};

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

    /// Where it counts the lines that it could not write.
    fn lost(&self) -> Arc<AtomicU64>;

    /// Opens anew what it writes to.
    fn reopen(&mut self) {}
}

/// Dresses what is said about lines that were dropped.
type Note = Box<dyn Fn(&Dropped) -> (Sink, Vec<u8>) + Send + Sync>;

/// Two streams. Where nobody reads one any more, what would go there is thrown away. What can't be written for another reason, as
/// the disk is full, is counted, and said as soon as something can be written there again.
pub(super) struct Streams {
    stdout: Stream,
    stderr: Stream,
    note: Note,
}

/// One of them.
struct Stream {
    /// `None` when nobody reads it any more.
    fd: Option<Box<dyn AsFd + Send>>,
    /// The last thing that was written ends in the middle of a line.
    is_cut: bool,
    loss: Loss,
}

impl Streams {
    pub(super) fn new(
        stdout: impl AsFd + Send + 'static,
        stderr: impl AsFd + Send + 'static,
        note: impl Fn(&Dropped) -> (Sink, Vec<u8>) + Send + Sync + 'static,
    ) -> Self {
        let lost = Arc::default();
        let (stdout, stderr) = (Stream::new(stdout, &lost), Stream::new(stderr, &lost));
        Self { stdout, stderr, note: Box::new(note) }
    }

    fn stream(&mut self, sink: Sink) -> &mut Stream {
        match sink {
            Sink::Stdout => &mut self.stdout,
            Sink::Stderr => &mut self.stderr,
        }
    }

    /// Writes whole lines, and counts what is lost. Says whether nothing is.
    fn put(&mut self, sink: Sink, lines: &[u8]) -> bool {
        let stream = self.stream(sink);
        let put = stream.put(lines);
        if let Err((lost, reason)) = put {
            stream.loss.lose(lost, reason.to_string());
        }
        put.is_ok()
    }
}

impl Out for Streams {
    fn write(&mut self, sink: Sink, lines: &[u8]) {
        let Some(dropped) = self.stream(sink).loss.untold().cloned() else {
            self.put(sink, lines);
            return;
        };
        let (to, note) = (self.note)(&dropped);
        if to != sink {
            // What is said elsewhere can't be tried first, and is said once it is over.
            if self.put(sink, lines) && self.stream(to).put(&note).is_ok() {
                self.stream(sink).loss.told();
            }
            return;
        }
        let stream = self.stream(sink);
        match stream.put(&note) {
            Ok(()) => {
                stream.loss.told();
                self.put(sink, lines);
            }
            Err((_, reason)) => drop(stream.loss.lose(ended(lines), reason.to_string())),
        }
    }

    fn lost(&self) -> Arc<AtomicU64> {
        self.stdout.loss.all()
    }
}

impl Stream {
    fn new(fd: impl AsFd + Send + 'static, lost: &Arc<AtomicU64>) -> Self {
        Self { fd: Some(Box::new(fd)), is_cut: false, loss: Loss::among(lost) }
    }

    /// Writes whole lines; why not all, and how many are lost. A line of which a part was written is one.
    fn put(&mut self, lines: &[u8]) -> Result<(), (u64, Errno)> {
        let Some(fd) = self.fd.as_deref().map(AsFd::as_fd) else { return Ok(()) };
        let end: &[u8] = if self.is_cut { b"\n" } else { b"" };
        let put = write_chunk(fd, end).and_then(|()| {
            self.is_cut = false;
            write_chunk(fd, lines)
        });
        match put {
            Ok(()) => Ok(()),
            Err((_, error)) if is_gone(fd, error) => {
                self.fd = None;
                Ok(())
            }
            Err((written, reason)) => {
                if written > 0 {
                    self.is_cut = lines[written - 1] != b'\n';
                }
                Err((ended(&lines[written..]), reason))
            }
        }
    }
}

/// The queue's end that never blocks.
pub(super) struct Writer {
    queue: Arc<Queue>,
}

struct Queue {
    limit: usize,
    /// Why lines are dropped that find it full.
    why: &'static str,
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
    loss: Loss,
    is_closed: bool,
    has_ended: bool,
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
    /// Starts the thread. `why` lines are dropped that find the queue full; `note` dresses what is said about that.
    pub(super) fn start(
        limit: usize,
        out: impl Out,
        why: &'static str,
        note: impl Fn(&Dropped) -> (Sink, Vec<u8>) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let queue = Arc::new(Queue {
            limit,
            why,
            note: Box::new(note),
            state: Mutex::new(State { loss: Loss::among(&out.lost()), ..State::default() }),
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

    /// Hands in the last line of all, its end included: there is always room for it.
    pub(super) fn push_last(&self, sink: Sink, line: &[u8]) {
        self.queue.push(sink, line, usize::MAX);
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

    /// How many lines were dropped, or could not be written, until now.
    pub(super) fn lost(&self) -> u64 {
        self.queue.lock().loss.all().load(Ordering::Relaxed)
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

    /// Waits until all is written and what it was written to let go of, and no longer than `patience`. Says whether it is.
    /// Nothing can be handed in after.
    pub(super) fn finish(&self, patience: Duration) -> bool {
        let mut state = self.queue.lock();
        state.is_closed = true;
        self.queue.pushed.notify_one();
        let (state, _) = self
            .queue
            .drained
            .wait_timeout_while(state, patience, |state| !state.has_ended)
            .unwrap_or_else(PoisonError::into_inner);
        state.has_ended
    }
}

impl State {
    fn is_done(&self) -> bool {
        self.waiting == 0 && self.loss.untold().is_none()
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

    /// Puts what is said about lost lines where they would have been.
    fn add_note(&mut self, note: &Note) {
        if let Some(dropped) = self.loss.told() {
            let (sink, text) = note(&dropped);
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
            state.loss.lose(1, self.why);
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
        // A log is another's to lock by then.
        drop(out);
        self.lock().has_ended = true;
        self.drained.notify_all();
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

/// Writes it all; how much that was, if not all. A stream that somebody who shares it made non-blocking is waited for.
fn write_chunk(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<(), (usize, Errno)> {
    let mut written = 0;
    while written < bytes.len() {
        match rustix::io::write(fd, &bytes[written..]) {
            Ok(count) => written += count,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => match poll(&mut [PollFd::new(&fd, PollFlags::OUT)], None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err((written, error)),
            },
            Err(error) => return Err((written, error)),
        }
    }
    Ok(())
}

/// Whether nobody will read there any more: a pipe's other end is closed, or a terminal has hung up.
fn is_gone(fd: BorrowedFd<'_>, error: Errno) -> bool {
    let is_terminal =
        || fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice);
    error == Errno::PIPE || (error == Errno::IO && is_terminal())
}

/// How many lines end in there.
pub(crate) fn ended(lines: &[u8]) -> u64 {
    lines.split(|byte| *byte == b'\n').count() as u64 - 1
}

#[cfg(test)]
mod tests;
