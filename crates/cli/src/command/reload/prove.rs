//! `--prove`: requests to the app's own address all through a reload, each on a connection of its own, and a count of
//! those that failed, by kind.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::command::reachable;
use crate::failure::Failure;
use crate::view::StatusView;

/// How many clients ask at a time, each one thing after the other.
const CLIENTS: usize = 4;

/// How long each waits between two requests: this is to see that nothing is lost, not how much the app can take.
const PAUSE: Duration = Duration::from_millis(2);

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long it goes on after the reload.
const AFTERWARDS: Duration = Duration::from_millis(200);

/// Requests under way.
#[derive(Debug)]
pub(super) struct Proof {
    tally: Arc<Tally>,
    clients: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Tally {
    is_over: AtomicBool,
    answered: AtomicU64,
    failed: [AtomicU64; 5],
}

/// Why a request has no good answer.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Refused,
    Reset,
    Timeout,
    Short,
    ServerError,
}

/// What came of them.
#[derive(Debug, Serialize)]
pub(super) struct Proven {
    sent: u64,
    refused: u64,
    reset: u64,
    timeout: u64,
    short: u64,
    server_error: u64,
}

impl Proof {
    /// Begins to ask.
    ///
    /// # Errors
    ///
    /// The app listens on no TCP address, or the path is none.
    pub(super) fn begin(status: &StatusView, path: &str) -> Result<Self, Failure> {
        let address =
            status.listening.iter().find_map(|text| text.parse().ok()).map(reachable).ok_or_else(|| {
                Failure::from(anyhow!("reload {}: --prove: it listens on no TCP address", status.name))
                    .next("reload it without --prove")
            })?;
        let uri: Uri = path
            .parse()
            .with_context(|| format!("--prove-path {path}"))
            .map_err(|error| Failure::usage(error).next("give the path of a URL, for example /healthz"))?;
        let tally = Arc::new(Tally::default());
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            clients.spawn(ask_on(address, uri.clone(), Arc::clone(&tally)));
        }
        Ok(Self { tally, clients })
    }

    /// Lets what was sent be answered, and counts.
    pub(super) async fn end(self) -> Proven {
        sleep(AFTERWARDS).await;
        self.tally.is_over.store(true, Ordering::Relaxed);
        self.clients.join_all().await;
        let count = |kind: Kind| self.tally.failed[kind as usize].load(Ordering::Relaxed);
        let answered = self.tally.answered.load(Ordering::Relaxed);
        let failed: u64 = self.tally.failed.iter().map(|count| count.load(Ordering::Relaxed)).sum();
        Proven {
            sent: answered + failed,
            refused: count(Kind::Refused),
            reset: count(Kind::Reset),
            timeout: count(Kind::Timeout),
            short: count(Kind::Short),
            server_error: count(Kind::ServerError),
        }
    }
}

impl Proven {
    pub(super) fn failed(&self) -> u64 {
        self.refused + self.reset + self.timeout + self.short + self.server_error
    }

    pub(super) fn json(&self) -> String {
        let proven = serde_json::json!({"event": "proven", "failed": self.failed(), "requests": self});
        format!("{proven}\n")
    }
}

impl fmt::Display for Proven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} requests sent, {} failed", self.sent, self.failed())?;
        if self.failed() > 0 {
            let Self { refused, reset, timeout, short, server_error, .. } = self;
            write!(
                f,
                " ({refused} refused, {reset} reset, {timeout} timed out, {short} short, {server_error} of status 5xx)"
            )?;
        }
        Ok(())
    }
}

async fn ask_on(address: SocketAddr, uri: Uri, tally: Arc<Tally>) {
    while !tally.is_over.load(Ordering::Relaxed) {
        let counter = match timeout(PATIENCE, ask(address, &uri)).await {
            Ok(Ok(())) => &tally.answered,
            Ok(Err(kind)) => &tally.failed[kind as usize],
            Err(_) => &tally.failed[Kind::Timeout as usize],
        };
        counter.fetch_add(1, Ordering::Relaxed);
        sleep(PAUSE).await;
    }
}

async fn ask(address: SocketAddr, uri: &Uri) -> Result<(), Kind> {
    let stream = TcpStream::connect(address).await.map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => Kind::Refused,
        io::ErrorKind::TimedOut => Kind::Timeout,
        _ => Kind::Reset,
    })?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|_| Kind::Reset)?;
    let connection = tokio::spawn(connection);
    let request = Request::get(uri.clone())
        .header("host", address.to_string())
        .header("connection", "close")
        .body(Empty::<Bytes>::new())
        .map_err(|_| Kind::Short)?;
    let answered = async {
        let answer = sender.send_request(request).await.map_err(|_| Kind::Reset)?;
        let status = answer.status();
        answer.into_body().collect().await.map_err(|_| Kind::Short)?;
        if status.is_server_error() { Err(Kind::ServerError) } else { Ok(()) }
    };
    let answered = answered.await;
    connection.abort();
    answered
}
