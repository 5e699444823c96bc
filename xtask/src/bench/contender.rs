//! Who is measured, and how each is started on the same server.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use allcores_testing::app::{App, RunningApp};
use allcores_testing::baseline::{Baseline, Peer, RunningBaseline};
use allcores_testing::load::Load;
use allcores_testing::process::{Process, free_port};
use allcores_testing::siege::Means;
use anyhow::{Context, bail, ensure};

use super::logs::Keeper;
use super::messages::Talk;

/// How long a server that is started as it is may take to answer.
const READY_TIMEOUT: Duration = Duration::from_secs(10);

/// A server that listens on `$HOST:$PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Server {
    Node(PathBuf),
    Python(PathBuf),
    /// One of the workspace's own examples, by its name.
    Example(&'static str),
    /// None: what is measured is no server.
    None,
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
    Allcores {
        policy: &'static str,
        environment: Option<(&'static str, String)>,
    },
    Peer(Peer),
    /// The server as it is, one process.
    Plain,
    Simulated(Discipline),
    Talk(Talk),
    Keeper(Keeper),
}

/// One way to run a server on several cores, or to talk with a worker.
#[derive(Clone, Debug)]
pub(super) struct Contender {
    pub(super) name: String,
    pub(super) workers: u16,
    /// How many clients load it, in the cases that compare this.
    clients: usize,
    /// Another server than the case's.
    server: Option<Server>,
    /// What its control socket has to bear.
    siege: Option<Means>,
    kind: Kind,
}

impl Contender {
    pub(super) fn allcores(name: &str, policy: &'static str) -> Self {
        Self::new(name, Kind::Allcores { policy, environment: None })
    }

    pub(super) fn peer(name: &str, peer: Peer) -> Self {
        Self::new(name, Kind::Peer(peer))
    }

    pub(super) fn plain(name: &str) -> Self {
        Self::new(name, Kind::Plain)
    }

    pub(super) fn simulated(name: &str, discipline: Discipline) -> Self {
        Self::new(name, Kind::Simulated(discipline))
    }

    pub(super) fn talk(name: &str, talk: Talk) -> Self {
        Self::new(name, Kind::Talk(talk))
    }

    pub(super) fn keeper(name: &str, keeper: Keeper) -> Self {
        Self::new(name, Kind::Keeper(keeper))
    }

    fn new(name: &str, kind: Kind) -> Self {
        Self { name: name.into(), workers: 4, clients: 8, server: None, siege: None, kind }
    }

    /// Sets another server than the case's.
    pub(super) fn server(mut self, server: Server) -> Self {
        self.server = Some(server);
        self
    }

    /// Lays siege to its control socket.
    pub(super) fn siege(mut self, means: Means) -> Self {
        self.siege = Some(means);
        self
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

    /// Sets the number of clients (8 otherwise), and says it in the name.
    pub(super) fn clients(mut self, clients: usize) -> Self {
        self.clients = clients;
        self.name = format!("{}, {clients} clients", self.name);
        self
    }

    pub(super) fn needs_binary(&self) -> bool {
        matches!(self.kind, Kind::Allcores { .. } | Kind::Keeper(_))
    }

    /// Whom it is compared with: those of the same group.
    pub(super) fn group(&self) -> String {
        match &self.kind {
            Kind::Talk(talk) => format!("{} bytes", talk.bytes),
            _ => format!("{} workers, {:?}", self.workers, self.server),
        }
    }

    /// Starts it on a free port and waits until every worker is ready.
    pub(super) fn start(&self, server: &Server, binary: Option<&Path>) -> anyhow::Result<Contestant> {
        let port = free_port()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let workers = self.workers;
        let server = self.server.as_ref().unwrap_or(server);
        let run = match (&self.kind, server) {
            (Kind::Simulated(discipline), _) => Run::Simulated(*discipline),
            (Kind::Talk(talk), _) => Run::Talk(talk.clone()),
            (Kind::Keeper(keeper), _) => {
                Run::Keeper(*keeper, binary.context("no program was built")?.to_owned())
            }
            (Kind::Plain, _) => Run::Plain(start_plain(server, address)?),
            (Kind::Peer(peer), Server::Node(script)) => {
                Run::Peer(Baseline::new(*peer, script, workers).start(port)?)
            }
            (Kind::Peer(_), _) => bail!("the peers run node servers only"),
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
        Ok(Contestant { address, workers, clients: self.clients, siege: self.siege, run })
    }
}

/// Starts a server as it is, and waits until it answers.
fn start_plain(server: &Server, address: SocketAddr) -> anyhow::Result<Process> {
    let words = server.command()?;
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).env("HOST", address.ip().to_string()).env("PORT", address.port().to_string());
    let process = Process::spawn(&mut command)?;
    let first = Load::new(address).spawn();
    ensure!(first.wait_ok(1, READY_TIMEOUT), "{} does not answer", words[0].display());
    first.stop();
    Ok(process)
}

impl Server {
    fn command(&self) -> anyhow::Result<Vec<PathBuf>> {
        let words = match self {
            Self::Node(script) => vec!["node".into(), script.clone()],
            Self::Python(script) => vec!["python3".into(), script.clone()],
            Self::Example(name) => vec![super::target().join("release").join(name)],
            Self::None => bail!("there is no server"),
        };
        let program = words.last().context("there is always one")?;
        ensure!(program.is_file(), "the server {} does not exist", program.display());
        Ok(words)
    }
}

/// A contender that serves, for one measurement.
#[derive(Debug)]
pub(super) struct Contestant {
    pub(super) address: SocketAddr,
    pub(super) workers: u16,
    pub(super) clients: usize,
    pub(super) siege: Option<Means>,
    run: Run,
}

#[derive(Debug)]
enum Run {
    App(RunningApp),
    Peer(RunningBaseline),
    Plain(Process),
    Simulated(Discipline),
    Talk(Talk),
    /// And the program `allcores`.
    Keeper(Keeper, PathBuf),
}

impl Contestant {
    /// The process that stands between kernel and workers, if there is one.
    pub(super) fn primary_pid(&self) -> Option<u32> {
        match &self.run {
            Run::App(app) => Some(app.pid()),
            Run::Peer(peer) => peer.primary_pid(),
            Run::Plain(_) | Run::Simulated(_) | Run::Talk(_) | Run::Keeper(..) => None,
        }
    }

    /// Where allcores is commanded.
    pub(super) fn control_socket(&self) -> Option<PathBuf> {
        match &self.run {
            Run::App(app) => Some(app.runtime_folder().join(app.name()).join("control.sock")),
            _ => None,
        }
    }

    /// How connections wait, if this is no more than a simulation.
    pub(super) fn simulated(&self) -> Option<Discipline> {
        match self.run {
            Run::Simulated(discipline) => Some(discipline),
            _ => None,
        }
    }

    /// Who talks with whom, if that is what is measured.
    pub(super) fn talk(&self) -> Option<&Talk> {
        match &self.run {
            Run::Talk(talk) => Some(talk),
            _ => None,
        }
    }

    /// Who keeps lines, if that is what is measured, and the program `allcores`.
    pub(super) fn keeper(&self) -> Option<(Keeper, &Path)> {
        match &self.run {
            Run::Keeper(keeper, binary) => Some((*keeper, binary)),
            _ => None,
        }
    }

    pub(super) fn stop(self) -> anyhow::Result<()> {
        match self.run {
            Run::App(app) => app.stop().map(drop),
            Run::Peer(peer) => peer.stop(),
            Run::Plain(process) => process.stop().map(drop),
            Run::Simulated(_) | Run::Talk(_) | Run::Keeper(..) => Ok(()),
        }
    }
}
