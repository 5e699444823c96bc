//! What workers say of themselves by sd_notify(3), and their heartbeats.
//!
//! Each worker has a datagram socket of its own, so that it is known who speaks though the speaker is gone by the time
//! it is heard, as a program is that does nothing else. As long as it is there it must be a process of that worker.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use allcores_core::notify::{self, Heartbeat, Notification};
use allcores_core::pool::{Input, Reason};
use allcores_core::worker::{State, WorkerId};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use tokio::sync::mpsc;

use super::Engine;
use crate::primary::Event;
use crate::primary::recall::Recall;
use crate::primary::worker::{Seen, Worker};
use crate::proc;
use crate::sys::Watch;
use crate::sys::socket::{Sender, receive_from};

#[cfg(test)]
pub(super) mod tests;

/// How long nothing is heard after each word: who speaks without end waits for its own socket, and nobody else does.
const PAUSE: Duration = Duration::from_millis(1);

/// Where one worker's words come.
#[derive(Debug)]
pub(in crate::primary) struct Ear {
    /// As in `NOTIFY_SOCKET`.
    pub(in crate::primary) name: String,
    socket: Watch,
}

impl Ear {
    pub(super) fn open(id: WorkerId) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        sockopt::set_socket_passcred(&socket, true)?;
        let name = bind(&socket, id)?;
        Ok(Self { name: format!("@{name}"), socket: Watch::readable(socket)? })
    }

    /// One that is open already.
    pub(in crate::primary) fn restore(name: String, socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { name, socket: Watch::readable(socket)? })
    }

    /// Tells of everything that is said, for as long as anybody listens.
    pub(in crate::primary) async fn listen(
        self,
        id: WorkerId,
        seen: mpsc::Sender<Seen>,
        mut recall: Recall,
    ) -> Option<Self> {
        let mut buffer = [0; notify::LONGEST];
        loop {
            if recall.is_called() {
                return Some(self);
            }
            let heard = tokio::select! {
                biased;
                heard = self.socket.read(|socket| receive_from(socket, &mut buffer)) => heard,
                () = recall.called() => continue,
            };
            let said = match heard {
                Ok((count, sender)) => Seen::Said(id, sender, notify::parse(&buffer[..count])),
                // A datagram that the kernel could not deliver whole; the next one may be.
                Err(_) => continue,
            };
            seen.send(said).await.ok()?;
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl AsFd for Ear {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Gives the socket a name that nobody has.
fn bind(socket: &OwnedFd, id: WorkerId) -> io::Result<String> {
    use std::hash::{BuildHasher, RandomState};
    let random = RandomState::new().hash_one(id.0);
    let name = format!("allcores-notify-{}-{random:016x}", std::process::id());
    rustix::net::bind(socket.as_fd(), &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
    Ok(name)
}

/// When workers gave a sign of life last, and how often they are to.
#[derive(Debug, Default)]
pub(super) struct Hearts {
    pub(super) hearts: BTreeMap<WorkerId, Heart>,
}

#[derive(Debug)]
pub(super) struct Heart {
    pub(super) last: Duration,
    pub(super) interval: Duration,
    pub(super) is_late: bool,
    /// It said so itself.
    pub(super) has_failed: bool,
}

impl Hearts {
    /// When the next one will be late.
    pub(super) fn next_due(&self) -> Option<Duration> {
        let beating = self.hearts.values().filter(|heart| !heart.is_late);
        beating.map(|heart| heart.last.saturating_add(heart.interval)).min()
    }

    pub(super) fn is_late(&self, id: WorkerId) -> bool {
        self.hearts.get(&id).is_some_and(|heart| heart.is_late)
    }

    pub(super) fn forget(&mut self, id: WorkerId) {
        self.hearts.remove(&id);
    }

    pub(super) fn complaint(&self, id: WorkerId) -> String {
        match self.hearts.get(&id) {
            Some(heart) if heart.has_failed => "it said so itself (WATCHDOG=trigger)".to_owned(),
            Some(heart) => format!("no heartbeat (WATCHDOG=1) for {:?}", heart.interval),
            None => String::new(),
        }
    }

    /// Waits for a worker's heartbeats from now on.
    fn begin(&mut self, id: WorkerId, interval: Duration, now: Duration) {
        let heart = Heart { last: now, interval, is_late: false, has_failed: false };
        self.hearts.entry(id).or_insert(heart);
    }

    /// Takes a heartbeat; true if it was late.
    fn beat(&mut self, id: WorkerId, now: Duration) -> bool {
        let Some(heart) = self.hearts.get_mut(&id) else { return false };
        heart.last = now;
        heart.has_failed = false;
        std::mem::take(&mut heart.is_late)
    }

    fn set_interval(&mut self, id: WorkerId, interval: Duration) {
        if let Some(heart) = self.hearts.get_mut(&id) {
            heart.interval = interval;
        }
    }

    fn fail(&mut self, id: WorkerId) {
        if let Some(heart) = self.hearts.get_mut(&id) {
            (heart.is_late, heart.has_failed) = (true, true);
        }
    }

    /// Those that have just become late.
    fn take_late(&mut self, now: Duration) -> Vec<WorkerId> {
        let mut late = Vec::new();
        for (id, heart) in &mut self.hearts {
            if !heart.is_late && now >= heart.last.saturating_add(heart.interval) {
                heart.is_late = true;
                late.push(*id);
            }
        }
        late
    }
}

impl Engine {
    /// A process has said something at the socket of a worker.
    pub(super) fn take_said(&mut self, id: WorkerId, sender: Sender, said: Notification) {
        let Some(worker) = self.workers.get(&id) else { return };
        if !self.may_speak(worker, sender) {
            return self.report_stranger(id, sender);
        }
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if let Some(status) = said.status {
            worker.said_status = Some(status).filter(|status| !status.is_empty());
        }
        if said.is_ready {
            self.says_ready(id);
        }
        if said.is_stopping {
            // It goes by itself; until then it is left alone.
            self.tell(Input::NotListening { id });
        }
        let now = self.now();
        if let Some(interval) = said.heartbeat_interval {
            self.hearts.set_interval(id, interval);
        }
        match said.heartbeat {
            Some(Heartbeat::Beat) if self.hearts.beat(id, now) => self.told_healthy(id),
            Some(Heartbeat::Failure) => {
                self.hearts.fail(id);
                self.tell(Input::Unhealthy { id, is_silent: false });
            }
            _ => {}
        }
        let limit = self.settings.upkeep.max_requests;
        if said.requests.zip(limit).is_some_and(|(served, limit)| served >= limit) {
            self.tell(Input::Renew { id, reason: Reason::Requests });
        }
    }

    /// Whether a process may speak for a worker: as long as it is there, it has to be one of its processes.
    fn may_speak(&self, worker: &Worker, sender: Sender) -> bool {
        let own = rustix::process::getuid().as_raw();
        let is_trusted = [0, own, worker.user.unwrap_or(own)].contains(&sender.uid);
        is_trusted && proc::Stat::read(sender.pid).is_err()
            || self.worker_around(sender.pid).is_some_and(|id| id == worker.about.id)
    }

    fn report_stranger(&mut self, id: WorkerId, sender: Sender) {
        if std::mem::replace(&mut self.is_stranger_reported, true) {
            return;
        }
        let text = format!(
            "process {} (user {}) speaks for worker {id} and is not one of its processes; it is not believed",
            sender.pid, sender.uid
        );
        (self.observe)(Event::Notice { text: &text });
    }

    /// A worker says that it is ready. One that was given its sockets has nothing else to show that it listens.
    pub(super) fn says_ready(&mut self, id: WorkerId) {
        self.tell(Input::SaidReady { id });
        if self.is_given_and_unseen(id) && self.settings.pool.wait_ready {
            let Some(worker) = self.workers.get(&id) else { return };
            for lane in worker.lanes.keys().copied().collect::<Vec<_>>() {
                self.listens(id, lane);
            }
        }
    }

    /// Waits for the heartbeats of those who serve, and finds those that are late.
    pub(super) fn look_at_hearts(&mut self) {
        let Some(interval) = self.settings.upkeep.watchdog else { return };
        let now = self.now();
        for view in self.pool.workers().filter(|view| view.state == State::Ready) {
            self.hearts.begin(view.id, interval, now);
        }
        for id in self.hearts.take_late(now) {
            self.tell(Input::Unhealthy { id, is_silent: true });
        }
    }
}
