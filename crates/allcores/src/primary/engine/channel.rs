//! What node workers say over their channel.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use allcores_core::channel::{AddressKind, FLAG_IPV6_ONLY, Incoming, Query};
use allcores_core::pool::Input;
use allcores_core::worker::{Rung, State, WorkerId};

use super::Engine;
use crate::address::Address;
use crate::channel::End;
use crate::ports::{LaneId, Profile, Unavailable};
use crate::primary::Event;
use crate::primary::worker::Seen;

/// How long a worker that has closed its channel, as it does when all its connections are done, may still take
/// before it is signalled.
const AFTERWARDS: Duration = Duration::from_secs(1);

impl<O: FnMut(Event<'_>)> Engine<O> {
    pub(super) fn take_message(&mut self, id: WorkerId, message: Incoming) {
        match message {
            Incoming::Query(query) => self.take_query(id, &query),
            // The operator's own socket, which is in no table of ours.
            Incoming::Listening { kind: AddressKind::Descriptor, .. } => self.tell(Input::Listening { id }),
            Incoming::Listening { port, .. } => self.take_listening(id, port),
            Incoming::Close { key } => self.take_close(id, &key),
            Incoming::Leaving { seq } => {
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.is_retired = true;
                    worker.say(|speaker| speaker.acknowledge(seq), None);
                }
            }
            Incoming::Accepted { ack, is_accepted } => self.take_accepted(id, ack, is_accepted),
            Incoming::HandleNack => self.take_unreceived(id),
            Incoming::Online
            | Incoming::HandleAck
            | Incoming::Handle
            | Incoming::User(_)
            | Incoming::Ignored => {}
        }
    }

    /// Answers a worker's wish to listen, exactly once. One that is being disconnected gets no answer, as in Node.
    fn take_query(&mut self, id: WorkerId, query: &Query) {
        if self.workers.get(&id).is_none_or(|worker| worker.is_retired) {
            return;
        }
        let obtained = match query.kind {
            AddressKind::Descriptor => own_descriptor(query).map(|socket| (None, socket)),
            _ => self.listener_for(id, query).and_then(|lane| {
                let socket = self.ports.socket(lane).ok_or(libc::EBADF)?;
                Ok((Some(lane), socket.try_clone_to_owned().map_err(|error| errno(&error))?))
            }),
        };
        let Some(worker) = self.workers.get_mut(&id) else { return };
        // Never the same again while it lives, so that a late `close` can't hit a newer listener.
        let key = format!("{}:{}", id, query.seq);
        match obtained {
            Ok((lane, socket)) => {
                if let Some(lane) = lane {
                    worker.keys.insert(key.clone(), lane);
                    worker.lanes.insert(lane, Rung::Node);
                }
                worker.rung.get_or_insert(Rung::Node);
                worker.say(|speaker| speaker.give_listener(query, &key), Some(socket));
            }
            Err(errno) => worker.say(|speaker| speaker.refuse_listener(query, &key, errno), None),
        }
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
        let inodes: Vec<u64> = worker.keys.values().filter_map(|lane| self.ports.inode(*lane)).collect();
        let profile = Profile { is_nonblocking: Some(true), ..Profile::default() };
        let lane = self
            .ports
            .obtain(worker.applicant(), address, query.index, &profile, |inode| inodes.contains(&inode))?;
        if let Some(path) = address.path() {
            permit(path, query);
        }
        self.ports.dress(lane, &profile);
        self.ports.set_handed(lane);
        self.unavailable = None;
        // Before the worker has it: the order of listen() is the kernel's numbering, and ours to know.
        self.ports.listen(lane, i32::try_from(query.backlog).unwrap_or(i32::MAX))?;
        Ok(lane)
    }

    fn take_listening(&mut self, id: WorkerId, port: i64) {
        let Some(worker) = self.workers.get(&id) else { return };
        let is_meant = |lane: LaneId| {
            let address = self.ports.describe(lane).map(|listener| listener.address);
            match address.as_ref().and_then(Address::socket) {
                Some(socket) => i64::from(socket.port()) == port,
                None => port == -1,
            }
        };
        let lanes: Vec<LaneId> = worker.keys.values().copied().filter(|lane| is_meant(*lane)).collect();
        for lane in lanes {
            self.listens(id, lane);
        }
    }

    fn take_close(&mut self, id: WorkerId, key: &str) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let Some(lane) = worker.keys.remove(key) else { return };
        worker.lanes.remove(&lane);
        worker.announced.remove(&lane);
        let is_leaving =
            worker.is_retired || self.state_of(id) == Some(State::Draining) || self.pool.is_stopping();
        if is_leaving {
            // The lane is another's soon, with what waits in it.
            return;
        }
        let now = self.now();
        self.ports.give_up(id, lane, now);
        if !self.ports.is_listening(id) {
            self.tell(Input::NotListening { id });
        }
    }

    pub(super) fn channel_ended(&mut self, id: WorkerId, end: &End) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.channel = None;
        let was_retired = worker.is_retired;
        if let End::Garbage(what) = end {
            let text = format!(
                "worker {id} (slot {}, pid {}) wrote {what} to its channel, which was closed; it is told to go by signals",
                worker.about.slot, worker.about.pid
            );
            (self.observe)(Event::Notice { text: &text });
        } else if was_retired {
            let seen = self.seen.clone();
            tokio::spawn(async move {
                tokio::time::sleep(AFTERWARDS).await;
                let _ = seen.send(Seen::Overdue(id)).await;
            });
        }
        self.take_back(id);
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
    let make = |ip: IpAddr| {
        let socket = SocketAddr::new(ip, port);
        let is_only_v6 = is_only_v6 && ip.is_ipv6();
        if query.kind.is_udp() {
            Address::Udp { socket, is_only_v6 }
        } else {
            Address::Tcp { socket, is_only_v6 }
        }
    };
    let any = match query.kind {
        AddressKind::Udp4 => vec![Ipv4Addr::UNSPECIFIED.into()],
        AddressKind::Udp6 => vec![Ipv6Addr::UNSPECIFIED.into()],
        _ if is_only_v6 => vec![Ipv6Addr::UNSPECIFIED.into()],
        _ => vec![IpAddr::from(Ipv6Addr::UNSPECIFIED), Ipv4Addr::UNSPECIFIED.into()],
    };
    let ips = match &query.address {
        Some(address) => vec![address.parse().map_err(|_| libc::EINVAL)?],
        None => any,
    };
    Ok(ips.into_iter().map(make).collect())
}

/// A socket's path has room for about 100 bytes: the relative form where that is shorter.
fn shortest(path: PathBuf) -> PathBuf {
    let relative =
        std::env::current_dir().ok().and_then(|cwd| path.strip_prefix(cwd).ok().map(Path::to_owned));
    relative.filter(|relative| relative.as_os_str().len() < path.as_os_str().len()).unwrap_or(path)
}

fn permit(path: &Path, query: &Query) {
    use std::os::unix::fs::PermissionsExt;
    let more =
        if query.is_readable_by_all { 0o444 } else { 0 } | if query.is_writable_by_all { 0o222 } else { 0 };
    if let (true, Ok(metadata)) = (more != 0, std::fs::metadata(path)) {
        let bits = metadata.permissions().mode() | more;
        let _ = std::fs::set_permissions(path, std::fs::Permissions::from_mode(bits));
    }
}

fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}
