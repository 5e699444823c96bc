//! Peers to compare with: other ways to run the same unmodified node server on several cores.
//!
//! None of them is slowed down or helped along: each is used as its documentation shows it, and the two without a
//! manager have nothing between kernel and server once it listens. When a worker dies, node:cluster forks another; these
//! are peers in speed, and nothing is done about the others' workers.

mod nginx;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::Signal;
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::load::Load;
use crate::pm2::Pm2;
use crate::proc::children;
use crate::process::{Event, Process};
use crate::runtimes::Install;

/// How long all workers together may take to listen.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// How long it is until workers that have not answered are asked again.
const PAUSE: Duration = Duration::from_millis(20);

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
    /// throng, which is node:cluster with its default, and restarts workers.
    Throng,
    /// PM2 in cluster mode. The server has to answer with its pid.
    Pm2,
    /// nginx in front of as many servers, each at an address of its own.
    Nginx,
}

impl Peer {
    /// What has to be installed for it.
    pub fn install(self) -> Option<Install> {
        match self {
            Self::Throng => Some(Install::Throng),
            Self::Pm2 => Some(Install::Pm2),
            Self::Nginx => Some(Install::Nginx),
            Self::NodeClusterRoundRobin | Self::NodeClusterNone | Self::ReusePort | Self::SharedListener => {
                None
            }
        }
    }
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
        match self.peer {
            Peer::NodeClusterRoundRobin => self.managed(self.cluster("rr", &script, address)?, address),
            Peer::NodeClusterNone => self.managed(self.cluster("none", &script, address)?, address),
            Peer::Throng => self.managed(self.throng(&script, address)?, address),
            Peer::ReusePort => {
                // All of them before the first worker: the group has its final size when connections come.
                let sockets =
                    (0..self.workers).map(|_| listener(address, true)).collect::<Result<Vec<_>, _>>();
                let (processes, workers) = self.inheriting(sockets?, &script, address)?;
                Ok(RunningBaseline { processes, address, workers, manager: Manager::Nobody })
            }
            Peer::SharedListener => {
                let socket = listener(address, false)?;
                let sockets = (0..self.workers).map(|_| socket.try_clone()).collect::<Result<Vec<_>, _>>();
                let (processes, workers) = self.inheriting(sockets?, &script, address)?;
                Ok(RunningBaseline { processes, address, workers, manager: Manager::Nobody })
            }
            Peer::Nginx => self.behind_nginx(&script, address),
            Peer::Pm2 => {
                let pm2 = Pm2::start(&script, self.workers, address, &[])?;
                let workers = wait_workers(address, self.workers.into())?;
                let manager = Manager::Pm2(pm2);
                Ok(RunningBaseline { processes: Vec::new(), address, workers, manager })
            }
        }
    }

    /// Waits for the workers of a process that tells of them.
    fn managed(&self, process: Process, address: SocketAddr) -> anyhow::Result<RunningBaseline> {
        let ready = process.wait_count("ready", self.workers.into(), READY_TIMEOUT)?;
        let workers = ready.iter().filter_map(Event::worker_pid).collect();
        Ok(RunningBaseline { processes: vec![process], address, workers, manager: Manager::First })
    }

    fn behind_nginx(&self, script: &Path, address: SocketAddr) -> anyhow::Result<RunningBaseline> {
        let own = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let sockets = (0..self.workers).map(|_| listener(own, false)).collect::<Result<Vec<_>, _>>()?;
        let servers: Vec<_> = sockets
            .iter()
            .map(|socket| Ok(SocketAddr::try_from(rustix::net::getsockname(socket)?)?))
            .collect::<anyhow::Result<_>>()?;
        let (mut processes, _) = self.inheriting(sockets, script, address)?;
        let folder = tempfile::tempdir()?;
        // It is stopped first, while there are servers for it.
        processes.insert(0, nginx::start(&folder, address, &servers)?);
        let workers = wait_workers(address, self.workers.into())?;
        Ok(RunningBaseline { processes, address, workers, manager: Manager::Nginx(folder) })
    }

    fn cluster(&self, policy: &str, script: &Path, address: SocketAddr) -> anyhow::Result<Process> {
        let mut command = self.node(address);
        command.env("NODE_CLUSTER_SCHED_POLICY", policy).stdin(Stdio::null());
        Process::spawn(command.arg(file("cluster.js")).arg(self.workers.to_string()).arg(script))
    }

    fn throng(&self, script: &Path, address: SocketAddr) -> anyhow::Result<Process> {
        let mut command = self.node(address);
        command.env("NODE_PATH", Install::Throng.folder().join("node_modules")).stdin(Stdio::null());
        Process::spawn(command.arg(file("throng.js")).arg(self.workers.to_string()).arg(script))
    }

    /// Starts a server for each socket, and waits until they listen.
    fn inheriting(
        &self,
        sockets: Vec<OwnedFd>,
        script: &Path,
        address: SocketAddr,
    ) -> anyhow::Result<(Vec<Process>, BTreeSet<u32>)> {
        let start = |socket| {
            let mut command = self.node(address);
            Process::spawn(command.arg("-r").arg(file("inherit.js")).arg(script).stdin(Stdio::from(socket)))
        };
        let processes = sockets.into_iter().map(start).collect::<anyhow::Result<Vec<_>>>()?;
        for process in &processes {
            process.wait_count("ready", 1, READY_TIMEOUT)?;
        }
        let workers = processes.iter().map(Process::pid).collect();
        Ok((processes, workers))
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
    workers: BTreeSet<u32>,
    manager: Manager,
}

/// What stands between kernel and workers.
#[derive(Debug)]
enum Manager {
    Nobody,
    /// The first of the processes.
    First,
    /// The first of the processes and its children, whose files are here.
    Nginx(#[expect(dead_code, reason = "held, not looked at")] TempDir),
    Pm2(Pm2),
}

impl RunningBaseline {
    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process ids of all workers, as they were when it began to serve.
    pub fn worker_pids(&self) -> &BTreeSet<u32> {
        &self.workers
    }

    /// The process ids of all that stands between kernel and workers.
    pub fn manager_pids(&self) -> Vec<u32> {
        let first = self.processes.first().map(Process::pid);
        match &self.manager {
            Manager::Nobody => Vec::new(),
            Manager::First => first.into_iter().collect(),
            Manager::Nginx(_) => {
                first.into_iter().flat_map(|pid| children(pid).into_iter().chain([pid])).collect()
            }
            Manager::Pm2(pm2) => pm2.daemon().into_iter().collect(),
        }
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

/// Asks a server that answers with its pid until this many workers have answered, and gives their process ids.
///
/// # Errors
///
/// If not as many have within 30 s.
pub fn wait_workers(address: SocketAddr, workers: usize) -> anyhow::Result<BTreeSet<u32>> {
    let begin = Instant::now();
    let mut seen = BTreeSet::new();
    while seen.len() < workers {
        ensure!(begin.elapsed() < READY_TIMEOUT, "{} of {workers} workers have answered", seen.len());
        // Many at once, so that those who share a listener all have something to do.
        let report = Load::new(address).clients(8 * workers).requests(16 * workers as u64).run_blocking();
        seen.extend(report.by_body.keys().filter_map(|body| body.parse::<u32>().ok()));
        std::thread::sleep(PAUSE);
    }
    Ok(seen)
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
