//! The reload case: new versions under load. What do clients notice?
//!
//! In each round a contender is reloaded to the same version, under two loads at once: a connection for each request, and
//! connections that are kept and never pause. Then it is reloaded to a version that throws at boot. PM2 has the same app.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use allcores_testing::app::{App, RunningApp};
use allcores_testing::load::{FailureKind, Failures, Load, Report, Running};
use allcores_testing::pm2::Pm2;
use allcores_testing::process::free_port;
use allcores_testing::runtimes::Install;
use anyhow::ensure;

use crate::bench::Arguments;
use crate::bench::case::{Case, Expected, Plan};
use crate::bench::contender::{Contender, Turn};
use crate::bench::load::float;
use crate::bench::metric::Metric;
use crate::bench::need::Need;
use crate::bench::record::{Metrics, Role, Sample};

const WORKERS: u16 = 4;

/// How many clients each of the two loads has.
const CLIENTS: usize = 8;

/// A request that has no answer by then has failed: nothing here takes as long.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How many answers there are to be before anything is done, and after.
const SOME: u64 = 200;

/// How many requests are made to see who serves in the end.
const PROBES: u64 = 20;

/// What is deployed at last.
const BROKEN: &str = "throw new Error('no such table');\n";

pub(super) const CASE: Case = Case {
    name: "reload",
    about: "node; new versions under load, a good one and one that throws at boot, beside PM2",
    metrics: &[
        Metric::lower("s a reload").plotted(),
        Metric::informative("exit code"),
        Metric::higher("answered afterwards").plotted(),
        Metric::informative("answered").summed(),
        Metric::lower("lost").summed().plotted(),
        Metric::lower("repeatable").summed(),
        Metric::lower("refused").summed(),
        Metric::lower("reset").summed(),
        Metric::lower("timeout").summed(),
        Metric::lower("closed early").summed(),
    ],
    expected: &[
        Expected::Never("lost"),
        Expected::NotWorse { metric: "answered afterwards", ours: "allcores, --drain-timeout 2s", than: "PM2", group: "" },
    ],
    remarks: "\
*Repeatable*: on a connection that had served before and was closed without a byte of an answer, which HTTP/1.1 can't rule out \
and clients repeat by themselves; what is *lost* is none of these. *Answered afterwards*: of 20 requests when all was over.

allcores' reload takes longer, as each worker in turn is drained: clients that never pause take all of `--drain-timeout`, here 2 s, \
and then there is the second in which handshakes land. With the default of 10 s it is longer still.",
    plan,
};

/// Who is compared.
#[derive(Clone, Copy, Debug)]
enum Reloader {
    Allcores,
    Pm2,
    /// With an app that has the shutdown code which PM2's documentation asks for.
    Pm2Graceful,
}

fn plan(arguments: &Arguments) -> Plan {
    let contender = |reloader: Reloader| {
        let source = reloader.source(arguments);
        let measure = move |turn: Turn<'_>| reloader.measure(&source, turn.binary);
        match reloader {
            Reloader::Allcores => Contender::new(reloader.name(), Role::Ours, measure),
            Reloader::Pm2 | Reloader::Pm2Graceful => {
                Contender::new(reloader.name(), Role::Peer, measure).needs(Need::Install(Install::Pm2))
            }
        }
    };
    Plan {
        title: format!(
            "{WORKERS} node workers, {CLIENTS} clients with a connection for each request and {CLIENTS} that keep theirs"
        ),
        packages: &[],
        contenders: [Reloader::Allcores, Reloader::Pm2, Reloader::Pm2Graceful].map(contender).into(),
        left_out: Vec::new(),
        each: Duration::from_secs(20),
    }
}

impl Reloader {
    fn name(self) -> &'static str {
        match self {
            Self::Allcores => "allcores, --drain-timeout 2s",
            Self::Pm2 => "PM2",
            Self::Pm2Graceful => "PM2, app closes at SIGINT, --wait-ready",
        }
    }

    fn source(self, arguments: &Arguments) -> PathBuf {
        match self {
            Self::Allcores | Self::Pm2 => arguments.node_server.clone(),
            Self::Pm2Graceful => "testing/baselines/graceful.js".into(),
        }
    }

    fn start(self, script: &Path, address: SocketAddr, binary: &Path) -> anyhow::Result<Contestant> {
        Ok(match self {
            Self::Allcores => {
                let app = App::new([Path::new("node"), script]).binary(binary).name("bench");
                let app = app.env("HOST", address.ip().to_string()).env("PORT", address.port().to_string());
                // The clients that keep their connections never pause: each worker takes all of this time.
                let app = app.workers(WORKERS).option("--drain-timeout=2s").start()?;
                app.wait_ready(WORKERS.into())?;
                Contestant::App(app)
            }
            Self::Pm2 => Contestant::Pm2(Pm2::start(script, WORKERS, address, &[])?),
            Self::Pm2Graceful => {
                let options = ["--wait-ready", "--kill-timeout", "5000"];
                Contestant::Pm2(Pm2::start(script, WORKERS, address, &options)?)
            }
        })
    }

    fn measure(self, source: &Path, binary: &Path) -> anyhow::Result<Vec<Sample>> {
        let folder = tempfile::tempdir()?;
        let script = folder.path().join("server.js");
        fs::copy(source, &script)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let contestant = self.start(&script, address, binary)?;

        let loads = Loads::start(address)?;
        let began = Instant::now();
        let output = contestant.reload()?;
        let took = began.elapsed().as_secs_f64();
        ensure!(output.status.success(), "the reload failed: {}", String::from_utf8_lossy(&output.stderr));
        loads.pass()?;
        let good = loads.stop();

        let loads = Loads::start(address)?;
        fs::write(&script, BROKEN)?;
        let output = contestant.reload()?;
        // Nobody may answer any more.
        std::thread::sleep(Duration::from_secs(1));
        let bad = loads.stop();
        let afterwards = Load::new(address).requests(PROBES).timeout(TIMEOUT).run_blocking();
        let mut end = vec![("answered afterwards", float(afterwards.ok))];
        end.extend(output.status.code().map(|code| ("exit code", f64::from(code))));
        Ok([good.samples("a good version", vec![("s a reload", took)]), bad.samples("a broken version", end)]
            .concat())
    }
}

enum Contestant {
    App(RunningApp),
    Pm2(Pm2),
}

impl Contestant {
    fn reload(&self) -> anyhow::Result<Output> {
        match self {
            Self::App(app) => app.run(["reload", app.name()]),
            Self::Pm2(pm2) => pm2.reload(),
        }
    }
}

/// The two loads.
struct Loads {
    single: Running,
    kept: Running,
}

impl Loads {
    fn start(address: SocketAddr) -> anyhow::Result<Self> {
        let load = || Load::new(address).clients(CLIENTS).timeout(TIMEOUT);
        let loads = Self { single: load().spawn(), kept: load().keep_alive().spawn() };
        loads.pass()?;
        Ok(loads)
    }

    fn pass(&self) -> anyhow::Result<()> {
        for load in [&self.single, &self.kept] {
            ensure!(load.wait_ok(load.ok() + SOME, Duration::from_secs(30)), "the app does not answer");
        }
        Ok(())
    }

    fn stop(self) -> Both {
        Both { single: seen(&self.single.stop(), false), kept: seen(&self.kept.stop(), true) }
    }
}

/// What the two loads saw.
struct Both {
    single: Metrics,
    kept: Metrics,
}

impl Both {
    /// With the numbers that are about the version, not about a load.
    fn samples(self, version: &str, mut of_version: Metrics) -> Vec<Sample> {
        of_version.extend(self.single);
        vec![
            Sample { load: format!("{version}; a connection for each request"), metrics: of_version },
            Sample { load: format!("{version}; connections are kept"), metrics: self.kept },
        ]
    }
}

fn seen(report: &Report, is_kept: bool) -> Metrics {
    let is_closed = |kind| matches!(kind, FailureKind::Reset | FailureKind::ClosedEarly);
    // On a connection that had served before, without a byte of an answer: a client repeats that by itself.
    let is_repeatable = |nth: u32, kind: FailureKind| is_kept && nth > 1 && is_closed(kind);
    let repeatable =
        report.failed.iter().filter(|failure| is_repeatable(failure.nth, failure.kind)).count() as u64;
    let Failures { refused, reset, timeout, closed_early, short, .. } = report.failures;
    vec![
        ("answered", float(report.ok)),
        ("lost", float(report.failures.total() - repeatable)),
        ("repeatable", float(repeatable)),
        ("refused", float(refused)),
        ("reset", float(reset)),
        ("timeout", float(timeout)),
        ("closed early", float(closed_early + short)),
    ]
}
