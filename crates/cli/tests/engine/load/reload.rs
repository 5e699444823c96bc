//! New versions under load: the old one serves until the new one does, and nobody notices either.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use allcores_testing::app::RunningApp;
use allcores_testing::load::{Failure, FailureKind, Load, Report, Running};
use allcores_testing::runtimes::{Runtime, fixture, require};
use allcores_testing::{address, extent, machine};
use serde_json::Value;

use super::{let_pass, start, start_busy};
use crate::{app, proc};

const WORKERS: u16 = 2;

/// How many reloads in a row, `usual` if `ALLCORES_TEST_RELOADS` asks for no other number.
fn reloads(usual: u32) -> u32 {
    extent::of("RELOADS", usual)
}

/// Runs `allcores reload`; its exit code, and what it printed to stdout and stderr.
fn reload(app: &RunningApp, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = app.run(["reload", app.name()].into_iter().chain(arguments.iter().copied())).unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn pids(app: &RunningApp) -> BTreeMap<u64, u32> {
    app::workers(&app.status().unwrap())
}

fn loses_nothing(runtime: Runtime, policy: &str, usual: u32) {
    loses_nothing_of(runtime, policy, usual, start);
}

fn loses_nothing_of(runtime: Runtime, policy: &str, usual: u32, start: fn(SocketAddr) -> Running) {
    let Some(runtime) = require(runtime) else { return };
    let _turn = machine::alone();
    let address = address::unused();
    let app = app::server(runtime, address).workers(WORKERS).policy(policy).start().unwrap();
    app.wait_ready(WORKERS.into()).unwrap();
    let before_all = proc::descriptors(app.pid());
    let load = start(address);
    for round in 1..=reloads(usual) {
        let before = pids(&app);
        let (code, out, err) = reload(&app, &[]);
        assert_eq!(code, Some(0), "{out}{err}");
        let after = pids(&app);
        assert!(after.keys().eq(before.keys()), "{before:?} {after:?}");
        assert!(after.values().all(|pid| !before.values().any(|old| old == pid)), "{before:?} {after:?}");
        let status = app.status().unwrap();
        assert_eq!(status["generation"], round + 1);
        assert_eq!(status["reload"], Value::Null);
        let_pass(&load, 100);
    }
    let report = load.stop();
    eprint!("{runtime}, {policy}, {} reloads: {report}", reloads(usual));
    assert!(report.is_clean(), "{report}");
    // One lane more than workers, however many reloads; a question for the status may have one of its own open.
    let limit = before_all.len() + 2;
    let after_all = proc::settled_descriptors(app.pid(), limit);
    assert!(after_all.len() <= limit, "before: {before_all:#?}, after: {after_all:#?}");
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

macro_rules! each {
    ($($name:ident: $runtime:ident, $policy:literal, $usual:literal,)+) => {
        $(#[test]
        fn $name() {
            loses_nothing(Runtime::$runtime, $policy, $usual);
        })+
    };
}

// The lanes that one reload has parked are the next one's: some do several.
each! {
    reloading_python_loses_nothing: Python, "lanes", 3,
    reloading_python_on_one_listener_loses_nothing: Python, "shared", 1,
    reloading_go_on_one_listener_loses_nothing: Go, "shared", 1,
    reloading_node_loses_nothing: Node, "auto", 3,
    reloading_node26_loses_nothing: Node26, "auto", 1,
    reloading_node26_on_one_listener_loses_nothing: Node26, "shared", 1,
    reloading_node_by_turns_loses_nothing: Node, "round-robin", 1,
    reloading_node_of_sticky_clients_loses_nothing: Node, "sticky", 1,
    reloading_go_loses_nothing: Go, "auto", 1,
    reloading_uvicorn_loses_nothing: Uvicorn, "auto", 1,
    reloading_puma_loses_nothing: Puma, "auto", 1,
    reloading_axum_loses_nothing: Axum, "auto", 1,
}

#[test]
fn reloading_busy_node26_loses_nothing() {
    loses_nothing_of(Runtime::Node26, "auto", 1, start_busy);
}

/// Three workers that all serve, and that a reload replaces, though an epoll instance of theirs watched what they bound before
/// they bound it.
fn watched_before_it_is_bound(how: &str, policy: &str) {
    let _turn = machine::alone();
    let address = address::unused();
    let app = app::script(Runtime::Python, "python-epoll/server.py").address(address).env("EPOLL", how);
    let app = app.workers(3).policy(policy).start().unwrap();
    app.wait_ready(3).unwrap();
    let all = pids(&app);
    let load = start(address);
    let (code, out, err) = reload(&app, &[]);
    assert_eq!(code, Some(0), "{out}{err}");
    let_pass(&load, 100);
    let report = load.stop();
    eprint!("{how}, {policy}: {report}");
    assert!(report.is_clean(), "{report}");
    let later = pids(&app);
    assert!(later.values().all(|pid| !all.values().any(|old| old == pid)), "{all:?} {later:?}");
    // On one listener it is chance who serves.
    let has_served = |pid: &u32| report.by_body.contains_key(&pid.to_string());
    assert!(policy == "shared" || later.values().all(has_served), "{later:?}: {report}");
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn a_listener_that_is_watched_before_it_is_bound_is_served() {
    watched_before_it_is_bound("level", "lanes");
}

#[test]
fn a_listener_whose_edges_are_watched_before_it_is_bound_is_served() {
    watched_before_it_is_bound("edge+loops", "lanes");
}

#[test]
fn a_listener_that_is_watched_before_it_is_bound_and_armed_each_time_is_served() {
    watched_before_it_is_bound("once", "lanes");
}

#[test]
fn a_listener_with_two_numbers_that_is_watched_before_it_is_bound_is_served() {
    watched_before_it_is_bound("level+twin", "lanes");
}

#[test]
fn one_listener_that_all_watch_before_they_bind_it_is_served() {
    watched_before_it_is_bound("level", "shared");
}

/// A kept connection that is idle is closed at the end, and the client may have just sent a request on it: HTTP/1.1 has
/// no way to prevent that, and clients repeat such a request on a new connection. Nothing else may fail.
fn loses_no_answer_on_kept_connections(runtime: Runtime) {
    let Some(runtime) = require(runtime) else { return };
    let _turn = machine::alone();
    let address = address::unused();
    let app = app::server(runtime, address).workers(WORKERS).option("--drain-timeout=1s").start().unwrap();
    app.wait_ready(WORKERS.into()).unwrap();
    // Each client has the next request at once: a connection is ended when its time is over, and not before.
    let load = Load::new(address).keep_alive().clients(8).spawn();
    assert!(load.wait_ok(100, Duration::from_secs(20)), "the app answers");
    for _ in 0..reloads(1) {
        let (code, out, err) = reload(&app, &[]);
        assert_eq!(code, Some(0), "{out}{err}");
    }
    let report = load.stop();
    let (repeatable, lost) = on_kept(&report);
    let is_own = |failure: &&Failure| runtime == Runtime::Puma && failure.kind == FailureKind::BadStatus;
    let own = report.failed.iter().filter(is_own).count();
    eprintln!(
        "{runtime}, kept connections, {} reloads: {} answered, {repeatable} to be repeated, {own} of its own",
        reloads(1),
        report.ok
    );
    // Puma 5 answers 500 now and then to who asks while it shuts down, also where nobody is around it: 3 of 94 times when
    // it was sent TERM with five clients that never pause.
    assert!(own <= reloads(1) as usize, "{report}");
    assert_eq!(lost, own, "{report}");
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

/// Failures that a client repeats by itself, as no byte of an answer came on a connection that had served before; and all
/// others.
fn on_kept(report: &Report) -> (usize, usize) {
    let closed = |kind| matches!(kind, FailureKind::Reset | FailureKind::ClosedEarly);
    let repeatable = report.failed.iter().filter(|failure| failure.nth > 1 && closed(failure.kind)).count();
    (repeatable, report.failed.len() - repeatable)
}

#[test]
fn reloading_node_loses_no_answer_on_kept_connections() {
    loses_no_answer_on_kept_connections(Runtime::Node);
}

#[test]
fn reloading_go_loses_no_answer_on_kept_connections() {
    loses_no_answer_on_kept_connections(Runtime::Go);
}

#[test]
fn reloading_uvicorn_loses_no_answer_on_kept_connections() {
    loses_no_answer_on_kept_connections(Runtime::Uvicorn);
}

#[test]
fn reloading_puma_loses_no_answer_on_kept_connections() {
    loses_no_answer_on_kept_connections(Runtime::Puma);
}

#[test]
fn reloading_axum_loses_no_answer_on_kept_connections() {
    loses_no_answer_on_kept_connections(Runtime::Axum);
}

/// An app of node under load, to be reloaded with something that is no good.
fn under_load(test: impl FnOnce(&RunningApp, SocketAddr)) {
    under_load_with(&[], test);
}

fn under_load_with(options: &[&str], test: impl FnOnce(&RunningApp, SocketAddr)) {
    let Some(node) = require(Runtime::Node) else { return };
    let _turn = machine::alone();
    let address = address::unused();
    let app = options.iter().fold(app::server(node, address), |app, option| app.option(*option));
    let app = app.workers(WORKERS).start().unwrap();
    app.wait_ready(WORKERS.into()).unwrap();
    let load = start(address);
    test(&app, address);
    let_pass(&load, 100);
    let report = load.stop();
    assert!(report.is_clean(), "{report}");
    let status = app.status().unwrap();
    assert!(
        status["workers"].as_array().unwrap().iter().all(|worker| worker["state"] == "ready"),
        "{status}"
    );
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn a_new_version_that_throws_is_shown_with_its_last_words_and_the_old_one_serves() {
    under_load(|app, _| {
        let before = pids(app);
        let (code, out, err) = reload(app, &["--", "node", "-e", "throw new Error('no such table')"]);
        assert_eq!(code, Some(8), "{out}{err}");
        assert!(err.contains("exit code 1") && err.contains("Error: no such table"), "{err}");
        assert!(err.contains("next: "), "{err}");
        assert_eq!(pids(app), before, "{:#?}", app.lines());
        assert_eq!(app.status().unwrap()["generation"], 1);
    });
}

#[test]
fn a_new_version_that_never_listens_is_given_up() {
    under_load(|app, _| {
        let before = pids(app);
        let script = fixture("bad/never-listens.sh");
        let words = ["--ready-timeout", "1s", "--", "sh", script.to_str().unwrap()];
        let (code, out, err) = reload(app, &words);
        assert_eq!(code, Some(8), "{out}{err}");
        assert!(err.contains("does not listen"), "{err}");
        assert_eq!(pids(app), before, "{:#?}", app.lines());
    });
}

#[test]
fn a_new_version_that_fails_its_health_check_is_given_up() {
    under_load_with(&["--health-http=/burn?ms=0", "--health-interval=100ms"], |app, _| {
        let before = pids(app);
        let (code, out, err) = reload(app, &["--ready-timeout", "1s", "--", "node", "-e", ILL]);
        assert_eq!(code, Some(8), "{out}{err}");
        assert!(err.contains("health check") && err.contains("500"), "{err}");
        assert_eq!(pids(app), before, "{:#?}", app.lines());
    });
}

#[test]
fn a_new_version_that_listens_elsewhere_is_given_up() {
    under_load(|app, address| {
        let before = pids(app);
        let other = address::unused();
        let port = format!("PORT={}", other.port());
        let (code, out, err) = reload(app, &["--ready-timeout", "2s", "--env", &port]);
        assert_eq!(code, Some(8), "{out}{err}");
        assert!(err.contains(&address.to_string()) && err.contains("--may-move"), "{err}");
        assert_eq!(pids(app), before, "{:#?}", app.lines());
    });
}

#[test]
fn a_new_version_that_dies_in_its_canary_time_is_given_up() {
    under_load(|app, _| {
        let before = pids(app);
        let (code, out, err) = reload(app, &["--canary", "20s", "--", "node", "-e", DIES]);
        assert_eq!(code, Some(8), "{out}{err}");
        assert!(err.contains("exit code 9"), "{err}");
        assert_eq!(pids(app), before, "{:#?}", app.lines());
    });
}

#[test]
fn what_was_replaced_before_a_worker_was_no_good_is_put_back() {
    under_load(|app, _| {
        let before = pids(app);
        let (code, out, err) = reload(app, &["--canary", "300ms", "--", "node", "-e", FAILS_IN_SLOT_1]);
        assert_eq!(code, Some(8), "{out}{err}");
        assert!(err.contains("(slot 1)") && err.contains("serves"), "{err}");
        let after = pids(app);
        assert_eq!(after[&1], before[&1], "the slot of the one that was no good was never touched");
        assert_ne!(after[&0], before[&0]);
        assert_eq!(
            proc::command_line(after[&0]),
            proc::command_line(after[&1]),
            "the old command runs again"
        );
    });
}

#[test]
fn a_proof_counts_its_requests() {
    under_load(|app, _| {
        let (code, out, err) = reload(app, &["--prove"]);
        assert_eq!(code, Some(0), "{out}{err}");
        let sent = out.lines().last().unwrap().split_whitespace().nth(1).unwrap();
        assert!(sent.parse::<u64>().is_ok_and(|sent| sent > 10), "{out}");
        assert!(out.contains(" requests sent, 0 failed"), "{out}");
        let (code, out, err) = reload(app, &["--prove", "--prove-path", "/fails", "--", "node", "-e", FAILS]);
        assert_eq!(code, Some(9), "{out}{err}");
        assert!(err.contains("of status 5xx"), "{err}");
    });
}

/// Serves for half a second and dies as soon as it has no connection: what it had accepted would die with it.
const DIES: &str = "let open = 0, old = false; setTimeout(() => { old = true }, 500); \
                    require('http').createServer((q, s) => s.end(process.pid + '\\n')) \
                    .on('connection', s => { open++; s.on('close', () => { if (--open === 0 && old) process.exit(9) }) }) \
                    .listen(process.env.PORT, process.env.HOST)";

/// Serves, but for one slot.
const FAILS_IN_SLOT_1: &str = "if (process.env.ALLCORES_SLOT === '1') process.exit(9); \
                               require('http').createServer((q, s) => s.end(process.pid + '\\n')) \
                               .listen(process.env.PORT, process.env.HOST)";

/// Serves, and is not well.
const ILL: &str = "require('http').createServer((q, s) => { s.statusCode = q.url === '/' ? 200 : 500; \
                   s.end(process.pid + '\\n') }).listen(process.env.PORT, process.env.HOST)";

/// Serves, but for one path.
const FAILS: &str = "require('http').createServer((q, s) => { s.statusCode = q.url === '/fails' ? 500 : 200; \
                     s.end(process.pid + '\\n') }).listen(process.env.PORT, process.env.HOST)";

#[test]
fn a_new_version_that_does_not_last_as_long_as_its_reload_is_taken_back() {
    let Some(node) = require(Runtime::Node) else { return };
    let _turn = machine::alone();
    let app = app::server(node, address::unused()).workers(3).option("--min-uptime=100ms").start().unwrap();
    app.wait_ready(3).unwrap();
    let (code, out, err) = reload(&app, &["--", "node", "-e", LASTS_FOR_A_WHILE]);
    assert_eq!(code, Some(8), "{out}{err}");
    assert!(err.contains("exit code 9 before the reload was over"), "{err}");
    let status = app.status().unwrap();
    assert_eq!(status["generation"], 1);
    // The last one that was replaced may still finish what it has, beside its successor.
    let is_ready = |worker: &&serde_json::Value| worker["state"] == "ready" && worker["generation"] == 1;
    let workers = status["workers"].as_array().unwrap();
    assert_eq!(workers.iter().filter(is_ready).count(), 3, "{status}");
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

/// Serves for most of a second.
const LASTS_FOR_A_WHILE: &str = "require('http').createServer((q, s) => s.end(process.pid + '\\n')) \
                                 .listen(process.env.PORT, process.env.HOST, () => setTimeout(() => process.exit(9), 700))";

#[test]
fn the_stop_of_an_app_ends_its_reload() {
    let Some(node) = require(Runtime::Node) else { return };
    let _turn = machine::alone();
    let app = app::server(node, address::unused()).workers(WORKERS).start().unwrap();
    app.wait_ready(WORKERS.into()).unwrap();
    std::thread::scope(|scope| {
        let reloading = scope.spawn(|| reload(&app, &["--canary", "60s"]));
        app.wait_for(|event| event.kind() == "watching", Duration::from_secs(20)).unwrap();
        assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
        let (code, out, err) = reloading.join().unwrap();
        assert_eq!(code, Some(1), "{out}{err}");
        assert!(err.contains("told to stop"), "{err}");
    });
}
