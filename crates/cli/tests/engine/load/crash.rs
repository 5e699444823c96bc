//! Workers that are killed under load: lost is what they had accepted, and nothing else.
//!
//! Each victim is stopped, looked at, and then killed: so it is known which connections it had accepted at the very
//! moment of its death. A request that fails on any other connection was lost without need.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use allcores_testing::app::RunningApp;
use allcores_testing::baseline::{Baseline, Peer};
use allcores_testing::load::{Load, Report};
use allcores_testing::process::Process;
use allcores_testing::runtimes::{Runtime, fixture, require, workspace};
use allcores_testing::{address, extent, machine, stats};
use rustix::process::Signal;

use super::CLIENTS;
use crate::{app, proc};

const WORKERS: u16 = 4;

/// How often a worker is killed.
const EVERY: Duration = Duration::from_millis(200);

/// How many times; `ALLCORES_TEST_KILLS` asks for another number.
fn kills() -> u32 {
    extent::of("KILLS", 12)
}

/// The control group need not lose as often to make the point.
const KILLS_OF_CONTROLS: u32 = 12;

/// What the clients lost.
#[derive(Debug)]
struct Losses {
    report: Report,
    kills: u32,
    /// Requests that failed on connections which a victim had accepted.
    accepted: usize,
    /// Requests that failed otherwise.
    others: Vec<String>,
}

/// Kills one of the workers again and again under load.
fn kill_under_load(
    target: SocketAddr,
    times: u32,
    mut workers: impl FnMut() -> Vec<u32>,
    mut killed: impl FnMut(u32),
) -> Losses {
    let mut rng = stats::Rng::with_seed(7);
    let load = Load::new(target).clients(CLIENTS).spawn();
    assert!(load.wait_ok(100, Duration::from_secs(20)), "the app answers");
    let (started, mut kills, mut accepted) = (Instant::now(), 0, BTreeSet::new());
    for nth in 1..=times {
        std::thread::sleep((started + EVERY * nth).saturating_duration_since(Instant::now()));
        let workers = workers();
        if workers.is_empty() {
            continue;
        }
        let victim = workers[rng.usize(..workers.len())];
        let Some(process) = proc::Process::open(victim).filter(proc::Process::hold_still) else { continue };
        accepted.extend(process.peers());
        process.signal(Signal::KILL);
        kills += 1;
        killed(victim);
    }
    let report = load.stop();
    let is_accepted = |local: Option<SocketAddr>| local.is_some_and(|local| accepted.contains(&local));
    let (lost, others): (Vec<_>, Vec<_>) =
        report.failed.iter().partition(|failure| is_accepted(failure.local));
    let (accepted, others) = (lost.len(), others.into_iter().map(ToString::to_string).collect());
    Losses { report, kills, accepted, others }
}

fn tell(name: &str, losses: &Losses) {
    let Losses { report, kills, accepted, others } = losses;
    eprintln!(
        "{name}: {kills} kills, {} answered, {accepted} lost with the worker that had accepted them, {} lost that \
         nobody had accepted: {:?}",
        report.ok,
        others.len(),
        report.failures
    );
}

/// The workers that are ready now, by what the app has told.
fn ready(app: &RunningApp) -> Vec<u32> {
    let mut ready = BTreeSet::new();
    for event in app.events() {
        match (event.kind(), event.worker_pid()) {
            ("ready", Some(pid)) => drop(ready.insert(pid)),
            ("exited", Some(pid)) => drop(ready.remove(&pid)),
            _ => {}
        }
    }
    ready.into_iter().collect()
}

fn loses_only_what_was_accepted(runtime: Runtime, policy: &str) -> Losses {
    let address = address::unused();
    let app = app::server(runtime, address).workers(WORKERS).policy(policy);
    let app = app.option("--min-uptime=100ms").option("--backoff=10ms").start().unwrap();
    app.wait_ready(WORKERS.into()).unwrap();
    let losses = kill_under_load(address, kills(), || ready(&app), |_| ());
    tell(&format!("{runtime}, {policy}"), &losses);
    assert!(losses.kills >= kills() / 2, "there was hardly a worker to kill: {}", losses.kills);
    let failures = losses.report.failures;
    assert_eq!((failures.refused, failures.timeout), (0, 0), "{}", losses.report);
    assert!(losses.others.is_empty(), "{:#?}", losses.others);
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
    losses
}

/// The same program in a plain SO_REUSEPORT group: what is lost without lanes that outlive their workers.
fn loses_more(runtime: Runtime, target: SocketAddr, start: impl Fn() -> Started) {
    let mut group: Vec<Started> = (0..WORKERS).map(|_| start()).collect();
    let running = std::cell::RefCell::new(&mut group);
    let losses = kill_under_load(
        target,
        KILLS_OF_CONTROLS,
        || running.borrow().iter().map(Started::pid).collect(),
        |pid| {
            let mut group = running.borrow_mut();
            group.retain(|started| started.pid() != pid);
            group.push(start());
        },
    );
    tell(&format!("{runtime}, plain SO_REUSEPORT"), &losses);
    assert!(!losses.others.is_empty(), "the control loses something: {}", losses.report);
}

/// A member of the control group.
enum Started {
    Node(allcores_testing::baseline::RunningBaseline),
    Python(Process),
}

impl Started {
    fn pid(&self) -> u32 {
        match self {
            Self::Node(running) => *running.worker_pids().first().expect("it has a worker"),
            Self::Python(process) => process.pid(),
        }
    }
}

#[test]
fn killed_node_workers_lose_only_what_they_had_accepted() {
    let Some(node) = require(Runtime::Node) else { return };
    let _turn = machine::alone();
    loses_only_what_was_accepted(node, "lanes");
    let target = SocketAddr::from(([127, 0, 0, 1], allcores_testing::app::free_port().unwrap()));
    let script = fixture("node-http/server.js");
    loses_more(node, target, || {
        Started::Node(Baseline::new(Peer::ReusePort, &script, 1).start(target.port()).unwrap())
    });
}

#[test]
fn killed_node_workers_lose_only_what_they_had_accepted_by_turns() {
    let Some(node) = require(Runtime::Node) else { return };
    let _turn = machine::alone();
    loses_only_what_was_accepted(node, "round-robin");
}

#[test]
fn killed_node_workers_lose_only_what_they_had_accepted_of_sticky_clients() {
    let Some(node) = require(Runtime::Node) else { return };
    let _turn = machine::alone();
    loses_only_what_was_accepted(node, "sticky");
}

#[test]
fn killed_python_workers_lose_only_what_they_had_accepted() {
    let Some(python) = require(Runtime::Python) else { return };
    let _turn = machine::alone();
    loses_only_what_was_accepted(python, "lanes");
    let target = address::unused();
    loses_more(python, target, || {
        let mut command = Command::new(python.program().unwrap());
        command.arg(workspace().join("testing/baselines/reuseport.py")).arg(fixture("python-http/server.py"));
        command.env("HOST", target.ip().to_string()).env("PORT", target.port().to_string());
        let process = Process::spawn(command.stdin(Stdio::null())).unwrap();
        process.wait_count("ready", 1, Duration::from_secs(30)).unwrap();
        Started::Python(process)
    });
}

#[test]
fn killed_python_workers_on_one_listener_lose_only_what_they_had_accepted() {
    let Some(python) = require(Runtime::Python) else { return };
    let _turn = machine::alone();
    loses_only_what_was_accepted(python, "shared");
}

#[test]
fn killed_go_workers_lose_only_what_they_had_accepted() {
    let Some(go) = require(Runtime::Go) else { return };
    let _turn = machine::alone();
    loses_only_what_was_accepted(go, "lanes");
}
