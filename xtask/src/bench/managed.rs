//! Node workers and who manages them: started, scaled and upgraded alike, so that a case need not know whom it measures.
//!
//! Each manager is used as a user would, with its own settings as they are. When a worker listens, the worker itself says so, and
//! which workers there are, the kernel: managers tell of both in different ways.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use allcores_testing::announced::Announced;
use allcores_testing::app::{App, RunningApp};
use allcores_testing::baseline::{Baseline, Peer, RunningBaseline};
use allcores_testing::load::Load;
use allcores_testing::pm2::Pm2;
use allcores_testing::proc;
use allcores_testing::process::free_port;
use allcores_testing::runtimes::Install;
use anyhow::{Context, bail, ensure};

use super::contender::{Contender, Turn};
use super::need::Need;
use super::record::{Role, Sample};

/// How long workers may take to be there, or to go: dozens of cold runtimes on a busy machine take their time.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);

/// Nothing tells when another's child is gone, so this often it is looked for.
const LOOK: Duration = Duration::from_millis(2);

/// Who manages the workers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Manager {
    /// With these further options.
    Allcores(&'static [&'static str]),
    NodeCluster,
    Pm2,
    /// Nobody: sockets with SO_REUSEPORT, and a loop that starts another process for each that ends.
    Loop,
}

/// Workers that serve, and who manages them.
#[derive(Debug)]
pub(super) struct Managed {
    pub(super) address: SocketAddr,
    // Before what it runs, so that it has ended when that is removed.
    run: Run,
    server: Announced,
}

#[derive(Debug)]
enum Run {
    App(RunningApp),
    Cluster(RunningBaseline),
    Pm2(Pm2),
    Loop(Vec<RunningBaseline>),
}

impl Manager {
    /// A contender whose workers are started anew for each measurement, and stopped afterwards.
    pub(super) fn contender(
        self,
        server: &Path,
        workers: u16,
        measure: impl Fn(&mut Managed) -> anyhow::Result<Vec<Sample>> + 'static,
    ) -> Contender {
        let server = server.to_owned();
        self.measured(move |turn| {
            let (mut app, _) = self.start(&server, workers, turn.binary)?;
            let samples = measure(&mut app)?;
            app.stop()?;
            Ok(samples)
        })
    }

    /// A contender that starts its workers by itself.
    pub(super) fn measured(
        self,
        measure: impl Fn(Turn<'_>) -> anyhow::Result<Vec<Sample>> + 'static,
    ) -> Contender {
        let contender = Contender::new(self.name(), self.role(), measure);
        match self {
            Self::Pm2 => contender.needs(Need::Install(Install::Pm2)),
            Self::Allcores(_) | Self::NodeCluster | Self::Loop => contender,
        }
    }

    fn name(self) -> String {
        match self {
            Self::Allcores(options) => {
                ["allcores"].iter().chain(options).copied().collect::<Vec<_>>().join(", ")
            }
            Self::NodeCluster => "node:cluster".into(),
            Self::Pm2 => "PM2".into(),
            Self::Loop => "SO_REUSEPORT and a loop".into(),
        }
    }

    fn role(self) -> Role {
        match self {
            Self::Allcores(_) => Role::Ours,
            Self::NodeCluster | Self::Pm2 | Self::Loop => Role::Peer,
        }
    }

    /// Starts so many workers of a node server, and says how long it took from the start of the command until all of them listened.
    /// Then one must answer. `binary` is the program `allcores`.
    pub(super) fn start(
        self,
        server: &Path,
        workers: u16,
        binary: &Path,
    ) -> anyhow::Result<(Managed, Duration)> {
        let server = Announced::new(server)?;
        let (script, port) = (server.script(), free_port()?);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let began = Instant::now();
        let run = match self {
            Self::Allcores(options) => {
                let app = App::new(["node".into(), script]).binary(binary).name("bench").workers(workers);
                let app = app.env("HOST", address.ip().to_string()).env("PORT", port.to_string());
                Run::App(options.iter().fold(app, App::option).start()?)
            }
            Self::NodeCluster => {
                Run::Cluster(Baseline::new(Peer::NodeClusterRoundRobin, script, workers).start(port)?)
            }
            Self::Pm2 => Run::Pm2(Pm2::start(&script, workers, address, &[])?),
            Self::Loop => {
                let start = |_| Baseline::new(Peer::ReusePort, &script, 1).start(port);
                Run::Loop((0..workers).map(start).collect::<anyhow::Result<_>>()?)
            }
        };
        let app = Managed { address, run, server };
        let last = app.server.wait(workers.into(), PATIENCE)?;
        let report = Load::new(address).requests(1).run_blocking();
        ensure!(report.is_clean(), "all workers listen and none answers:\n{report}");
        Ok((app, last - began))
    }
}

impl Managed {
    /// The process that manages, if there is one. PM2's changes when it is updated.
    pub(super) fn manager(&self) -> Option<u32> {
        match &self.run {
            Run::App(app) => Some(app.pid()),
            Run::Cluster(cluster) => cluster.manager_pids().first().copied(),
            Run::Pm2(pm2) => pm2.daemon(),
            Run::Loop(_) => None,
        }
    }

    /// The workers, the oldest first.
    pub(super) fn workers(&self) -> anyhow::Result<Vec<u32>> {
        match &self.run {
            Run::Loop(members) => {
                Ok(members.iter().flat_map(RunningBaseline::worker_pids).copied().collect())
            }
            _ => Ok(proc::children(self.manager().context("the manager is gone")?)),
        }
    }

    /// Waits until there are so many workers.
    pub(super) fn wait_workers(&self, count: u16) -> anyhow::Result<()> {
        let until = Instant::now() + PATIENCE;
        while self.workers()?.len() != usize::from(count) {
            ensure!(Instant::now() < until, "there are {:?} and not {count} workers", self.workers()?);
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// How many processes have begun to listen so far.
    pub(super) fn listening(&self) -> usize {
        self.server.count()
    }

    /// Waits until so many processes have begun to listen, counted from the start.
    pub(super) fn wait_listening(&self, count: usize) -> anyhow::Result<Instant> {
        self.server.wait(count, PATIENCE)
    }

    /// Has the loop, which has no other way to know that one has ended, start another. A manager needs no telling.
    pub(super) fn replace(&mut self, pid: u32) -> anyhow::Result<()> {
        if let Run::Loop(members) = &mut self.run {
            members.retain(|member| !member.worker_pids().contains(&pid));
            let server = self.server.script();
            members.push(Baseline::new(Peer::ReusePort, server, 1).start(self.address.port())?);
        }
        Ok(())
    }

    /// Changes the number of workers, and waits for the command's end.
    pub(super) fn scale(&self, workers: u16) -> anyhow::Result<()> {
        match &self.run {
            Run::App(app) => {
                succeeded("allcores scale", &app.run(["scale", app.name(), &workers.to_string()])?)
            }
            Run::Pm2(pm2) => succeeded("pm2 scale", &pm2.scale(workers)?),
            Run::Cluster(_) | Run::Loop(_) => bail!("it has no command that scales"),
        }
    }

    /// Has another process of the same program take over from the manager, and waits for the command's end.
    pub(super) fn upgrade(&self) -> anyhow::Result<()> {
        match &self.run {
            Run::App(app) => succeeded("allcores upgrade", &app.run(["upgrade", app.name()])?),
            Run::Pm2(pm2) => succeeded("pm2 update", &pm2.update()?),
            Run::Cluster(_) | Run::Loop(_) => bail!("it has no command that upgrades"),
        }
    }

    pub(super) fn stop(self) -> anyhow::Result<()> {
        match &self.run {
            Run::App(app) => app.stop().map(drop),
            Run::Cluster(cluster) => cluster.stop(),
            // Told so when it is dropped.
            Run::Pm2(_) => Ok(()),
            Run::Loop(members) => members.iter().try_for_each(RunningBaseline::stop),
        }
    }
}

fn succeeded(command: &str, output: &Output) -> anyhow::Result<()> {
    let text = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    ensure!(output.status.success(), "{command}: {}: {}{}", output.status, text[0], text[1]);
    Ok(())
}
