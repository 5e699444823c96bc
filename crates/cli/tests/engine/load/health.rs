//! Workers that are not well, hang or grow, under load: replaced, and nothing is lost but what a worker that takes nothing
//! had accepted.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use allcores_testing::app::{App, RunningApp};
use allcores_testing::load::{Load, Report, Running};
use allcores_testing::runtimes::{Runtime, require};
use allcores_testing::{address, machine};
use rustix::process::Signal;

use super::{let_pass, start};
use crate::health::{PATIENCE, count, get, pid, server, wait_for, worker};
use crate::proc;

const WORKERS: u16 = 3;

/// The `--hang-timeout` of those that hang.
const HANG: Duration = Duration::from_secs(1);

fn started(app: App) -> RunningApp {
    let app = app.workers(WORKERS).start().unwrap();
    app.wait_ready(WORKERS.into()).unwrap();
    app
}

#[track_caller]
fn stops_clean(app: &RunningApp, load: Running) -> Report {
    let report = load.stop();
    eprintln!("{report}");
    assert!(report.is_clean(), "{report}: {:#?}", report.failed);
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
    report
}

/// One worker fails its health checks under this policy, under load.
fn sick_under_load(policy: &str) {
    let Some(node) = require(Runtime::Node) else { return };
    let _turn = machine::alone();
    let (folder, address) = (tempfile::tempdir().unwrap(), address::unused());
    let app = server(node, folder.path(), address).policy(policy).option("--health-http=/health");
    let app = started(app.option("--health-interval=200ms"));
    let load = start(address);
    let sick = get(address, "/sicken").unwrap();
    wait_for(&app, "unhealthy", sick);
    wait_for(&app, "exited", sick);
    let_pass(&load, 500);
    assert_eq!((count(&app, "unhealthy"), count(&app, "exited")), (1, 1), "{:#?}", app.lines());
    stops_clean(&app, load);
}

#[test]
fn a_sick_worker_is_replaced_and_nothing_is_lost() {
    sick_under_load("lanes");
}

#[test]
fn a_sick_worker_under_round_robin_is_replaced_and_nothing_is_lost() {
    sick_under_load("round-robin");
}

#[test]
fn workers_that_leak_are_replaced_and_nothing_is_lost() {
    let Some(node) = require(Runtime::Node) else { return };
    let _turn = machine::alone();
    let (folder, address) = (tempfile::tempdir().unwrap(), address::unused());
    let app = started(server(node, folder.path(), address).option("--max-memory=150M"));
    // 100 MB each second, among three that begin with 50.
    let load = Load::new(address).path("/leak?kib=256").rate(400.0).spawn();
    let renewals = app.wait_count("renewing", 6, PATIENCE).unwrap();
    assert!(renewals.iter().all(|event| event.value["reason"] == "memory"));
    stops_clean(&app, load);
}

/// Stops or spins one worker under load, and gives what the clients lost.
fn hang_under_load(
    runtime: Runtime,
    policy: &str,
    hang: impl FnOnce(SocketAddr, u32) -> (u32, Vec<SocketAddr>),
) {
    let Some(runtime) = require(runtime) else { return };
    let _turn = machine::alone();
    let (folder, address) = (tempfile::tempdir().unwrap(), address::unused());
    let app = server(runtime, folder.path(), address).policy(policy);
    let app = started(app.option(format!("--hang-timeout={}ms", HANG.as_millis())));
    let load = start(address);
    let (victim, accepted) = hang(address, pid(&worker(&app, 1)));
    let since = Instant::now();
    wait_for(&app, "hung", victim);
    let position = app.position();
    app.wait_for_since(position, |event| event.kind() == "ready", PATIENCE).unwrap();
    let took = since.elapsed();
    wait_for(&app, "exited", victim);
    let_pass(&load, 500);
    let report = load.stop();
    let accepted: BTreeSet<SocketAddr> = accepted.into_iter().collect();
    let (lost, others): (Vec<_>, Vec<_>) = report
        .failed
        .iter()
        .partition(|failure| failure.local.is_some_and(|local| accepted.contains(&local)));
    eprintln!(
        "{runtime}, {policy}: replaced after {took:?}; it had accepted {} connections, {} were lost, and {} others; {report}",
        accepted.len(),
        lost.len(),
        others.len()
    );
    assert!(took <= HANG + Duration::from_secs(1), "{took:?}");
    assert!(others.is_empty(), "{others:#?}");
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

/// Stops a worker, and looks at what it had accepted.
fn stop(_: SocketAddr, victim: u32) -> (u32, Vec<SocketAddr>) {
    let process = proc::Process::open(victim).unwrap();
    assert!(process.hold_still());
    (victim, process.peers().into_iter().collect())
}

/// Lets whoever answers spin. What it accepts together with that request is lost with it: who that is, is seen by stopping
/// it for a moment.
fn spin(address: SocketAddr, _: u32) -> (u32, Vec<SocketAddr>) {
    let victim = get(address, "/spin").unwrap();
    let process = proc::Process::open(victim).unwrap();
    assert!(process.hold_still());
    let accepted = process.peers().into_iter().collect();
    process.signal(Signal::CONT);
    (victim, accepted)
}

#[test]
fn a_stopped_node_worker_is_replaced_in_time() {
    hang_under_load(Runtime::Node, "lanes", stop);
}

#[test]
fn a_stopped_node_worker_under_round_robin_is_replaced_in_time() {
    hang_under_load(Runtime::Node, "round-robin", stop);
}

#[test]
fn a_spinning_node_worker_is_replaced_in_time() {
    hang_under_load(Runtime::Node, "lanes", spin);
}

#[test]
fn a_spinning_node_worker_under_round_robin_is_replaced_in_time() {
    hang_under_load(Runtime::Node, "round-robin", spin);
}

#[test]
fn a_stopped_python_worker_is_replaced_in_time() {
    hang_under_load(Runtime::Python, "lanes", stop);
}

#[test]
fn node_workers_that_are_only_busy_are_left_alone() {
    let Some(node) = require(Runtime::Node) else { return };
    let _turn = machine::alone();
    let address = address::unused();
    let app = started(crate::app::server(node, address).option("--hang-timeout=1s"));
    let load = Load::new(address).weighted_paths([(50, "/"), (1, "/burn?ms=300")]).clients(8).spawn();
    let_pass(&load, 2000);
    assert_eq!((count(&app, "hung"), count(&app, "exited")), (0, 0), "{:#?}", app.lines());
    stops_clean(&app, load);
}
