//! Processes that an earlier primary of the same app left behind: it was killed, and could end nobody.
//!
//! Its workers get SIGTERM from the kernel when it dies. Those who take no notice go on, and so do processes that a worker
//! has started (the server behind `npm start`), and they keep the address. They are known by a mark in the environment
//! that they were started with; whoever uses it has to make sure that no other primary has the same one.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use crate::proc;
use crate::signal::Signal;

/// The variable that holds the mark.
pub(super) const VARIABLE: &str = "ALLCORES_RUN";

/// How long processes that were sent SIGKILL may take to go. They do so at once unless the kernel keeps them.
const BURIAL: Duration = Duration::from_secs(2);

/// Processes that an earlier primary left behind.
#[derive(Debug)]
pub struct Leftovers {
    mark: String,
    processes: Vec<Process>,
}

/// One that can't be mistaken for another that gets its number later.
#[derive(Debug)]
struct Process {
    pid: u32,
    pidfd: OwnedFd,
}

impl Leftovers {
    /// Finds all that were started with this mark, and what those have started.
    pub fn find(mark: &str) -> Self {
        let has_mark = |pid: &u32| proc::initial_env(*pid, VARIABLE).is_some_and(|own| own == mark);
        // Somebody who starts an app from within what is left of it does not mean himself.
        let own: Vec<u32> = proc::line(std::process::id()).collect();
        let find = || {
            let marked = proc::all_processes().filter(has_mark);
            let families: BTreeSet<u32> = marked.flat_map(proc::family).collect();
            families.into_iter().filter(|pid| !own.contains(pid)).collect()
        };
        let processes = proc::hold(find).into_iter().map(|(pid, pidfd)| Process { pid, pidfd }).collect();
        Self { mark: mark.to_owned(), processes }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.processes.is_empty()
    }

    /// Their process ids.
    pub fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(|process| process.pid).collect()
    }

    /// Asks them to stop, and ends those that have not after this time, with what they have started since. Blocks until all
    /// are gone; says which are not.
    pub fn end(mut self, signal: Signal, patience: Duration) -> Vec<u32> {
        self.tell(signal.raw().unwrap_or(rustix::process::Signal::TERM), patience);
        if !self.is_empty() {
            let since = Self::find(&self.mark).processes;
            let known = self.pids();
            self.processes.extend(since.into_iter().filter(|process| !known.contains(&process.pid)));
            self.tell(rustix::process::Signal::KILL, BURIAL);
        }
        self.pids()
    }

    /// Sends them a signal, and forgets those that go within this time.
    fn tell(&mut self, signal: rustix::process::Signal, patience: Duration) {
        for process in &self.processes {
            // One that is gone has nothing to be told.
            let _ = rustix::process::pidfd_send_signal(&process.pidfd, signal);
        }
        let until = Instant::now() + patience;
        self.processes.retain(|process| !process.has_gone_by(until));
    }
}

impl Process {
    fn has_gone_by(&self, until: Instant) -> bool {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(timeout) = Timespec::try_from(left) else { return false };
            let mut end = [PollFd::new(&self.pidfd, PollFlags::IN)];
            match rustix::event::poll(&mut end, Some(&timeout)) {
                Ok(count) => return count > 0,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn start(mark: &str, script: &str) -> Child {
        Command::new("sh").args(["-c", script]).env(VARIABLE, mark).spawn().unwrap()
    }

    /// A mark that no other test has.
    fn mark(name: &str) -> String {
        format!("{name}-{}", std::process::id())
    }

    /// Finds somebody with this mark. A process that has just been started, or executes another program, has no environment
    /// for a moment.
    fn found(mark: &str) -> Leftovers {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let found = Leftovers::find(mark);
            if !found.is_empty() {
                return found;
            }
            assert!(Instant::now() < until, "somebody is found");
            std::thread::yield_now();
        }
    }

    #[test]
    fn who_has_the_mark_is_ended_and_nobody_else() {
        let (mine, others) = (mark("mine"), mark("others"));
        let mut child = start(&mine, "exec sleep 60");
        let mut other = start(&others, "exec sleep 60");
        let found = found(&mine);
        assert_eq!(found.pids(), [child.id()]);
        // Somebody has to take its exit, or it stays a zombie; a pidfd tells of its end all the same.
        assert!(found.end(Signal::TERM, Duration::from_secs(30)).is_empty());
        assert!(child.wait().unwrap().code().is_none());
        assert_eq!(other.try_wait().unwrap(), None);
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn what_they_have_started_without_the_mark_goes_with_them() {
        let mine = mark("parent");
        let mut child = start(&mine, "env -u ALLCORES_RUN sleep 60 & wait");
        let until = Instant::now() + Duration::from_secs(30);
        while Leftovers::find(&mine).pids().len() < 2 {
            assert!(Instant::now() < until, "its child is found");
            std::thread::yield_now();
        }
        assert!(Leftovers::find(&mine).end(Signal::TERM, Duration::from_secs(30)).is_empty());
        child.wait().unwrap();
    }

    #[test]
    fn one_that_ignores_the_signal_is_killed_with_what_it_has_started_since() {
        let mine = mark("deaf");
        let script = "trap '' TERM; echo; read _; sleep 60 & echo; wait";
        let mut command = Command::new("sh");
        command.args(["-c", script]).env(VARIABLE, &mine).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut said = child.stdout.take().unwrap();
        said.read_exact(&mut [0]).unwrap();
        let found = found(&mine);
        assert_eq!(found.pids(), [child.id()]);
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        said.read_exact(&mut [0]).unwrap();
        assert!(found.end(Signal::TERM, Duration::from_millis(50)).is_empty());
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
        assert_eq!(Leftovers::find(&mine).pids(), [0; 0]);
    }

    #[test]
    fn nobody_has_a_mark_that_is_new() {
        assert!(Leftovers::find(&mark("nobody")).is_empty());
    }
}
