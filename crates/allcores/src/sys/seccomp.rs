//! seccomp's user notifications: the filter that reports `bind` and `listen`, and the answers to its reports.
//!
//! Sources: seccomp(2), seccomp_unotify(2). Deliberately does not decide anything.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use libc::{sock_filter, sock_fprog};

#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xC000_00B7;

/// Set in the number of x32 system calls, which share x86-64's architecture value but not its numbers' meaning.
#[cfg(target_arch = "x86_64")]
const X32: u32 = 0x4000_0000;

/// A filter that turns `bind` and `listen` into notifications and lets everything else pass at native speed.
#[derive(Debug)]
pub(crate) struct Filter(Vec<sock_filter>);

impl Filter {
    /// Builds the filter.
    pub(crate) fn bind_and_listen() -> Self {
        let mut code = vec![
            load(4),
            // A program of another architecture (32-bit on a 64-bit kernel) numbers its calls otherwise.
            jump_if_equal(ARCH, 1, 0),
            give(libc::SECCOMP_RET_ALLOW),
            load(0),
        ];
        #[cfg(target_arch = "x86_64")]
        code.extend([
            sock_filter { code: 0x35, jt: 0, jf: 1, k: X32 }, // BPF_JMP | BPF_JGE | BPF_K
            give(libc::SECCOMP_RET_ALLOW),
        ]);
        code.extend([
            jump_if_equal(number(libc::SYS_bind), 2, 0),
            jump_if_equal(number(libc::SYS_listen), 1, 0),
            give(libc::SECCOMP_RET_ALLOW),
            give(libc::SECCOMP_RET_USER_NOTIF),
        ]);
        Self(code)
    }

    pub(super) fn program(&self) -> sock_fprog {
        sock_fprog {
            len: u16::try_from(self.0.len()).expect("a handful of instructions"),
            filter: self.0.as_ptr().cast_mut(),
        }
    }
}

fn number(call: libc::c_long) -> u32 {
    u32::try_from(call).expect("system call numbers are small and positive")
}

fn load(offset: u32) -> sock_filter {
    sock_filter { code: 0x20, jt: 0, jf: 0, k: offset } // BPF_LD | BPF_W | BPF_ABS
}

fn jump_if_equal(k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: 0x15, jt, jf, k } // BPF_JMP | BPF_JEQ | BPF_K
}

fn give(k: u32) -> sock_filter {
    sock_filter { code: 0x06, jt: 0, jf: 0, k } // BPF_RET | BPF_K
}

/// Which call a thread waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// `bind(fd, address, length)`.
    Bind { address: u64, length: u32 },
    /// `listen(fd, backlog)`.
    Listen { backlog: i32 },
}

/// A thread that waits in a system call for our answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Notification {
    id: u64,
    /// The thread, as its own process id would be written.
    pub(crate) thread: u32,
    /// The descriptor that the call names, in the caller's table.
    pub(crate) fd: RawFd,
    /// Which call.
    pub(crate) call: Call,
}

/// What becomes of a waiting call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The kernel carries it out, as if nothing had happened.
    Continue,
    /// It returns 0; whatever it should do has been done.
    Done,
    /// It fails with this errno.
    Fail(i32),
}

/// Takes the next notification.
///
/// # Errors
///
/// `WouldBlock` when there is none (also when the caller was killed in between); `BrokenPipe` once no process is
/// left under the filter.
pub(crate) fn receive(listener: BorrowedFd<'_>) -> io::Result<Notification> {
    let mut ready = [rustix::event::PollFd::from_borrowed_fd(listener, rustix::event::PollFlags::IN)];
    let none = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut ready, Some(&none))?;
    let events = ready[0].revents();
    if !events.contains(rustix::event::PollFlags::IN) {
        let is_over = events.intersects(rustix::event::PollFlags::HUP | rustix::event::PollFlags::ERR);
        return Err(if is_over { io::ErrorKind::BrokenPipe } else { io::ErrorKind::WouldBlock }.into());
    }
    // SAFETY: all-zero is a valid `seccomp_notif`, and what the kernel asks to be given.
    let mut raw: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the request takes a pointer to a `seccomp_notif`, which lives until the call returns.
    let result =
        unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV as _, &raw mut raw) };
    if result == -1 {
        let error = io::Error::last_os_error();
        return Err(match error.raw_os_error() {
            Some(libc::ENOENT | libc::EINTR) => io::ErrorKind::WouldBlock.into(),
            _ => error,
        });
    }
    Ok(decode(&raw))
}

#[expect(clippy::cast_possible_truncation, reason = "the kernel takes C ints from these registers")]
fn decode(raw: &libc::seccomp_notif) -> Notification {
    let [fd, second, third, ..] = raw.data.args;
    let call = if libc::c_long::from(raw.data.nr) == libc::SYS_bind {
        Call::Bind { address: second, length: third as u32 }
    } else {
        Call::Listen { backlog: second as i32 }
    };
    Notification { id: raw.id, thread: raw.pid, fd: fd as RawFd, call }
}

/// Whether the caller still waits: what was read from its process before this said yes was the caller's.
pub(crate) fn is_waiting(listener: BorrowedFd<'_>, notification: &Notification) -> bool {
    // SAFETY: the request takes a pointer to a u64, which lives until the call returns.
    let result = unsafe {
        libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID as _, &raw const notification.id)
    };
    result == 0
}

/// Ends the caller's wait.
///
/// # Errors
///
/// `NotFound` when it waits no more (killed, or a signal interrupted the call, which then comes again).
pub(crate) fn answer(
    listener: BorrowedFd<'_>,
    notification: &Notification,
    answer: Answer,
) -> io::Result<()> {
    let (error, flags) = match answer {
        Answer::Continue => (0, u32::try_from(libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE).unwrap_or(1)),
        Answer::Done => (0, 0),
        Answer::Fail(errno) => (-errno, 0),
    };
    let mut response = libc::seccomp_notif_resp { id: notification.id, val: 0, error, flags };
    // SAFETY: the request takes a pointer to a `seccomp_notif_resp`, which lives until the call returns.
    check(unsafe {
        libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND as _, &raw mut response)
    })
}

/// Puts `ours` in the place of the caller's descriptor. The caller keeps its descriptor number.
pub(crate) fn replace_descriptor(
    listener: BorrowedFd<'_>,
    notification: &Notification,
    ours: impl AsFd,
    close_on_exec: bool,
) -> io::Result<()> {
    let number = |fd: RawFd| u32::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EBADF));
    let mut request = libc::seccomp_notif_addfd {
        id: notification.id,
        flags: u32::try_from(libc::SECCOMP_ADDFD_FLAG_SETFD).unwrap_or(1),
        srcfd: number(ours.as_fd().as_raw_fd())?,
        newfd: number(notification.fd)?,
        newfd_flags: if close_on_exec { libc::O_CLOEXEC.cast_unsigned() } else { 0 },
    };
    // SAFETY: the request takes a pointer to a `seccomp_notif_addfd`, which lives until the call returns.
    check(unsafe {
        libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD as _, &raw mut request)
    })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
