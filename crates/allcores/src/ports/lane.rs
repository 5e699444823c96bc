//! One listening socket, and how such sockets are made.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use allcores_core::steering::LaneWatch;
use allcores_core::worker::{Slot, WorkerId};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use super::LaneId;
use crate::address::Address;
use crate::proc::{self, Taken};
use crate::sys::socket as raw;

/// What an address could not be had for.
#[derive(Clone, Debug)]
pub(crate) struct Unavailable {
    /// What the worker is told.
    pub(crate) errno: i32,
    /// What the operator is told; `None` where the worker's own doing is the reason.
    pub(crate) reason: Option<String>,
    /// Somebody else has it.
    pub(crate) taken: Option<Taken>,
    /// There was no more room for it.
    pub(crate) is_limit: bool,
}

impl Unavailable {
    pub(super) fn errno(errno: i32) -> Self {
        Self { errno, reason: None, taken: None, is_limit: false }
    }

    pub(super) fn because(errno: i32, reason: &str) -> Self {
        Self { reason: Some(reason.to_owned()), ..Self::errno(errno) }
    }

    pub(super) fn beyond_limit(errno: i32, reason: String) -> Self {
        Self { reason: Some(reason), is_limit: true, ..Self::errno(errno) }
    }
}

impl From<io::Error> for Unavailable {
    fn from(error: io::Error) -> Self {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        Self { reason: Some(error.to_string()), ..Self::errno(errno) }
    }
}

/// What a program has set on the socket that it binds, so far as it matters to the lane that takes its place.
#[derive(Clone, Debug, Default)]
pub(crate) struct Profile {
    /// It set SO_REUSEPORT: it may bind the same address more than once.
    pub(crate) is_reuse_port: bool,
    /// It set SO_REUSEADDR on a UDP socket: it may share the address with strangers who did, too.
    pub(crate) is_reuse_address: bool,
    /// It set O_NONBLOCK.
    pub(crate) is_nonblocking: Option<bool>,
    /// It is bound to one network device (SO_BINDTODEVICE), by its program and not by where that runs.
    pub(crate) has_own_device: bool,
    /// Whose the file of a Unix socket is to be.
    pub(crate) owner: Option<proc::Owner>,
    /// Options with values other than a new socket has: level, name, value.
    pub(crate) options: Vec<(i32, i32, i32)>,
}

/// Options that programs set before `bind` or `listen` and that accepted connections inherit, or that change how
/// the listener works. SO_REUSEADDR, SO_REUSEPORT and IPV6_V6ONLY are the lane's own business.
const CARRIED: &[(i32, i32)] = &[
    (libc::SOL_SOCKET, libc::SO_KEEPALIVE),
    (libc::SOL_SOCKET, libc::SO_BROADCAST),
    (libc::SOL_SOCKET, libc::SO_PRIORITY),
    (libc::SOL_SOCKET, libc::SO_RCVLOWAT),
    (libc::SOL_SOCKET, libc::SO_TIMESTAMP),
    (libc::SOL_SOCKET, libc::SO_BUSY_POLL),
    (libc::IPPROTO_IP, libc::IP_TOS),
    (libc::IPPROTO_IP, libc::IP_TTL),
    (libc::IPPROTO_IP, libc::IP_PKTINFO),
    (libc::IPPROTO_IP, libc::IP_RECVTOS),
    (libc::IPPROTO_IP, libc::IP_RECVERR),
    (libc::IPPROTO_IP, libc::IP_FREEBIND),
    (libc::IPPROTO_IP, libc::IP_TRANSPARENT),
    (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
    (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
    (libc::IPPROTO_IPV6, libc::IPV6_FREEBIND),
    (libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT),
    (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
    (libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS),
    (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
    (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER),
    (libc::IPPROTO_TCP, libc::TCP_NODELAY),
    (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE),
    (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL),
    (libc::IPPROTO_TCP, libc::TCP_KEEPCNT),
    (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT),
    (libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT),
    (libc::IPPROTO_TCP, libc::TCP_FASTOPEN),
    (libc::IPPROTO_TCP, libc::TCP_QUICKACK),
];

/// Of these, what allows an address that this machine does not have, or not yet: to be set before `bind`.
const BEFORE_BIND: [(i32, i32); 4] = [
    (libc::IPPROTO_IP, libc::IP_FREEBIND),
    (libc::IPPROTO_IP, libc::IP_TRANSPARENT),
    (libc::IPPROTO_IPV6, libc::IPV6_FREEBIND),
    (libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT),
];

/// How a socket is to be bound.
#[derive(Clone, Debug, Default)]
pub(super) struct Manner {
    /// The program wants to have the address even beside strangers, which only UDP allows.
    pub(super) is_shared: bool,
    /// Options to be set before: level, name, value.
    pub(super) options: Vec<(i32, i32, i32)>,
}

impl Manner {
    /// Its connections may be to addresses that are no machine's here, which only sockets of the same kind can be bound to.
    pub(super) fn is_transparent(&self) -> bool {
        let is_transparent = |level: i32, name: i32| {
            matches!(
                (level, name),
                (libc::IPPROTO_IP, libc::IP_TRANSPARENT) | (libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT)
            )
        };
        self.options.iter().any(|(level, name, _)| is_transparent(*level, *name))
    }
}

/// Buffer sizes: the kernel shows twice what was set, so they are halved when set again.
const BUFFERS: [(i32, i32); 2] = [(libc::SOL_SOCKET, libc::SO_RCVBUF), (libc::SOL_SOCKET, libc::SO_SNDBUF)];

impl Profile {
    /// Reads what a program has set on its socket.
    pub(crate) fn of(socket: impl AsFd) -> Self {
        let socket = socket.as_fd();
        let fresh = fresh_like(socket).ok();
        let differs = |level: i32, name: i32| {
            let value = raw::int_option(socket, level, name).ok()?;
            let usual = raw::int_option(fresh.as_ref()?, level, name).ok()?;
            (value != usual).then_some((level, name, value))
        };
        let carried = CARRIED.iter().filter_map(|(level, name)| differs(*level, *name));
        let buffers = BUFFERS.iter().filter_map(|(level, name)| differs(*level, *name));
        Self {
            is_reuse_port: rustix::net::sockopt::socket_reuseport(socket).unwrap_or(false),
            is_reuse_address: false,
            is_nonblocking: None,
            has_own_device: device(socket) != fresh.as_ref().and_then(|fresh| device(fresh.as_fd())),
            owner: None,
            options: carried.chain(buffers.map(|(level, name, value)| (level, name, value / 2))).collect(),
        }
    }

    /// How sockets are bound for this program.
    pub(super) fn manner(&self) -> Manner {
        let is_needed = |(level, name, _): &&(i32, i32, i32)| BEFORE_BIND.contains(&(*level, *name));
        let options = self.options.iter().filter(is_needed).copied().collect();
        Manner { is_shared: self.is_reuse_address, options }
    }

    /// Undoes what the program of another version has set on a lane, and this one has not. Sizes of buffers stay: what has
    /// been set is not the kernel's any more to adapt. So does what the address was bound by.
    pub(super) fn undo_others(&self, socket: impl AsFd) -> io::Result<()> {
        let socket = socket.as_fd();
        let fresh = fresh_like(socket)?;
        for (level, name, _) in Self::of(socket).options {
            let option = (level, name);
            let is_own = self.options.iter().any(|(level, name, _)| (*level, *name) == option);
            if is_own || BEFORE_BIND.contains(&option) || BUFFERS.contains(&option) {
                continue;
            }
            raw::set_int_option(socket, level, name, raw::int_option(fresh.as_fd(), level, name)?)?;
        }
        Ok(())
    }

    /// Gives a lane the same. Options that a lane of another protocol does not know are left out.
    pub(super) fn apply(&self, socket: impl AsFd) -> io::Result<()> {
        let socket = socket.as_fd();
        for (level, name, value) in &self.options {
            let _ = raw::set_int_option(socket, *level, *name, *value);
        }
        if let Some(is_nonblocking) = self.is_nonblocking {
            set_nonblocking(socket, is_nonblocking)?;
        }
        Ok(())
    }
}

fn device(socket: BorrowedFd<'_>) -> Option<Vec<u8>> {
    SockRef::from(&socket).device().ok().flatten()
}

/// A new socket of the same kind, to see what a program has changed.
fn fresh_like(socket: impl AsFd) -> io::Result<OwnedFd> {
    let socket = socket.as_fd();
    let family = rustix::net::sockopt::socket_domain(socket)?;
    let kind = rustix::net::sockopt::socket_type(socket)?;
    let protocol = rustix::net::sockopt::socket_protocol(socket)?;
    Ok(rustix::net::socket_with(family, kind, rustix::net::SocketFlags::CLOEXEC, protocol)?)
}

pub(super) fn set_nonblocking(socket: impl AsFd, is_nonblocking: bool) -> io::Result<()> {
    let mut flags = rustix::fs::fcntl_getfl(&socket)?;
    if flags.contains(rustix::fs::OFlags::NONBLOCK) != is_nonblocking {
        flags.set(rustix::fs::OFlags::NONBLOCK, is_nonblocking);
        rustix::fs::fcntl_setfl(&socket, flags)?;
    }
    Ok(())
}

/// How the connections of a lane get to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The worker accepts them; there is no other way.
    Own,
    /// The worker accepts them, and can be handed others over its channel.
    Handed,
    /// Nobody accepts from it but us, to hand over: for when all workers are busy.
    Waiting,
}

/// What is to become of a lane that nobody has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vacancy {
    /// Its slot's next worker comes back to it.
    Awaited,
    /// Its slot has another one: it is anybody's.
    Parked,
    /// Its last user closed it by choice.
    GivenUp,
}

/// One listening socket.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(super) kind: Kind,
    pub(super) id: LaneId,
    pub(super) socket: Arc<OwnedFd>,
    pub(super) inode: u64,
    /// Whose it is, or was last.
    pub(super) slot: Slot,
    /// Workers that have it now: one; two while a hung worker is being replaced; all, if it is shared.
    pub(super) users: BTreeSet<WorkerId>,
    /// Since when it has had none.
    pub(super) free_since: Duration,
    pub(super) vacancy: Vacancy,
    pub(super) is_listening: bool,
    pub(super) is_stream: bool,
    pub(super) backlog: i32,
    /// When it was last doubted that who has it reads it.
    pub(super) doubted_at: Duration,
    pub(super) watch: LaneWatch,
}

impl Lane {
    /// The worker that has it, of two the newer.
    pub(super) fn user(&self) -> Option<WorkerId> {
        self.users.last().copied()
    }

    /// It is to listen, and a worker has had it stop by shutdown(2).
    pub(super) fn is_shut_down(&self) -> bool {
        self.is_listening
            && self.is_stream
            && raw::accept_queue(&self.socket).is_ok_and(|queue| !queue.is_listening)
    }

    pub(super) fn new(id: LaneId, socket: OwnedFd, slot: Slot) -> io::Result<Self> {
        let inode = rustix::fs::fstat(&socket)?.st_ino;
        Ok(Self {
            kind: Kind::Own,
            id,
            socket: Arc::new(socket),
            inode,
            slot,
            users: BTreeSet::new(),
            free_since: Duration::ZERO,
            vacancy: Vacancy::Awaited,
            is_listening: false,
            is_stream: true,
            backlog: 0,
            doubted_at: Duration::ZERO,
            watch: LaneWatch::default(),
        })
    }

    pub(super) fn release(&mut self, worker: WorkerId, now: Duration) {
        if self.users.remove(&worker) {
            self.vacancy = Vacancy::Awaited;
            // Also where one stays that has come to take the place of a hung one: it is not known to be busy.
            self.watch.reset();
            if self.users.is_empty() {
                self.free_since = now;
            }
        }
    }

    /// Connections that wait; `None` where the kernel does not tell.
    pub(super) fn depth(&self) -> Option<u32> {
        raw::accept_queue(&self.socket).ok().filter(|queue| queue.is_listening).map(|queue| queue.depth)
    }
}

/// Beside whom an address may be bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beside {
    Nobody,
    /// Sockets of ours that have an address which overlaps: other workers'.
    OurOwn,
}

/// Makes the first socket of a group. It is bound as if no other could share the address: so a stranger who
/// listens there, be it with SO_REUSEPORT, is met with an error instead of swallowing a share of the connections.
pub(super) fn bind_first(address: &Address, manner: &Manner, beside: Beside) -> Result<OwnedFd, Unavailable> {
    let socket = new_socket(address, manner)?;
    let (ip, sockaddr) = sockaddr(address)?;
    if beside == Beside::OurOwn {
        socket.set_reuse_port(true)?;
    }
    if let Err(error) = socket.bind(&sockaddr) {
        return Err(explain(address, &error));
    }
    if ip.is_some() {
        socket.set_reuse_port(true)?;
    }
    Ok(socket.into())
}

/// Makes the socket of a group and leaves it to the caller to bind it to the address that goes with it.
pub(super) fn unbound(address: &Address) -> io::Result<(Socket, SockAddr)> {
    Ok((new_socket(address, &Manner::default())?, sockaddr(address)?.1))
}

/// Makes a further socket of a group.
pub(super) fn bind_next(address: &Address, manner: &Manner) -> io::Result<OwnedFd> {
    let socket = new_socket(address, manner)?;
    socket.set_reuse_port(true)?;
    socket.bind(&sockaddr(address)?.1)?;
    Ok(socket.into())
}

fn new_socket(address: &Address, manner: &Manner) -> io::Result<Socket> {
    let domain = address.socket().map_or(Domain::UNIX, Domain::for_address);
    let (kind, protocol) = match address {
        Address::Tcp { .. } => (Type::STREAM, Some(Protocol::TCP)),
        Address::Udp { .. } => (Type::DGRAM, Some(Protocol::UDP)),
        Address::Unix(_) => (Type::STREAM, None),
    };
    let socket = Socket::new(domain, kind.nonblocking().cloexec(), protocol)?;
    if let Address::Tcp { socket: SocketAddr::V6(_), is_only_v6 }
    | Address::Udp { socket: SocketAddr::V6(_), is_only_v6 } = address
    {
        socket.set_only_v6(*is_only_v6)?;
    }
    if address.is_tcp() || (address.is_udp() && manner.is_shared) {
        // Connections of an earlier run that linger in TIME_WAIT are no reason to fail. (Not for UDP: there it
        // lets a stranger's socket and ours share the address.)
        socket.set_reuse_address(true)?;
    }
    for (level, name, value) in &manner.options {
        // Where it is refused, so is the address.
        let _ = raw::set_int_option(&socket, *level, *name, *value);
    }
    Ok(socket)
}

fn sockaddr(address: &Address) -> io::Result<(Option<SocketAddr>, SockAddr)> {
    match address {
        Address::Tcp { socket, .. } | Address::Udp { socket, .. } => Ok((Some(*socket), (*socket).into())),
        Address::Unix(name) => {
            use std::os::unix::ffi::OsStrExt;
            Ok((None, SockAddr::unix(std::ffi::OsStr::from_bytes(name))?))
        }
    }
}

/// Says why an address can't be had, and what to do about it.
pub(super) fn explain(address: &Address, error: &io::Error) -> Unavailable {
    let errno = error.raw_os_error().unwrap_or(libc::EIO);
    let protocol = if address.is_udp() { proc::Protocol::Udp } else { proc::Protocol::Tcp };
    let ip = address.socket().filter(|_| errno == libc::EADDRINUSE);
    let taken = ip.map(|address| Taken { protocol, address });
    let reason = match errno {
        libc::EADDRINUSE if address.path().is_some() => {
            "there is a file of that name; remove it if nobody listens there (`ss -lxp` says who does)".into()
        }
        libc::EADDRINUSE => "it is in use".into(),
        libc::EACCES if address.path().is_some() => {
            "no permission to make a file there; choose a folder that the worker's user may write to".into()
        }
        libc::EACCES => {
            "no permission for a port this low; choose one from 1024 up, or allow it with `setcap \
             cap_net_bind_service+ep` on allcores or the sysctl net.ipv4.ip_unprivileged_port_start"
                .into()
        }
        libc::EADDRNOTAVAIL => "no network interface of this machine has that address".into(),
        _ => error.to_string(),
    };
    Unavailable { reason: Some(reason), taken, ..Unavailable::errno(errno) }
}
