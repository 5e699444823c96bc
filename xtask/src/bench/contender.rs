//! Who is measured, and how each is started on the same server.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use allcores_testing::app::{App, Event, RunningApp};
use allcores_testing::baseline::{Baseline, Peer, RunningBaseline};
use allcores_testing::framework::{self, Framework, RunningFramework};
use allcores_testing::load::Load;
use allcores_testing::process::{Process, free_port};
use allcores_testing::runtimes::{Install, Runtime, target};
use anyhow::{Context, bail, ensure};

use super::need::Need;
use super::record::{LeftOut, Role, Sample};

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
    pub(super) needs: Vec<Need>,
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
        let (role, needs) = (setting.way.role(), setting.needs());
        let measure = move |turn: Turn<'_>| {
            let contestant = setting.start(turn.binary)?;
            let samples = load(&contestant, turn)?;
            contestant.stop()?;
            Ok(samples)
        };
        Self { needs, ..Self::new(name, role, measure) }
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
    pub(super) fn needs(mut self, need: Need) -> Self {
        self.needs.push(need);
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
    /// A runtime's server below `tests/fixtures`.
    Runtime(Runtime),
}

/// How a server is run.
#[derive(Clone, Debug)]
pub(super) enum Way {
    Allcores {
        policy: &'static str,
        environment: Option<(&'static str, String)>,
    },
    Peer(Peer),
    /// What the server has for this by itself.
    Framework(Framework),
    /// As it is, one process.
    Plain,
}

/// How others run a node server on several cores.
pub(super) fn node_peers() -> [(&'static str, Way); 6] {
    [
        ("node:cluster round robin", Peer::NodeClusterRoundRobin),
        ("node:cluster shared", Peer::NodeClusterNone),
        ("PM2, cluster mode", Peer::Pm2),
        ("throng", Peer::Throng),
        ("nginx before as many servers", Peer::Nginx),
        ("SO_REUSEPORT, no manager", Peer::ReusePort),
    ]
    .map(|(name, peer)| (name, Way::Peer(peer)))
}

/// Who would be compared in the same cases, and is not to be had.
pub(super) fn absent_peers() -> Vec<LeftOut> {
    vec![LeftOut {
        contender: "einhorn".into(),
        why: "it is a Ruby gem, and no package of Debian's, npm's or PyPI's has it".into(),
    }]
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
            Self::Peer(_) | Self::Framework(_) => Role::Peer,
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
    fn needs(&self) -> Vec<Need> {
        let of_way = match self.way {
            Way::Peer(peer) => peer.install().map(Need::Install),
            Way::Framework(_) | Way::Allcores { .. } | Way::Plain => None,
        };
        let of_server = match self.server {
            Server::Runtime(Runtime::Uvicorn) => Some(Need::Install(Install::Python)),
            Server::Runtime(runtime) => Some(Need::Runtime(runtime)),
            Server::Node(_) | Server::Python(_) | Server::Example(_) => None,
        };
        of_way.into_iter().chain(of_server).collect()
    }

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
            (Way::Framework(framework), _) => Run::Framework(framework.start(*workers, address)?),
            (Way::Allcores { policy, environment }, _) => {
                let mut app = App::new(server.command(address)?)
                    .binary(binary)
                    .name("bench")
                    .workers(*workers)
                    .policy(*policy);
                for (name, value) in server.environment(address) {
                    app = app.env(name, value);
                }
                if let Server::Runtime(runtime) = server {
                    app = app.folder(runtime.cwd());
                }
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
    let words = server.command(address)?;
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).envs(server.environment(address));
    let process = Process::spawn(&mut command)?;
    let first = Load::new(address).spawn();
    ensure!(first.wait_ok(1, READY_TIMEOUT), "{} does not answer", words[0].display());
    first.stop();
    Ok(process)
}

impl Server {
    fn command(&self, address: SocketAddr) -> anyhow::Result<Vec<OsString>> {
        let (interpreter, program) = match self {
            Self::Runtime(runtime) => return runtime.command(address),
            Self::Node(script) => (Some("node"), script.clone()),
            Self::Python(script) => (Some("python3"), script.clone()),
            Self::Example(name) => (None, target().join("release").join(name)),
        };
        ensure!(program.is_file(), "the server {} does not exist", program.display());
        Ok(interpreter.map(OsString::from).into_iter().chain([program.into_os_string()]).collect())
    }

    fn environment(&self, address: SocketAddr) -> Vec<(&'static str, OsString)> {
        match self {
            Self::Runtime(runtime) => framework::environment(*runtime, address),
            Self::Node(_) | Self::Python(_) | Self::Example(_) => {
                let (host, port) = (address.ip().to_string(), address.port().to_string());
                vec![("HOST", host.into()), ("PORT", port.into())]
            }
        }
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
    Framework(RunningFramework),
    Plain(Process),
}

impl Contestant {
    /// What stands between kernel and workers.
    pub(super) fn manager_pids(&self) -> Vec<u32> {
        match &self.run {
            Run::App(app) => vec![app.pid()],
            Run::Peer(peer) => peer.manager_pids(),
            Run::Framework(framework) => vec![framework.manager_pid()],
            Run::Plain(_) => Vec::new(),
        }
    }

    /// The workers, as they were when it began to serve.
    pub(super) fn worker_pids(&self) -> BTreeSet<u32> {
        match &self.run {
            Run::App(app) => {
                let events = app.events();
                let ready = events.iter().filter(|event| event.kind() == "ready");
                ready.filter_map(Event::worker_pid).collect()
            }
            Run::Peer(peer) => peer.worker_pids().clone(),
            Run::Framework(framework) => framework.worker_pids().clone(),
            Run::Plain(process) => [process.pid()].into(),
        }
    }

    /// Where allcores is commanded.
    pub(super) fn control_socket(&self) -> Option<PathBuf> {
        match &self.run {
            Run::App(app) => Some(app.runtime_folder().join(app.name()).join("control.sock")),
            Run::Peer(_) | Run::Framework(_) | Run::Plain(_) => None,
        }
    }

    fn stop(self) -> anyhow::Result<()> {
        match self.run {
            Run::App(app) => app.stop().map(drop),
            Run::Peer(peer) => peer.stop(),
            Run::Framework(framework) => framework.stop(),
            Run::Plain(process) => process.stop().map(drop),
        }
    }
}
