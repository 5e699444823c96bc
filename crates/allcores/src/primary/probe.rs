//! Asking one worker how it is, over a connection that reaches it.
//!
//! Neither chooses the worker nor knows what follows from its answer.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use allcores_core::health::Outcome;
use tokio::sync::oneshot;

use super::HealthCheck;
use crate::proc;
use crate::sys::Watch;

/// What came of a check that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failing {
    /// In words.
    pub(super) reason: String,
    /// There was no answer at all.
    pub(super) is_silent: bool,
}

impl Failing {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), is_silent: false }
    }

    pub(super) fn silent(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), is_silent: true }
    }

    pub(super) fn outcome(result: &Result<(), Self>) -> Outcome {
        result
            .as_ref()
            .map_or_else(|failing| Outcome::Failed { is_silent: failing.is_silent }, |()| Outcome::Passed)
    }
}

/// The longest first line of an answer that is read.
const LONGEST_LINE: usize = 1024;

/// How much of the rest is read.
const LONGEST_REST: usize = 64 * 1024;

/// How long the rest of an answer is read for, so that the worker can finish it in peace.
const COURTESY: Duration = Duration::from_millis(500);

/// What to ask, and over which connection.
#[derive(Debug)]
pub(super) struct Question {
    /// It is being made, or is there.
    pub(super) socket: OwnedFd,
    pub(super) host: String,
    pub(super) check: HealthCheck,
    pub(super) limit: Duration,
    /// Whether the worker takes it, where it is handed to it and says so.
    pub(super) taken: Option<oneshot::Receiver<bool>>,
}

/// Asks. `reached` is awaited as soon as the connection is there. What is left of it is returned with the answer.
pub(super) async fn ask(
    question: Question,
    reached: impl Future<Output = ()>,
) -> (Result<(), Failing>, Option<Watch>) {
    let Question { socket, host, check, limit, taken } = question;
    let socket = match Watch::duplex(socket) {
        Ok(socket) => socket,
        Err(error) => return (Err(Failing::new(format!("asking it: {error}"))), None),
    };
    let mut has_reached = false;
    let answer = async {
        let refused = |error: io::Error| Failing::new(format!("connecting: {error}"));
        socket.write(connected).await.map_err(refused)?;
        reached.await;
        has_reached = true;
        match (&check, taken) {
            (HealthCheck::Http { path }, _) => get(&socket, &host, path).await,
            (_, Some(taken)) => match taken.await {
                Ok(true) => Ok(()),
                _ => Err(Failing::new("it refused a connection")),
            },
            (_, None) => accepted(&socket).await,
        }
    };
    let result = tokio::time::timeout(limit, answer).await;
    let result = result.unwrap_or_else(|_| {
        Err(Failing::silent(match check {
            _ if !has_reached => format!("its queue was full for {limit:?}"),
            HealthCheck::Http { .. } => format!("no answer within {limit:?}"),
            HealthCheck::Tcp | HealthCheck::Exec { .. } => format!("it did not accept within {limit:?}"),
        }))
    });
    (result, Some(socket))
}

fn connected(fd: BorrowedFd<'_>) -> io::Result<()> {
    rustix::net::sockopt::socket_error(fd)??;
    match rustix::net::getpeername(fd) {
        Err(rustix::io::Errno::NOTCONN) => Err(io::ErrorKind::WouldBlock.into()),
        result => Ok(result.map(drop)?),
    }
}

/// Waits until the worker has accepted, which only the kernel knows.
async fn accepted(socket: &Watch) -> Result<(), Failing> {
    let broken = |error: io::Error| Failing::new(error.to_string());
    // Of a Unix socket nobody tells.
    let Some((server, client)) = ends(socket).map_err(broken)? else { return Ok(()) };
    let mut wait = Duration::from_millis(1);
    loop {
        match proc::is_accepted(server, client) {
            Ok(false) => {}
            // Or it can't be asked here; a connection is all that there is to go by then.
            Ok(true) | Err(_) => return Ok(()),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_millis(50));
    }
}

/// The addresses of a TCP connection, the other end's first.
fn ends(socket: &Watch) -> io::Result<Option<(SocketAddr, SocketAddr)>> {
    let socket = socket2::SockRef::from(socket);
    Ok(socket.peer_addr()?.as_socket().zip(socket.local_addr()?.as_socket()))
}

async fn get(socket: &Watch, host: &str, path: &str) -> Result<(), Failing> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: allcores/{}\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    );
    let lost = |error: io::Error| Failing::new(format!("the connection broke: {error}"));
    let mut rest = request.as_bytes();
    while !rest.is_empty() {
        let flags = rustix::net::SendFlags::NOSIGNAL;
        let sent = socket.write(|fd| Ok(rustix::net::send(fd, rest, flags)?)).await.map_err(lost)?;
        rest = &rest[sent..];
    }
    let mut answer = Vec::new();
    while !answer.contains(&b'\n') && answer.len() < LONGEST_LINE {
        let mut chunk = [0; LONGEST_LINE];
        let count = socket.read(|fd| Ok(rustix::io::read(fd, &mut chunk)?)).await.map_err(lost)?;
        if count == 0 {
            break;
        }
        answer.extend_from_slice(&chunk[..count]);
    }
    judge(&answer)
}

/// Reads what is left of an answer, and the end of the connection.
pub(super) async fn finish(socket: Watch) {
    let rest = async {
        let mut chunk = [0; LONGEST_LINE];
        for _ in 0..LONGEST_REST / LONGEST_LINE {
            if socket.read(|fd| Ok(rustix::io::read(fd, &mut chunk)?)).await.unwrap_or(0) == 0 {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(COURTESY, rest).await;
}

/// What the first line of an answer means.
fn judge(answer: &[u8]) -> Result<(), Failing> {
    if answer.is_empty() {
        return Err(Failing::new("it closed the connection without an answer"));
    }
    let line = answer.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.trim_end().splitn(3, ' ');
    let (version, status) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let status: Option<u16> = status.parse().ok().filter(|_| version.starts_with("HTTP/1."));
    match (status, words.next()) {
        (Some(200..=399), _) => Ok(()),
        (Some(status), Some(phrase)) if !phrase.is_empty() => {
            let phrase: String = phrase.chars().filter(|c| !c.is_control()).take(60).collect();
            Err(Failing::new(format!("it answered {status} {phrase}")))
        }
        (Some(status), _) => Err(Failing::new(format!("it answered {status}"))),
        (None, _) => Err(Failing::new("its answer is no HTTP")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_judged_by_its_status() {
        for good in ["HTTP/1.1 200 OK\r\n", "HTTP/1.0 204\r\n", "HTTP/1.1 302 Found\r\nLocation: /\r\n"] {
            assert_eq!(judge(good.as_bytes()), Ok(()), "{good}");
        }
        for (bad, reason) in [
            ("HTTP/1.1 500 Internal Server Error\r\n", "it answered 500 Internal Server Error"),
            ("HTTP/1.1 404\r\n", "it answered 404"),
            ("HTTP/1.1 100 Continue\r\n", "it answered 100 Continue"),
            ("", "it closed the connection without an answer"),
            ("220 mail ready\r\n", "its answer is no HTTP"),
            ("\u{15}\u{3}\u{1}", "its answer is no HTTP"),
            ("HTTP/1.1 503 a\u{1b}[2J\r\n", "it answered 503 a[2J"),
        ] {
            assert_eq!(judge(bad.as_bytes()), Err(Failing::new(reason)));
        }
    }
}
