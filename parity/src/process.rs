//! Processes, as the kernel shows them.

use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

/// How long a process may take to end.
const PATIENCE: Duration = Duration::from_secs(15);

/// Waits until a process, whoever's child it is, has ended; false if it does not.
pub fn ends(pid: u32) -> bool {
    let Ok(pidfd) = pidfd_open(number(pid), PidfdFlags::empty()) else { return true };
    let timeout = PATIENCE.try_into().expect("a short time");
    let mut watched = [PollFd::new(&pidfd, PollFlags::IN)];
    poll(&mut watched, Some(&timeout)).expect("poll") > 0
}

/// Whether there is such a process, dead or alive.
pub fn exists(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

/// Kills a worker of ours, which has not been reaped, by SIGKILL.
pub fn kill(pid: u32) {
    signal(pid, Signal::KILL);
}

/// As [`kill`], by SIGTERM.
pub fn terminate(pid: u32) {
    signal(pid, Signal::TERM);
}

/// Stops a process and waits until the kernel has stopped it.
pub fn stop(pid: u32) {
    signal(pid, Signal::STOP);
    while state(pid) != Some('T') {
        std::thread::yield_now();
    }
}

/// Lets a stopped process go on.
pub fn resume(pid: u32) {
    signal(pid, Signal::CONT);
}

/// How many descriptors a process has.
pub fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the process is there").count()
}

fn signal(pid: u32, signal: Signal) {
    rustix::process::kill_process(number(pid), signal).expect("the process is there");
}

fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

fn number(pid: u32) -> Pid {
    i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a pid")
}

/// Closes a worker's channel as if the primary had, by the worker's own end of it.
pub fn hang_up(pid: u32) {
    use rustix::process::{PidfdGetfdFlags, pidfd_getfd};
    let pidfd = pidfd_open(number(pid), PidfdFlags::empty()).expect("the process is there");
    let channel = pidfd_getfd(&pidfd, 3, PidfdGetfdFlags::empty()).expect("its channel");
    rustix::net::shutdown(&channel, rustix::net::Shutdown::Read).expect("it is a socket");
}
