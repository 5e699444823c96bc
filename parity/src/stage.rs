//! A cluster under test, and everything that it has told.
//!
//! Waits for what is to happen, with a bound, and shows all that did happen when it did not.

use std::collections::VecDeque;
use std::time::Duration;

use allcores::{Builder, Cluster, Event, ExitStatus, Fork, Handle, ListeningAddress, WorkerHandle, WorkerId};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

/// How long a thing may take to happen.
const PATIENCE: Duration = Duration::from_secs(15);

/// What a cluster has told, as far as the tests care.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// A worker's process was made.
    Fork(WorkerId),
    /// Node has booted.
    Online(WorkerId),
    /// One of its servers listens.
    Listening(WorkerId, ListeningAddress),
    /// It said something.
    Message(WorkerId),
    /// Its channel has ended.
    Disconnect(WorkerId),
    /// Its process has ended.
    Exit(WorkerId, ExitStatus),
    /// It wrote a line to an output of it that is piped.
    Output(WorkerId, String),
    /// Something went wrong, in words.
    Wrong(String),
    /// Anything else.
    Other,
}

/// Something that a worker said.
#[derive(Debug)]
pub struct Said {
    /// Who.
    pub worker: WorkerId,
    /// What.
    pub value: Value,
    /// What came along.
    pub handle: Option<Handle>,
}

/// A cluster under test.
#[derive(Debug)]
pub struct Stage {
    /// The cluster itself.
    pub cluster: Cluster,
    seen: Vec<Seen>,
    said: VecDeque<Said>,
}

impl Stage {
    /// Starts a cluster.
    pub async fn open(builder: Builder) -> Self {
        let cluster = builder.start().await.expect("the cluster starts");
        Self { cluster, seen: Vec::new(), said: VecDeque::new() }
    }

    /// Begins to read, before there is anything: only a part of what is said is kept for a reader who has not come yet.
    pub async fn begin_to_read(&mut self) {
        if let Ok(Some(event)) = timeout_at(Instant::now(), self.cluster.next_event()).await {
            self.note(event);
        }
    }

    /// Forks a worker.
    pub async fn fork(&self) -> WorkerHandle {
        self.cluster.fork().await.expect("a worker is forked")
    }

    /// Forks so many workers.
    pub async fn fork_many(&self, count: usize) -> Vec<WorkerHandle> {
        let mut workers = Vec::new();
        for _ in 0..count {
            workers.push(self.fork().await);
        }
        workers
    }

    /// Forks a worker with a variable in its environment.
    pub async fn fork_with(&self, name: &str, value: &str) -> WorkerHandle {
        self.cluster.fork_with(Fork::new().env(name, value)).await.expect("a worker is forked")
    }

    /// All that was seen so far.
    pub fn seen(&self) -> &[Seen] {
        &self.seen
    }

    /// The kinds of what was seen of a worker, in their order.
    pub fn kinds(&self, worker: &WorkerHandle) -> Vec<&'static str> {
        self.seen.iter().filter(|seen| seen.worker() == Some(worker.id())).map(Seen::kind).collect()
    }

    /// Waits until `pick` finds what it looks for in all that was seen.
    pub async fn until<T>(&mut self, what: &str, mut pick: impl FnMut(&[Seen]) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = pick(&self.seen) {
                return found;
            }
            self.look(what, deadline).await;
        }
    }

    /// Waits for the next event.
    async fn look(&mut self, what: &str, deadline: Instant) {
        let Ok(event) = timeout_at(deadline, self.cluster.next_event()).await else {
            panic!("awaited: {what}; seen: {:?}; unread: {:?}", self.seen, self.said);
        };
        let event =
            event.unwrap_or_else(|| panic!("the cluster ended; awaited: {what}; seen: {:?}", self.seen));
        self.note(event);
    }

    fn note(&mut self, event: Event) {
        let seen = match event {
            Event::Fork { worker, .. } => Seen::Fork(worker.id()),
            Event::Online { worker, .. } => Seen::Online(worker.id()),
            Event::Listening { worker, address, .. } => Seen::Listening(worker.id(), address),
            Event::Disconnect { worker, .. } => Seen::Disconnect(worker.id()),
            Event::Exit { worker, status, .. } => Seen::Exit(worker.id(), status),
            Event::Message { worker, message, .. } => {
                let value = message.parse().expect("what a worker says is JSON");
                self.said.push_back(Said { worker: worker.id(), value, handle: message.take_handle() });
                Seen::Message(worker.id())
            }
            Event::Output { worker, line, .. } => {
                Seen::Output(worker.id(), String::from_utf8_lossy(&line).into_owned())
            }
            Event::Error { error, .. } => Seen::Wrong(error.to_string()),
            Event::Notice { text } => Seen::Wrong(text),
            _ => Seen::Other,
        };
        self.seen.push(seen);
    }

    /// Waits until node has booted in a worker.
    pub async fn online(&mut self, worker: &WorkerHandle) {
        let id = worker.id();
        self.until("online", |seen| seen.contains(&Seen::Online(id)).then_some(())).await;
    }

    /// Waits until a worker listens; where, the first time.
    pub async fn listening(&mut self, worker: &WorkerHandle) -> ListeningAddress {
        self.listenings(worker, 1).await.remove(0)
    }

    /// Waits until a worker listens for the `count`th time; where it does.
    pub async fn listenings(&mut self, worker: &WorkerHandle, count: usize) -> Vec<ListeningAddress> {
        let id = worker.id();
        self.until(&format!("worker {id} listens {count} times"), |seen| {
            let addresses = seen.iter().filter_map(|seen| match seen {
                Seen::Listening(worker, address) if *worker == id => Some(address.clone()),
                _ => None,
            });
            let found: Vec<_> = addresses.collect();
            (found.len() >= count).then_some(found)
        })
        .await
    }

    /// Waits for the process of a worker to end; how it did.
    pub async fn exit(&mut self, worker: &WorkerHandle) -> ExitStatus {
        let id = worker.id();
        self.until(&format!("exit of worker {id}"), |seen| {
            seen.iter().find_map(|seen| match seen {
                Seen::Exit(worker, status) if *worker == id => Some(*status),
                _ => None,
            })
        })
        .await
    }

    /// Waits for the channel of a worker to end.
    pub async fn disconnect(&mut self, worker: &WorkerHandle) {
        let id = worker.id();
        self.until("disconnect", |seen| seen.contains(&Seen::Disconnect(id)).then_some(())).await;
    }

    /// Waits until both have happened, in either order; how the process ended.
    pub async fn gone(&mut self, worker: &WorkerHandle) -> ExitStatus {
        self.disconnect(worker).await;
        self.exit(worker).await
    }

    /// The next thing that a worker says.
    pub async fn message(&mut self, worker: &WorkerHandle) -> Value {
        self.said(worker).await.value
    }

    /// The next thing that a worker says, with what came along.
    pub async fn said(&mut self, worker: &WorkerHandle) -> Said {
        let id = worker.id();
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(index) = self.said.iter().position(|said| said.worker == id) {
                return self.said.remove(index).expect("it is there");
            }
            self.look(&format!("a message of worker {id}"), deadline).await;
        }
    }

    /// The next thing that anybody says.
    pub async fn anybody(&mut self) -> Said {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(said) = self.said.pop_front() {
                return said;
            }
            self.look("a message", deadline).await;
        }
    }

    /// What has been said and not been taken.
    pub fn unread(&self) -> usize {
        self.said.len()
    }
}

impl Seen {
    fn worker(&self) -> Option<WorkerId> {
        match self {
            Self::Fork(id)
            | Self::Online(id)
            | Self::Listening(id, _)
            | Self::Message(id)
            | Self::Disconnect(id)
            | Self::Output(id, _)
            | Self::Exit(id, _) => Some(*id),
            Self::Wrong(_) | Self::Other => None,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Fork(_) => "fork",
            Self::Online(_) => "online",
            Self::Listening(..) => "listening",
            Self::Message(_) => "message",
            Self::Disconnect(_) => "disconnect",
            Self::Exit(..) => "exit",
            Self::Output(..) => "output",
            Self::Wrong(_) => "wrong",
            Self::Other => "other",
        }
    }
}
