//! What a cluster tells.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use allcores_core::channel::AddressKind;
use allcores_core::exit::ExitStatus;
use allcores_core::pool::{Lack, Reason};
use allcores_core::worker::Slot;

use super::{ClusterSettings, WorkerHandle};
use crate::error::Error;
use crate::message::Message;
use crate::primary::{ReloadFailure, Stream};

/// What happened. Told after it is true: what a [`WorkerHandle`] says has changed by then.
///
/// The first eight are node:cluster's own. All of one worker come in the order in which they happened, and whatever it
/// wrote before it went comes before its `Disconnect` and `Exit`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// [`Cluster::setup`](super::Cluster::setup) was called.
    Setup {
        /// All settings, as they are now.
        settings: Box<ClusterSettings>,
    },
    /// A worker was forked.
    Fork {
        /// Which.
        worker: WorkerHandle,
    },
    /// A worker runs, and said so over its channel. A program that knows nothing of the channel never does.
    Online {
        /// Which.
        worker: WorkerHandle,
    },
    /// A server of a worker listens. Told once for each server.
    Listening {
        /// Which.
        worker: WorkerHandle,
        /// On what.
        address: ListeningAddress,
    },
    /// A worker sent a message.
    Message {
        /// Which.
        worker: WorkerHandle,
        /// What it sent.
        message: Message,
    },
    /// A worker's channel has closed, by whichever side.
    Disconnect {
        /// Which.
        worker: WorkerHandle,
    },
    /// A worker's process has ended.
    Exit {
        /// Which.
        worker: WorkerHandle,
        /// Code or signal.
        status: ExitStatus,
    },
    /// Something went wrong about a worker that nobody is there to be told by: it wrote to its channel what is no
    /// message, could not have an address that it asked for, or could not take in a socket that it was sent.
    Error {
        /// Which.
        worker: WorkerHandle,
        /// What.
        error: Arc<Error>,
    },
    /// A worker gets connections from now on: for the first time, or again.
    Ready {
        /// Which.
        worker: WorkerHandle,
    },
    /// Connections wait for a worker, and it takes none.
    Hung {
        /// Which.
        worker: WorkerHandle,
        /// For how long it has taken none.
        stalled: Duration,
    },
    /// A worker gets no more connections, and is on its way out.
    Draining {
        /// Which.
        worker: WorkerHandle,
    },
    /// A worker that is to be kept alive could not be started.
    SpawnFailed {
        /// Where.
        slot: Slot,
        /// What was tried and why it failed, in words.
        reason: String,
    },
    /// A worker that is to be kept alive is replaced.
    Respawning {
        /// Where.
        slot: Slot,
        /// After this wait.
        delay: Duration,
    },
    /// Workers of a slot that is to be kept alive exit early, again and again.
    CrashLoop {
        /// Where.
        slot: Slot,
        /// How often in a row.
        exits: u32,
        /// How the last one ended.
        status: ExitStatus,
        /// The last lines that it wrote, where output is piped.
        last_output: Vec<Vec<u8>>,
    },
    /// A worker wrote a line, without its line end. Told where output is [piped](super::Stdio::Piped).
    Output {
        /// Which.
        worker: WorkerHandle,
        /// Where to.
        stream: Stream,
        /// The bytes, as written. A line longer than 64 KiB comes in pieces.
        line: Vec<u8>,
    },
    /// A worker was not ready in time. It is stopped, and counts as one that ended early.
    NotReady {
        /// Which.
        worker: WorkerHandle,
        /// What was missing.
        lack: Lack,
        /// What it had.
        limit: Duration,
    },
    /// A worker has failed too many health checks in a row, or its heartbeats are overdue.
    Unhealthy {
        /// Which.
        worker: WorkerHandle,
        /// In words.
        reason: String,
    },
    /// A worker gets a successor, and goes when that is ready.
    Renewing {
        /// Which.
        worker: WorkerHandle,
        /// Why.
        reason: Reason,
    },
    /// There are to be more workers than before, or fewer: [`scale`](super::Cluster::scale).
    Scaling {
        /// How many there were to be.
        before: u16,
        /// How many there are to be.
        workers: u16,
    },
    /// A [reload](super::Cluster::reload) began.
    Reloading {
        /// What it is to bring; the first workers are of generation 1.
        generation: u32,
        /// How many slots there are.
        slots: u16,
    },
    /// The first new worker of a reload is ready, and is watched before the others are begun.
    Watching {
        /// Which.
        worker: WorkerHandle,
        /// For how long.
        time: Duration,
    },
    /// A slot has what a reload is to bring, and nothing else.
    Replaced {
        /// Which.
        slot: Slot,
        /// How many slots are like that.
        done: u16,
        /// Of so many.
        slots: u16,
    },
    /// A new worker of a reload is no good, and what was replaced is put back.
    RollingBack {
        /// What was wrong with which.
        failure: Box<ReloadFailure>,
    },
    /// A reload is done: every worker is new, and ready.
    Reloaded {
        /// What it brought.
        generation: u32,
        /// How long it took.
        took: Duration,
    },
    /// A reload has failed, and the old workers serve.
    ReloadFailed {
        /// What was wrong with which new worker.
        failure: Box<ReloadFailure>,
    },
    /// Something that an operator should know.
    Notice {
        /// In words.
        text: String,
    },
    /// So much happened before this stream was asked for that the oldest of it was dropped: first of what workers said,
    /// and of what became of them only where nothing else was left. Comes before everything else, and once.
    Missed {
        /// How many events.
        events: u64,
        /// How many of them were messages with a handle. It is closed, unless another stream had it too.
        handles: u64,
    },
    /// The cluster began to stop.
    Stopping,
}

/// The worker that an event is about, by whatever reference the event is given.
macro_rules! worker_of {
    ($event:expr) => {
        match $event {
            Event::Fork { worker }
            | Event::Online { worker }
            | Event::Listening { worker, .. }
            | Event::Message { worker, .. }
            | Event::Disconnect { worker }
            | Event::Exit { worker, .. }
            | Event::Error { worker, .. }
            | Event::Ready { worker }
            | Event::Hung { worker, .. }
            | Event::Draining { worker }
            | Event::NotReady { worker, .. }
            | Event::Unhealthy { worker, .. }
            | Event::Renewing { worker, .. }
            | Event::Watching { worker, .. }
            | Event::Output { worker, .. } => Some(worker),
            Event::Setup { .. }
            | Event::SpawnFailed { .. }
            | Event::Respawning { .. }
            | Event::CrashLoop { .. }
            | Event::Scaling { .. }
            | Event::Reloading { .. }
            | Event::Replaced { .. }
            | Event::RollingBack { .. }
            | Event::Reloaded { .. }
            | Event::ReloadFailed { .. }
            | Event::Notice { .. }
            | Event::Missed { .. }
            | Event::Stopping => None,
        }
    };
}

impl Event {
    /// The worker that it is about, if it is about one.
    pub fn worker(&self) -> Option<&WorkerHandle> {
        worker_of!(self)
    }

    /// The same of another handle of its worker.
    pub(super) fn of(mut self, handle: WorkerHandle) -> Self {
        if let Some(worker) = worker_of!(&mut self) {
            *worker = handle;
        }
        self
    }
}

/// What kind of address a worker listens on: Node's `addressType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AddressType {
    /// TCP over IPv4, or over both where no address was named: 4.
    Tcp4,
    /// TCP over IPv6: 6.
    Tcp6,
    /// A Unix socket: -1.
    Unix,
    /// UDP over IPv4: `udp4`.
    Udp4,
    /// UDP over IPv6: `udp6`.
    Udp6,
    /// A descriptor of the primary's.
    Descriptor,
}

/// What a worker listens on, as node:cluster tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListeningAddress {
    /// Which kind.
    pub address_type: AddressType,
    /// An IP address, or a path; `None` where none was named.
    pub address: Option<String>,
    /// The port that it obtained, and -1 for a Unix socket, as in Node.
    pub port: i32,
    /// The descriptor of the primary's that it listens on, or -1 for UDP, as in Node.
    pub fd: Option<i32>,
}

impl ListeningAddress {
    pub(super) fn said(address: Option<&str>, port: i64, kind: AddressKind, fd: Option<i64>) -> Self {
        let address_type = match kind {
            AddressKind::Tcp4 => AddressType::Tcp4,
            AddressKind::Tcp6 => AddressType::Tcp6,
            AddressKind::Udp4 => AddressType::Udp4,
            AddressKind::Udp6 => AddressType::Udp6,
            AddressKind::Unix => AddressType::Unix,
            AddressKind::Descriptor => AddressType::Descriptor,
        };
        let fd = if kind.is_udp() { Some(-1) } else { fd.and_then(|fd| i32::try_from(fd).ok()) };
        let port = i32::try_from(port).unwrap_or(0);
        Self { address_type, address: address.map(str::to_owned), port, fd }
    }

    /// By how the engine writes addresses: `127.0.0.1:80`, `udp [::]:53`, or a path.
    pub(super) fn seen(text: &str) -> Self {
        let (is_udp, text) = text.strip_prefix("udp ").map_or((false, text), |rest| (true, rest));
        let Ok(socket) = text.parse::<SocketAddr>() else {
            let address = Some(text.to_owned());
            return Self { address_type: AddressType::Unix, address, port: -1, fd: None };
        };
        let address_type = match (is_udp, socket.is_ipv4()) {
            (false, true) => AddressType::Tcp4,
            (false, false) => AddressType::Tcp6,
            (true, true) => AddressType::Udp4,
            (true, false) => AddressType::Udp6,
        };
        let fd = is_udp.then_some(-1);
        Self { address_type, address: Some(socket.ip().to_string()), port: socket.port().into(), fd }
    }

    /// As an address to connect to, for TCP and UDP with an IP address.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        let ip: IpAddr = self.address.as_deref()?.parse().ok()?;
        Some(SocketAddr::new(ip, u16::try_from(self.port).ok()?))
    }
}

impl fmt::Display for ListeningAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.socket_addr(), self.address.as_deref()) {
            (Some(socket), _) => socket.fmt(f),
            (None, Some(path)) => f.write_str(path),
            (None, None) => write!(f, "*:{}", self.port),
        }
    }
}
