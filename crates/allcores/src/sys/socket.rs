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

fn check(result: libc::c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
