//! What the kernel tells of processes.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, PidfdGetfdFlags, Signal, kill_process_group, pidfd_getfd, pidfd_open, pidfd_send_signal,
};

/// How long what was signalled may take to act on it.
const PATIENCE: Duration = Duration::from_secs(10);

/// A process that can't be mistaken for another that gets its number later.
#[derive(Debug)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    pidfd: OwnedFd,
}

impl Process {
    /// Takes hold of a process; `None` if it is gone.
    ///
    /// # Panics
    ///
    /// If the process is not there, or does not do what the kernel has it do.
    pub fn open(pid: u32) -> Option<Self> {
        let pidfd = pidfd_open(number(pid), PidfdFlags::empty()).ok()?;
        Some(Self { pid, pidfd })
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        // One that is gone already has nothing to be told.
        let _ = pidfd_send_signal(&self.pidfd, signal);
    }

    /// Waits for its end; false if it does not come in time.
    ///
    /// # Panics
    ///
    /// If the process is not there, or does not do what the kernel has it do.
    pub fn has_ended_within(&self, timeout: Duration) -> bool {
        let mut ends = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let timeout = Timespec::try_from(timeout).expect("a short time");
        poll(&mut ends, Some(&timeout)).expect("a pidfd can be waited for") == 1
    }

    /// Stops it with SIGSTOP and waits until each of its threads stands still; false if it has ended.
    ///
    /// # Panics
    ///
    /// If the process is not there, or does not do what the kernel has it do.
    pub fn hold_still(&self) -> bool {
        self.signal(Signal::STOP);
        wait_until_stopped(self.pid)
    }

    /// The clients of the TCP connections that it has accepted. It must stand still.
    pub fn peers(&self) -> BTreeSet<SocketAddr> {
        let copies = descriptors(self.pid).into_iter().filter(|(_, link)| link.starts_with("socket:"));
        let peer = |(number, _): (i32, String)| {
            // The copy is closed before the process is let go or killed: an open one would keep the connection.
            let copy = pidfd_getfd(&self.pidfd, number, PidfdGetfdFlags::empty()).ok()?;
            SocketAddr::try_from(rustix::net::getpeername(copy).ok().flatten()?).ok()
        };
        copies.filter_map(peer).collect()
    }
}

/// Stops a process group and waits until its leader and each descendant in it stand still.
///
/// # Panics
///
/// If the process is not there, or does not do what the kernel has it do.
pub fn stop_group(leader: u32) {
    kill_process_group(number(leader), Signal::STOP).expect("the group exists");
    for pid in session(leader) {
        wait_until_stopped(pid);
    }
}

/// Lets a process group go on.
///
/// # Panics
///
/// If the process is not there, or does not do what the kernel has it do.
pub fn resume_group(leader: u32) {
    kill_process_group(number(leader), Signal::CONT).expect("the group exists");
}

/// Nothing tells when another's child has stopped, so this looks until it has.
fn wait_until_stopped(pid: u32) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
        let states: Vec<_> = tasks
            .flatten()
            .filter_map(|task| stat_of(&task.path().join("stat").display().to_string()))
            .map(|fields| fields[0].clone())
            .collect();
        if states.iter().any(|state| state == "Z" || state == "X") || states.is_empty() {
            return false;
        }
        if states.iter().all(|state| state == "T") {
            return true;
        }
        std::thread::yield_now();
    }
    panic!("{pid} does not stop");
}

/// CPU time of a process, in hundredths of a second.
///
/// # Panics
///
/// If the process is not there, or does not do what the kernel has it do.
pub fn cpu_ticks(pid: u32) -> u64 {
    let fields = stat_of(&format!("/proc/{pid}/stat")).expect("the process runs");
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// The parent of a process.
pub fn parent(pid: u32) -> Option<u32> {
    stat_of(&format!("/proc/{pid}/stat"))?[1].parse().ok()
}

/// The processes that a process has started, or taken over, and that are not reaped; the oldest first.
pub fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let mut children: Vec<u32> = lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect();
    // Each thread has a list of those that it has started itself; ticks since boot tell who is older.
    children.sort_by_key(|pid| (started(*pid), *pid));
    children
}

/// When a process was started, in hundredths of a second since boot.
fn started(pid: u32) -> Option<u64> {
    stat_of(&format!("/proc/{pid}/stat"))?[19].parse().ok()
}

/// All processes of a session.
///
/// # Panics
///
/// If the process is not there, or does not do what the kernel has it do.
pub fn session(leader: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("/proc is there").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| session_of(*pid) == Some(leader)).collect()
}

fn session_of(pid: u32) -> Option<u32> {
    stat_of(&format!("/proc/{pid}/stat"))?[3].parse().ok()
}

/// The fields of a `stat` file from the state on.
fn stat_of(path: &str) -> Option<Vec<String>> {
    let stat = fs::read_to_string(path).ok()?;
    // The name before it stands in parentheses and may hold anything.
    Some(stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

/// The open descriptors of a process, and what they are.
pub fn descriptors(pid: u32) -> Vec<(i32, String)> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let describe = |entry: fs::DirEntry| {
        let link = fs::read_link(entry.path()).ok()?;
        Some((entry.file_name().to_str()?.parse().ok()?, link.to_str()?.to_owned()))
    };
    let mut descriptors: Vec<(i32, String)> = entries.flatten().filter_map(describe).collect();
    descriptors.sort_unstable();
    descriptors
}

/// Waits a while until a process has at most so many descriptors, and gives those that it has in the end. A primary keeps a copy
/// of a connection that it has handed over until the worker has said that it took it, which may be after the last answer.
pub fn settled_descriptors(pid: u32, most: usize) -> Vec<(i32, String)> {
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        let now = descriptors(pid);
        if now.len() <= most || Instant::now() >= until {
            return now;
        }
        std::thread::yield_now();
    }
}

/// What a process was started with, words separated by spaces.
///
/// # Panics
///
/// If the process is not there, or does not do what the kernel has it do.
pub fn command_line(pid: u32) -> String {
    let words = fs::read(format!("/proc/{pid}/cmdline")).expect("the process runs");
    String::from_utf8_lossy(&words).replace('\0', " ")
}

/// A process's resident memory, code included, in KiB.
///
/// # Panics
///
/// If the process is not there, or does not do what the kernel has it do.
pub fn resident_kib(pid: u32) -> u64 {
    status_kib(pid, "VmRSS:")
}

/// A process's resident memory that belongs to no file: its heap and stacks, in KiB. What the loader has written into the
/// program's own pages is not among it: of a build that is not optimized that is as much again.
///
/// # Panics
///
/// If the process is not there, or does not do what the kernel has it do.
pub fn own_kib(pid: u32) -> u64 {
    let maps = fs::read_to_string(format!("/proc/{pid}/smaps")).expect("the process runs");
    let (mut is_files, mut own) = (false, 0);
    for line in maps.lines() {
        // A mapping's head is "FROM-TO RIGHTS OFFSET DEVICE INODE [PATH]", and what follows "NAME: VALUE".
        match line.split_whitespace().next() {
            Some("Anonymous:") if !is_files => own += kib(line),
            Some(first) if !first.ends_with(':') => is_files = line.contains(" /"),
            _ => {}
        }
    }
    own
}

fn status_kib(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find(|line| line.starts_with(name)).expect("it has memory");
    kib(line)
}

/// The value of a line like "RssAnon:     1234 kB".
fn kib(line: &str) -> u64 {
    let value = line.split_whitespace().rev().nth(1).and_then(|value| value.parse().ok());
    value.unwrap_or_else(|| panic!("{line}"))
}

fn number(pid: u32) -> Pid {
    i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id")
}
