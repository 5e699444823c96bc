//! Socket options that no safe library offers.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

use allcores_core::selector::Instruction;

/// An accept queue, as the kernel sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Queue {
    /// Connections that wait to be accepted.
    pub(crate) depth: u32,
    /// How many may.
    pub(crate) limit: u32,
    /// Whether the socket listens at all: a holder may have shut it down.
    pub(crate) is_listening: bool,
}

/// Reads the accept queue of a TCP listener (`TCP_INFO`, whose fields a listener gives another meaning).
pub(crate) fn accept_queue(socket: impl AsFd) -> io::Result<Queue> {
    /// tcp(7)'s `TCP_LISTEN`.
    const LISTEN: u8 = 10;
    // SAFETY: all-zero is a valid `tcp_info`: plain integers.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    option_into(socket, libc::IPPROTO_TCP, libc::TCP_INFO, &mut info)?;
    Ok(Queue { depth: info.tcpi_unacked, limit: info.tcpi_sacked, is_listening: info.tcpi_state == LISTEN })
}

/// Reads an option whose value is a C int.
pub(crate) fn int_option(socket: impl AsFd, level: i32, name: i32) -> io::Result<i32> {
    let mut value: libc::c_int = 0;
    option_into(socket, level, name, &mut value)?;
    Ok(value)
}

/// A type that is valid whatever bytes the kernel writes into it.
trait PlainOption {}
impl PlainOption for libc::c_int {}
impl PlainOption for libc::tcp_info {}

fn option_into<T: PlainOption>(socket: impl AsFd, level: i32, name: i32, value: &mut T) -> io::Result<()> {
    let mut length = libc::socklen_t::try_from(size_of::<T>()).expect("options are small");
    // SAFETY: the kernel writes at most `length` bytes, the size of `T`, and any bytes make a valid `T`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            std::ptr::from_mut(value).cast(),
            &raw mut length,
        )
    };
    check(result)
}

/// Sets an option whose value is a C int.
pub(crate) fn set_int_option(socket: impl AsFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    set_option(socket, level, name, &value)
}

/// Tells the kernel how to pick a member of the SO_REUSEPORT group that `member` belongs to. Needs no privilege.
pub(crate) fn attach_selector(member: impl AsFd, program: &[Instruction]) -> io::Result<()> {
    attach(member, libc::SO_ATTACH_REUSEPORT_CBPF, program)
}

/// Sets the filter that each packet for `socket` must pass.
pub(crate) fn attach_filter(socket: impl AsFd, program: &[Instruction]) -> io::Result<()> {
    attach(socket, libc::SO_ATTACH_FILTER, program)
}

/// Lets every packet for `socket` through again.
pub(crate) fn detach_filter(socket: impl AsFd) -> io::Result<()> {
    let unused: libc::c_int = 0;
    set_option(socket, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, &unused)
}

fn attach(socket: impl AsFd, option: i32, program: &[Instruction]) -> io::Result<()> {
    let code: Vec<libc::sock_filter> = program
        .iter()
        .map(|step| libc::sock_filter { code: step.code, jt: step.jt, jf: step.jf, k: step.k })
        .collect();
    let len = libc::c_ushort::try_from(code.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let program = libc::sock_fprog { len, filter: code.as_ptr().cast_mut() };
    set_option(socket, libc::SOL_SOCKET, option, &program)
}

fn set_option<T>(socket: impl AsFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).expect("options are small");
    // SAFETY: the kernel reads `length` bytes, the size of `T`, from `value`; a `sock_fprog` in it points to an
    // array that the caller keeps until this returns, and the kernel does not write to it.
    let result = unsafe {
        libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), length)
    };
    check(result)
}

/// Who sent a datagram over a Unix socket, by the kernel's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sender {
    /// 0 for a process that we can't see.
    pub(crate) pid: u32,
    pub(crate) uid: u32,
}

/// Takes one datagram of a Unix socket that has SO_PASSCRED; what is longer than `buffer` is lost. Descriptors that came
/// with it are closed by the kernel, for want of room.
///
/// Not rustix's call: it has no value for the process id 0, by which the kernel names a sender that we can't see.
pub(crate) fn receive_from(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Sender)> {
    /// The size of `struct ucred`, and of a control message with one.
    const UCRED: libc::c_uint = 12;
    // SAFETY: these compute sizes from a size.
    const SPACE: usize = unsafe { libc::CMSG_SPACE(UCRED) as usize };
    const LENGTH: usize = unsafe { libc::CMSG_LEN(UCRED) as usize };
    #[repr(C, align(8))]
    struct Control([u8; SPACE]);
    const { assert!(size_of::<libc::ucred>() == UCRED as usize) };
    let mut control = Control([0; SPACE]);
    let mut data = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all-zero is a valid `msghdr`: null pointers and lengths of zero.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut data;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = SPACE as _;
    let flags = libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT;
    // SAFETY: `message` names `buffer` and `control`, which are writable for the lengths given and outlive the call.
    let count = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, flags) };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has written headers within `control` as far as `msg_controllen` says; CMSG_FIRSTHDR gives null
    // or one that is complete, and the content is read only if header and length say that it is a whole `ucred`, which
    // is plain integers.
    let credentials = unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        let is_credentials = !header.is_null()
            && (*header).cmsg_level == libc::SOL_SOCKET
            && (*header).cmsg_type == libc::SCM_CREDENTIALS
            && (*header).cmsg_len as usize >= LENGTH;
        is_credentials.then(|| libc::CMSG_DATA(header).cast::<libc::ucred>().read_unaligned())
    };
    let credentials = credentials.ok_or_else(|| io::Error::other("a datagram without its sender"))?;
    Ok((count, Sender { pid: u32::try_from(credentials.pid).unwrap_or(0), uid: credentials.uid }))
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    use super::*;

    #[test]
    fn a_datagram_tells_its_sender_and_leaves_no_descriptor_behind() {
        let name = format!("allcores-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(name).unwrap();
        let receiver = UnixDatagram::bind_addr(&address).unwrap();
        rustix::net::sockopt::set_socket_passcred(&receiver, true).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        sender.connect_addr(&address).unwrap();
        sender.send(b"READY=1").unwrap();
        let mut buffer = [0; 4];
        let (count, from) = receive_from(&receiver, &mut buffer).unwrap();
        assert_eq!(&buffer[..count], b"READ");
        let uid = rustix::process::getuid().as_raw();
        assert_eq!(from, Sender { pid: std::process::id(), uid });
        let error = receive_from(&receiver, &mut buffer).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        send_descriptor(&sender);
        let before = lowest_free();
        assert_eq!(receive_from(&receiver, &mut buffer).unwrap().1, from);
        assert_eq!(lowest_free(), before);
    }

    fn send_descriptor(socket: &UnixDatagram) {
        use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = [socket.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
        let data = [io::IoSlice::new(b"BARRIER=1")];
        rustix::net::sendmsg(socket, &data, &mut control, SendFlags::empty()).unwrap();
    }

    fn lowest_free() -> i32 {
        std::fs::File::open("/dev/null").unwrap().as_raw_fd()
    }
}
