//! Whether anybody has a socket any more that a worker had.
//!
//! A worker is all processes of its session and all that came of them, and a socket may be on its way from one to another:
//! what can't be seen for sure is taken for open. Costs a look at the worker's own descriptors where that finds them, and a
//! walk over those of all processes where it does not: not for who must be prompt.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{all_processes, has_ended, inode_of_link, session_members, sockets_of};

/// What one process had while another was looked at, and that one while this was, is found the second time.
const BETWEEN: Duration = Duration::from_millis(50);

/// Of these sockets, those that are closed for sure everywhere but here, while the worker lives that had them.
pub(crate) fn closed_by(leader: u32, sockets: Vec<u64>) -> Vec<u64> {
    let mut missing: HashSet<u64> = sockets.into_iter().collect();
    for pause in [Duration::ZERO, BETWEEN] {
        for (_, open) in sockets_of(leader) {
            missing.remove(&open);
        }
        if missing.is_empty() {
            return Vec::new();
        }
        std::thread::sleep(pause);
        if drop_open(&mut missing, leader).is_none() {
            return Vec::new();
        }
    }
    // A process closes everything before it is seen to have ended.
    if has_ended(leader) {
        return Vec::new();
    }
    missing.into_iter().collect()
}

/// Leaves what nobody is seen to have. `None` if there is more than can be seen.
fn drop_open(missing: &mut HashSet<u64>, leader: u32) -> Option<()> {
    let members = session_members(leader);
    for folder in members.iter().chain(&[leader]).flat_map(|pid| tables(*pid)) {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(_) if !folder.exists() => continue,
            Err(_) => return None,
        };
        for entry in entries.flatten() {
            let Ok(link) = fs::read_link(entry.path()) else { continue };
            let Some(link) = link.to_str() else { continue };
            if let Some(inode) = inode_of_link(link) {
                missing.remove(&inode);
            }
            if may_hold_others(&folder, &entry.file_name().to_string_lossy(), link) {
                return None;
            }
        }
    }
    // We have them all; and whoever started us may have some, to give them to the next of us.
    let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get().cast_unsigned());
    let others = [1, parent, std::process::id()];
    for pid in all_processes().filter(|pid| !others.contains(pid)) {
        if missing.is_empty() {
            break;
        }
        for (_, open) in sockets_of(pid) {
            missing.remove(&open);
        }
    }
    Some(())
}

/// Where the descriptors of a process are listed, and those of threads that may have others.
fn tables(pid: u32) -> Vec<PathBuf> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads.map(|thread| thread.path().join("fd")).collect()
}

/// Whether sockets that are nobody's descriptors may be found behind this one: sent and not received yet, or given to an
/// `io_uring`.
fn may_hold_others(table: &Path, descriptor: &str, link: &str) -> bool {
    if !link.starts_with("socket:") && link != "anon_inode:[io_uring]" {
        return false;
    }
    let Some(thread) = table.parent() else { return true };
    // One that has been closed since is looked for in vain, and was no reason to doubt.
    let about = fs::read_to_string(thread.join("fdinfo").join(descriptor)).unwrap_or_default();
    about
        .lines()
        .filter_map(|line| line.split_once(':'))
        .any(|(name, count)| matches!(name, "scm_fds" | "UserFiles") && count.trim() != "0")
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn inode(socket: &TcpListener) -> u64 {
        rustix::fs::fstat(socket).unwrap().st_ino
    }

    /// A worker that has the socket open, as its standard input, or not.
    fn worker(socket: Option<&TcpListener>) -> Child {
        let input = socket.map_or(Stdio::null(), |socket| {
            Stdio::from(std::os::fd::OwnedFd::from(socket.try_clone().unwrap()))
        });
        Command::new("setsid").args(["sleep", "60"]).stdin(input).spawn().unwrap()
    }

    #[test]
    fn what_a_worker_has_is_open_and_what_only_we_have_is_closed() {
        let [kept, closed] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let mut child = worker(Some(&kept));
        let found = closed_by(child.id(), vec![inode(&kept), inode(&closed)]);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found, [inode(&closed)]);
        let found = closed_by(child.id(), vec![inode(&closed)]);
        assert!(found.is_empty(), "it is gone, and closed nothing by choice");
    }

    #[test]
    fn what_another_than_the_worker_has_is_open() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let (mut child, mut other) = (worker(None), worker(Some(&socket)));
        let found = closed_by(child.id(), vec![inode(&socket)]);
        for child in [&mut child, &mut other] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert!(found.is_empty());
    }

    #[test]
    fn what_is_on_its_way_in_a_socket_of_the_worker_is_taken_for_open() {
        use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let sent = [std::os::fd::AsFd::as_fd(&socket)];
        assert!(control.push(SendAncillaryMessage::ScmRights(&sent)));
        rustix::net::sendmsg(&ours, &[std::io::IoSlice::new(b"x")], &mut control, SendFlags::empty())
            .unwrap();
        let fdinfo = fs::read_to_string(format!("/proc/self/fdinfo/{}", theirs.as_raw_fd())).unwrap();
        if !fdinfo.contains("scm_fds") {
            return;
        }
        let mut child = Command::new("setsid")
            .args(["sleep", "60"])
            .stdin(std::os::fd::OwnedFd::from(theirs))
            .spawn()
            .unwrap();
        let found = closed_by(child.id(), vec![inode(&socket)]);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found.is_empty());
    }
}
