//! Peers to compare with: other ways to run the same unmodified node server on several cores.
//!
//! None of them is slowed down or helped along: node:cluster is used as its documentation shows it, and the two
//! without a primary have nothing between kernel and server once it listens. When a worker dies, node:cluster forks another;
//! for the two without a primary nothing is done.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::Signal;
use socket2::{Domain, Socket, Type};

use crate::process::Process;

/// How long all workers together may take to listen.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// What node asks for when the program does not say.
const BACKLOG: i32 = 511;

/// How a peer spreads connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// node:cluster, its primary accepting and handing off (its default).
    NodeClusterRoundRobin,
    /// node:cluster with `SCHED_NONE`: one listener that all workers accept from.
    NodeClusterNone,
    /// A plain `SO_REUSEPORT` group: the kernel picks by hash.
    ReusePort,
    /// One listener that all processes accept from, without node:cluster.
    SharedListener,
}

/// A peer to be started.
#[derive(Clone, Debug)]
pub struct Baseline {
    peer: Peer,
    script: PathBuf,
    workers: u16,
    environment: Vec<(OsString, OsString)>,
}

impl Baseline {
    /// Describes a peer that runs this many copies of node on a script which listens on `$HOST:$PORT`.
    pub fn new(peer: Peer, script: impl Into<PathBuf>, workers: u16) -> Self {
        Self { peer, script: script.into(), workers, environment: Vec::new() }
    }

    /// Sets a variable for the workers.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Starts it on 127.0.0.1 and waits until every worker listens.
    ///
    /// # Errors
    ///
    /// If a worker does not listen within 30 s, or the address can't be had.
    pub fn start(&self, port: u16) -> anyhow::Result<RunningBaseline> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let script = self.script.canonicalize().with_context(|| self.script.display().to_string())?;
        let processes = match self.peer {
            Peer::NodeClusterRoundRobin => vec![self.cluster("rr", &script, address)?],
            Peer::NodeClusterNone => vec![self.cluster("none", &script, address)?],
            Peer::ReusePort => {
                // All of them before the first worker: the group has its final size when connections come.
                let sockets =
                    (0..self.workers).map(|_| listener(address, true)).collect::<Result<Vec<_>, _>>();
                self.inheriting(sockets?, &script, address)?
            }
            Peer::SharedListener => {
                let socket = listener(address, false)?;
                let sockets = (0..self.workers).map(|_| socket.try_clone()).collect::<Result<Vec<_>, _>>();
                self.inheriting(sockets?, &script, address)?
            }
        };
        let running = RunningBaseline { processes, address };
        let each = if running.processes.len() == 1 { usize::from(self.workers) } else { 1 };
        for process in &running.processes {
            process.wait_count("ready", each, READY_TIMEOUT)?;
        }
        Ok(running)
    }

    fn cluster(&self, policy: &str, script: &Path, address: SocketAddr) -> anyhow::Result<Process> {
        let mut command = self.node(address);
        command.env("NODE_CLUSTER_SCHED_POLICY", policy).stdin(Stdio::null());
        Process::spawn(command.arg(file("cluster.js")).arg(self.workers.to_string()).arg(script))
    }

    fn inheriting(
        &self,
        sockets: Vec<OwnedFd>,
        script: &Path,
        address: SocketAddr,
    ) -> anyhow::Result<Vec<Process>> {
        let start = |socket| {
            let mut command = self.node(address);
            Process::spawn(command.arg("-r").arg(file("inherit.js")).arg(script).stdin(Stdio::from(socket)))
        };
        sockets.into_iter().map(start).collect()
    }

    fn node(&self, address: SocketAddr) -> Command {
        let mut command = Command::new("node");
        command.env("HOST", address.ip().to_string()).env("PORT", address.port().to_string());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// A peer that serves. Dropping it ends it.
#[derive(Debug)]
pub struct RunningBaseline {
    processes: Vec<Process>,
    address: SocketAddr,
}

impl RunningBaseline {
    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process ids of all workers.
    pub fn worker_pids(&self) -> Vec<u32> {
        let events = self.processes.iter().flat_map(Process::events);
        events.filter(|event| event.kind() == "ready").filter_map(|event| event.worker_pid()).collect()
    }

    /// The process id of the primary, if this peer has one.
    pub fn primary_pid(&self) -> Option<u32> {
        let own: Vec<_> = self.processes.iter().map(Process::pid).collect();
        let is_worker = own.iter().all(|pid| self.worker_pids().contains(pid));
        own.first().copied().filter(|_| !is_worker)
    }

    /// Ends it with SIGTERM and waits for that.
    ///
    /// # Errors
    ///
    /// If a process had to be killed.
    pub fn stop(&self) -> anyhow::Result<()> {
        for process in &self.processes {
            process.signal(Signal::TERM)?;
        }
        self.processes.iter().try_for_each(|process| process.stop().map(drop))
    }
}

/// Makes a listening socket, in blocking mode: node sets its own.
fn listener(address: SocketAddr, is_lane: bool) -> std::io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(is_lane)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("baselines").join(name)
}

/// Checks that node is there and what it is.
///
/// # Errors
///
/// If it is not.
pub fn node_version() -> anyhow::Result<String> {
    let output = Command::new("node").arg("--version").output().context("run node")?;
    ensure!(output.status.success(), "node --version: {}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests;
