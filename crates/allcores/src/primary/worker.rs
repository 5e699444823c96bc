//! What the engine keeps about one live worker, and the task that watches its process.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use allcores_core::channel::Speaker;
use allcores_core::worker::{Rung, Slot, WorkerId};
use tokio::sync::mpsc;

use super::{Stream, WorkerRef};
use crate::channel;
use crate::ports::{Applicant, LaneId};
use crate::sys::Watch;
use crate::sys::seccomp::{self, Notification};

mod lines;

use lines::LineReader;

/// Something that a task saw of a worker.
#[derive(Debug)]
pub(super) enum Seen {
    /// It wrote a line.
    Output(WorkerId, Stream, Vec<u8>),
    /// Its process has ended; its exit waits to be taken.
    Ended(WorkerId),
    /// A thread of it waits in a system call.
    Notified(WorkerId, Notification),
    /// It sent a message.
    Message(WorkerId, allcores_core::channel::Incoming),
    /// Its channel has ended.
    ChannelEnded(WorkerId, channel::End),
    /// It has had time to go after its channel ended.
    Overdue(WorkerId),
    /// It has had time to call `listen` on a lane that listens already.
    Settled(WorkerId, LaneId),
}

/// How many of the last lines of a worker's output are kept for a post-mortem.
const TAIL: usize = 12;

/// A live worker.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) about: WorkerRef,
    pub(super) replaces: Option<WorkerId>,
    pub(super) pidfd: Arc<OwnedFd>,
    /// Where its notifications are answered.
    pub(super) listener: Option<Arc<Watch>>,
    pub(super) channel: Option<channel::Sender>,
    pub(super) speaker: Speaker,
    /// Listeners given over the channel, by key.
    pub(super) keys: BTreeMap<String, LaneId>,
    pub(super) rung: Option<Rung>,
    /// Lanes that it was given, and how.
    pub(super) lanes: BTreeMap<LaneId, Rung>,
    /// Lanes on which it was announced to listen.
    pub(super) announced: BTreeSet<LaneId>,
    pub(super) tail: VecDeque<Vec<u8>>,
    /// It was asked to stop.
    pub(super) is_retired: bool,
    pub(super) tasks: Vec<tokio::task::AbortHandle>,
}

impl Worker {
    pub(super) fn applicant(&self) -> Applicant {
        Applicant { worker: self.about.id, slot: self.about.slot, replaces: self.replaces }
    }

    pub(super) fn remember(&mut self, line: &[u8]) {
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(line.to_vec());
    }

    /// Says something over its channel, if it has one.
    pub(super) fn say(&mut self, line: impl FnOnce(&mut Speaker) -> String, descriptor: Option<OwnedFd>) {
        if let Some(channel) = &self.channel {
            channel.send(line(&mut self.speaker), descriptor);
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Reads a worker's output until its process has ended, all of it, and then tells of the end.
pub(super) async fn watch_process(
    id: WorkerId,
    process: Watch,
    stdout: Option<Watch>,
    stderr: Option<Watch>,
    seen: mpsc::Sender<Seen>,
) {
    let mut out = LineReader::new(stdout);
    let mut err = LineReader::new(stderr);
    loop {
        tokio::select! {
            biased;
            lines = out.read(), if out.is_open() => tell(id, Stream::Stdout, lines, &seen).await,
            lines = err.read(), if err.is_open() => tell(id, Stream::Stderr, lines, &seen).await,
            _ = process.wait_readable() => break,
        }
    }
    // What it wrote is in the pipes now, whoever else holds their other ends.
    tell(id, Stream::Stdout, out.drain(), &seen).await;
    tell(id, Stream::Stderr, err.drain(), &seen).await;
    let _ = seen.send(Seen::Ended(id)).await;
}

async fn tell(id: WorkerId, stream: Stream, lines: Vec<Vec<u8>>, seen: &mpsc::Sender<Seen>) {
    for line in lines {
        let _ = seen.send(Seen::Output(id, stream, line)).await;
    }
}

/// Passes on a worker's notifications until no process of it is left.
pub(super) async fn watch_notifications(id: WorkerId, listener: Arc<Watch>, seen: mpsc::Sender<Seen>) {
    while let Ok(notification) = listener.read(seccomp::receive).await {
        if seen.send(Seen::Notified(id, notification)).await.is_err() {
            return;
        }
    }
}

/// Carries a worker's channel until it ends.
pub(super) async fn watch_channel(id: WorkerId, carrier: channel::Carrier, seen: mpsc::Sender<Seen>) {
    let end = carrier.run(&seen, |message| Seen::Message(id, message)).await;
    let _ = seen.send(Seen::ChannelEnded(id, end)).await;
}

impl Worker {
    pub(super) fn new(slot: Slot, id: WorkerId, pid: u32, pidfd: OwnedFd) -> Self {
        Self {
            about: WorkerRef { id, slot, pid },
            replaces: None,
            pidfd: Arc::new(pidfd),
            listener: None,
            channel: None,
            speaker: Speaker::default(),
            keys: BTreeMap::new(),
            rung: None,
            lanes: BTreeMap::new(),
            announced: BTreeSet::new(),
            tail: VecDeque::new(),
            is_retired: false,
            tasks: Vec::new(),
        }
    }
}
