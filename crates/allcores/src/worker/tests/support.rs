//! The scripted primary. Everything is waited for, with a bound.

use std::net::SocketAddr;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use allcores_core::channel::{Incoming, Query, Serialization, Speaker};
use allcores_core::worker::{Slot, WorkerId};

use crate::channel::{self, Arrival, Carrier, Sender};
use crate::worker::{Kind, Worker, carry};

/// Longer than anything here takes on the slowest machine.
pub(super) const BOUND: Duration = Duration::from_secs(20);

/// Waits, and not for ever.
pub(super) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(BOUND, future).await.expect("it never came")
}

/// A worker at one end of a channel, and its other end as it is.
pub(super) fn worker_at(socket: OwnedFd) -> Worker {
    let link = carry::start(socket, Serialization::Json, WorkerId(3), Slot(1)).unwrap();
    Worker { link, kind: Kind::Connected }
}

/// A primary that does what the test says.
pub(super) struct Primary {
    pub(super) speaker: Speaker,
    pub(super) sender: Sender,
    carrier: Carrier,
}

impl Primary {
    /// A primary and its worker, which is online.
    pub(super) async fn with_worker() -> (Self, Worker) {
        let (sender, carrier, theirs) = channel::open(Serialization::Json).unwrap();
        let worker = worker_at(theirs);
        let mut primary = Self { speaker: Speaker::default(), sender, carrier };
        assert_eq!(primary.hear().await, Incoming::Online);
        (primary, worker)
    }

    /// What the worker says next.
    pub(super) async fn hear(&mut self) -> Incoming {
        self.hear_with_descriptor().await.0
    }

    pub(super) async fn hear_with_descriptor(&mut self) -> (Incoming, Option<OwnedFd>) {
        match soon(self.carrier.next()).await {
            Ok(Arrival::Message { message, descriptor }) => (message, descriptor),
            other => panic!("{other:?}"),
        }
    }

    /// Waits until the worker has closed the channel; it must say nothing more.
    pub(super) async fn hear_end(mut self) {
        match soon(self.carrier.next::<Incoming>()).await {
            Err(channel::End::Closed) => {}
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn hear_query(&mut self) -> Query {
        match self.hear().await {
            Incoming::Query(query) => *query,
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn hear_listening(&mut self) -> i64 {
        match self.hear().await {
            Incoming::Listening { port, .. } => port,
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn hear_close(&mut self) -> String {
        match self.hear().await {
            Incoming::Close { key } => key,
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn hear_accepted(&mut self) -> (u64, bool) {
        match self.hear().await {
            Incoming::Accepted { ack, is_accepted } => (ack, is_accepted),
            other => panic!("{other:?}"),
        }
    }

    /// Writes what there is to write. Nothing may come meanwhile.
    pub(super) async fn flush(&mut self) {
        let sender = self.sender.clone();
        tokio::select! {
            biased;
            heard = self.carrier.next::<Incoming>() => panic!("{heard:?}"),
            () = soon(sender.drained()) => {}
        }
    }

    pub(super) fn give(&mut self, query: &Query, key: &str, socket: impl Into<OwnedFd>) {
        let line = self.speaker.give_listener(query, key);
        self.sender.send(line, Some(Arc::new(socket.into())));
    }

    pub(super) fn answer_by_handoff(&mut self, query: &Query, key: &str, address: Option<SocketAddr>) {
        let line = self.speaker.listen_by_handoff(query, key, address);
        self.sender.send(line, None);
    }

    /// Hands over a connection; returns the number that the answer will name.
    pub(super) fn hand_over(&mut self, key: &str, connection: impl Into<OwnedFd>) -> u64 {
        let (seq, line) = self.speaker.hand_over(key);
        self.sender.send(line, Some(Arc::new(connection.into())));
        seq
    }

    /// Does a round trip, so that all that was said before has been heard.
    pub(super) async fn settle(&mut self, worker: &Worker) {
        self.sender.send(r#""settle""#.into(), None);
        self.flush().await;
        assert_eq!(soon(worker.next_message()).await.unwrap().json(), r#""settle""#);
    }
}

/// A connection to be handed over, in blocking mode as it comes, and its client.
pub(super) fn connection() -> (std::net::TcpStream, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener.accept().unwrap().0, client)
}

/// A descriptor as it is after exec: not marked to be closed.
pub(in crate::worker) fn inherited(socket: impl Into<OwnedFd>) -> String {
    let socket = socket.into();
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::empty()).unwrap();
    socket.into_raw_fd().to_string()
}
