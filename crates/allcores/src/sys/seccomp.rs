//! seccomp's user notifications: the filters that report `bind` and `listen`, or the removal of files, too, and the answers
//! to their reports.
//!
//! Sources: seccomp(2), seccomp_unotify(2). Deliberately does not decide anything.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use libc::{sock_filter, sock_fprog};
use rustix::event::{PollFd, PollFlags};

#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xC000_00B7;

/// Set in the number of x32 system calls, which share x86-64's architecture value but not its numbers' meaning.
#[cfg(target_arch = "x86_64")]
const X32: u32 = 0x4000_0000;

/// Where the third argument's lower half lies: the kernel takes C ints from there.
const THIRD: u32 = 32;

/// A filter that turns some calls into notifications and lets everything else pass at native speed.
#[derive(Debug)]
pub(crate) struct Filter(Vec<sock_filter>);

impl Filter {
    /// Reports `bind` and `listen`.
    pub(crate) fn bind_and_listen() -> Self {
        let mut code = head();
        code.extend([
            jump_if_equal(number(libc::SYS_bind), 2, 0),
            jump_if_equal(number(libc::SYS_listen), 1, 0),
            give(libc::SECCOMP_RET_ALLOW),
            give(libc::SECCOMP_RET_USER_NOTIF),
        ]);
        Self(code)
    }

    /// Reports these and `unlink`, by which programs remove a socket's path; not `rmdir`.
    pub(crate) fn bind_listen_and_unlink() -> Self {
        let mut code = head();
        // 64-bit ARM has the second alone.
        #[cfg(target_arch = "x86_64")]
        code.extend([jump_if_equal(number(libc::SYS_unlink), 0, 1), give(libc::SECCOMP_RET_USER_NOTIF)]);
        code.extend([
            jump_if_equal(number(libc::SYS_bind), 5, 0),
            jump_if_equal(number(libc::SYS_listen), 4, 0),
            jump_if_equal(number(libc::SYS_unlinkat), 0, 2),
            // With flags it removes a folder, or nothing.
            load(THIRD),
            jump_if_equal(0, 1, 0),
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

/// Lets calls of other architectures pass, and goes on with the call's number.
fn head() -> Vec<sock_filter> {
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
    code
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
    /// `unlink(path)`, or `unlinkat(fd, path, 0)`.
    Unlink { path: u64 },
}

/// A thread that waits in a system call for our answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Notification {
    id: u64,
    /// The thread, as its own process id would be written.
    pub(crate) thread: u32,
    /// The descriptor that the call names, in the caller's table; AT_FDCWD where that is meant.
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
    unless_interrupted(|| receive_once(listener))
}

fn receive_once(listener: BorrowedFd<'_>) -> io::Result<Notification> {
    let mut ready = [PollFd::from_borrowed_fd(listener, PollFlags::IN)];
    let none = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut ready, Some(&none))?;
    has_one(ready[0].revents())?;
    // SAFETY: all-zero is a valid `seccomp_notif`, and what the kernel asks to be given.
    let mut raw: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the request takes a pointer to a `seccomp_notif`, which lives until the call returns.
    let result =
        unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV as _, &raw mut raw) };
    if result == -1 {
        let error = io::Error::last_os_error();
        return Err(match error.raw_os_error() {
            Some(libc::ENOENT) => io::ErrorKind::WouldBlock.into(),
            _ => error,
        });
    }
    Ok(decode(&raw))
}

/// Whether there is a notification, by what the kernel tells of a listener.
fn has_one(events: PollFlags) -> io::Result<()> {
    Err(if events.contains(PollFlags::IN) {
        return Ok(());
    } else if events.contains(PollFlags::HUP) {
        io::ErrorKind::BrokenPipe
    } else if events.contains(PollFlags::ERR) {
        // The listener has not failed: a signal came while the kernel waited for a lock, and it did not look.
        io::ErrorKind::Interrupted
    } else {
        io::ErrorKind::WouldBlock
    }
    .into())
}

/// Does what a signal for this thread may interrupt, until none has. What the kernel was asked for was not done then, or not
/// found out.
fn unless_interrupted<T>(mut operation: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match operation() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the kernel takes C ints from these registers")]
fn decode(raw: &libc::seccomp_notif) -> Notification {
    let [first, second, third, ..] = raw.data.args;
    let (fd, call) = match libc::c_long::from(raw.data.nr) {
        libc::SYS_bind => (first as RawFd, Call::Bind { address: second, length: third as u32 }),
        libc::SYS_unlinkat => (first as RawFd, Call::Unlink { path: second }),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_unlink => (libc::AT_FDCWD, Call::Unlink { path: first }),
        _ => (first as RawFd, Call::Listen { backlog: second as i32 }),
    };
    Notification { id: raw.id, thread: raw.pid, fd, call }
}

/// Whether the caller still waits: what was read from its process before this said yes was the caller's.
pub(crate) fn is_waiting(listener: BorrowedFd<'_>, notification: &Notification) -> bool {
    // SAFETY: the request takes a pointer to a u64, which lives until the call returns, and does not write to it.
    unsafe {
        control(listener, libc::SECCOMP_IOCTL_NOTIF_ID_VALID as _, (&raw const notification.id).cast_mut())
    }
    .is_ok()
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
    unsafe { control(listener, libc::SECCOMP_IOCTL_NOTIF_SEND as _, &raw mut response) }
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
    unsafe { control(listener, libc::SECCOMP_IOCTL_NOTIF_ADDFD as _, &raw mut request) }
}

/// Asks the kernel for something about a listener; again where a signal came first.
///
/// # Safety
///
/// `argument` points to what this request takes and writes.
unsafe fn control<T>(listener: BorrowedFd<'_>, request: libc::Ioctl, argument: *mut T) -> io::Result<()> {
    // SAFETY: promised by the caller.
    unless_interrupted(|| check(unsafe { libc::ioctl(listener.as_raw_fd(), request, argument) }))
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::mem::zeroed;
    use std::os::fd::{FromRawFd, OwnedFd};
    use std::ptr;
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    /// Interrupts the thread that has begun it, many thousand times a second.
    struct Storm(libc::timer_t);

    impl Storm {
        fn begin() -> Self {
            extern "C" fn nothing(_: libc::c_int) {}
            let every = libc::timespec { tv_sec: 0, tv_nsec: 50_000 };
            let spec = libc::itimerspec { it_interval: every, it_value: every };
            let mut timer = ptr::null_mut();
            // SAFETY: all-zero is a valid value of both structs; the calls read them and write `timer`, all of which live until
            // they return. The handler does nothing, and the signal is ignored by whoever does not want it.
            unsafe {
                let mut action: libc::sigaction = zeroed();
                action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
                action.sa_flags = libc::SA_RESTART;
                check(libc::sigaction(libc::SIGURG, &raw const action, ptr::null_mut())).unwrap();
                let mut event: libc::sigevent = zeroed();
                event.sigev_notify = libc::SIGEV_THREAD_ID;
                event.sigev_signo = libc::SIGURG;
                event.sigev_notify_thread_id = libc::gettid();
                check(libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer)).unwrap();
                check(libc::timer_settime(timer, 0, &raw const spec, ptr::null_mut())).unwrap();
            }
            Self(timer)
        }
    }

    impl Drop for Storm {
        fn drop(&mut self) {
            // SAFETY: it was made by `begin`, and is deleted once.
            unsafe { libc::timer_delete(self.0) };
        }
    }

    #[test]
    fn a_signal_is_not_taken_for_the_end_of_notifications() {
        // As quiet as a listener whose worker binds nothing.
        let (quiet, _other) = rustix::pipe::pipe().unwrap();
        let _storm = Storm::begin();
        for _ in 0..200_000 {
            assert_eq!(receive(quiet.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
    }

    /// Puts this thread under a filter.
    fn submit(filter: &Filter) -> io::Result<OwnedFd> {
        let program = filter.program();
        // SAFETY: the calls read numbers and `program`, which lives until they return; they change this thread alone. What comes
        // of the second is a new descriptor.
        unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
            let mode = libc::SECCOMP_SET_MODE_FILTER;
            let listener = libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program);
            let listener = RawFd::try_from(listener).unwrap_or(-1);
            check(listener.min(0))?;
            Ok(OwnedFd::from_raw_fd(listener))
        }
    }

    #[test]
    fn each_call_is_answered_whatever_signals_come_meanwhile() {
        const CALLS: usize = 1000;
        let (tell, told) = mpsc::channel();
        let caller = thread::spawn(move || {
            tell.send(submit(&Filter::bind_and_listen())).unwrap();
            let call = || {
                // SAFETY: there is no such descriptor, and nothing else is passed.
                unsafe { libc::listen(-1, 0) };
                io::Error::last_os_error().raw_os_error()
            };
            [(); CALLS].map(|()| call())
        });
        let listener = match told.recv().unwrap() {
            Ok(listener) => listener,
            Err(error) => allcores_testing::skip!("no filter can be had here: {error}"),
        };
        let _storm = Storm::begin();
        let next = || loop {
            match receive(listener.as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::yield_now(),
                received => break received.unwrap(),
            }
        };
        for _ in 0..CALLS {
            let notification = next();
            assert!(is_waiting(listener.as_fd(), &notification));
            answer(listener.as_fd(), &notification, Answer::Fail(libc::EXDEV)).unwrap();
        }
        assert_eq!(caller.join().unwrap(), [Some(libc::EXDEV); CALLS]);
    }

    #[test]
    fn notifications_are_over_when_the_kernel_says_so_and_not_when_it_could_not_look() {
        let kind = |events| has_one(events).map_err(|error| error.kind());
        assert_eq!(kind(PollFlags::IN | PollFlags::HUP), Ok(()));
        assert_eq!(kind(PollFlags::HUP), Err(io::ErrorKind::BrokenPipe));
        assert_eq!(kind(PollFlags::ERR), Err(io::ErrorKind::Interrupted));
        assert_eq!(kind(PollFlags::empty()), Err(io::ErrorKind::WouldBlock));
    }

    /// What a filter says to a call: the program run as the kernel would.
    fn verdict(filter: &Filter, arch: u32, call: libc::c_long, third: u64) -> u32 {
        let mut data = [0_u8; 64];
        data[..4].copy_from_slice(&u32::try_from(call).unwrap().to_ne_bytes());
        data[4..8].copy_from_slice(&arch.to_ne_bytes());
        data[32..40].copy_from_slice(&third.to_ne_bytes());
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let step = filter.0[at];
            at += 1;
            let mut jump = |does: bool| at += usize::from(if does { step.jt } else { step.jf });
            match step.code {
                0x20 => {
                    let from = step.k as usize;
                    accumulator = u32::from_ne_bytes(data[from..from + 4].try_into().unwrap());
                }
                0x15 => jump(accumulator == step.k),
                0x35 => jump(accumulator >= step.k),
                0x06 => return step.k,
                code => panic!("no instruction of ours: {code:#x}"),
            }
        }
    }

    #[test]
    fn the_calls_that_are_meant_are_reported_and_no_others() {
        let (small, large) = (Filter::bind_and_listen(), Filter::bind_listen_and_unlink());
        let removes_folder = u64::from(libc::AT_REMOVEDIR.cast_unsigned());
        let calls = [
            (libc::SYS_bind, 0, true, true),
            (libc::SYS_listen, 0, true, true),
            (libc::SYS_bind, removes_folder, true, true),
            #[cfg(target_arch = "x86_64")]
            (libc::SYS_unlink, removes_folder, false, true),
            (libc::SYS_unlinkat, 0, false, true),
            // The upper half is not looked at by the kernel either.
            (libc::SYS_unlinkat, 1 << 32, false, true),
            (libc::SYS_unlinkat, removes_folder, false, false),
            #[cfg(target_arch = "x86_64")]
            (libc::SYS_rmdir, 0, false, false),
            (libc::SYS_connect, 0, false, false),
            (libc::SYS_renameat, 0, false, false),
        ];
        for (call, third, by_small, by_large) in calls {
            for (filter, is_reported) in [(&small, by_small), (&large, by_large)] {
                let expected =
                    if is_reported { libc::SECCOMP_RET_USER_NOTIF } else { libc::SECCOMP_RET_ALLOW };
                assert_eq!(verdict(filter, ARCH, call, third), expected, "{call} {third:#x}");
                assert_eq!(verdict(filter, ARCH ^ 1, call, third), libc::SECCOMP_RET_ALLOW);
            }
        }
        #[cfg(target_arch = "x86_64")]
        assert_eq!(
            verdict(&large, ARCH, libc::SYS_unlink | libc::c_long::from(X32), 0),
            libc::SECCOMP_RET_ALLOW
        );
    }
}
