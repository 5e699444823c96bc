//! Who is measured, and how each is started on the same server.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use allcores_testing::app::{App, RunningApp};
use allcores_testing::baseline::{Baseline, Peer, RunningBaseline};
use allcores_testing::load::Load;
use allcores_testing::process::{Process, free_port};
use allcores_testing::runtimes::{Install, target};
use anyhow::{Context, bail, ensure};

use super::record::{Role, Sample};

/// How long a server that is started as it is may take to answer.
const READY_TIMEOUT: Duration = Duration::from_secs(10);

/// A turn of one contender.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn<'a> {
    /// The same for all contenders of a round, and another in each round.
    pub(super) seed: u64,
    /// The program `allcores`.
    pub(super) binary: &'a Path,
}

/// Measures once, under one load or several.
type Measure = Box<dyn Fn(Turn<'_>) -> anyhow::Result<Vec<Sample>>>;

/// One way to do what the case is about.
pub(super) struct Contender {
    pub(super) name: String,
    pub(super) role: Role,
    /// Whom it is compared with: those of the same group.
    pub(super) group: String,
    /// What has to be installed for it.
    pub(super) needs: Vec<Install>,
    measure: Measure,
}

impl Contender {
    /// One that does by itself all that there is to be measured.
    pub(super) fn new(
        name: impl Into<String>,
        role: Role,
        measure: impl Fn(Turn<'_>) -> anyhow::Result<Vec<Sample>> + 'static,
    ) -> Self {
        Self { name: name.into(), role, group: String::new(), needs: Vec::new(), measure: Box::new(measure) }
    }

    /// One that runs a server, which is started anew for each measurement and stopped afterwards.
    pub(super) fn serving(
        name: impl Into<String>,
        setting: Setting,
        load: impl Fn(&Contestant, Turn<'_>) -> anyhow::Result<Vec<Sample>> + 'static,
    ) -> Self {
        let role = setting.way.role();
        Self::new(name, role, move |turn| {
            let contestant = setting.start(turn.binary)?;
            let samples = load(&contestant, turn)?;
            contestant.stop()?;
            Ok(samples)
        })
    }

    /// Compares it with those of this group only.
    pub(super) fn group(mut self, group: impl Into<String>) -> Self {
        self.group = group.into();
        self
    }

    /// Says what it is to allcores, where the way in which it runs does not.
    pub(super) fn role(mut self, role: Role) -> Self {
        self.role = role;
        self
    }

    /// Has this installed before, and leaves the contender out where that can't be.
    pub(super) fn needs(mut self, install: Install) -> Self {
        self.needs.push(install);
        self
    }

    pub(super) fn measure(&self, turn: Turn<'_>) -> anyhow::Result<Vec<Sample>> {
        (self.measure)(turn).with_context(|| self.name.clone())
    }
}

impl fmt::Debug for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, role, group, .. } = self;
        f.debug_struct("Contender")
            .field("name", name)
            .field("role", role)
            .field("group", group)
            .finish_non_exhaustive()
    }
}

/// A server that listens on `$HOST:$PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Server {
    Node(PathBuf),
    Python(PathBuf),
    /// One of the workspace's own examples, by its name.
    Example(&'static str),
}

/// How a server is run.
#[derive(Clone, Debug)]
pub(super) enum Way {
    Allcores {
        policy: &'static str,
        environment: Option<(&'static str, String)>,
    },
    Peer(Peer),
    /// As it is, one process.
    Plain,
}

impl Way {
    pub(super) const fn allcores(policy: &'static str) -> Self {
        Self::Allcores { policy, environment: None }
    }

    /// With a variable for the primary.
    pub(super) fn allcores_with(policy: &'static str, name: &'static str, value: impl Into<String>) -> Self {
        Self::Allcores { policy, environment: Some((name, value.into())) }
    }

    fn role(&self) -> Role {
        match self {
            Self::Allcores { .. } => Role::Ours,
            Self::Peer(Peer::ReusePort | Peer::SharedListener) | Self::Plain => Role::Limit,
            Self::Peer(Peer::NodeClusterRoundRobin | Peer::NodeClusterNone) => Role::Peer,
        }
    }
}

/// A way to run a server, and the server.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) way: Way,
    pub(super) server: Server,
    pub(super) workers: u16,
}

impl Setting {
    /// Starts it on a free port and waits until every worker is ready.
    fn start(&self, binary: &Path) -> anyhow::Result<Contestant> {
        let Self { way, server, workers } = self;
        let port = free_port()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let run = match (way, server) {
            (Way::Plain, _) => Run::Plain(start_plain(server, address)?),
            (Way::Peer(peer), Server::Node(script)) => {
                Run::Peer(Baseline::new(*peer, script, *workers).start(port)?)
            }
            (Way::Peer(_), _) => bail!("the peers run node servers only"),
            (Way::Allcores { policy, environment }, _) => {
                let mut app = App::new(server.command()?)
                    .binary(binary)
                    .name("bench")
                    .workers(*workers)
                    .policy(*policy)
                    .env("HOST", address.ip().to_string())
                    .env("PORT", port.to_string());
                if let Some((name, value)) = environment {
                    app = app.env(*name, value);
                }
                let app = app.start()?;
                app.wait_ready((*workers).into())?;
                Run::App(app)
            }
        };
        Ok(Contestant { address, workers: *workers, run })
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
            Self::Example(name) => vec![target().join("release").join(name)],
        };
        let program = words.last().context("there is always one")?;
        ensure!(program.is_file(), "the server {} does not exist", program.display());
        Ok(words)
    }
}

/// A server that is run, for one measurement.
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
    Plain(Process),
}

impl Contestant {
    /// The process that stands between kernel and workers, if there is one.
    pub(super) fn primary_pid(&self) -> Option<u32> {
        match &self.run {
            Run::App(app) => Some(app.pid()),
            Run::Peer(peer) => peer.primary_pid(),
            Run::Plain(_) => None,
        }
    }

    /// Where allcores is commanded.
    pub(super) fn control_socket(&self) -> Option<PathBuf> {
        match &self.run {
            Run::App(app) => Some(app.runtime_folder().join(app.name()).join("control.sock")),
            Run::Peer(_) | Run::Plain(_) => None,
        }
    }

    fn stop(self) -> anyhow::Result<()> {
        match self.run {
            Run::App(app) => app.stop().map(drop),
            Run::Peer(peer) => peer.stop(),
            Run::Plain(process) => process.stop().map(drop),
        }
    }
}
