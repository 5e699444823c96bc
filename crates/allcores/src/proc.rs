//! What `/proc` tells of processes and sockets.
//!
//! Everything here may be out of date when it returns. Who decides by it whom to signal holds the process first, and asks
//! again: [`hold`]. And not everything may be looked at: what can't be seen is not known to be gone.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use allcores_core::text::printable;
use rustix::process::{Pid, PidfdFlags};

mod closed;
mod diag;
mod event_loops;
mod holder;
mod sockets;

pub(crate) use closed::{Search, closed_by};
pub(crate) use diag::is_accepted;
pub(crate) use event_loops::{Watched, watched_by};
pub(crate) use holder::Taken;
use sockets::listeners;
pub(crate) use sockets::{Protocol, connected_unix_inodes, established_inodes, is_unix_stream, listened_on};

/// What a file of the kernel's says. The names in it are whatever bytes programs have given: that of a program or thread is even
/// cut inside a character. What is no UTF-8 is not what we look for.
pub(crate) fn text(path: impl AsRef<Path>) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned())
}

/// The process that `thread` belongs to.
pub(crate) fn process_of(thread: u32) -> io::Result<u32> {
    let status = text(format!("/proc/{thread}/status"))?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok())
        .ok_or_else(|| io::Error::other("no Tgid in /proc/PID/status"))
}

/// The inode of the socket that descriptor `fd` of `pid` is.
pub(crate) fn socket_inode(pid: u32, fd: RawFd) -> io::Result<u64> {
    let link = fs::read_link(format!("/proc/{pid}/fd/{fd}"))?;
    inode_of_link(link.to_str().unwrap_or_default())
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOTSOCK))
}

fn inode_of_link(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// The open flags of descriptor `fd` of `pid`: `O_NONBLOCK`, `O_CLOEXEC` and the like.
pub(crate) fn descriptor_flags(pid: u32, fd: RawFd) -> io::Result<i32> {
    let info = text(format!("/proc/{pid}/fdinfo/{fd}"))?;
    info.lines()
        .find_map(|line| i32::from_str_radix(line.strip_prefix("flags:")?.trim(), 8).ok())
        .ok_or_else(|| io::Error::other("no flags in /proc/PID/fdinfo"))
}

/// The kernel's name of the protocol of a socket of another process, e.g. `TCPv6`; needs no right to take the
/// descriptor.
pub(crate) fn socket_protocol(pid: u32, fd: RawFd) -> io::Result<String> {
    let mut name = [0_u8; 32];
    let path = format!("/proc/{pid}/fd/{fd}");
    let length = rustix::fs::getxattr(path, "system.sockprotoname", &mut name[..])?;
    let text = name[..length].split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(text).into_owned())
}

/// Whose the files are that somebody makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) user: u32,
    pub(crate) group: u32,
    /// Further groups.
    pub(crate) groups: Vec<u32>,
    /// Permissions that they do not get.
    pub(crate) umask: u32,
}

impl Owner {
    /// Whose the files are that `thread` makes.
    pub(crate) fn of(thread: u32) -> io::Result<Self> {
        let status = text(format!("/proc/{thread}/status"))?;
        Self::parse(&status).ok_or_else(|| io::Error::other("no user or group in /proc/PID/status"))
    }

    fn parse(status: &str) -> Option<Self> {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        // The real, effective, saved and file system's id.
        let id = |name: &str| field(name)?.split_whitespace().nth(3)?.parse().ok();
        let groups = field("Groups:")?.split_whitespace().map(str::parse).collect::<Result<_, _>>();
        let umask = u32::from_str_radix(field("Umask:")?.trim(), 8).ok()?;
        Some(Self { user: id("Uid:")?, group: id("Gid:")?, groups: groups.ok()?, umask })
    }
}

/// Whether `thread` sees the same files under the same names as we do; true where that can't be told.
pub(crate) fn shares_our_files(thread: u32) -> bool {
    let place = |of: &str| {
        let namespace = fs::read_link(format!("/proc/{of}/ns/mnt")).ok()?;
        let root = fs::metadata(format!("/proc/{of}/root")).ok()?;
        Some((namespace, root.dev(), root.ino()))
    };
    !matches!((place("self"), place(&thread.to_string())), (Some(ours), Some(theirs)) if ours != theirs)
}

/// Whether `thread` is in the same network namespace as we are; true where that can't be told.
pub(crate) fn shares_our_network(thread: u32) -> bool {
    let ours = fs::read_link("/proc/self/ns/net");
    let theirs = fs::read_link(format!("/proc/{thread}/ns/net"));
    !matches!((ours, theirs), (Ok(ours), Ok(theirs)) if ours != theirs)
}

/// The inodes of all sockets that any of `pids` is seen to have open.
pub(crate) fn open_sockets(pids: &[u32]) -> HashSet<u64> {
    pids.iter().flat_map(|pid| sockets_of(*pid)).map(|(_, inode)| inode).collect()
}

/// The sockets that a process is seen to have open now: descriptors and inodes.
pub(crate) fn sockets_of(pid: u32) -> impl Iterator<Item = (RawFd, u64)> {
    descriptors(&folder_of(pid)).into_iter().flatten().flatten().filter_map(as_socket)
}

/// All sockets that a process has open now: none if it has ended.
///
/// # Errors
///
/// If we may not look at some of what it has.
pub(crate) fn all_sockets_of(pid: u32) -> io::Result<Vec<(RawFd, u64)>> {
    let all = || descriptors(&folder_of(pid))?.collect::<io::Result<Vec<_>>>();
    match all() {
        Ok(all) => Ok(all.into_iter().filter_map(as_socket).collect()),
        Err(_) if has_ended(pid) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The inodes of all sockets that we have open ourselves.
///
/// # Errors
///
/// If they can't be listed: then nothing is known of them.
pub(crate) fn our_sockets() -> io::Result<HashSet<u64>> {
    // Not by our number, which may be another's where the processes of another namespace are shown.
    let ours = descriptors(Path::new("/proc/self"))?.collect::<io::Result<Vec<_>>>()?;
    Ok(ours.into_iter().filter_map(as_socket).map(|(_, inode)| inode).collect())
}

fn folder_of(pid: u32) -> PathBuf {
    format!("/proc/{pid}").into()
}

/// What a process or thread has open, by its folder: descriptors, lowest first, and what the kernel calls what they are.
///
/// # Errors
///
/// If they can't be listed: it is gone, or we may not. And for each that we may not look at; one that has been closed
/// meanwhile is left out.
fn descriptors(folder: &Path) -> io::Result<impl Iterator<Item = io::Result<(RawFd, PathBuf)>> + use<>> {
    let look = |entry: io::Result<fs::DirEntry>| {
        let entry = entry?;
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
        Ok((number.ok_or_else(|| io::Error::other("odd /proc/PID/fd"))?, fs::read_link(entry.path())?))
    };
    let is_there = |looked: &io::Result<_>| !matches!(looked, Err(error) if is_gone(error));
    Ok(fs::read_dir(folder.join("fd"))?.map(look).filter(is_there))
}

fn as_socket((number, link): (RawFd, PathBuf)) -> Option<(RawFd, u64)> {
    Some((number, inode_of_link(link.to_str()?)?))
}

/// Whether an error of `/proc` says that what was asked about is not there.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// Takes hold of processes, so that they can't be mistaken for others that get their numbers later.
///
/// `find` is asked twice: what had a number the first time may have had another by when it was held.
pub(crate) fn hold(find: impl Fn() -> Vec<u32>) -> Vec<(u32, OwnedFd)> {
    let hold = |pid: u32| {
        let number = Pid::from_raw(i32::try_from(pid).ok()?)?;
        Some((pid, rustix::process::pidfd_open(number, PidfdFlags::empty()).ok()?))
    };
    let mut processes: Vec<(u32, OwnedFd)> = find().into_iter().filter_map(hold).collect();
    if !processes.is_empty() {
        let still: HashSet<u32> = find().into_iter().collect();
        processes.retain(|(pid, _)| still.contains(pid));
    }
    processes
}

/// All processes of the session that `leader` opened, and all their descendants in whatever session they are.
pub(crate) fn session_members(leader: u32) -> Vec<u32> {
    Processes::read().session_members(leader)
}

/// A process and all its descendants.
pub(crate) fn family(ancestor: u32) -> Vec<u32> {
    Processes::read().family(ancestor)
}

/// A process, its parent, and so on.
pub(crate) fn line(pid: u32) -> impl Iterator<Item = u32> {
    let parent = |pid: &u32| Stat::read(*pid).ok().map(|stat| stat.parent);
    std::iter::successors(Some(pid), parent).take_while(|pid| *pid > 1)
}

/// Who descends from whom, looked up once for several questions.
pub(crate) struct Processes(Vec<(u32, Stat)>);

impl Processes {
    pub(crate) fn read() -> Self {
        Self(all_processes().filter_map(|pid| Some((pid, Stat::read(pid).ok()?))).collect())
    }

    /// As [`session_members`].
    pub(crate) fn session_members(&self, leader: u32) -> Vec<u32> {
        self.with_descendants(|_, stat| stat.session == leader)
    }

    /// These processes, all of the sessions that one of them has opened, and the descendants of all these.
    pub(crate) fn around(&self, known: &[u32]) -> Vec<u32> {
        self.with_descendants(|pid, stat| known.contains(&pid) || known.contains(&stat.session))
    }

    fn pids(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().map(|(pid, _)| *pid)
    }

    /// As [`family`].
    fn family(&self, ancestor: u32) -> Vec<u32> {
        self.with_descendants(|pid, _| pid == ancestor)
    }

    fn with_descendants(&self, is_meant: impl Fn(u32, &Stat) -> bool) -> Vec<u32> {
        let stats = &self.0;
        let mut members: HashSet<u32> =
            stats.iter().filter(|(pid, stat)| is_meant(*pid, stat)).map(|(pid, _)| *pid).collect();
        let mut known = 0;
        while members.len() > known {
            known = members.len();
            let children =
                stats.iter().filter(|(_, stat)| members.contains(&stat.parent)).map(|(pid, _)| *pid);
            let children: Vec<u32> = children.collect();
            members.extend(children);
        }
        members.into_iter().collect()
    }
}

pub(crate) fn all_processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Whether each thread of `pid` stands still after SIGSTOP; true if it is gone. The signal is sent long before: a
/// thread that has no CPU, or is within a system call, finishes what it has begun first.
pub(crate) fn is_stopped(pid: u32) -> bool {
    all_threads(pid, |thread| matches!(thread.state, 'T' | 't' | 'Z' | 'X'))
}

/// Whether each thread of `pid` waits for something, or stands still; true if it is gone.
pub(crate) fn is_asleep(pid: u32) -> bool {
    all_threads(pid, |thread| matches!(thread.state, 'S' | 'I' | 'T' | 't' | 'Z' | 'X'))
}

/// Whether a process has ended, though its end may not have been taken yet.
pub(crate) fn has_ended(pid: u32) -> bool {
    all_threads(pid, Thread::has_ended)
}

/// Whether a process has ended or is about to: it shows no descriptors any more well before it is seen to have ended, the longer
/// the more it has to close.
pub(crate) fn is_ending(pid: u32) -> bool {
    all_threads(pid, |thread| thread.is_exiting)
}

fn all_threads(pid: u32, is_meant: impl Fn(&Thread) -> bool) -> bool {
    match fs::read_dir(folder_of(pid).join("task")) {
        Ok(tasks) => {
            tasks.flatten().all(|task| Thread::read(&task.path()).is_none_or(|thread| is_meant(&thread)))
        }
        Err(error) => is_gone(&error),
    }
}

/// What a process or thread does.
struct Thread {
    /// As `ps` shows it.
    state: char,
    /// It has begun to end, or has.
    is_exiting: bool,
}

impl Thread {
    /// Reads it, by its folder; `None` if it is gone.
    fn read(folder: &Path) -> Option<Self> {
        // Linux's include/linux/sched.h.
        const PF_EXITING: u32 = 0x4;
        let stat = text(folder.join("stat")).ok()?;
        let mut fields = stat.rsplit_once(") ")?.1.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        // The ninth of all: two come before the state.
        let flags: u32 = fields.nth(5)?.parse().ok()?;
        Some(Self { state, is_exiting: flags & PF_EXITING != 0 })
    }

    fn has_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

/// Children that we have right now, adopted orphans among them.
pub(crate) fn our_children() -> Vec<u32> {
    let lists: Option<Vec<String>> = fs::read_dir("/proc/self/task")
        .ok()
        .map(|tasks| tasks.flatten().filter_map(|task| text(task.path().join("children")).ok()).collect());
    if let Some(lists) = lists.filter(|lists| !lists.is_empty()) {
        return lists
            .iter()
            .flat_map(|list| list.split_ascii_whitespace())
            .filter_map(|pid| pid.parse().ok())
            .collect();
    }
    // A kernel without those lists.
    let me = std::process::id();
    all_processes().filter(|pid| Stat::read(*pid).is_ok_and(|stat| stat.parent == me)).collect()
}

/// The value of a variable in the environment that `pid` was started with.
pub(crate) fn initial_env(pid: u32, name: &str) -> Option<String> {
    let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let prefix = format!("{name}=");
    let entry = environ.split(|byte| *byte == 0).find(|entry| entry.starts_with(prefix.as_bytes()))?;
    String::from_utf8(entry[prefix.len()..].to_vec()).ok()
}

/// The command line of `pid`, [`printable`], arguments separated by spaces; its short name in brackets for a kernel thread.
pub(crate) fn command_line(pid: u32) -> String {
    let of = |file: &str| text(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let words = of("cmdline").replace('\0', " ");
    if !words.trim().is_empty() {
        return printable(words.trim());
    }
    format!("[{}]", printable(of("comm").trim()))
}

/// What a thread has had of the cores, as its `schedstat` (proc_pid(5)) tells. Of one that is on a core at this moment, the
/// kernel says what it knew at its last clock tick.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Schedstat {
    /// For how long it was on a core.
    pub(crate) ran: Duration,
    /// For how long it waited for one.
    pub(crate) waited: Duration,
    /// How often it was given one.
    pub(crate) turns: u64,
}

impl Schedstat {
    /// Reads it from the file, which may be kept open.
    pub(crate) fn read(file: impl AsFd) -> Option<Self> {
        let mut text = [0; 96];
        let length = rustix::io::pread(file, &mut text, 0).ok()?;
        let mut fields = std::str::from_utf8(&text[..length]).ok()?.split_ascii_whitespace();
        let mut next = || fields.next()?.parse().ok();
        Some(Self {
            ran: Duration::from_nanos(next()?),
            waited: Duration::from_nanos(next()?),
            turns: next()?,
        })
    }
}

/// What `/proc/PID/stat` tells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stat {
    pub(crate) parent: u32,
    pub(crate) session: u32,
    pub(crate) cpu: Duration,
    /// How long after the machine's start it was started, rounded up.
    pub(crate) started: Duration,
    pub(crate) rss_bytes: u64,
}

impl Stat {
    /// Reads it.
    pub(crate) fn read(pid: u32) -> io::Result<Self> {
        let text = text(format!("/proc/{pid}/stat"))?;
        // The name in parentheses may hold anything, parentheses too.
        let (_, rest) = text.rsplit_once(") ").ok_or_else(|| io::Error::other("odd /proc/PID/stat"))?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field =
            |number: usize| fields.get(number - 3).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        // Its own, and that of its children whose ends it has taken.
        let ticks: u64 = (14..=17).map(field).sum();
        let time = |ticks: u64| Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second());
        Ok(Self {
            parent: u32::try_from(field(4)).unwrap_or(0),
            session: u32::try_from(field(6)).unwrap_or(0),
            cpu: time(ticks),
            started: time(field(22) + 1),
            rss_bytes: field(24) * rustix::param::page_size() as u64,
        })
    }
}

/// The inodes of the sockets that each of these sessions has open, by its leader. Walks over all processes and their
/// descriptors: not for who must be prompt.
pub(crate) fn sockets_by_session(leaders: &HashSet<u32>) -> HashMap<u32, HashSet<u64>> {
    let mut members = HashMap::<u32, Vec<u32>>::new();
    for pid in all_processes() {
        let Ok(stat) = Stat::read(pid) else { continue };
        if leaders.contains(&stat.session) {
            members.entry(stat.session).or_default().push(pid);
        }
    }
    members.into_iter().map(|(leader, pids)| (leader, open_sockets(&pids))).collect()
}

/// Resident bytes and CPU time of each session, by its leader.
pub(crate) type Usage = HashMap<u32, (u64, Duration)>;

/// What each session, a worker with its descendants, uses now.
pub(crate) fn usage_by_session() -> Usage {
    let mut usage = Usage::new();
    for stat in all_processes().filter_map(|pid| Stat::read(pid).ok()) {
        let sum = usage.entry(stat.session).or_default();
        sum.0 += stat.rss_bytes;
        sum.1 += stat.cpu;
    }
    usage
}

/// How often the kernel has killed for want of memory in our cgroup; `None` where that is not told.
pub(crate) fn out_of_memory_kills() -> Option<u64> {
    let own = text("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let events = text(format!("/sys/fs/cgroup{path}/memory.events")).ok()?;
    events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rustix::process::{Pid, Signal, WaitOptions};

    use super::*;

    #[test]
    fn a_process_is_stopped_after_its_stop_and_not_before() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_child(&child);
        assert!(!is_stopped(child.id()));
        rustix::process::kill_process(pid, Signal::STOP).unwrap();
        rustix::process::waitpid(Some(pid), WaitOptions::UNTRACED).unwrap();
        assert!(is_stopped(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(is_stopped(child.id()), "it is gone");
    }

    #[test]
    fn who_has_a_name_that_is_cut_inside_a_character_is_known_all_the_same() {
        // The kernel takes no more than 15 bytes of it.
        let named = || {
            fs::write("/proc/thread-self/comm", "ä".repeat(8)).unwrap();
            let name = fs::read("/proc/thread-self/comm").unwrap();
            assert!(String::from_utf8(name).is_err());
            let thread = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
            let us = std::process::id();
            assert_eq!(process_of(thread).unwrap(), us);
            assert_eq!(Owner::of(thread).unwrap(), Owner::of(us).unwrap());
            assert_eq!(Stat::read(thread).unwrap().session, Stat::read(us).unwrap().session);
            assert!(!Thread::read(Path::new("/proc/thread-self")).unwrap().has_ended());
        };
        std::thread::spawn(named).join().unwrap();
    }

    #[test]
    fn who_is_found_once_and_not_again_is_not_held() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let us = std::process::id();
        let found = std::cell::RefCell::new(vec![vec![child.id()], vec![us, child.id()]]);
        let held = hold(|| found.borrow_mut().pop().unwrap());
        assert_eq!(held.iter().map(|(pid, _)| *pid).collect::<Vec<_>>(), [child.id()]);
        rustix::process::pidfd_send_signal(&held[0].1, Signal::KILL).unwrap();
        assert_eq!(child.wait().unwrap().code(), None);
        assert!(rustix::process::pidfd_send_signal(&held[0].1, Signal::KILL).is_err(), "it is nobody's now");
    }

    #[test]
    fn who_has_ended_has_no_sockets() {
        let mut child = Command::new("true").spawn().unwrap();
        rustix::process::waitid(
            rustix::process::WaitId::Pid(Pid::from_child(&child)),
            rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT,
        )
        .unwrap();
        assert_eq!(all_sockets_of(child.id()).unwrap(), []);
        child.wait().unwrap();
        assert_eq!(all_sockets_of(child.id()).unwrap(), []);
    }
}
