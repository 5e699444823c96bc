//! `cargo xtask bench`: contenders side by side on one machine, in turns, so that whatever else the machine does meets all
//! of them alike.
//!
//! Each contender is started anew for each round, warmed up, measured and stopped. What is printed are medians over the
//! rounds, with the lowest and highest beside them; every sample goes to `target/bench/CASE.json`.

mod cases;
mod contender;
mod control;
mod logs;
mod machine;
mod messages;
mod reload;
mod table;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use allcores_testing::stats::median;
use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use serde::Serialize;

use cases::Plan;
use contender::Contender;
use machine::Machine;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Case {
    /// node; one request in twenty burns 50 ms of CPU; closed loop, 4 workers
    Mixed,
    /// node; answers at once, one connection per request, 8 and 32 clients, 2 and 4 workers
    Throughput,
    /// python, one request of 10 ms at a time; open loop at 70 % load, 4 workers, beside the theory
    Sync,
    /// node; connections opened one after the other and held: who gets them
    Fairness,
    /// the mixed load over the interval at which lanes are looked at
    Steering,
    /// node; what a connection that the primary hands over costs it; and the policies with a Rust server
    Handoff,
    /// messages between a primary and a worker, Rust and node, 100 bytes and 10 kB
    Messages,
    /// node; new versions under load, beside PM2, which is installed below target/; `--rounds` reloads
    Reload,
    /// node; 4 workers write 50,000 lines a second: what keeping them costs, beside PM2
    Logs,
    /// node; what a control socket under siege costs the app's clients, and who commands it
    Control,
}

impl Case {
    fn name(self) -> String {
        self.to_possible_value().expect("no case is skipped").get_name().to_owned()
    }
}

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// What to measure
    #[arg(required = true)]
    cases: Vec<Case>,
    /// How many rounds; each contender is measured once in each
    #[arg(long, default_value_t = 5)]
    rounds: u64,
    /// How long each measurement takes, in seconds
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// How many clients the mixed load has
    #[arg(long, default_value_t = 16)]
    clients: usize,
    /// How many connections the fairness case holds
    #[arg(long, default_value_t = 300)]
    connections: usize,
    /// Only contenders whose name contains this, e.g. `node:cluster`
    #[arg(long)]
    only: Option<String>,
    /// The program to measure; built in release mode if not given
    #[arg(long)]
    binary: Option<PathBuf>,
    /// The node server
    #[arg(long, default_value = "tests/fixtures/node-http/server.js")]
    node_server: PathBuf,
    /// The python server
    #[arg(long, default_value = "tests/fixtures/python-http/server.py")]
    python_server: PathBuf,
}

/// Named numbers of one measurement, in the order in which they are shown.
type Metrics = Vec<(&'static str, f64)>;

/// What was measured of one contender, a sample for each round.
#[derive(Debug, Serialize)]
struct Series {
    contender: String,
    workers: u16,
    /// Ratios are to the first of the group.
    #[serde(skip)]
    group: String,
    medians: BTreeMap<&'static str, f64>,
    samples: Vec<BTreeMap<&'static str, f64>>,
    /// As the samples, in the order in which they are shown.
    #[serde(skip)]
    metrics: Vec<Metrics>,
}

/// What `target/bench/CASE.json` holds.
#[derive(Debug, Serialize)]
struct Record<'a> {
    case: String,
    rounds: u64,
    seconds: f64,
    clients: usize,
    connections: usize,
    machine: &'a Machine,
    results: &'a [Series],
}

/// Runs the cases, one after the other.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    ensure!(arguments.rounds > 0, "at least one round is needed");
    std::env::set_current_dir(workspace())?;
    if cfg!(debug_assertions) {
        return run_in_release();
    }
    let machine = Machine::read()?;
    let mut binary = arguments.binary.clone();
    for &case in &arguments.cases {
        let Some(mut plan) = cases::plan(case, arguments)? else {
            let built = binary.take().map_or_else(build_program, Ok)?;
            println!("every count: {}", reload::run(arguments, &machine, &built)?.display());
            binary = Some(built);
            continue;
        };
        plan.contenders.retain(|contender| {
            arguments.only.as_ref().is_none_or(|only| contender.name.contains(only.as_str()))
        });
        ensure!(!plan.contenders.is_empty(), "{}: no contender is left by --only", case.name());
        if binary.is_none() && plan.contenders.iter().any(Contender::needs_binary) {
            binary = Some(build_program()?);
        }
        build(plan.packages)?;
        let results = measure(&mut plan, arguments.rounds, binary.as_deref())?;
        println!("\n{}: {}\n\n{}", case.name(), plan.title, table::render(&results));
        let record = Record {
            case: case.name(),
            rounds: arguments.rounds,
            seconds: arguments.seconds,
            clients: arguments.clients,
            connections: arguments.connections,
            machine: &machine,
            results: &results,
        };
        println!("every sample: {}", write(&record.case, &record)?.display());
    }
    Ok(())
}

/// Measures every contender once in each round: A B C A B C ….
fn measure(plan: &mut Plan, rounds: u64, binary: Option<&Path>) -> anyhow::Result<Vec<Series>> {
    let mut results: Vec<_> = plan.contenders.iter().map(Series::new).collect();
    for round in 1..=rounds {
        for (contender, series) in plan.contenders.iter().zip(&mut results) {
            eprintln!("round {round} of {rounds}: {}", contender.name);
            let metrics = contender
                .start(&plan.server, binary)
                .and_then(|contestant| {
                    let metrics = (plan.measure)(&contestant, round)?;
                    contestant.stop()?;
                    Ok(metrics)
                })
                .with_context(|| contender.name.clone())?;
            series.push(metrics);
        }
    }
    Ok(results)
}

impl Series {
    fn new(contender: &Contender) -> Self {
        Self {
            contender: contender.name.clone(),
            workers: contender.workers,
            group: contender.group(),
            medians: BTreeMap::new(),
            samples: Vec::new(),
            metrics: Vec::new(),
        }
    }

    fn push(&mut self, metrics: Metrics) {
        self.samples.push(metrics.iter().copied().collect());
        self.metrics.push(metrics);
        let names = self.metrics.iter().flatten().map(|(name, _)| *name);
        self.medians = names.map(|name| (name, median(&self.values(name)))).collect();
    }

    /// Gives the samples of one metric.
    fn values(&self, name: &str) -> Vec<f64> {
        self.samples.iter().filter_map(|sample| sample.get(name).copied()).collect()
    }
}

/// Runs the same command line with an optimized load generator: it shares the cores with what it measures.
fn run_in_release() -> anyhow::Result<()> {
    let arguments = std::env::args_os().skip(1);
    let status = cargo().args(["run", "--release", "--package", "xtask", "--"]).args(arguments).status()?;
    ensure!(status.success(), "the optimized xtask failed: {status}");
    Ok(())
}

/// Builds the program that is measured, and says where it is.
fn build_program() -> anyhow::Result<PathBuf> {
    build(&["allcores-cli"])?;
    Ok(target().join("release/allcores"))
}

fn build(packages: &[&str]) -> anyhow::Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let mut command = cargo();
    command.args(["build", "--release"]);
    for package in packages {
        command.args(["--package", package]);
    }
    let status = command.status()?;
    ensure!(status.success(), "{packages:?} could not be built: {status}");
    Ok(())
}

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

fn write(case: &str, record: &impl Serialize) -> anyhow::Result<PathBuf> {
    let folder = target().join("bench");
    std::fs::create_dir_all(&folder)?;
    let path = folder.join(format!("{case}.json"));
    std::fs::write(&path, serde_json::to_vec_pretty(record)?)?;
    Ok(path)
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the workspace").to_owned()
}

fn duration(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}
