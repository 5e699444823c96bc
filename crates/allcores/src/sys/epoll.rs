//! Changing what another process's event loop watches.
//!
//! Sources: epoll_ctl(2), proc_pid_fdinfo(5). An epoll instance knows what it watches by the open file *and* by the number
//! under which it was added, in whatever table of descriptors that was. So one that is another's can be told of a file
//! only by who has the file under the same number: a child of ours, for a moment.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use super::vfork;

/// What we and the child share while we wait for it.
struct Shared {
    epoll: RawFd,
    file: RawFd,
    number: RawFd,
    successor: Option<(RawFd, libc::epoll_event)>,
    errno: i32,
}

/// Has `epoll` no longer watch `file`, which was added to it under `number`.
///
/// # Errors
///
/// `ENOENT` if it does not watch that; or what the kernel says to the attempt to make a child.
pub(crate) fn forget(epoll: BorrowedFd<'_>, file: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    run(Shared {
        epoll: epoll.as_raw_fd(),
        file: file.as_raw_fd(),
        number,
        successor: None,
        errno: libc::EIO,
    })
}

/// Has `epoll` watch the second of `files` in the place of the first, which was added to it under `number`: under the same
/// number, for these events, of which it tells by `data`.
///
/// # Errors
///
/// `ENOENT` if it does not watch the first under that number, and then nothing has changed; or what the kernel says to the
/// attempt to make a child.
pub(crate) fn succeed(
    epoll: BorrowedFd<'_>,
    [file, successor]: [BorrowedFd<'_>; 2],
    number: RawFd,
    events: u32,
    data: u64,
) -> io::Result<()> {
    let event = libc::epoll_event { events, u64: data };
    let successor = Some((successor.as_raw_fd(), event));
    run(Shared { epoll: epoll.as_raw_fd(), file: file.as_raw_fd(), number, successor, errno: libc::EIO })
}

fn run(mut shared: Shared) -> io::Result<()> {
    let (_, pidfd) = vfork::clone_into(child, &mut shared)?;
    vfork::bury(&pidfd);
    if shared.errno == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(shared.errno)) }
}

/// The child's whole life.
extern "C" fn child(argument: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `run` passes a `Shared` that nobody else touches until this process exits.
    let shared = unsafe { &mut *argument.cast::<Shared>() };
    let is_done = change(shared);
    // SAFETY: the last call ends this process without running anything of the parent's.
    unsafe {
        shared.errno = if is_done { 0 } else { *libc::__errno_location() };
        libc::_exit(0)
    }
}

fn change(shared: &mut Shared) -> bool {
    let number = shared.number;
    // SAFETY: these calls touch descriptors alone, which are the child's own copies; DEL reads no event, and that of ADD
    // lives until the call returns.
    unsafe {
        // Out of the way of the number, which may be their own.
        let aside = |fd| libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, number.saturating_add(1));
        let epoll = aside(shared.epoll);
        let successor = shared.successor.as_mut().map(|(file, event)| (aside(*file), event));
        epoll >= 0
            && (shared.file == number || libc::dup2(shared.file, number) >= 0)
            && libc::epoll_ctl(epoll, libc::EPOLL_CTL_DEL, number, std::ptr::null_mut()) == 0
            && successor.is_none_or(|(file, event)| {
                libc::dup2(file, number) >= 0
                    && libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, number, std::ptr::from_mut(event)) == 0
            })
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

    fn told(epoll: &OwnedFd) -> Option<(u32, u64)> {
        let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        let count = epoll::wait(epoll, &mut events[..], Some(&now)).unwrap();
        // It is packed on some machines.
        let Event { flags, data } = events[0];
        (count == 1).then(|| (flags.bits(), data.u64()))
    }

    #[test]
    fn what_succeeds_a_file_is_watched_as_that_was() {
        let old = TcpListener::bind("127.0.0.1:0").unwrap();
        let new = TcpListener::bind("127.0.0.1:0").unwrap();
        let epoll = epoll::create(CreateFlags::CLOEXEC).unwrap();
        let number = old.as_raw_fd();
        // Whatever the numbers are here: that of the one is that of the epoll instance, or of the other.
        for (place, file, data) in [(number, &old, 7), (new.as_raw_fd(), &new, 8)] {
            let events = EventFlags::IN | EventFlags::ET;
            epoll::add(&epoll, file, EventData::new_u64(data), events).unwrap();
            let (old, new) = if data == 7 { (&old, &new) } else { (&new, &old) };
            let client = TcpStream::connect(old.local_addr().unwrap()).unwrap();
            succeed(epoll.as_fd(), [old.as_fd(), new.as_fd()], place, events.bits(), data << 40).unwrap();
            assert_eq!(told(&epoll), None, "the old one has a client");
            let _client = TcpStream::connect(new.local_addr().unwrap()).unwrap();
            assert_eq!(told(&epoll), Some((EventFlags::IN.bits(), data << 40)));
            assert_eq!(told(&epoll), None, "of the edge alone");
            forget(epoll.as_fd(), new.as_fd(), place).unwrap();
            drop((client, old.accept().unwrap(), new.accept().unwrap()));
        }
    }

    #[test]
    fn nothing_succeeds_what_is_not_watched() {
        let old = TcpListener::bind("127.0.0.1:0").unwrap();
        let new = TcpListener::bind("127.0.0.1:0").unwrap();
        let epoll = epoll::create(CreateFlags::CLOEXEC).unwrap();
        let number = old.as_raw_fd();
        let events = EventFlags::IN.bits();
        let wrong = succeed(epoll.as_fd(), [old.as_fd(), new.as_fd()], number, events, 0).unwrap_err();
        assert_eq!(wrong.raw_os_error(), Some(libc::ENOENT));
        assert_eq!(
            forget(epoll.as_fd(), new.as_fd(), number).unwrap_err().raw_os_error(),
            Some(libc::ENOENT)
        );
    }
}
