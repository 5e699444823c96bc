//! Adoption: giving an unmodified program its lane by answering its `bind` and `listen` system calls, and keeping it from
//! removing the path of a Unix socket that is not its alone.
//!
//! Reads what the caller asks for and what it has set on its socket, asks the port table, and puts the lane in the
//! place of the caller's socket. Decides nothing about workers. A call that is none of our business (another
//! family, port 0, another network namespace, a socket that is bound to one network device) is let through untouched.

mod private;
mod watchers;

use std::cell::OnceCell;
use std::ffi::{OsStr, OsString};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use allcores_core::worker::WorkerId;
use rustix::process::{PidfdFlags, PidfdGetfdFlags};

use crate::address::Address;
use crate::ports::{Applicant, LaneId, Ports, Profile, Unavailable};
use crate::proc;
use crate::sys::process::read_memory;
use crate::sys::seccomp::{self, Answer, Call, Notification};

use watchers::Watchers;

/// What a notification came to.
#[derive(Debug)]
pub(crate) enum Adopted {
    /// Nothing of ours: the call went through untouched, or the caller is gone.
    Nothing,
    /// It bound an address and now has this lane there. A UDP socket serves from here on.
    Bound { lane: LaneId, is_serving: bool },
    /// It listens.
    Listening { lane: LaneId, process: u32 },
    /// The address can't be had; the caller was told so.
    Unavailable { address: Address, why: Unavailable },
    /// Its socket is bound to one network device, so the call went through untouched.
    OfDevice(Address),
    /// An event loop watches its socket already, and can't be made to watch a lane in its place: the call went through
    /// untouched.
    Watched(Address, io::Error),
    /// We could not look at what it asked for, or may not, so the call went through untouched.
    Unseen(io::Error),
}

/// Answers one notification of the worker whose first process is `leader`.
pub(crate) fn handle(
    ports: &mut Ports,
    applicant: &Applicant,
    leader: u32,
    listener: BorrowedFd<'_>,
    notification: Notification,
) -> Adopted {
    let caller = Caller { leader, listener, notification };
    let outcome = match notification.call {
        Call::Bind { address, length } => caller.bind(ports, applicant, address, length),
        Call::Listen { backlog } => caller.listen(ports, applicant, backlog),
        Call::Unlink { path } => {
            caller.unlink(ports, applicant.worker, path);
            Ok(Adopted::Nothing)
        }
    };
    outcome.unwrap_or_else(|error| {
        let is_its_own = has_erred(notification.thread, &error);
        let waits = seccomp::is_waiting(listener, &notification);
        // Something about the caller could not be read. The kernel gives it the answer that it would have had
        // without us, which is better than none.
        caller.answer(Answer::Continue);
        if waits && !is_its_own { Adopted::Unseen(error) } else { Adopted::Nothing }
    })
}

/// Whether it is a thread's own mistake that this came of, which the kernel will tell it: an address that is nowhere, a
/// descriptor that is not open or no socket. Not if the thread itself is not to be found.
fn has_erred(thread: u32, error: &io::Error) -> bool {
    let is_its_own = |errno| matches!(errno, libc::EFAULT | libc::EIO | libc::ENOENT | libc::ENOTSOCK);
    error.raw_os_error().is_some_and(is_its_own) && proc::process_of(thread).is_ok()
}

/// Whether a call binds a path of the file system that others may bind too.
pub(crate) fn binds_a_file(notification: &Notification) -> bool {
    let Call::Bind { address, length } = notification.call else { return false };
    let thread = notification.thread;
    match (read_sockaddr(thread, address, length), proc::process_of(thread)) {
        (Ok(Some(Sockaddr::Unix(name))), Ok(process)) if name.first() != Some(&0) => {
            !private::is_private(&Address::Unix(absolute(name, process)), process)
        }
        _ => false,
    }
}

/// A thread that waits for our answer.
#[derive(Clone, Copy, Debug)]
struct Caller<'a> {
    /// Its worker's first process.
    leader: u32,
    listener: BorrowedFd<'a>,
    notification: Notification,
}

/// What a caller's socket is.
struct Target {
    protocol: Protocol,
    is_only_v6: bool,
    profile: Profile,
    closes_on_exec: bool,
    inode: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Tcp,
    Udp,
    UnixStream,
    Other,
}

impl Caller<'_> {
    fn answer(&self, answer: Answer) {
        // It fails only when the caller no longer waits, and then there is nobody to tell.
        let _ = seccomp::answer(self.listener, &self.notification, answer);
    }

    fn bind(
        &self,
        ports: &mut Ports,
        applicant: &Applicant,
        address: u64,
        length: u32,
    ) -> io::Result<Adopted> {
        let thread = self.notification.thread;
        let Some(sockaddr) = read_sockaddr(thread, address, length)? else {
            self.answer(Answer::Continue);
            return Ok(Adopted::Nothing);
        };
        let process = proc::process_of(thread)?;
        let is_foreign = match sockaddr {
            Sockaddr::Ip(_) => !proc::shares_our_network(thread),
            Sockaddr::Unix(ref name) if name.first() == Some(&0) => !proc::shares_our_network(thread),
            Sockaddr::Unix(_) => !proc::shares_our_files(thread),
        };
        let mut target = self.target(process)?;
        if matches!(sockaddr, Sockaddr::Unix(_)) {
            target.profile.owner = Some(proc::Owner::of(thread)?);
        }
        let is_ours = |address: &Address| !private::is_private(address, process);
        let address = address_of(sockaddr, &target, process).filter(is_ours);
        // What was read until here was the caller's if it still waits: else its number may be another's by now.
        if !seccomp::is_waiting(self.listener, &self.notification) {
            return Ok(Adopted::Nothing);
        }
        let Some(address) = address.filter(|_| !is_foreign) else {
            self.answer(Answer::Continue);
            return Ok(Adopted::Nothing);
        };
        let address = as_known(address, ports);
        if let Some(lane) = ports.by_inode(target.inode) {
            // A signal interrupted this very call after its socket had been replaced; or it binds twice.
            let is_same = ports.describe(lane).is_some_and(|bound| bound.address == address);
            self.answer(if is_same { Answer::Done } else { Answer::Fail(libc::EINVAL) });
            return Ok(Adopted::Nothing);
        }
        if target.profile.has_own_device {
            // A lane could be reached by all devices.
            self.answer(Answer::Continue);
            return Ok(Adopted::OfDevice(address));
        }
        let watchers = match Watchers::of(process, self.notification.fd, target.inode) {
            Ok(watchers) => watchers,
            Err(error) => {
                let waits = seccomp::is_waiting(self.listener, &self.notification);
                self.answer(Answer::Continue);
                return Ok(if waits { Adopted::Watched(address, error) } else { Adopted::Nothing });
            }
        };
        self.bind_lane(ports, applicant, process, address, &target, &watchers)
    }

    fn bind_lane(
        &self,
        ports: &mut Ports,
        applicant: &Applicant,
        process: u32,
        address: Address,
        target: &Target,
        watchers: &Watchers,
    ) -> io::Result<Adopted> {
        let processes = OnceCell::new();
        let mut search = proc::Search::around(self.known(process), &processes);
        let still_has = |_, inode| !search.is_closed(inode);
        let lane = match ports.obtain_to_bind(applicant, &address, &target.profile, still_has) {
            Ok(lane) => lane,
            Err(why) => {
                self.answer(Answer::Fail(why.errno));
                return Ok(if why.reason.is_some() {
                    Adopted::Unavailable { address, why }
                } else {
                    Adopted::Nothing
                });
            }
        };
        ports.dress(lane, &target.profile);
        let socket = ports.socket(lane).ok_or(io::ErrorKind::NotFound)?;
        let replaced =
            seccomp::replace_descriptor(self.listener, &self.notification, socket, target.closes_on_exec);
        match replaced.and_then(|()| watchers.turn_to(socket)) {
            Ok(()) => self.answer(Answer::Done),
            Err(error) => self.answer(Answer::Fail(error.raw_os_error().unwrap_or(libc::EIO))),
        }
        Ok(Adopted::Bound { lane, is_serving: address.is_udp() })
    }

    /// Processes by which all of the caller's worker are known: one that was left by its parent, and opened a session of its own,
    /// is known by nothing but itself.
    fn known(&self, process: u32) -> Vec<u32> {
        let session = proc::Stat::read(process).map_or(process, |stat| stat.session);
        let mut known = vec![self.leader, session, process];
        known.dedup();
        known
    }

    fn listen(&self, ports: &mut Ports, applicant: &Applicant, backlog: i32) -> io::Result<Adopted> {
        let process = proc::process_of(self.notification.thread)?;
        let inode = proc::socket_inode(process, self.notification.fd)?;
        let Some(bound) = ports.by_inode(inode) else {
            self.answer(Answer::Continue);
            return Ok(Adopted::Nothing);
        };
        let has_copies = ports.cares_for_copies(bound).then(|| self.has_copies(process, inode));
        // A signal may have interrupted the call, which comes again: it is not to be half done then.
        if !seccomp::is_waiting(self.listener, &self.notification) {
            return Ok(Adopted::Nothing);
        }
        if let Some(has_copies) = has_copies {
            ports.note_copies(bound, has_copies);
        }
        let lane = self.exchange(ports, applicant, process, bound).unwrap_or(bound);
        match ports.listen(lane, backlog) {
            Ok(()) => {
                self.answer(Answer::Done);
                Ok(Adopted::Listening { lane, process })
            }
            Err(error) => {
                self.answer(Answer::Fail(error.raw_os_error().unwrap_or(libc::EIO)));
                Ok(Adopted::Nothing)
            }
        }
    }

    /// Whether the caller's socket is known by more than one descriptor, be it another process's of its worker, or to an event
    /// loop: these would still mean that socket when another has come in its place. What we may not look at may be one.
    fn has_copies(&self, process: u32, inode: u64) -> bool {
        let around = proc::Processes::read().around(&self.known(process));
        let copies: Option<usize> = around.into_iter().map(|member| plain_copies(member, inode)).sum();
        copies != Some(1)
    }

    /// Lets a file be removed that is not a socket's of ours, and has the caller believe that one is removed that is. What can't
    /// be found out about it is left to the kernel.
    fn unlink(&self, ports: &mut Ports, worker: WorkerId, path: u64) {
        let file = self.file_of_ours(ports, path).ok().flatten();
        // What was read until here was the caller's if it still waits.
        let is_withheld = file.is_some_and(|(name, file)| {
            seccomp::is_waiting(self.listener, &self.notification) && ports.withholds(worker, &name, file)
        });
        self.answer(if is_withheld { Answer::Done } else { Answer::Continue });
    }

    /// The name in its folder, device and inode of a file that may be a socket's of ours. No other is looked at: it may be on a
    /// file system that has its time, or that a worker serves.
    fn file_of_ours(&self, ports: &Ports, path: u64) -> io::Result<Option<(OsString, (u64, u64))>> {
        let Notification { thread, fd: folder, .. } = self.notification;
        let path = read_path(thread, path)?;
        let name = path.rsplit(|byte| *byte == b'/').next().map(OsStr::from_bytes).unwrap_or_default();
        if !ports.has_file_named(name) || !proc::shares_our_files(thread) {
            return Ok(None);
        }
        let file = std::fs::symlink_metadata(seen_by(thread, folder, &path))?;
        Ok(Some((name.to_owned(), (file.dev(), file.ino()))))
    }

    /// Puts a lane that listens in the place of the one that the caller has bound, if there is one for it: connections wait there
    /// that its predecessor has left.
    fn exchange(
        &self,
        ports: &mut Ports,
        applicant: &Applicant,
        process: u32,
        bound: LaneId,
    ) -> Option<LaneId> {
        let lane = ports.successor_of(bound, applicant)?;
        let closes_on_exec =
            proc::descriptor_flags(process, self.notification.fd).ok()? & libc::O_CLOEXEC != 0;
        ports.dress_as(lane, bound);
        let socket = ports.socket(lane)?;
        // Where that fails, the caller listens on what it has.
        seccomp::replace_descriptor(self.listener, &self.notification, socket, closes_on_exec).ok()?;
        ports.exchange(bound, lane, applicant);
        Some(lane)
    }

    /// Looks at the socket that the call names.
    fn target(&self, process: u32) -> io::Result<Target> {
        let fd = self.notification.fd;
        let flags = proc::descriptor_flags(process, fd)?;
        let copy = take_copy(process, fd).ok();
        let mut profile = copy.as_ref().map(Profile::of).unwrap_or_default();
        profile.is_nonblocking = Some(flags & libc::O_NONBLOCK != 0);
        let inode = proc::socket_inode(process, fd)?;
        let protocol = match &copy {
            Some(copy) => protocol_of(copy)?,
            None => {
                protocol_named(&proc::socket_protocol(process, fd)?, || proc::is_unix_stream(process, inode))
            }
        };
        let is_only_v6 =
            copy.as_ref().is_some_and(|copy| rustix::net::sockopt::ipv6_v6only(copy).unwrap_or(false));
        Ok(Target { protocol, is_only_v6, profile, closes_on_exec: flags & libc::O_CLOEXEC != 0, inode })
    }
}

/// How many descriptors of a socket a process has, not counting those by which an event loop knows it. `None` if one does, or
/// that can't be seen.
fn plain_copies(process: u32, inode: u64) -> Option<usize> {
    let is_watched = match proc::watched_by(process, watchers::MOST) {
        Ok(watched) => watched.iter().any(|watched| watched.inode == inode),
        Err(_) => !proc::has_ended(process),
    };
    let sockets = proc::all_sockets_of(process).ok().filter(|_| !is_watched)?;
    Some(sockets.into_iter().filter(|(_, socket)| *socket == inode).count())
}

/// A copy of another process's descriptor. A container may forbid it; then the lane is made from what `/proc` and
/// the address tell.
pub(crate) fn take_copy(process: u32, fd: i32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(process).ok().and_then(rustix::process::Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    Ok(rustix::process::pidfd_getfd(pidfd, fd, PidfdGetfdFlags::empty())?)
}

fn protocol_of(socket: &OwnedFd) -> io::Result<Protocol> {
    use rustix::net::{AddressFamily as Family, SocketType as Type, sockopt};
    let (family, kind) = (sockopt::socket_domain(socket)?, sockopt::socket_type(socket)?);
    let number = sockopt::socket_protocol(socket)?.map_or(0, |protocol| protocol.as_raw().get());
    // Multipath TCP (Go's default for listeners) becomes plain TCP, which every client of it speaks too.
    let is_tcp = [libc::IPPROTO_TCP, libc::IPPROTO_MPTCP].map(i32::cast_unsigned).contains(&number);
    Ok(match (family, kind) {
        (Family::INET | Family::INET6, Type::STREAM) if is_tcp => Protocol::Tcp,
        (Family::INET | Family::INET6, Type::DGRAM) if number == libc::IPPROTO_UDP.cast_unsigned() => {
            Protocol::Udp
        }
        (Family::UNIX, Type::STREAM) => Protocol::UnixStream,
        _ => Protocol::Other,
    })
}

/// Before Linux 5.15, Unix sockets of all kinds have one name, and `is_unix_stream` is asked.
fn protocol_named(name: &str, is_unix_stream: impl FnOnce() -> bool) -> Protocol {
    match name {
        "TCP" | "TCPv6" | "MPTCP" | "MPTCPv6" => Protocol::Tcp,
        "UDP" | "UDPv6" => Protocol::Udp,
        "UNIX-STREAM" => Protocol::UnixStream,
        "UNIX" if is_unix_stream() => Protocol::UnixStream,
        _ => Protocol::Other,
    }
}

/// An address that might be ours.
#[derive(Debug, PartialEq, Eq)]
enum Sockaddr {
    Ip(SocketAddr),
    Unix(Vec<u8>),
}

/// Reads what a thread names in a call: see [`parse`].
fn read_sockaddr(thread: u32, address: u64, length: u32) -> io::Result<Option<Sockaddr>> {
    let mut buffer = [0_u8; 128];
    let wanted = buffer.len().min(usize::try_from(length).unwrap_or(0));
    let count = read_memory(thread, address, &mut buffer[..wanted])?;
    Ok(parse(&buffer[..count]))
}

/// Reads a `struct sockaddr`. `None` for families that are not adopted, port 0, and unnamed Unix sockets.
fn parse(bytes: &[u8]) -> Option<Sockaddr> {
    let (family, rest) = bytes.split_first_chunk::<2>()?;
    let port = || Some(u16::from_be_bytes(*rest.first_chunk()?)).filter(|port| *port != 0);
    match i32::from(u16::from_ne_bytes(*family)) {
        libc::AF_INET => {
            let ip: [u8; 4] = rest.get(2..6)?.try_into().ok()?;
            Some(Sockaddr::Ip(SocketAddrV4::new(Ipv4Addr::from(ip), port()?).into()))
        }
        libc::AF_INET6 => {
            let ip: [u8; 16] = rest.get(6..22)?.try_into().ok()?;
            let scope =
                rest.get(22..26).and_then(|scope| scope.try_into().ok()).map_or(0, u32::from_ne_bytes);
            // Flow information, which stands before it, is none of an address's that is bound.
            Some(Sockaddr::Ip(SocketAddrV6::new(Ipv6Addr::from(ip), port()?, 0, scope).into()))
        }
        libc::AF_UNIX => {
            let is_abstract = rest.first() == Some(&0);
            let end = rest.iter().position(|byte| *byte == 0).filter(|_| !is_abstract).unwrap_or(rest.len());
            Some(Sockaddr::Unix(rest[..end].to_vec())).filter(|_| end > 0)
        }
        _ => None,
    }
}

fn address_of(sockaddr: Sockaddr, target: &Target, process: u32) -> Option<Address> {
    match (sockaddr, target.protocol) {
        (Sockaddr::Ip(socket), Protocol::Tcp) => {
            Some(Address::Tcp { socket, is_only_v6: socket.is_ipv6() && target.is_only_v6 })
        }
        (Sockaddr::Ip(socket), Protocol::Udp) => {
            Some(Address::Udp { socket, is_only_v6: socket.is_ipv6() && target.is_only_v6 })
        }
        (Sockaddr::Unix(name), Protocol::UnixStream) => Some(Address::Unix(absolute(name, process))),
        _ => None,
    }
}

/// Workers may name the same socket relative to different folders.
fn absolute(name: Vec<u8>, process: u32) -> Vec<u8> {
    use std::os::unix::ffi::OsStringExt;
    if matches!(name.first(), Some(0 | b'/') | None) {
        return name;
    }
    let Ok(folder) = std::fs::read_link(format!("/proc/{process}/cwd")) else { return name };
    folder.join(std::ffi::OsString::from_vec(name)).into_os_string().into_vec()
}

/// An address by the name under which it is known, where the same file was bound by another path to it: through a symbolic
/// link to its folder, or from another folder.
fn as_known(address: Address, ports: &Ports) -> Address {
    let known = || {
        let path = address.path()?;
        let name = path.file_name().filter(|name| ports.has_file_named(name))?;
        let file = std::fs::symlink_metadata(path).ok()?;
        ports.address_of_file(name, (file.dev(), file.ino())).cloned()
    };
    known().unwrap_or(address)
}

/// The longest path that the kernel takes, with its NUL.
const PATH_MAX: usize = 4096;

/// What is mapped is mapped in pieces of at least this size.
const PAGE: usize = 4096;

/// Reads a path at `address` of a thread, without its NUL.
fn read_path(thread: u32, address: u64) -> io::Result<Vec<u8>> {
    let mut path = Vec::new();
    while path.len() < PATH_MAX {
        let at = address.saturating_add(path.len() as u64);
        // Not beyond the page, as the next may not be there.
        let length = PAGE - usize::try_from(at % PAGE as u64).unwrap_or(0);
        let mut piece = [0; PAGE];
        let count = read_memory(thread, at, &mut piece[..length])?;
        if let Some(end) = piece[..count].iter().position(|byte| *byte == 0) {
            path.extend_from_slice(&piece[..end]);
            return Ok(path);
        }
        if count == 0 {
            break;
        }
        path.extend_from_slice(&piece[..count]);
    }
    Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG))
}

/// The path to what a thread, which has the same root as we have, names relative to a folder.
fn seen_by(thread: u32, folder: RawFd, path: &[u8]) -> PathBuf {
    let base = match folder {
        libc::AT_FDCWD => format!("/proc/{thread}/cwd"),
        folder => format!("/proc/{thread}/fd/{folder}"),
    };
    // An absolute one takes the place of it.
    PathBuf::from(base).join(OsStr::from_bytes(path))
}

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;
