//! Connections of the primary's own that reach one worker: through its lane, whatever the kernel would pick.
//!
//! The kernel's choice among lanes is a program, and the program may look at a packet's source. So the source is bound
//! first; while the connection is being made, the program begins with a test for it; and only the first packet of a
//! connection is asked about, so the program is as it was as soon as the connection is there. No other connection can come
//! from an address that is bound here.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use allcores_core::worker::WorkerId;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::group::Group;
use super::lane::Kind;
use super::table::Key;
use super::{LaneId, Ports};
use crate::address::{Address, canonical};

/// Where a worker can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reach {
    /// By a lane that it has to itself.
    Own(LaneId),
    /// By handing it a connection.
    Handed(LaneId),
    /// By a listener that others accept from as well: who answers can't be chosen.
    Shared(LaneId),
}

/// A connection of our own that is being made, or is there.
#[derive(Debug)]
pub(crate) struct Passage {
    /// Not blocking; connected once it is writable and has no error.
    pub(crate) socket: OwnedFd,
    /// Its other end, as clients write it.
    pub(crate) address: String,
    /// By which to name it to [`Ports`] when it is connected and when it is over; `None` if nothing was done for it.
    pub(crate) from: Option<SocketAddr>,
    /// What the worker is to be handed, where that is how it gets connections.
    pub(crate) handed: Option<OwnedFd>,
}

/// What is remembered of a passage until it is over.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) from: SocketAddr,
    pub(super) to: LaneId,
    pub(super) is_connected: bool,
    /// Another worker has got the lane since, and may be the one that answers.
    pub(super) is_doubtful: bool,
}

impl Opening {
    /// Whether this is the other end of its connection.
    pub(super) fn is(&self, accepted: &OwnedFd) -> bool {
        let peer = socket2::SockRef::from(accepted).peer_addr().ok().and_then(|peer| peer.as_socket());
        peer.is_some_and(|peer| canonical(peer) == self.from)
    }
}

impl Ports {
    /// Where `worker` can be reached, the first of its addresses; `None` if it has no listener for connections.
    pub(crate) fn reach(&self, worker: WorkerId) -> Option<Reach> {
        let own = self.groups.lanes_of(worker);
        let usable = own.filter(|(group, lane)| {
            // Where two have a lane, a hung one is being replaced by the newer.
            let is_newest = !group.is_spread() || lane.user() == Some(worker);
            !group.address.is_udp() && lane.is_listening && is_newest
        });
        let reaches = usable.map(|(group, lane)| match (group.is_spread(), group.is_handoff()) {
            (true, _) => Reach::Own(lane.id),
            (false, true) => Reach::Handed(lane.id),
            (false, false) => Reach::Shared(lane.id),
        });
        reaches.min()
    }

    /// Begins a connection that reaches this very lane. `is_told`: it is to be known when the worker takes it. Of what is
    /// in the lane of a worker that can be handed connections, we may take some ourselves, for others.
    pub(crate) fn open_passage(&mut self, lane: LaneId, is_told: bool) -> io::Result<Passage> {
        let (at, number) = self.locate(lane).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let group = &mut self.groups[at];
        let address = group.address.to_string();
        if group.is_handoff() || is_told && group.lanes[number].kind == Kind::Handed {
            let (socket, handed) = if group.address.is_tcp() { tcp_pair()? } else { unix_pair()? };
            return Ok(Passage { socket, address, from: None, handed: Some(handed) });
        }
        let kind = Type::STREAM.nonblocking().cloexec();
        let target = match &group.address {
            Address::Tcp { socket, is_only_v6 } => near(*socket, *is_only_v6),
            Address::Unix(name) => {
                use std::os::unix::ffi::OsStrExt;
                let target = SockAddr::unix(std::ffi::OsStr::from_bytes(name))?;
                let socket = Socket::new(Domain::UNIX, kind, None)?;
                begin(&socket, &target)?;
                let address = "localhost".into();
                return Ok(Passage { socket: socket.into(), address, from: None, handed: None });
            }
            Address::Udp { .. } => return Err(io::ErrorKind::Unsupported.into()),
        };
        let socket = Socket::new(Domain::for_address(target), kind, Some(Protocol::TCP))?;
        socket.bind(&SocketAddr::new(target.ip(), 0).into())?;
        let from = socket.local_addr()?.as_socket().ok_or_else(|| io::Error::from(io::ErrorKind::Other))?;
        group.openings.push(Opening { from, to: lane, is_connected: false, is_doubtful: false });
        group.reattach();
        if self.is_gated && !self.is_closing {
            group.hold(&self.serving);
        }
        let passage = Passage { socket: socket.into(), address, from: Some(from), handed: None };
        if let Err(error) = begin(&socket2::SockRef::from(&passage.socket), &target.into()) {
            self.close_passage(from);
            return Err(error);
        }
        Ok(passage)
    }

    /// The passage from here is connected: no packet of it is asked about any more.
    pub(crate) fn note_connected(&mut self, from: SocketAddr) {
        let is_meant = |opening: &Opening| opening.from == from && !opening.is_connected;
        for key in self.opened(is_meant) {
            let group = &mut self.groups[key];
            for opening in group.openings.iter_mut().filter(|opening| is_meant(opening)) {
                opening.is_connected = true;
            }
            group.reattach();
            self.refresh(key);
        }
    }

    /// Addresses with passages like that.
    fn opened(&self, is_meant: impl Fn(&Opening) -> bool) -> Vec<Key> {
        let groups = self.groups.iter().filter(|group| group.openings.iter().any(&is_meant));
        groups.map(|group| group.key).collect()
    }

    /// The passage from here is over. False if another worker came to its lane meanwhile: who answered is not known.
    pub(crate) fn close_passage(&mut self, from: SocketAddr) -> bool {
        let is_meant = |opening: &Opening| opening.from == from;
        let mut is_sure = true;
        for key in self.opened(is_meant) {
            let group = &mut self.groups[key];
            let closed: Vec<Opening> = group.openings.extract_if(.., |opening| is_meant(opening)).collect();
            is_sure &= !closed.iter().any(|opening| opening.is_doubtful);
            if closed.iter().any(|opening| !opening.is_connected) {
                group.reattach();
            }
            self.refresh(key);
        }
        is_sure
    }
}

impl Group {
    /// Another worker gets this lane, beside who has it: one that hangs is replaced so, and what waits there is the
    /// newcomer's to answer.
    pub(super) fn doubt_openings(&mut self, lane: LaneId) {
        for opening in self.openings.iter_mut().filter(|opening| opening.to == lane) {
            opening.is_doubtful = true;
        }
    }
}

/// Begins to connect.
fn begin(socket: &Socket, target: &SockAddr) -> io::Result<()> {
    match socket.connect(target) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(()),
        result => result,
    }
}

/// Both ends of a connection over the loopback interface.
fn tcp_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let ours = std::net::TcpStream::connect(listener.local_addr()?)?;
    let theirs = loop {
        let (theirs, peer) = listener.accept()?;
        // Whoever else found the port meanwhile.
        if peer == ours.local_addr()? {
            break theirs;
        }
    };
    ours.set_nonblocking(true)?;
    theirs.set_nonblocking(true)?;
    Ok((ours.into(), theirs.into()))
}

fn unix_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    theirs.set_nonblocking(true)?;
    Ok((ours.into(), theirs.into()))
}

/// The address by which this machine reaches a listener of its own.
fn near(listener: SocketAddr, is_only_v6: bool) -> SocketAddr {
    let mut target = canonical(listener);
    match target.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => target.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => {
            // IPv6 may be in the kernel and its loopback address not.
            let has_v6 = is_only_v6 || std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
            let ip = if has_v6 { IpAddr::from(Ipv6Addr::LOCALHOST) } else { Ipv4Addr::LOCALHOST.into() };
            target.set_ip(ip);
        }
        _ => {}
    }
    target
}

#[cfg(test)]
mod tests;
