//! New versions under load: what clients notice, beside PM2 with the same app.
//!
//! Each contender is reloaded so many times to the same version, under two loads at once: a connection for each request,
//! and connections that are kept. Then it is reloaded to a version that throws at boot.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use allcores_testing::app::{App, RunningApp};
use allcores_testing::load::{FailureKind, Failures, Load, Report, Running};
use allcores_testing::pm2::Pm2;
use allcores_testing::process::free_port;
use anyhow::{Context, ensure};
use serde::Serialize;

use super::machine::Machine;
use super::{Arguments, table};
use crate::setup;

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

/// Who is compared.
#[derive(Clone, Copy, Debug)]
enum Contender {
    Allcores,
    Pm2,
    /// With an app that has the shutdown code which PM2's documentation asks for.
    Pm2Graceful,
}

impl Contender {
    const ALL: [Self; 3] = [Self::Allcores, Self::Pm2, Self::Pm2Graceful];

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

    fn stop(self) -> [Seen; 2] {
        [Seen::of(&self.single.stop(), false), Seen::of(&self.kept.stop(), true)]
    }
}

/// What one load saw.
#[derive(Debug, Serialize)]
struct Seen {
    answered: u64,
    /// On a connection that had served before and was closed without a byte of an answer: a client repeats that by itself.
    repeatable: u64,
    lost: u64,
    refused: u64,
    reset: u64,
    timeout: u64,
    closed: u64,
}

impl Seen {
    fn of(report: &Report, is_kept: bool) -> Self {
        let is_closed = |kind| matches!(kind, FailureKind::Reset | FailureKind::ClosedEarly);
        let repeatable = report
            .failed
            .iter()
            .filter(|failure| is_kept && failure.nth > 1 && is_closed(failure.kind))
            .count();
        let Failures { refused, reset, timeout, closed_early, short, .. } = report.failures;
        let repeatable = repeatable as u64;
        Self {
            answered: report.ok,
            repeatable,
            lost: report.failures.total() - repeatable,
            refused,
            reset,
            timeout,
            closed: closed_early + short,
        }
    }

    fn cells(&self) -> [String; 7] {
        let Self { answered, repeatable, lost, refused, reset, timeout, closed } = self;
        [answered, lost, repeatable, refused, reset, timeout, closed].map(u64::to_string)
    }
}

/// What was seen of one contender.
#[derive(Debug, Serialize)]
struct Outcome {
    contender: &'static str,
    reloads: u64,
    seconds_a_reload: f64,
    good: [Seen; 2],
    bad_exit_code: Option<i32>,
    bad: [Seen; 2],
    /// Of [`PROBES`] requests when all was over.
    answered_afterwards: u64,
}

#[derive(Serialize)]
struct Record<'a> {
    case: &'static str,
    machine: &'a Machine,
    results: &'a [Outcome],
}

pub(super) fn run(arguments: &Arguments, machine: &Machine, binary: &Path) -> anyhow::Result<PathBuf> {
    setup::pm2()?;
    let meant = |contender: &Contender| {
        arguments.only.as_ref().is_none_or(|only| contender.name().contains(only.as_str()))
    };
    let results: Vec<Outcome> = Contender::ALL
        .into_iter()
        .filter(meant)
        .map(|contender| measure(contender, arguments, binary).with_context(|| contender.name()))
        .collect::<anyhow::Result<_>>()?;
    print(&results);
    super::write("reload", &Record { case: "reload", machine, results: &results })
}

fn measure(contender: Contender, arguments: &Arguments, binary: &Path) -> anyhow::Result<Outcome> {
    eprintln!("{}: {} reloads", contender.name(), arguments.rounds);
    let folder = tempfile::tempdir()?;
    let script = folder.path().join("server.js");
    fs::copy(contender.source(arguments), &script)?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    let contestant = contender.start(&script, address, binary)?;

    let loads = Loads::start(address)?;
    let mut took = Duration::ZERO;
    for _ in 0..arguments.rounds {
        let began = Instant::now();
        let output = contestant.reload()?;
        took += began.elapsed();
        ensure!(output.status.success(), "the reload failed: {}", String::from_utf8_lossy(&output.stderr));
        loads.pass()?;
    }
    let good = loads.stop();

    eprintln!("{}: a version that throws at boot", contender.name());
    let loads = Loads::start(address)?;
    fs::write(&script, BROKEN)?;
    let output = contestant.reload()?;
    // Nobody may answer any more.
    std::thread::sleep(Duration::from_secs(1));
    let bad = loads.stop();
    let afterwards = Load::new(address).requests(PROBES).timeout(TIMEOUT).run_blocking();
    Ok(Outcome {
        contender: contender.name(),
        reloads: arguments.rounds,
        seconds_a_reload: took.div_f64(f64::from(u32::try_from(arguments.rounds)?)).as_secs_f64(),
        good,
        bad_exit_code: output.status.code(),
        bad,
        answered_afterwards: afterwards.ok,
    })
}

fn print(results: &[Outcome]) {
    let heads = ["answered", "lost", "repeatable", "refused", "reset", "timeout", "closed early"];
    let head = |first: &[&str]| first.iter().chain(&heads).map(|head| (*head).to_owned()).collect::<Vec<_>>();
    let mut good = vec![head(&["", "load", "s a reload"])];
    let mut bad = vec![head(&["", "load", "exit code", "answered afterwards"])];
    for result in results {
        for (load, seen, bad_seen) in
            [("single", &result.good[0], &result.bad[0]), ("kept", &result.good[1], &result.bad[1])]
        {
            let first = [result.contender.to_owned(), load.to_owned()];
            let time = format!("{:.1}", result.seconds_a_reload);
            good.push(first.clone().into_iter().chain([time]).chain(seen.cells()).collect());
            let code = result.bad_exit_code.map_or_else(|| "none".into(), |code| code.to_string());
            let afterwards = format!("{} of {PROBES}", result.answered_afterwards);
            bad.push(first.into_iter().chain([code, afterwards]).chain(bad_seen.cells()).collect());
        }
    }
    let reloads = results.first().map_or(0, |result| result.reloads);
    println!(
        "\nreload: {reloads} in a row, {WORKERS} node workers, {CLIENTS} clients with a connection for each request and"
    );
    println!("{CLIENTS} that keep theirs\n\n{}", table::align(&good));
    println!("a version that throws at boot\n\n{}", table::align(&bad));
}
