//! Whether a worker has a socket any more that it had.
//!
//! A worker is all processes of its session and all that came of them. A socket may be on its way from one to another, and a
//! process may not let us look: a primary without `CAP_SYS_PTRACE` can't see what one has that has changed its user. So what is not
//! seen is either closed for sure, or counts as open.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::fs;
use std::iter;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{
    Processes, Thread, all_sockets_of, descriptors, folder_of, inode_of_link, is_ending, is_gone, text,
};

/// What one process had while another was looked at, and that one while this was, is found the second time.
const BETWEEN: Duration = Duration::from_millis(50);

/// A search for sockets among what processes have open, which goes as far as it takes to answer: mostly to the first descriptors
/// of the first one.
pub(crate) struct Search<'a> {
    /// The sockets that come next; `None` for what can't be seen.
    rest: Box<dyn Iterator<Item = Option<u64>> + 'a>,
    open: HashSet<u64>,
    is_unsure: bool,
}

impl<'a> Search<'a> {
    /// Among these processes, and all that are in a session of theirs or came of those. All processes are listed once for all
    /// searches, if at all.
    pub(crate) fn around(known: Vec<u32>, processes: &'a OnceCell<Processes>) -> Self {
        let first = known.clone();
        let others = move || {
            let around = processes.get_or_init(Processes::read).around(&known);
            around.into_iter().filter(move |pid| !known.contains(pid))
        };
        Self::in_folders(first.into_iter().chain(iter::once_with(others).flatten()).map(folder_of))
    }

    /// Among what these processes or threads have, by their folders.
    fn in_folders(folders: impl Iterator<Item = PathBuf> + 'a) -> Self {
        let rest = Box::new(folders.flat_map(|folder| sights_in(&folder)));
        Self { rest, open: HashSet::new(), is_unsure: false }
    }

    /// Whether a socket is closed for sure by all of them.
    pub(crate) fn is_closed(&mut self, socket: u64) -> bool {
        while !self.is_unsure && !self.open.contains(&socket) {
            match self.rest.next() {
                Some(Some(open)) => drop(self.open.insert(open)),
                Some(None) => self.is_unsure = true,
                None => return true,
            }
        }
        false
    }
}

/// Of the sockets that workers had, by their leaders, those that the worker has closed for sure, and lives. What it has given to
/// somebody who is none of the other workers it has not closed. Costs a look at a worker's own descriptors where that finds them,
/// and a walk over those of all processes where it does not: not for who must be prompt.
pub(crate) fn closed_by(mut asked: Vec<(u32, HashSet<u64>)>, workers: &[u32]) -> Vec<(u32, u64)> {
    for pause in [Duration::ZERO, BETWEEN] {
        std::thread::sleep(pause);
        let processes = OnceCell::new();
        asked.retain_mut(|(leader, missing)| {
            let mut search = Search::around(vec![*leader], &processes);
            missing.retain(|socket| search.is_closed(*socket));
            if !missing.is_empty() {
                let members = processes.get_or_init(Processes::read).around(&[*leader]);
                let mut search = Search::in_folders(members.into_iter().flat_map(threads_of));
                missing.retain(|socket| search.is_closed(*socket));
            }
            !missing.is_empty()
        });
        if asked.is_empty() {
            break;
        }
        drop_strangers(&mut asked, workers, processes.get_or_init(Processes::read));
    }
    // Who ends closes nothing by choice.
    asked.retain(|(leader, _)| !is_ending(*leader));
    asked
        .into_iter()
        .flat_map(|(leader, missing)| missing.into_iter().map(move |one| (leader, one)))
        .collect()
}

/// Leaves what nobody has who is none of the workers.
fn drop_strangers(asked: &mut Vec<(u32, HashSet<u64>)>, workers: &[u32], processes: &Processes) {
    let us = std::process::id();
    // What a worker's process has started may have left its session, and lost its parent.
    let ours: HashSet<u32> = processes.family(us).into_iter().collect();
    // We have them all; and whoever started us may have some, to give them to the next of us.
    let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get().cast_unsigned());
    let mut known: HashSet<u32> = processes.around(workers).into_iter().collect();
    known.extend([1, parent, us]);
    for pid in processes.pids().filter(|pid| !known.contains(pid)) {
        match all_sockets_of(pid) {
            Ok(sockets) => {
                let open: HashSet<u64> = sockets.into_iter().map(|(_, socket)| socket).collect();
                for (_, missing) in &mut *asked {
                    missing.retain(|socket| !open.contains(socket));
                }
            }
            Err(_) if ours.contains(&pid) => return asked.clear(),
            Err(_) => {}
        }
    }
}

/// The folders of a process's threads, each of which may have descriptors of its own.
fn threads_of(pid: u32) -> Vec<PathBuf> {
    let threads = fs::read_dir(folder_of(pid).join("task"));
    threads.into_iter().flatten().flatten().map(|thread| thread.path()).collect()
}

/// The sockets that a process or thread has, and `None` for what can't be seen.
fn sights_in(folder: &Path) -> Box<dyn Iterator<Item = Option<u64>>> {
    let owner = folder.to_owned();
    match descriptors(folder) {
        Ok(descriptors) => Box::new(
            descriptors
                .flat_map(move |descriptor| {
                    let Ok((number, link)) = descriptor else { return [Some(None), None] };
                    let link = link.to_string_lossy();
                    let hides = may_hold_others(&owner, number, &link).then_some(None);
                    [inode_of_link(&link).map(Some), hides]
                })
                .flatten(),
        ),
        Err(error) if is_gone(&error) || Thread::read(folder).is_some_and(|thread| thread.has_ended()) => {
            Box::new(iter::empty())
        }
        Err(_) => Box::new(iter::once(None)),
    }
}

/// Whether sockets that are nobody's descriptors may be found behind this one: sent and not received yet, or given to an
/// `io_uring`.
fn may_hold_others(owner: &Path, descriptor: RawFd, link: &str) -> bool {
    if !link.starts_with("socket:") && link != "anon_inode:[io_uring]" {
        return false;
    }
    match text(owner.join("fdinfo").join(descriptor.to_string())) {
        Ok(about) => about
            .lines()
            .filter_map(|line| line.split_once(':'))
            .any(|(name, count)| matches!(name, "scm_fds" | "UserFiles") && count.trim() != "0"),
        // One that has been closed since is looked for in vain, and was no reason to doubt.
        Err(error) => !is_gone(&error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;
    use std::process::{Child, Command, Stdio};
    use std::time::Instant;

    use super::*;

    fn inode(socket: &TcpListener) -> u64 {
        rustix::fs::fstat(socket).unwrap().st_ino
    }

    /// Those of the sockets that a worker has closed.
    fn closed_of(worker: &Child, sockets: &[&TcpListener]) -> Vec<u64> {
        let asked = sockets.iter().map(|socket| inode(socket)).collect();
        let found = closed_by(vec![(worker.id(), asked)], &[worker.id()]);
        found.into_iter().map(|(_, socket)| socket).collect()
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
        let found = closed_of(&child, &[&kept, &closed]);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found, [inode(&closed)]);
        let found = closed_of(&child, &[&closed]);
        assert!(found.is_empty(), "it is gone, and closed nothing by choice");
    }

    #[test]
    fn who_is_about_to_end_and_shows_nothing_any_more_has_closed_nothing_by_choice() {
        let may = Command::new("unshare").args(["--pid", "true"]).stderr(Stdio::null()).status();
        if !may.is_ok_and(|status| status.success()) {
            allcores_testing::skip!("no namespace of processes can be made here");
        }
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        // The first process of a namespace ends when all others there have gone: when their parent, who is none of them, has
        // taken their ends. This one never does.
        let script = "sleep 60 & first=$!; sleep 60 & echo $first; exec sleep 60";
        let mut parent = Command::new("unshare")
            .args(["--pid", "sh", "-c", script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(parent.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let first: u32 = line.trim().parse().unwrap();
        let closed = || closed_by(vec![(first, HashSet::from([inode(&socket)]))], &[first]);
        let before = closed();
        let pid = rustix::process::Pid::from_raw(first.cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while fs::read_dir(folder_of(first).join("fd")).unwrap().next().is_some() {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
        let has_ended = super::super::has_ended(first);
        let after = closed();
        parent.kill().unwrap();
        parent.wait().unwrap();
        assert_eq!(before, [(first, inode(&socket))]);
        assert!(!has_ended, "it has more to do");
        assert!(after.is_empty(), "{after:?}");
    }

    #[test]
    fn what_somebody_else_has_is_open_and_what_another_worker_has_is_closed() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let (mut child, mut other) = (worker(None), worker(Some(&socket)));
        let asked = || [&child, &other].map(|worker| (worker.id(), HashSet::from([inode(&socket)]))).into();
        let found =
            [vec![child.id()], vec![child.id(), other.id()]].map(|workers| closed_by(asked(), &workers));
        for child in [&mut child, &mut other] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert_eq!(found, [vec![], vec![(child.id(), inode(&socket))]]);
    }

    #[test]
    fn what_may_not_be_looked_at_is_taken_for_open() {
        use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
        use std::os::unix::process::CommandExt;
        if !rustix::process::geteuid().is_root() {
            allcores_testing::skip!("we are not root: no process of another user can be had");
        }
        let [kept, closed] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let input = Stdio::from(std::os::fd::OwnedFd::from(kept.try_clone().unwrap()));
        let mut child = Command::new("setsid").args(["sleep", "60"]).stdin(input).uid(65534).spawn().unwrap();
        let seen = closed_of(&child, &[&kept, &closed]);
        let mut sets = capabilities(None).unwrap();
        sets.effective.remove(CapabilitySet::SYS_PTRACE);
        set_capabilities(None, sets).unwrap();
        let unseen = closed_of(&child, &[&kept, &closed]);
        let mut other = worker(None);
        let others = closed_of(&other, &[&kept]);
        for child in [&mut child, &mut other] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert_eq!(seen, [inode(&closed)]);
        assert!(unseen.is_empty());
        assert!(others.is_empty(), "some other process that came of us may have it");
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
            allcores_testing::skip!("the kernel does not tell of descriptors on their way");
        }
        let mut child = Command::new("setsid")
            .args(["sleep", "60"])
            .stdin(std::os::fd::OwnedFd::from(theirs))
            .spawn()
            .unwrap();
        let found = closed_of(&child, &[&socket]);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found.is_empty());
    }
}
