//! Taking a file out of another process's event loop.
//!
//! Sources: epoll_ctl(2), proc_pid_fdinfo(5). An epoll instance knows what it watches by the open file *and* by the number
//! under which it was added, in whatever table of descriptors that was. So one that is another's can be told to forget it
//! only by who has the file under the same number: a child of ours, for a moment.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use super::vfork;

/// What we and the child share while we wait for it.
struct Shared {
    epoll: RawFd,
    file: RawFd,
    number: RawFd,
    errno: i32,
}

/// Has `epoll` no longer watch `file`, which was added to it under `number`.
///
/// # Errors
///
/// `ENOENT` if it does not watch that; or what the kernel says to the attempt to make a child.
pub(crate) fn forget(epoll: BorrowedFd<'_>, file: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    let mut shared = Shared { epoll: epoll.as_raw_fd(), file: file.as_raw_fd(), number, errno: libc::EIO };
    let (_, pidfd) = vfork::clone_into(child, &mut shared)?;
    vfork::bury(&pidfd);
    if shared.errno == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(shared.errno)) }
}

/// The child's whole life.
extern "C" fn child(argument: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `forget` passes a `Shared` that nobody else touches until this process exits.
    let shared = unsafe { &mut *argument.cast::<Shared>() };
    // SAFETY: these calls touch descriptors alone, which are this process's own copies; DEL reads no event. The last ends
    // this process without running anything of the parent's.
    unsafe {
        // Out of the way of the number, which may be its own.
        let epoll = libc::fcntl(shared.epoll, libc::F_DUPFD_CLOEXEC, shared.number.saturating_add(1));
        let is_done = epoll >= 0
            && (shared.file == shared.number || libc::dup2(shared.file, shared.number) >= 0)
            && libc::epoll_ctl(epoll, libc::EPOLL_CTL_DEL, shared.number, std::ptr::null_mut()) == 0;
        shared.errno = if is_done { 0 } else { *libc::__errno_location() };
        libc::_exit(0)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::{AsFd, OwnedFd};

    use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

    use super::*;

    fn is_told(epoll: &OwnedFd) -> bool {
        let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        epoll::wait(epoll, &mut events[..], Some(&now)).unwrap() == 1
    }

    #[test]
    fn what_was_added_under_a_number_is_forgotten_by_that_number() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let epoll = epoll::create(CreateFlags::CLOEXEC).unwrap();
        epoll::add(&epoll, &listener, EventData::new_u64(0), EventFlags::IN).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(is_told(&epoll));
        let number = listener.as_raw_fd();
        let other = listener.try_clone().unwrap();
        let wrong = forget(epoll.as_fd(), listener.as_fd(), other.as_raw_fd()).unwrap_err();
        assert_eq!(wrong.raw_os_error(), Some(libc::ENOENT));
        assert!(is_told(&epoll));
        forget(epoll.as_fd(), other.as_fd(), number).unwrap();
        assert!(!is_told(&epoll));
        // The number was only the child's: here it is what it was.
        assert_eq!(listener.local_addr().unwrap(), other.local_addr().unwrap());
        assert!(rustix::io::fcntl_getfd(&epoll).is_ok());
    }

    #[test]
    fn the_number_may_be_that_of_the_event_loop_here() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let epoll = epoll::create(CreateFlags::CLOEXEC).unwrap();
        let wrong = forget(epoll.as_fd(), listener.as_fd(), epoll.as_raw_fd()).unwrap_err();
        assert_eq!(wrong.raw_os_error(), Some(libc::ENOENT));
        assert!(!is_told(&epoll));
    }
}
