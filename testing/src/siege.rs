//! Clients of a control socket that mean no good: requests that are none, requests that never end, and connections on which
//! nothing is said.
//!
//! They have a thread of their own and keep a pace, so that what others notice of them is what the server does about them.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

/// How often those who hold connections look after them.
const LOOK: Duration = Duration::from_millis(50);

/// How long an answer to what is no request is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// What they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// So many requests in a second that are none.
    Malformed(u32),
    /// So many connections, each with a head that comes byte by byte and never ends.
    Slow(usize),
    /// So many connections on which nothing is said.
    Silent(usize),
}

/// A siege under way. It ends when this is dropped.
#[derive(Debug)]
pub struct Siege {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    is_over: AtomicBool,
    /// Requests that were sent and heard to the end, or connections made.
    made: AtomicU64,
}

impl Siege {
    /// Begins it.
    pub fn begin(socket: &Path, means: Means) -> Self {
        let (shared, path) = (Arc::<Shared>::default(), socket.to_owned());
        let theirs = Arc::clone(&shared);
        let thread = std::thread::spawn(move || match means {
            Means::Malformed(rate) => send(&path, rate, &theirs),
            Means::Slow(count) => hold(&path, count, &theirs, |stream| stream.write(b"G").is_ok()),
            Means::Silent(count) => hold(&path, count, &theirs, |_| true),
        });
        Self { shared, thread: Some(thread) }
    }

    /// How many requests were sent and heard to the end, or connections made.
    pub fn made(&self) -> u64 {
        self.shared.made.load(Ordering::Relaxed)
    }
}

impl Drop for Siege {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}

/// What is sent, in turns: no HTTP, half of it, too much of it, and good HTTP that asks for what can't be.
fn requests() -> Vec<Vec<u8>> {
    let text = [
        "GET /v1/status HTTP/9.9\r\nhost: x\r\n\r\n",
        "GET /v1/status HTTP/1.1\r\nhost",
        "\r\n\r\n\r\n",
        "POST /v1/scale HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999\r\n\r\n",
        "POST /v1/scale HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 16\r\n\r\n{\"workers\": \"x\"}",
        "POST /v1/reload HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{\r\n",
        "DELETE /v1/nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    ];
    let mut requests: Vec<Vec<u8>> = text.iter().map(|text| text.as_bytes().to_vec()).collect();
    requests.push((0..=255).cycle().take(1000).collect());
    requests.push([b"GET /v1/status HTTP/1.1\r\nx: ", "x".repeat(70_000).as_bytes()].concat());
    requests
}

/// Sends requests one after the other, no faster than this.
fn send(path: &Path, rate: u32, shared: &Shared) {
    let (requests, began) = (requests(), Instant::now());
    for (number, request) in (0_u32..).zip(requests.iter().cycle()) {
        let due = Duration::from_secs(1) * number / rate;
        if let Some(early) = due.checked_sub(began.elapsed()) {
            std::thread::sleep(early);
        }
        if shared.is_over() {
            return;
        }
        let Ok(mut stream) = UnixStream::connect(path) else { continue };
        let _ = stream.set_read_timeout(Some(PATIENCE));
        // It may have closed before it has read all.
        let _ = stream.write_all(request);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        // An end is an end, also one by a reset; no end is none.
        match stream.read_to_end(&mut Vec::new()) {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => {}
            _ => drop(shared.made.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

/// Keeps so many connections: those that end are made anew. `talk` says whether one is still open.
fn hold(path: &Path, count: usize, shared: &Shared, mut talk: impl FnMut(&mut UnixStream) -> bool) {
    let mut held = Vec::new();
    while !shared.is_over() {
        while held.len() < count {
            // Where the queue is full, the next look tries again.
            let Ok(stream) = reach(path) else { break };
            held.push(stream);
            shared.made.fetch_add(1, Ordering::Relaxed);
        }
        held.retain_mut(|stream| is_open(stream) && talk(stream));
        std::thread::sleep(LOOK);
    }
}

/// Connects without waiting for room in the queue.
fn reach(path: &Path) -> rustix::io::Result<UnixStream> {
    let socket: OwnedFd = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
        None,
    )?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

/// Reads what came, if anything did.
fn is_open(stream: &mut UnixStream) -> bool {
    match stream.read(&mut [0; 1024]) {
        Ok(count) => count > 0,
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}
