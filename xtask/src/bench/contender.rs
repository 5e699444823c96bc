//! Who is measured, and how each is started on the same server.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use allcores_testing::app::{App, RunningApp};
use allcores_testing::baseline::{Baseline, Peer, RunningBaseline};
use allcores_testing::process::free_port;
use anyhow::{Context, bail, ensure};

/// An unmodified server that listens on `$HOST:$PORT`.
#[derive(Clone, Debug)]
pub(super) enum Server {
    Node(PathBuf),
    Python(PathBuf),
}

/// How connections wait, in a simulation.
#[derive(Clone, Copy, Debug)]
pub(super) enum Discipline {
    /// In one queue that all workers take from.
    OneQueue,
    /// In the queue of a worker that was picked blindly.
    BlindLanes,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Allcores { policy: &'static str, environment: Option<(&'static str, String)> },
    Peer(Peer),
    Simulated(Discipline),
}

/// One way to run a server on several cores.
#[derive(Clone, Debug)]
pub(super) struct Contender {
    pub(super) name: String,
    pub(super) workers: u16,
    kind: Kind,
}

impl Contender {
    pub(super) fn allcores(name: &str, policy: &'static str) -> Self {
        Self { name: name.into(), workers: 4, kind: Kind::Allcores { policy, environment: None } }
    }

    pub(super) fn peer(name: &str, peer: Peer) -> Self {
        Self { name: name.into(), workers: 4, kind: Kind::Peer(peer) }
    }

    pub(super) fn simulated(name: &str, discipline: Discipline) -> Self {
        Self { name: name.into(), workers: 4, kind: Kind::Simulated(discipline) }
    }

    /// Sets a variable for the primary of an allcores contender.
    pub(super) fn env(mut self, name: &'static str, value: impl Into<String>) -> Self {
        if let Kind::Allcores { environment, .. } = &mut self.kind {
            *environment = Some((name, value.into()));
        }
        self
    }

    /// Sets the number of workers (4 otherwise), and says it in the name.
    pub(super) fn workers(mut self, workers: u16) -> Self {
        self.workers = workers;
        self.name = format!("{}, {workers} workers", self.name);
        self
    }

    pub(super) fn needs_binary(&self) -> bool {
        matches!(self.kind, Kind::Allcores { .. })
    }

    /// Starts it on a free port and waits until every worker is ready.
    pub(super) fn start(&self, server: &Server, binary: Option<&Path>) -> anyhow::Result<Contestant> {
        let port = free_port()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let workers = self.workers;
        let run = match (&self.kind, server) {
            (Kind::Simulated(discipline), _) => Run::Simulated(*discipline),
            (Kind::Peer(peer), Server::Node(script)) => {
                Run::Peer(Baseline::new(*peer, script, workers).start(port)?)
            }
            (Kind::Peer(_), Server::Python(_)) => bail!("the peers run node servers only"),
            (Kind::Allcores { policy, environment }, _) => {
                let mut app = App::new(server.command()?)
                    .binary(binary.context("no program was built")?)
                    .name("bench")
                    .workers(workers)
                    .policy(*policy)
                    .env("HOST", address.ip().to_string())
                    .env("PORT", port.to_string());
                if let Some((name, value)) = environment {
                    app = app.env(*name, value);
                }
                let app = app.start()?;
                app.wait_ready(workers.into())?;
                Run::App(app)
            }
        };
        Ok(Contestant { address, workers, run })
    }
}

impl Server {
    fn command(&self) -> anyhow::Result<[PathBuf; 2]> {
        let (runtime, script) = match self {
            Self::Node(script) => ("node", script),
            Self::Python(script) => ("python3", script),
        };
        ensure!(script.is_file(), "the server {} does not exist", script.display());
        Ok([runtime.into(), script.clone()])
    }
}

/// A contender that serves, for one measurement.
#[derive(Debug)]
pub(super) struct Contestant {
    pub(super) address: SocketAddr,
    pub(super) workers: u16,
    run: Run,
}

#[derive(Debug)]
enum Run {
    App(RunningApp),
    Peer(RunningBaseline),
    Simulated(Discipline),
}

impl Contestant {
    /// The process that stands between kernel and workers, if there is one.
    pub(super) fn primary_pid(&self) -> Option<u32> {
        match &self.run {
            Run::App(app) => Some(app.pid()),
            Run::Peer(peer) => peer.primary_pid(),
            Run::Simulated(_) => None,
        }
    }

    /// How connections wait, if this is no more than a simulation.
    pub(super) fn simulated(&self) -> Option<Discipline> {
        match self.run {
            Run::Simulated(discipline) => Some(discipline),
            Run::App(_) | Run::Peer(_) => None,
        }
    }

    pub(super) fn stop(self) -> anyhow::Result<()> {
        match self.run {
            Run::App(app) => app.stop().map(drop),
            Run::Peer(peer) => peer.stop(),
            Run::Simulated(_) => Ok(()),
        }
    }
}
