//! What workers say over their channel.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use allcores_core::channel::{
    AddressKind, FLAG_IPV6_ONLY, FLAG_REUSE_ADDRESS, Incoming, Query, SocketMessage,
};
use allcores_core::pool::Input;
use allcores_core::worker::{Rung, State, WorkerId};
use bytestring::ByteString;
use rustix::fs::{Mode, OFlags};

use super::Engine;
use crate::address::{Address, read_host};
use crate::channel::{Arrival, End, Unreceived};
use crate::handle::Handle;
use crate::message::Message;
use crate::ports::{Applicant, LaneId, Profile, Unavailable, too_many_listeners};
use crate::primary::answers::Answer;
use crate::primary::worker::{Asked, Seen};
use crate::primary::{Event, Said, WorkerRef};
use crate::proc::Owner;

/// How long a worker that has closed its channel, as it does when all its connections are done, may still take
/// before it is signalled.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// The longest data of a listener, which everybody is given who listens there. Node's own are a hundred bytes.
const LONGEST_DATA: usize = 64 * 1024;

/// How many listeners of one worker are told of in a row while those who are told take too little.
const MOST_UNHEARD: u32 = 64;

/// `process.send('ready')`
const READY: &str = "\"ready\"";

impl Engine {
    pub(super) fn take_arrival(&mut self, id: WorkerId, arrival: Arrival<Incoming>) {
        match arrival {
            Arrival::Message { message: Incoming::Handle { message, .. }, descriptor } => {
                self.take_handle(id, *message, descriptor);
            }
            Arrival::Message { message, .. } => self.take_message(id, message),
            Arrival::Unreceived(Unreceived::Numbered(number)) => self.take_unreceived(id, number),
            Arrival::Unreceived(Unreceived::Users) => {
                if let Some(worker) = self.workers.get(&id) {
                    self.pass_on(worker.about, Said::Unreceived);
                }
            }
            // It has a listener less than it asked for, and will say so itself.
            Arrival::Unreceived(Unreceived::Own) | Arrival::Lost { .. } => {}
        }
    }

    fn take_message(&mut self, id: WorkerId, message: Incoming) {
        let is_guest = !self.owns_process();
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.has_spoken = true;
        let about = worker.about;
        match message {
            Incoming::Query(query) => self.take_query(id, &query),
            Incoming::Listening { address, port, kind, fd, index } => {
                self.tell_listening(id, Asked { address, kind, fd, index }, port);
                match kind {
                    // The operator's own socket, which is in no table of ours.
                    AddressKind::Descriptor => self.tell(Input::Listening { id }),
                    _ => self.take_listening(id, port),
                }
            }
            Incoming::Close { key } => self.take_close(id, &key),
            Incoming::Leaving { seq } => {
                worker.is_retired = true;
                worker.say(|speaker| speaker.acknowledge(seq), None);
                self.pass_on(about, Said::Leaving);
                self.ports.dismiss(id);
            }
            Incoming::Accepted { ack, is_accepted } => {
                self.take_each([Answer { worker: id, ack, is_accepted }]);
            }
            Incoming::Online if is_guest => self.tell(Input::Online { id }),
            Incoming::User(text) => self.take_texts(id, vec![text]),
            Incoming::Socket(asked) => {
                if let Some(answer) = answer_about_sockets(asked) {
                    worker.say(|_| answer.line(), None);
                }
            }
            Incoming::Online
            | Incoming::HandleAck
            | Incoming::HandleNack
            | Incoming::Handle { .. }
            | Incoming::Ignored => {}
        }
    }

    /// What it says to the user.
    pub(super) fn take_texts(&mut self, id: WorkerId, texts: Vec<ByteString>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.has_spoken = true;
        let about = worker.about;
        // What pm2's wait_ready has taught programs to say.
        if texts.iter().any(|text| *text == READY) {
            self.says_ready(id);
        }
        let messages = texts.into_iter().map(|text| Message::new(text, None)).collect();
        self.pass_on(about, Said::Messages(messages));
    }

    /// A message on which a socket rode. Cluster's own never carry any in this direction, so that one is closed.
    fn take_handle(&mut self, id: WorkerId, message: Incoming, descriptor: Option<OwnedFd>) {
        let Incoming::User(json) = message else { return self.take_message(id, message) };
        let Some(worker) = self.workers.get(&id) else { return };
        // What is no socket that anybody could use is closed, and the message told without it.
        let handle = descriptor.and_then(|descriptor| Handle::of(descriptor).ok());
        self.pass_on(worker.about, Said::Messages(vec![Message::new(json, handle)]));
    }

    /// Answers a worker's wish to listen, exactly once. One that is being disconnected gets no answer, as in Node.
    fn take_query(&mut self, id: WorkerId, query: &Query) {
        if self.workers.get(&id).is_none_or(|worker| worker.is_retired) {
            return;
        }
        let is_too_long = query.data.as_ref().is_some_and(|data| data.len() > LONGEST_DATA);
        let obtained = match query.kind {
            _ if is_too_long => Err(libc::EMSGSIZE),
            AddressKind::Descriptor if self.ports.is_short() => Err(libc::ENFILE),
            AddressKind::Descriptor => own_descriptor(query).map(|socket| (None, Some(Arc::new(socket)))),
            _ => self.listener_for(id, query).and_then(|lane| Ok((Some(lane), self.socket_for(lane)?))),
        };
        let lane = obtained.as_ref().ok().and_then(|(lane, _)| *lane);
        let query = &if is_too_long {
            Query { data: None, ..query.clone() }
        } else {
            self.with_shared_data(query, lane)
        };
        let now = self.now();
        let Some(worker) = self.workers.get_mut(&id) else { return };
        // Never the same again while it lives, so that a late `close` can't hit a newer listener.
        let key = format!("{}:{}", id, query.seq);
        match obtained {
            Ok((lane, socket)) => {
                let rung = if query.is_crate { Rung::Crate } else { Rung::Node };
                if let Some(lane) = lane {
                    worker.keys.insert(key.clone(), lane);
                    worker.lanes.insert(lane, rung);
                    worker.given.insert(lane, now);
                }
                if self.guest.is_some() {
                    worker.grants.note(key.clone(), query, lane);
                }
                worker.rung.get_or_insert(rung);
                let Some(socket) = socket else {
                    let name = lane.and_then(|lane| self.ports.describe(lane)?.address.socket());
                    return worker.say(|speaker| speaker.listen_by_handoff(query, &key, name), None);
                };
                worker.say(|speaker| speaker.give_listener(query, &key), Some(socket));
            }
            Err(errno) => worker.say(|speaker| speaker.refuse_listener(query, &key, errno), None),
        }
    }

    /// The query with the data that all listeners of its address are to have: a TLS server's keys for session tickets,
    /// so that a client is known to each worker. The first worker's are everybody's.
    fn with_shared_data(&mut self, query: &Query, lane: Option<LaneId>) -> Query {
        let mut query = query.clone();
        if let (Some(lane), Some(own)) = (lane, &query.data) {
            query.data = Some(self.ports.share_data(lane, own));
        }
        query
    }

    /// What a worker gets to accept from; nothing where the primary accepts.
    fn socket_for(&self, lane: LaneId) -> Result<Option<Arc<OwnedFd>>, i32> {
        if self.ports.is_handoff(lane) {
            return Ok(None);
        }
        self.ports.shared_socket(lane).map(Some).ok_or(libc::EBADF)
    }

    fn listener_for(&mut self, id: WorkerId, query: &Query) -> Result<LaneId, i32> {
        let mut last = libc::EINVAL;
        for address in addresses_of(query)? {
            match self.obtain_for(id, query, &address) {
                Ok(lane) => return Ok(lane),
                Err(why) => {
                    // Without an address Node tries IPv6 first, and IPv4 where there is none.
                    last = why.errno;
                    if !matches!(why.errno, libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
                        || query.address.is_some()
                    {
                        self.address_unavailable(id, &address, why);
                        break;
                    }
                }
            }
        }
        Err(last)
    }

    fn obtain_for(&mut self, id: WorkerId, query: &Query, address: &Address) -> Result<LaneId, Unavailable> {
        let Some(worker) = self.workers.get(&id) else {
            return Err(io::Error::from_raw_os_error(libc::ESRCH).into());
        };
        if worker.keys.are_too_many() {
            return Err(too_many_listeners());
        }
        let is_reuse_address = query.kind.is_udp() && query.flags & FLAG_REUSE_ADDRESS != 0;
        let owner = address.path().map(|_| owner_of(worker.about.pid)).transpose()?.flatten();
        let profile = Profile { is_nonblocking: Some(true), is_reuse_address, owner, ..Profile::default() };
        let policy = query.policy.as_deref().map(str::parse).transpose();
        let policy = policy.map_err(|_| Unavailable::from(io::Error::from_raw_os_error(libc::EINVAL)))?;
        let is_on_trial = self.pool.is_on_trial(worker.generation);
        let applicant = Applicant { is_by_channel: true, policy, ..worker.applicant(is_on_trial) };
        let keys = &worker.keys;
        let obtained =
            self.ports.obtain(&applicant, address, query.index, &profile, |lane, _| keys.has_lane(lane));
        self.forget_closed();
        let lane = obtained?;
        if let Some(path) = address.path() {
            permit(path, query);
        }
        self.report_other_wish(id, lane, applicant.policy.as_ref());
        self.ports.dress(lane, &profile);
        self.ports.set_handed(lane);
        self.unavailable = None;
        // Before the worker has it: the order of listen() is the kernel's numbering, and ours to know.
        self.ports.listen(lane, i32::try_from(query.backlog).unwrap_or(i32::MAX))?;
        Ok(lane)
    }

    /// Tells the user that a server listens, if the worker was given a listener for it and it is the first time that it says so.
    /// What it says of a server that was closed meanwhile has another port.
    fn tell_listening(&mut self, id: WorkerId, asked: Asked, port: i64) {
        let Some(guest) = &self.guest else { return };
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let Some(grant) = worker.grants.take(&asked) else { return };
        if grant.lane.is_some_and(|lane| self.ports.port(lane) != Some(port)) {
            return;
        }
        // What becomes of workers is told at once; but who listens anew all the time is no reason to run out of memory.
        let is_heard = guest.flow.is_open() && worker.flow.is_open();
        worker.unheard = if is_heard { 0 } else { worker.unheard + 1 };
        if worker.unheard > MOST_UNHEARD {
            return;
        }
        let about = worker.about;
        let Asked { address, kind, fd, .. } = asked;
        self.pass_on(about, Said::Listening { address: address.as_deref(), port, kind, fd });
    }

    fn take_listening(&mut self, id: WorkerId, port: i64) {
        let Some(worker) = self.workers.get(&id) else { return };
        let slot = worker.about.slot;
        let lanes: Vec<LaneId> =
            worker.keys.lanes().filter(|lane| self.ports.port(*lane) == Some(port)).collect();
        for lane in lanes {
            self.ports.join(lane, id, slot);
            self.listens_unless_it_tries(id, lane);
        }
    }

    fn take_close(&mut self, id: WorkerId, key: &str) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.grants.forget(key);
        let Some((lane, true)) = worker.keys.remove(key) else { return };
        let is_retired = worker.is_retired;
        if is_retired || self.state_of(id) == Some(State::Draining) || self.pool.is_stopping() {
            // The lane is another's soon, with what waits in it.
            self.forget_lane(id, lane);
        } else {
            self.give_up(id, lane);
        }
    }

    /// A worker has closed a lane by choice, as it has said or as was seen.
    pub(super) fn give_up(&mut self, id: WorkerId, lane: LaneId) {
        self.forget_lane(id, lane);
        let now = self.now();
        self.ports.give_up(id, lane, now);
        self.tell_unless_listening(id);
    }

    fn tell_unless_listening(&mut self, id: WorkerId) {
        if !self.ports.is_listening(id) {
            self.tell(Input::NotListening { id });
        }
    }

    /// A worker has a lane no more, whatever becomes of that.
    fn forget_lane(&mut self, id: WorkerId, lane: LaneId) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.forget_lane(lane);
        }
        self.take_back(id, lane);
    }

    /// Forgets lanes of which the port table has found, as it was asked for another, that their workers have closed them.
    pub(super) fn forget_closed(&mut self) {
        for (id, lane) in self.ports.take_closed() {
            self.forget_lane(id, lane);
        }
    }

    /// The same where the port table has found that they have made them such as can't listen.
    pub(super) fn forget_spoilt(&mut self) {
        for (id, lane) in self.ports.take_closed() {
            self.forget_lane(id, lane);
            self.tell_unless_listening(id);
        }
    }

    pub(super) fn channel_ended(&mut self, id: WorkerId, end: &End) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.channel = None;
        let (about, was_retired) = (worker.about, worker.is_retired);
        self.pass_on(about, Said::Disconnected { end });
        let offence = match end {
            End::Closed => None,
            End::Garbage(what) => Some(format!("wrote {what} to its channel")),
            End::Neglect(what) => Some((*what).to_owned()),
        };
        if let Some(what) = offence {
            self.outlaw(about, &what);
        } else if was_retired && (self.owns_process() || self.pool.is_stopping()) {
            self.expect_its_end(id);
        }
        self.take_back_all(id);
        self.forget_visit(id);
    }

    /// A worker has said that it goes, and closed its channel: it is signalled if it has not gone soon.
    pub(super) fn expect_its_end(&self, id: WorkerId) {
        let seen = self.seen.clone();
        tokio::spawn(async move {
            tokio::time::sleep(AFTERWARDS).await;
            let _ = seen.send(Seen::Overdue(id)).await;
        });
    }

    /// A worker has done with its channel what no other does, and can't be told anything there any more.
    fn outlaw(&mut self, about: WorkerRef, what: &str) {
        let text = format!(
            "worker {} (slot {}, pid {}) {what}; the channel was closed, and it is told to go by signals",
            about.id, about.slot, about.pid
        );
        (self.observe)(Event::Notice { text: &text });
        self.urge(about.id);
        let (seen, patience) = (self.seen.clone(), self.settings.pool.kill_timeout);
        let counted = self.outlaws.one();
        tokio::spawn(async move {
            tokio::time::sleep(patience).await;
            let _ = seen.send(Seen::Outlawed(about.id)).await;
            drop(counted);
        });
    }
}

/// Whose the file of a Unix socket is to be that a worker asks for; ours, if `None`. A worker of another user has none made
/// where it could make none itself.
fn owner_of(pid: u32) -> io::Result<Option<Owner>> {
    let ours = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Owner::of(pid).map(|owner| Some(owner).filter(|owner| (owner.user, owner.group) != ours))
}

/// What a worker is told that asks about connections which it sent us: we keep none of its servers' accounts, since it
/// gave them away.
fn answer_about_sockets(asked: SocketMessage) -> Option<SocketMessage> {
    match asked {
        SocketMessage::GetCount { key } => Some(SocketMessage::Count { key, count: 0 }),
        SocketMessage::NotifyClose { key } => Some(SocketMessage::AllClosed { key }),
        SocketMessage::AllClosed { .. } | SocketMessage::Count { .. } => None,
    }
}

/// A descriptor of ours that a worker named. Only those that were passed to us, and not marked close-on-exec as
/// everything that we opened ourselves, are for workers to have.
fn own_descriptor(query: &Query) -> Result<OwnedFd, i32> {
    let number = query.fd.and_then(|fd| i32::try_from(fd).ok()).ok_or(libc::EINVAL)?;
    let flags = crate::proc::descriptor_flags(std::process::id(), number).map_err(|_| libc::EINVAL)?;
    if flags & libc::O_CLOEXEC != 0 {
        return Err(libc::EINVAL);
    }
    crate::proc::socket_inode(std::process::id(), number).map_err(|_| libc::EINVAL)?;
    crate::adopt::take_copy(std::process::id(), number).map_err(|error| errno(&error))
}

/// What a query may bind, in the order to be tried.
fn addresses_of(query: &Query) -> Result<Vec<Address>, i32> {
    if query.kind == AddressKind::Unix {
        let path = PathBuf::from(query.address.clone().ok_or(libc::EINVAL)?);
        return Ok(vec![Address::Unix(shortest(path).into_os_string().into_vec())]);
    }
    let port = u16::try_from(query.port).map_err(|_| libc::EINVAL)?;
    let is_only_v6 = query.flags & FLAG_IPV6_ONLY != 0;
    let make = |socket: SocketAddr| {
        let is_only_v6 = is_only_v6 && socket.is_ipv6();
        if query.kind.is_udp() {
            Address::Udp { socket, is_only_v6 }
        } else {
            Address::Tcp { socket, is_only_v6 }
        }
    };
    let (any4, any6) =
        (SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
    let sockets = match (&query.address, query.kind) {
        (Some(address), _) => vec![read_host(address, port).ok_or(libc::EINVAL)?],
        (None, AddressKind::Udp4) => vec![any4],
        (None, AddressKind::Udp6) => vec![any6],
        (None, _) if is_only_v6 => vec![any6],
        (None, _) => vec![any6, any4],
    };
    Ok(sockets.into_iter().map(make).collect())
}

/// A socket's path has room for about 100 bytes: the relative form where that is shorter.
fn shortest(path: PathBuf) -> PathBuf {
    let relative =
        std::env::current_dir().ok().and_then(|cwd| path.strip_prefix(cwd).ok().map(Path::to_owned));
    relative.filter(|relative| relative.as_os_str().len() < path.as_os_str().len()).unwrap_or(path)
}

fn permit(path: &Path, query: &Query) {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    let more =
        if query.is_readable_by_all { 0o444 } else { 0 } | if query.is_writable_by_all { 0o222 } else { 0 };
    if more == 0 {
        return;
    }
    // Where the file is, a worker may have put something else by now, which it could not open itself.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::open(path, flags, Mode::empty()).map(std::fs::File::from) else { return };
    if let Ok(metadata) = file.metadata()
        && metadata.file_type().is_socket()
    {
        let bits = metadata.permissions().mode() | more;
        let same = format!("/proc/self/fd/{}", file.as_raw_fd());
        let _ = std::fs::set_permissions(same, std::fs::Permissions::from_mode(bits));
    }
}

fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

#[cfg(test)]
mod tests;
