//! Meeting workers that the primary did not connect itself: any program that is built with the crate, behind
//! whatever wrapper.
//!
//! Whoever comes is known by what the kernel says of it, never by what it says itself: only descendants of workers are
//! let in, each to its own worker.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use allcores_core::channel::{Serialization, Speaker};
use allcores_core::pool::Input;
use allcores_core::worker::WorkerId;
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use tokio::sync::{mpsc, oneshot};

use super::Engine;
use crate::channel::{self, Sender};
use crate::primary::recall::Recall;
use crate::primary::worker::{Part, Seen};
use crate::proc::{self, Stat};
use crate::rendezvous::{Greeting, NO_WORKER};
use crate::sys::Watch;

/// How many may wait to be let in.
const BACKLOG: i32 = 128;

/// How long nobody is let in after one that nobody knows, or that could not be let in: it may try again and again.
const PAUSE: Duration = Duration::from_millis(10);

/// How far up from a process its worker may be.
const DEPTH: usize = 64;

/// Where workers can come.
#[derive(Debug)]
pub(super) struct Rendezvous {
    pub(super) name: String,
    pub(super) socket: Watch,
}

impl Rendezvous {
    /// Opens one. Its name is no secret: it is in the environment of workers.
    pub(super) fn open() -> io::Result<Self> {
        let mut random = [0; 8];
        File::open("/dev/urandom")?.read_exact(&mut random)?;
        let name = format!("allcores-{}-{:016x}", std::process::id(), u64::from_ne_bytes(random));
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(Self { name, socket: Watch::readable(socket)? })
    }

    /// Tells of everybody who comes, for as long as anybody listens.
    pub(super) async fn watch(self, seen: mpsc::Sender<Seen>, mut recall: Recall) -> Option<Self> {
        loop {
            if recall.is_called() {
                return Some(self);
            }
            let came = tokio::select! {
                biased;
                came = self.socket.read(accept) => came,
                () = recall.called() => continue,
            };
            let is_welcome = match came {
                Ok(socket) => {
                    let (welcome, welcomed) = oneshot::channel();
                    seen.send(Seen::Came(Visitor { socket, welcome })).await.ok()?;
                    welcomed.await.is_ok()
                }
                Err(_) => false,
            };
            if !is_welcome {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Somebody who has come.
#[derive(Debug)]
pub(in crate::primary) struct Visitor {
    socket: OwnedFd,
    /// Told if it is let in; dropped if not.
    welcome: oneshot::Sender<()>,
}

impl Engine {
    /// Opens a place to meet, and lets workers know of it. Without one they are adopted.
    pub(super) fn open_rendezvous(&mut self) {
        // The next generation may run a program that comes by itself, where this one does not.
        if !self.owns_process() && self.generations.have_channel() {
            return;
        }
        if let Ok(rendezvous) = Rendezvous::open() {
            self.generations.set_rendezvous(&rendezvous.name);
            self.watch_rendezvous(rendezvous);
        }
    }

    /// Lets in who comes, from now on.
    pub(super) fn watch_rendezvous(&mut self, rendezvous: Rendezvous) {
        let watch = rendezvous.watch(self.seen.clone(), self.recaller.recall());
        self.rendezvous = Some(tokio::spawn(watch));
    }

    /// Makes the connection of somebody who has come the channel of its worker, if that has none; else hangs up.
    pub(super) fn meet(&mut self, visitor: Visitor) {
        let Visitor { socket, welcome } = visitor;
        let Some(pid) = channel::peer_of(&socket) else { return };
        let Some(id) = self.worker_around(pid) else { return };
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if worker.channel.is_some() || worker.is_retired {
            if worker.has_come && worker.channel.as_ref().is_some_and(|channel| is_started_by(channel, pid)) {
                tell_no_worker(&socket);
            }
            return;
        }
        let Ok((sender, carrier)) = channel::from_socket(socket, Serialization::Json) else { return };
        worker.channel = Some(sender);
        worker.speaker = Speaker::default();
        worker.has_come = true;
        let greeting = Greeting { id, slot: worker.about.slot };
        worker.say(|_| greeting.line(), None);
        self.watch_part(id, Part::Visit(Box::new(carrier)));
        // What it does with connections is seen there.
        self.ports.set_process(id, pid);
        let _ = welcome.send(());
    }

    /// The worker that a process is, or is a descendant of.
    pub(super) fn worker_around(&self, pid: u32) -> Option<WorkerId> {
        let line = std::iter::successors(Some(pid), |pid| Some(Stat::read(*pid).ok()?.parent));
        line.take_while(|pid| *pid > 1).take(DEPTH).find_map(|pid| {
            // A descendant whose parent has gone is known by its session still.
            let session = Stat::read(pid).ok()?.session;
            let mut workers = self.workers.values().map(|worker| worker.about);
            workers.find(|about| about.pid == session).map(|about| about.id)
        })
    }

    /// A program that came by itself has gone, and its worker may have more to do, or start another.
    pub(super) fn forget_visit(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if !std::mem::take(&mut worker.has_come) || worker.is_retired {
            return;
        }
        // In the port table it has them still: what comes meanwhile waits for the next.
        for lane in worker.keys.lanes().collect::<Vec<_>>() {
            worker.forget_lane(lane);
        }
        if worker.lanes.is_empty() {
            self.tell(Input::NotListening { id });
        }
    }
}

/// Whether a process descends from the one that came for its worker, and is not behind the same wrapper beside it.
fn is_started_by(channel: &Sender, pid: u32) -> bool {
    channel.peer().is_some_and(|come| proc::line(pid).take(DEPTH).skip(1).any(|above| above == come))
}

/// Whoever hears nothing takes itself for a worker without a channel.
fn tell_no_worker(socket: &OwnedFd) {
    let line = format!("{NO_WORKER}\n");
    let _ = rustix::net::send(socket, line.as_bytes(), SendFlags::NOSIGNAL);
}

fn accept(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(rustix::net::accept_with(socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?)
}
