//! An example that runs, and what it prints.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal};

/// Longer than anything here takes on the slowest machine.
pub(crate) const BOUND: Duration = Duration::from_secs(30);

/// It is ended at the latest when this is dropped.
pub(crate) struct Program {
    child: Child,
    lines: Receiver<String>,
}

impl Program {
    pub(crate) fn start(program: &str, address: SocketAddr, args: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(args).env("ADDRESS", address.to_string()).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (said, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| said.send(line)));
        Self { child, lines }
    }

    /// Waits for so many lines with this in them.
    pub(crate) fn wait(&self, what: &str, count: usize) {
        let mut others = Vec::new();
        let mut found = 0;
        while found < count {
            let line = self.lines.recv_timeout(BOUND);
            let line = line.unwrap_or_else(|_| panic!("{found} of {count} times {what:?}, after {others:?}"));
            if line.contains(what) {
                found += 1;
            } else {
                others.push(line);
            }
        }
    }

    /// Asks it to go; it and its workers do, in peace.
    pub(crate) fn stop(mut self) {
        rustix::process::kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        // All that could write has gone when there is nothing more to read.
        while self.lines.recv_timeout(BOUND).is_ok() {}
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
