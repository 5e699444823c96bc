//! What the engine keeps about one live worker, and the task that watches its process.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use allcores_core::channel::{Incoming, Speaker};
use allcores_core::notify::Notification;
use allcores_core::worker::{Rung, Slot, WorkerId};
use bytestring::ByteString;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::answers::{Answer, Answers};
use super::engine::{Checked, Found, Look, Subject, Visitor};
use super::probe::Failing;
use super::recall::Recall;
use super::{Flow, HANDLE_BYTES, Link, Stream, WorkerRef};
use crate::cgroup::Cgroup;
use crate::channel::{self, Arrival, End};
use crate::ports::{Applicant, LaneId, Looked};
use crate::proc::Usage;
use crate::signal::Signal;
use crate::sys::Watch;
use crate::sys::seccomp;
use crate::sys::socket::Sender;

mod grants;
mod keys;
mod lines;
mod part;

pub(super) use part::{Part, PartsSaved, ProcessPart, Surroundings, Task};

pub(super) use grants::Asked;
use grants::Grants;
use keys::Keys;
use lines::Line;

/// Something that a task saw of a worker.
#[derive(Debug)]
pub(super) enum Seen {
    /// It wrote a line.
    Output(WorkerId, Stream, Line, Place),
    /// Its process has ended; its exit waits to be taken.
    Ended(WorkerId),
    /// A thread of it waits in a system call.
    Notified(WorkerId, seccomp::Notification, Place),
    /// No such calls of it are received any more.
    Unheard(WorkerId, io::Error),
    /// Something came over its channel.
    Arrived(WorkerId, Arrival<Incoming>, Place),
    /// Messages for the user came over its channel, without descriptors.
    Spoke(WorkerId, Vec<ByteString>, Place),
    /// Its channel has ended.
    ChannelEnded(WorkerId, channel::End),
    /// It has had time to go after its channel ended.
    Overdue(WorkerId),
    /// It was told to go because of what it did with its channel, and has had time to.
    Outlawed(WorkerId),
    /// A connection is known whose it is, or was not to be waited for any longer.
    Looked(Looked),
    /// It was asked to go over a channel on which it had never said a word, and has had time to.
    Mute(WorkerId),
    /// It has had time to call `listen` on a lane that listens already.
    Settled(WorkerId, LaneId),
    /// It may have closed what it bound a moment ago.
    Tried(WorkerId),
    /// Somebody has looked what workers have closed.
    LookedAt(Look),
    /// Those who bind a path at the same time have waited for each other for long enough.
    Together,
    /// A connection that was made to ask how a worker is has come there.
    Reached(SocketAddr),
    /// Somebody was asked, over a connection from there.
    Answered(Subject, Option<SocketAddr>, Result<(), Failing>),
    /// One that was handed a connection of our own, to see whether it takes anything, has, or has not in time.
    Took(WorkerId, bool),
    /// A command that was to find out how a worker is has ended, or had its time.
    Examined(u32, bool),
    /// Something came to the socket where a worker speaks of itself.
    Said(WorkerId, Sender, Notification),
    /// What workers use was measured.
    Measured(Usage),
    /// A program that was asked whether it can go on has ended, or had its time.
    Checked(Checked),
    /// Somebody came by itself and wants to be a worker's channel.
    Came(Visitor),
    /// The search for who has an address that a worker could not have is over.
    Found(Found),
}

/// What was told of its not having got what it asked for.
#[derive(Debug, Default)]
pub(super) struct Refused {
    /// Addresses that it could not have.
    pub(super) addresses: BTreeSet<String>,
    /// That it could not have more than it had.
    pub(super) is_limit_told: bool,
}

/// How many of the last lines of a worker's output are kept for a post-mortem.
const TAIL: usize = 12;

/// A live worker.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) about: WorkerRef,
    /// What it belongs to.
    pub(super) generation: u32,
    pub(super) replaces: Option<WorkerId>,
    /// Whom it runs as, if not as we do.
    pub(super) user: Option<u32>,
    /// Addresses that the worker before it listens on, and it does not yet.
    pub(super) awaited: BTreeSet<String>,
    pub(super) pidfd: Arc<OwnedFd>,
    /// It has one of its own, with limits.
    pub(super) cgroup: Option<Cgroup>,
    /// Where its notifications are answered.
    pub(super) listener: Option<Arc<Watch>>,
    pub(super) channel: Option<channel::Sender>,
    /// Whether more of what it writes is wanted.
    pub(super) flow: Arc<Flow>,
    /// Its share of the engine's time.
    pub(super) share: Share,
    /// It has said something over its channel.
    pub(super) has_spoken: bool,
    pub(super) speaker: Speaker,
    /// Listeners given over the channel.
    pub(super) keys: Keys,
    /// Of these, those that it has not said of that it listens there.
    pub(super) grants: Grants,
    /// How often it has said so in a row while those who are told took too little.
    pub(super) unheard: u32,
    pub(super) rung: Option<Rung>,
    /// Lanes that it was given, and how.
    pub(super) lanes: BTreeMap<LaneId, Rung>,
    /// Those of them that were bound beside the program that it runs: by node's inspector. It opens when somebody wants to
    /// look into this very worker, and no other is expected to do the same.
    pub(super) aside: BTreeSet<LaneId>,
    /// When it was given a lane, the last time: what was seen of it before says nothing any more.
    pub(super) given: BTreeMap<LaneId, Duration>,
    /// How often it is to be looked whether it has closed what it has bound.
    pub(super) looks: u8,
    /// Lanes on which it was announced to listen.
    pub(super) announced: BTreeSet<LaneId>,
    pub(super) tail: VecDeque<Vec<u8>>,
    /// It was asked to stop.
    pub(super) is_retired: bool,
    /// CPU time that it has used, known when it has ended.
    pub(super) cpu: Duration,
    /// What it gets to stop, until it has got it.
    pub(super) stop_signal: Option<Signal>,
    /// The other end of its channel came by itself.
    pub(super) has_come: bool,
    pub(super) refused: Refused,
    /// How it is, in its own words.
    pub(super) said_status: Option<String>,
    /// How much memory it was last found to have, of how much it may, where that was too much.
    pub(super) excess: Option<(u64, u64)>,
    /// Watches its process. Told of its end, it ends by itself.
    pub(super) process: Option<Task>,
    pub(super) tasks: Vec<Task>,
}

impl Worker {
    /// It asks for a listener. Says whether a reload is to bring its version.
    pub(super) fn applicant(&self, is_on_trial: bool) -> Applicant {
        Applicant {
            worker: self.about.id,
            slot: self.about.slot,
            replaces: self.replaces,
            is_by_channel: false,
            policy: None,
            is_on_trial,
        }
    }

    pub(super) fn link(&self) -> Link {
        Link { pidfd: Arc::clone(&self.pidfd), channel: self.channel.clone(), flow: Arc::clone(&self.flow) }
    }

    /// It was given a lane that it has bound, or listens on, by itself: be it beside the program that it runs.
    pub(super) fn adopt(&mut self, lane: LaneId, is_aside: bool, now: Duration) {
        self.lanes.entry(lane).or_insert(Rung::Adopted);
        self.given.insert(lane, now);
        if is_aside {
            self.aside.insert(lane);
        }
    }

    /// It has a lane no more.
    pub(super) fn forget_lane(&mut self, lane: LaneId) {
        self.lanes.remove(&lane);
        self.aside.remove(&lane);
        self.given.remove(&lane);
        self.announced.remove(&lane);
        self.keys.remove_lane(lane);
    }

    pub(super) fn remember(&mut self, line: &[u8]) {
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(line.to_vec());
    }

    /// Says something over its channel, if it has one.
    pub(super) fn say(
        &mut self,
        line: impl FnOnce(&mut Speaker) -> String,
        descriptor: Option<Arc<OwnedFd>>,
    ) {
        if let Some(channel) = &self.channel {
            channel.send(line(&mut self.speaker), descriptor);
        }
    }

    /// Hands over a connection for its listener on the address of `lane`; returns the number that its answer will name.
    pub(super) fn hand_over(&mut self, lane: LaneId, connection: Arc<OwnedFd>) -> Option<u64> {
        let message = self.speaker.hand_over(self.keys.beside(lane)?);
        self.send_connection(message, connection)
    }

    /// As [`hand_over`](Self::hand_over), for a listener of this key, whether there is one or not.
    pub(super) fn hand_over_to(&mut self, key: &str, connection: Arc<OwnedFd>) -> Option<u64> {
        let message = self.speaker.hand_over(key);
        self.send_connection(message, connection)
    }

    fn send_connection(&self, (number, line): (u64, String), connection: Arc<OwnedFd>) -> Option<u64> {
        self.channel.as_ref()?.hand_over(line, connection, number);
        Some(number)
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
async fn watch_process(
    id: WorkerId,
    part: Box<ProcessPart>,
    flows: Flows,
    (share, seen): (Share, mpsc::Sender<Seen>),
    mut recall: Recall,
) -> Option<Part> {
    let tell = async |stream, lines: Vec<Line>| {
        for line in lines {
            let place = share.take(size_of(line.bytes.len())).await;
            let _ = seen.send(Seen::Output(id, stream, line, place)).await;
        }
    };
    let ProcessPart { process, mut out, mut err, ending } = *part;
    loop {
        if recall.is_called() {
            return Some(Part::Process(Box::new(ProcessPart { process, out, err, ending })));
        }
        // Once for all: another thread may change it meanwhile.
        let are_open = flows.are_open();
        tokio::select! {
            biased;
            // First, as what it has started may write without end.
            _ = process.wait_readable() => break,
            () = flows.wait(), if !are_open => {}
            lines = out.read(), if out.is_open() && are_open => tell(Stream::Stdout, lines).await,
            lines = err.read(), if err.is_open() && are_open => tell(Stream::Stderr, lines).await,
            () = recall.called() => {}
        }
    }
    // What it wrote is in the pipes now, whoever else holds their other ends.
    tell(Stream::Stdout, out.drain()).await;
    tell(Stream::Stderr, err.drain()).await;
    ending.finish().await;
    let _ = seen.send(Seen::Ended(id)).await;
    None
}

/// Passes on a worker's notifications until no process of it is left, or they can't be received; and tells of that end: who
/// calls would wait for ever as long as anybody has the listener.
async fn watch_notifications(
    id: WorkerId,
    listener: Arc<Watch>,
    (share, seen): (Share, mpsc::Sender<Seen>),
    mut recall: Recall,
) -> Option<Part> {
    loop {
        if recall.is_called() {
            return Some(Part::Notifications(listener));
        }
        let notification = tokio::select! {
            biased;
            notification = listener.read_or_fail(seccomp::receive) => notification,
            () = recall.called() => continue,
        };
        let notification = match notification {
            Ok(notification) => notification,
            Err(error) => {
                let _ = seen.send(Seen::Unheard(id, error)).await;
                return None;
            }
        };
        let place = share.take(1).await;
        seen.send(Seen::Notified(id, notification, place)).await.ok()?;
    }
}

/// Carries a worker's channel until it ends. What the worker wrote is passed on as far as more is wanted, and all of it
/// once its process has ended.
async fn watch_channel(
    id: WorkerId,
    mut carrier: channel::Carrier,
    flows: Flows,
    mut ended: Ended,
    (share, seen, answers): (Share, mpsc::Sender<Seen>, Answers),
    recall: Recall,
) -> Option<(channel::Carrier, Ended)> {
    let mut at_hand = None;
    let mut excused = 0;
    let mut waiting = recall.clone();
    // Once for all: to begin to wait costs more than what mostly comes.
    let mut called = pin!(waiting.called());
    loop {
        if at_hand.is_none() && recall.is_called() {
            return Some((carrier, ended));
        }
        let arrival = if let Some(arrival) = at_hand.take() {
            arrival
        } else {
            tokio::select! {
                biased;
                arrival = carrier.next() => arrival,
                () = &mut called => return Some((carrier, ended)),
            }
        };
        let arrival = match arrival {
            Ok(Arrival::Message { message: Incoming::Accepted { ack, is_accepted }, descriptor: None })
                if answers.push(Answer { worker: id, ack, is_accepted }) =>
            {
                continue;
            }
            Ok(arrival) => arrival,
            Err(end) => {
                let _ = seen.send(Seen::ChannelEnded(id, end)).await;
                return None;
            }
        };
        let bytes = bytes_of(&arrival);
        let handle = match &arrival {
            Arrival::Message { descriptor: Some(_), .. } => HANDLE_BYTES,
            _ => 0,
        };
        if flows.are_open() {
            excused = 0;
        } else if is_for_user(&arrival) {
            // What we have to say to the worker goes out meanwhile. Who is to take what it says may wait for just that.
            let is_excused = excused < MOST_EXCUSED;
            tokio::select! {
                _ = carrier.only_write(is_excused) => excused += bytes.max(UNIT) + handle,
                () = flows.wait() => {}
                () = ended.wait() => {}
            }
        }
        let sighting = match arrival {
            Arrival::Message { message: Incoming::User(first), descriptor: None } => {
                let (texts, size) = gather(&mut carrier, first, &mut at_hand);
                Seen::Spoke(id, texts, share.take(size).await)
            }
            arrival => Seen::Arrived(id, arrival, share.take(size_of(bytes)).await),
        };
        let _ = seen.send(sighting).await;
    }
}

/// The messages for the user that have come together with one, and the size of them all. What comes behind them and is none,
/// or is the end, is left at hand.
fn gather(
    carrier: &mut channel::Carrier,
    first: ByteString,
    at_hand: &mut Option<Result<Arrival<Incoming>, End>>,
) -> (Vec<ByteString>, u32) {
    let mut size = size_of(first.len());
    let mut texts = vec![first];
    while size < TOGETHER && at_hand.is_none() {
        match carrier.next_read() {
            Ok(None) => break,
            Ok(Some(Arrival::Message { message: Incoming::User(text), descriptor: None })) => {
                size += size_of(text.len());
                texts.push(text);
            }
            other => *at_hand = other.transpose(),
        }
    }
    (texts, size)
}

/// How much of what one worker says may wait for the engine, in messages, each of so many bytes or begun.
const SHARE: u32 = 64;
const UNIT: usize = 1024;

/// How many bytes of what one worker says are passed on though its user has taken too little, as an acknowledgement that the
/// user waits for may be behind them.
const MOST_EXCUSED: usize = 16 * 1024 * 1024;

/// How much of it is passed on together.
const TOGETHER: u32 = SHARE / 2;

/// What an arrival weighs.
fn bytes_of(arrival: &Arrival<Incoming>) -> usize {
    let of = |message: &Incoming| match message {
        Incoming::User(text) => text.len(),
        Incoming::Query(query) => {
            [&query.data, &query.address, &query.policy].into_iter().flatten().map(String::len).sum()
        }
        Incoming::Listening { address, .. } => address.as_ref().map_or(0, String::len),
        Incoming::Close { key } => key.len(),
        _ => 0,
    };
    match arrival {
        Arrival::Message { message: Incoming::Handle { message, .. }, .. } => of(message),
        Arrival::Message { message, .. } => of(message),
        Arrival::Lost { .. } | Arrival::Unreceived(_) => 0,
    }
}

fn size_of(bytes: usize) -> u32 {
    u32::try_from(1 + bytes / UNIT).unwrap_or(SHARE).min(SHARE)
}

/// One worker's share of what waits for the engine. Who has more to say waits until some of it has been taken in, and
/// meanwhile others have their turn.
#[derive(Clone, Debug)]
pub(super) struct Share(Arc<Semaphore>);

/// A place among what waits for the engine. It is another's once this is dropped.
#[derive(Debug)]
pub(super) struct Place(#[expect(dead_code, reason = "held, not looked at")] Option<OwnedSemaphorePermit>);

impl Default for Share {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(SHARE as usize)))
    }
}

impl Share {
    /// Waits for a place of this size.
    async fn take(&self, size: u32) -> Place {
        Place(Arc::clone(&self.0).acquire_many_owned(size.min(SHARE)).await.ok())
    }
}

fn is_for_user(arrival: &Arrival<Incoming>) -> bool {
    let Arrival::Message { message, .. } = arrival else { return false };
    matches!(message, Incoming::User(_) | Incoming::Handle { .. })
}

/// Whether more of what a worker writes is wanted: by those who listen to all, and to it.
#[derive(Clone, Debug)]
pub(super) struct Flows {
    pub(super) all: Option<Arc<Flow>>,
    pub(super) own: Arc<Flow>,
}

impl Flows {
    fn are_open(&self) -> bool {
        self.own.is_open() && self.all.as_ref().is_none_or(|all| all.is_open())
    }

    async fn wait(&self) {
        while !self.are_open() {
            self.own.wait().await;
            if let Some(all) = &self.all {
                all.wait().await;
            }
        }
    }
}

/// How long a channel may stay open when its worker has ended: somebody else holds it too.
const LEFT_OPEN: Duration = Duration::from_millis(200);

/// Made where the end of a process is seen; told to the task that reads its channel.
#[derive(Debug)]
pub(super) struct Ending {
    tell: oneshot::Sender<()>,
    done: oneshot::Receiver<()>,
}

/// Held by the task that reads the channel. Dropped when all has been read.
#[derive(Debug)]
pub(super) struct Ended {
    told: Option<oneshot::Receiver<()>>,
    _done: oneshot::Sender<()>,
}

pub(super) fn ending() -> (Ending, Ended) {
    let (tell, told) = oneshot::channel();
    let (finish, done) = oneshot::channel();
    (Ending { tell, done }, Ended { told: Some(told), _done: finish })
}

impl Ending {
    /// Waits until all has been passed on that the worker wrote to its channel.
    async fn finish(self) {
        let _ = self.tell.send(());
        let _ = tokio::time::timeout(LEFT_OPEN, self.done).await;
    }
}

impl Ended {
    /// Waits until the process has ended; does not wait again.
    async fn wait(&mut self) {
        if let Some(told) = &mut self.told {
            let _ = told.await;
            self.told = None;
        }
    }
}

impl Worker {
    pub(super) fn new(slot: Slot, id: WorkerId, generation: u32, pid: u32, pidfd: OwnedFd) -> Self {
        Self {
            about: WorkerRef { id, slot, pid },
            generation,
            replaces: None,
            user: None,
            awaited: BTreeSet::new(),
            pidfd: Arc::new(pidfd),
            cgroup: None,
            listener: None,
            channel: None,
            flow: Arc::default(),
            share: Share::default(),
            has_spoken: false,
            speaker: Speaker::default(),
            keys: Keys::default(),
            grants: Grants::default(),
            unheard: 0,
            rung: None,
            lanes: BTreeMap::new(),
            aside: BTreeSet::new(),
            given: BTreeMap::new(),
            looks: 0,
            announced: BTreeSet::new(),
            tail: VecDeque::new(),
            is_retired: false,
            cpu: Duration::ZERO,
            stop_signal: None,
            has_come: false,
            refused: Refused::default(),
            said_status: None,
            excess: None,
            process: None,
            tasks: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
