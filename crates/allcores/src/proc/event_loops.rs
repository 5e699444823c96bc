//! What a process's event loops watch: proc_pid_fdinfo(5).

use std::io;
use std::os::fd::RawFd;

use super::{descriptors, folder_of, is_gone, text};

/// A file that an epoll instance of a process watches.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Watched {
    /// The process's descriptor of the instance.
    pub(crate) epoll: RawFd,
    /// The number under which the file was added.
    pub(crate) number: RawFd,
    pub(crate) inode: u64,
    /// What is told of it, and how: `EPOLLIN`, `EPOLLET` and the like.
    pub(crate) events: u32,
    /// What the program has it told by.
    pub(crate) data: u64,
}

impl Watched {
    /// It is told of once, and then has to be armed again.
    pub(crate) fn is_once(&self) -> bool {
        self.events & libc::EPOLLONESHOT.cast_unsigned() != 0
    }
}

/// All that the event loops of `pid` watch, of those among its `most` lowest descriptors.
///
/// # Errors
///
/// If the process's descriptors can't be looked at: it is gone, or we may not.
pub(crate) fn watched_by(pid: u32, most: usize) -> io::Result<Vec<Watched>> {
    let mut watched = Vec::new();
    // The kernel lists them by their numbers.
    for descriptor in descriptors(&folder_of(pid))?.take(most) {
        let (epoll, link) = descriptor?;
        if link.as_os_str() != "anon_inode:[eventpoll]" {
            continue;
        }
        let info = match text(format!("/proc/{pid}/fdinfo/{epoll}")) {
            // Another thread has closed it in between.
            Err(error) if is_gone(&error) => continue,
            info => info?,
        };
        watched.extend(info.lines().filter_map(|line| parse(epoll, line)));
    }
    Ok(watched)
}

/// Reads `tfd:        3 events:       19 data:                3  pos:0 ino:50d6 sdev:8`.
fn parse(epoll: RawFd, line: &str) -> Option<Watched> {
    let field = |name: &str| line.split_once(name)?.1.split_whitespace().next();
    let number = field("tfd:")?.parse().ok()?;
    let events = u32::from_str_radix(field("events:")?, 16).ok()?;
    let data = u64::from_str_radix(field("data:")?, 16).ok()?;
    let inode = u64::from_str_radix(field("ino:")?, 16).ok()?;
    Some(Watched { epoll, number, inode, events, data })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::{AsRawFd, OwnedFd};

    use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

    use super::*;
    use crate::proc::socket_inode;

    #[test]
    fn a_listener_in_an_event_loop_of_ours_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let epoll: OwnedFd = epoll::create(CreateFlags::CLOEXEC).unwrap();
        let add = |socket, flags| epoll::add(&epoll, socket, EventData::new_u64(u64::MAX), flags).unwrap();
        add(&listener, EventFlags::IN | EventFlags::ET);
        add(&other, EventFlags::IN | EventFlags::ONESHOT);
        let us = std::process::id();
        let mut ours = watched_by(us, usize::MAX).unwrap();
        ours.retain(|watched| watched.epoll == epoll.as_raw_fd());
        ours.sort_by_key(|watched| watched.number);
        assert_eq!(ours.iter().map(Watched::is_once).collect::<Vec<_>>(), [false, true]);
        // The kernel tells of these whether asked to or not.
        let always = EventFlags::IN | EventFlags::ERR | EventFlags::HUP;
        let expected =
            [(&listener, EventFlags::ET), (&other, EventFlags::ONESHOT)].map(|(socket, how)| Watched {
                epoll: epoll.as_raw_fd(),
                number: socket.as_raw_fd(),
                inode: socket_inode(us, socket.as_raw_fd()).unwrap(),
                events: (always | how).bits(),
                data: u64::MAX,
            });
        assert_eq!(ours, expected);
        assert_eq!(watched_by(us, 0).unwrap(), []);
    }

    #[test]
    fn nobodys_event_loops_are_an_error() {
        assert_eq!(watched_by(u32::MAX >> 1, usize::MAX).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn other_lines_are_none() {
        for line in ["", "pos:\t0", "flags:\t02000002", "mnt_id:\t15", "ino:\t1057"] {
            assert_eq!(parse(3, line), None, "{line}");
        }
    }
}
