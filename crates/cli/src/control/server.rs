//! Accepts connections on the control socket and lets in only the app's own user and root.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use axum::{Router, middleware};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use rustix::net::RecvFlags;
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::room::{self, Place, Room};
use super::{Control, routes};

/// For how long who has asked something is kept from being heard by this program, where another may soon go on.
const HELD_OFF: Duration = Duration::from_millis(500);

/// How long a request's head may take to arrive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest head of a request, in bytes.
const HEAD_LIMIT: usize = 64 * 1024;

/// How long nobody must have asked for anything until what it takes to answer is given back.
const QUIET: Duration = Duration::from_millis(200);

/// How long after somebody was turned away it is said again.
const SAID_AGAIN: Duration = Duration::from_secs(10);

/// How long answers under way may take after the primary has gone.
const GRACE: Duration = Duration::from_secs(1);

/// How long to let be when the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Makes the control socket, in the place of one that a dead primary left. Only who holds the name may call this.
///
/// # Errors
///
/// The socket's folder can't be written to.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Connections on which nothing has been asked so far. They can be answered by another program as well as by this one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lobby {
    guests: Arc<Mutex<Guests>>,
    /// Nobody is let out, for now.
    is_closed: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Guests {
    last: u64,
    streams: BTreeMap<u64, Arc<UnixStream>>,
}

impl Lobby {
    /// Begins with those that the program before has left.
    ///
    /// # Errors
    ///
    /// If one of them is no connection.
    pub(crate) fn restore(streams: Vec<OwnedFd>) -> io::Result<Self> {
        let lobby = Self::default();
        for stream in streams {
            let stream = StdStream::from(stream);
            stream.set_nonblocking(true)?;
            lobby.enter(UnixStream::from_std(stream)?);
        }
        Ok(lobby)
    }

    /// Shows the descriptors of those that are here, in one order as long as nobody comes or goes.
    pub(crate) fn visit(&self, mut visit: impl FnMut(BorrowedFd<'_>)) {
        for stream in self.guests().streams.values() {
            visit(stream.as_fd());
        }
    }

    /// Has those who ask something wait here from now on, each for a while, or no longer.
    pub(crate) fn set_closed(&self, is_closed: bool) {
        self.is_closed.send_if_modified(|now| std::mem::replace(now, is_closed) != is_closed);
    }

    fn enter(&self, stream: UnixStream) -> u64 {
        let mut guests = self.guests();
        guests.last += 1;
        let number = guests.last;
        guests.streams.insert(number, Arc::new(stream));
        number
    }

    fn send_away(&self, number: u64) {
        self.guests().streams.remove(&number);
    }

    fn numbers(&self) -> Vec<u64> {
        self.guests().streams.keys().copied().collect()
    }

    /// Waits until something is asked, and gives the connection with what `hold` gives at that moment; `None` if nothing
    /// is for too long.
    async fn leave<T>(&self, number: u64, hold: impl FnOnce() -> T) -> Option<(UnixStream, T)> {
        let stream = self.guests().streams.get(&number).cloned()?;
        // A look is worth more than what is said to be readable, and leaves everything where it is.
        let look = || Ok(rustix::net::recv(&*stream, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT)?);
        let has_asked =
            tokio::time::timeout(HEAD_TIMEOUT, stream.async_io(Interest::READABLE, look)).await.is_ok();
        // What is waited for may take long, and who asks may want to end it.
        let mut is_closed = self.is_closed.subscribe();
        let _ = tokio::time::timeout(HELD_OFF, is_closed.wait_for(|is_closed| !*is_closed)).await;
        self.guests().streams.remove(&number);
        let hold = hold();
        Arc::into_inner(stream).filter(|_| has_asked).map(|stream| (stream, hold))
    }

    fn guests(&self) -> MutexGuard<'_, Guests> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A control server at work.
#[derive(Debug)]
pub(crate) struct Server {
    task: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

impl Server {
    /// Begins to answer, on the present runtime, also those who are in the lobby already.
    pub(crate) fn start<C: Control>(listener: Arc<UnixListener>, control: C, lobby: Lobby) -> Self {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let connections = GracefulShutdown::new();
            tokio::select! {
                () = accept(&listener, &control, &lobby, &connections) => {}
                _ = stopped => {}
            }
            drop(listener);
            // Past the grace, whoever still waits sees the connection close.
            let _ = tokio::time::timeout(GRACE, connections.shutdown()).await;
        });
        Self { task, stop }
    }

    /// Accepts no more, and lets answers under way be written.
    pub(crate) async fn finish(self) {
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}

async fn accept<C: Control>(
    listener: &UnixListener,
    control: &C,
    lobby: &Lobby,
    connections: &GracefulShutdown,
) {
    let own = rustix::process::geteuid().as_raw();
    let (room, mut said) = (Room::default(), None::<Instant>);
    let (welcome, denied) = (watched(routes::router(control.clone())), watched(routes::denied()));
    let (ended, mut is_quiet_from) = (Arc::new(Notify::new()), None);
    let mut silent = JoinSet::new();
    let await_question = |place: Place| {
        let (lobby, control, number) = (lobby.clone(), control.clone(), place.number());
        async move {
            tokio::select! {
                asked = lobby.leave(number, || control.hold()) => asked.map(|(stream, hold)| (stream, hold, place)),
                () = place.is_lost() => {
                    lobby.send_away(number);
                    None
                }
            }
        }
    };
    // Those whom the program before has let in come first. Nobody is accepted while one waits for a place.
    let mut arriving: VecDeque<u64> = lobby.numbers().into();
    let mut entering = None;
    loop {
        entering = entering.or_else(|| Some(Box::pin(room.clone().enter(arriving.pop_front()?))));
        let quiet = is_quiet_from.unwrap_or_else(tokio::time::Instant::now);
        tokio::select! {
            accepted = listener.accept(), if entering.is_none() => match accepted {
                Ok((stream, _)) => arriving.push_back(lobby.enter(stream)),
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            place = entered(&mut entering) => {
                entering = None;
                if let Some(place) = place {
                    silent.spawn(await_question(place));
                }
            }
            Some(asked) = silent.join_next() => {
                let Ok(Some((stream, hold, place))) = asked else { continue };
                let peer = stream.peer_cred().ok().map(|peer| peer.uid());
                let is_welcome = is_welcome(peer, own);
                if !is_welcome && said.is_none_or(|said| said.elapsed() >= SAID_AGAIN) {
                    said = Some(Instant::now());
                    control.turned_away(peer);
                }
                let routes = if is_welcome { &welcome } else { &denied };
                tokio::spawn(serve(stream, routes.clone(), connections.watcher(), hold, (place, Arc::clone(&ended))));
            },
            () = ended.notified() => is_quiet_from = Some(tokio::time::Instant::now() + QUIET),
            () = tokio::time::sleep_until(quiet), if is_quiet_from.is_some() => {
                is_quiet_from = None;
                if room.is_empty() {
                    // What it takes to answer is as much as all the rest of a primary.
                    allcores::primary::give_back_code();
                }
            }
        }
    }
}

/// Waits for a place for who is entering, if anybody is.
async fn entered<F: Future<Output = Option<Place>> + Unpin>(entering: &mut Option<F>) -> Option<Place> {
    match entering {
        Some(entering) => entering.await,
        None => std::future::pending().await,
    }
}

/// Routes that notice when a request is whole. Made once: that takes longer than most answers.
fn watched(routes: Router) -> TowerToHyperService<Router> {
    TowerToHyperService::new(routes.layer(middleware::from_fn(room::notice)))
}

/// Says who may command an app: its own user, and root.
pub(super) fn is_welcome(peer: Option<u32>, own: u32) -> bool {
    peer.is_some_and(|uid| uid == own || uid == 0)
}

/// Answers monitoring on a connection, until it ends.
pub(crate) async fn serve_monitoring<C: Control>(stream: TcpStream, control: C) {
    let service = TowerToHyperService::new(routes::monitoring(control));
    // As below.
    let _ = protocol().serve_connection(TokioIo::new(stream), service).await;
}

pub(super) fn protocol() -> http1::Builder {
    let mut protocol = http1::Builder::new();
    protocol.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_LIMIT);
    protocol
}

async fn serve<T: Send>(
    stream: UnixStream,
    routes: TowerToHyperService<Router>,
    connections: Watcher,
    hold: T,
    (place, ended): (Place, Arc<Notify>),
) {
    let asking = place.asking();
    let answer = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(asking.clone());
        routes.call(request)
    });
    // One answer fits into what the kernel holds for whoever reads it. Who asks for many and reads none would keep its place.
    let connection = protocol().keep_alive(false).serve_connection(TokioIo::new(stream), answer);
    let mut connection = pin!(connections.watch(connection));
    // What came is looked at once: by then a request that is whole has a hold of its own.
    let mut hold = Some(hold);
    // A client that went away, or spoke no HTTP, is its own affair.
    let served = std::future::poll_fn(|context| {
        let poll = connection.as_mut().poll(context);
        hold = None;
        if poll.is_ready() { Poll::Ready(()) } else { Poll::Pending }
    });
    tokio::select! {
        biased;
        () = served => {}
        () = place.is_lost() => {}
    }
    drop(place);
    ended.notify_one();
}
