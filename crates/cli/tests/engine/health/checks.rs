//! Workers that are asked how they are.

use std::time::Instant;

use allcores_testing::app::{App, Event, RunningApp};
use allcores_testing::runtimes::{Runtime, require};
use allcores_testing::{address, machine};
use rustix::process::{self, Pid, Signal};
use serde_json::Value;

use super::{PATIENCE, count, get, pid, server, touch, wait_for, worker};
use crate::app;

fn often(app: App) -> App {
    ["--health-interval=200ms", "--health-timeout=2s", "--health-threshold=2"]
        .into_iter()
        .fold(app, App::option)
}

/// Waits until the worker of slot 1, and no other, has been replaced.
#[track_caller]
fn only_slot_1_is_replaced(app: &RunningApp, sick: u32) {
    wait_for(app, "unhealthy", sick);
    wait_for(app, "renewing", sick);
    wait_for(app, "exited", sick);
    let workers = app::workers(&app.status().unwrap());
    assert_eq!(workers.len(), 3);
    assert!(!workers.values().any(|pid| *pid == sick));
    let counts = ["unhealthy", "renewing", "exited"].map(|kind| count(app, kind));
    assert_eq!(counts, [1, 1, 1], "{sick}: {:#?}", app.lines());
    assert!(app.events().iter().all(|event| event.kind() != "exited" || event.value["expected"] == true));
}

/// One worker answers its health checks with 500, under this policy.
fn one_that_fails_is_replaced(policy: &str) {
    let Some(node) = require(Runtime::Node) else { return };
    let _turn = machine::together();
    let (folder, address) = (tempfile::tempdir().unwrap(), address::unused());
    let app = often(server(node, folder.path(), address).workers(3).policy(policy));
    let app = app.option("--health-http=/health").start().unwrap();
    app.wait_ready(3).unwrap();
    let sick = get(address, "/sicken").unwrap();
    let event = wait_for(&app, "unhealthy", sick);
    assert!(event.value["reason"].as_str().unwrap().contains("500 Internal Server Error"), "{event:?}");
    only_slot_1_is_replaced(&app, sick);
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn one_that_fails_in_its_lane_is_replaced_and_no_other() {
    one_that_fails_is_replaced("lanes");
}

#[test]
fn one_that_fails_under_round_robin_is_replaced_and_no_other() {
    one_that_fails_is_replaced("round-robin");
}

/// One worker spins, under this policy and by this check.
fn one_that_is_silent_is_replaced(policy: &str, check: &str) {
    let Some(node) = require(Runtime::Node) else { return };
    let _turn = machine::together();
    let (folder, address) = (tempfile::tempdir().unwrap(), address::unused());
    let app = often(server(node, folder.path(), address).workers(3).policy(policy)).option(check);
    let app = app.option("--drain-timeout=300ms").option("--kill-timeout=300ms").start().unwrap();
    app.wait_ready(3).unwrap();
    let sick = get(address, "/spin").unwrap();
    let renewing = wait_for(&app, "renewing", sick);
    assert_eq!(renewing.value["reason"], "unresponsive", "{:#?}", app.lines());
    only_slot_1_is_replaced(&app, sick);
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn one_that_does_not_answer_in_its_lane_is_replaced() {
    one_that_is_silent_is_replaced("lanes", "--health-http=/health");
}

/// It is being asked again when its replacement comes to its lane, and answers what waits there.
#[test]
fn one_that_does_not_answer_is_not_taken_for_well_when_its_replacement_answers() {
    let Some(python) = require(Runtime::Python) else { return };
    let _turn = machine::together();
    let (folder, address) = (tempfile::tempdir().unwrap(), address::unused());
    let app = often(server(python, folder.path(), address).workers(3)).env("LOADS", "0.7");
    let app = ["--wait-ready", "--health-http=/", "--drain-timeout=300ms", "--kill-timeout=300ms"]
        .into_iter()
        .fold(app, App::option)
        .start()
        .unwrap();
    for slot in 0..3 {
        touch(folder.path(), &format!("ready-{slot}"));
    }
    app.wait_ready(3).unwrap();
    let word = folder.path().join("ready-1");
    std::fs::remove_file(&word).unwrap();
    let sick = pid(&worker(&app, 1));
    process::kill_process(Pid::from_raw(sick.cast_signed()).unwrap(), Signal::STOP).unwrap();
    let newcomer = app.wait_count("online", 4, PATIENCE).unwrap()[3].worker_pid();
    let end = Instant::now() + PATIENCE;
    let has_passed = |worker: &Value| Some(pid(worker)) == newcomer && worker["health"]["failures"] == 0;
    while !app.status().unwrap()["workers"].as_array().unwrap().iter().any(has_passed) {
        assert!(Instant::now() < end, "{:#?}", app.lines());
    }
    std::fs::write(word, "").unwrap();
    only_slot_1_is_replaced(&app, sick);
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn one_that_does_not_accept_from_its_lane_is_replaced() {
    one_that_is_silent_is_replaced("lanes", "--health-tcp");
}

#[test]
fn one_that_does_not_answer_under_round_robin_is_replaced() {
    one_that_is_silent_is_replaced("round-robin", "--health-http=/health");
}

#[test]
fn one_that_does_not_accept_under_round_robin_is_replaced() {
    one_that_is_silent_is_replaced("round-robin", "--health-tcp");
}

#[test]
fn a_command_says_which_worker_is_not_well() {
    let Some(python) = require(Runtime::Python) else { return };
    let _turn = machine::together();
    let (folder, address) = (tempfile::tempdir().unwrap(), address::unused());
    let app = often(server(python, folder.path(), address).workers(3));
    let app = app.option(format!(
        "--health-exec=test -d /proc/$ALLCORES_WORKER_PID && test \"$ALLCORES_ADDRESS\" = {address} && \
         test ! -e sick-$ALLCORES_WORKER_ID"
    ));
    let app = app.start().unwrap();
    app.wait_ready(3).unwrap();
    let sick = worker(&app, 1);
    touch(folder.path(), &format!("sick-{}", sick["id"]));
    let event = wait_for(&app, "unhealthy", pid(&sick));
    assert!(
        event.value["reason"].as_str().unwrap().contains("the command ended by exit code 1"),
        "{event:?}"
    );
    only_slot_1_is_replaced(&app, pid(&sick));
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn a_command_that_takes_too_long_is_ended_with_all_that_it_started() {
    let Some(python) = require(Runtime::Python) else { return };
    let _turn = machine::together();
    let (folder, address) = (tempfile::tempdir().unwrap(), address::unused());
    let app = server(python, folder.path(), address).workers(1).option("--health-timeout=100ms");
    let app =
        app.option("--health-exec=sleep 3421 & sleep 3421").option("--ready-timeout=2s").start().unwrap();
    let late = app.wait_count("not_ready", 1, PATIENCE).unwrap();
    assert_eq!(late[0].value["lack"], "health");
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
    let is_sleeping = |pid: &u32| {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == b"sleep\x003421\0")
    };
    let pids = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    assert_eq!(pids.filter(is_sleeping).collect::<Vec<u32>>(), [0; 0]);
}

#[test]
fn one_whose_heart_is_still_is_replaced() {
    let Some(python) = require(Runtime::Python) else { return };
    let _turn = machine::together();
    let (folder, address) = (tempfile::tempdir().unwrap(), address::unused());
    let app = server(python, folder.path(), address).workers(3).option("--watchdog=1s").start().unwrap();
    app.wait_ready(3).unwrap();
    let sick = pid(&worker(&app, 1));
    touch(folder.path(), "still-1");
    let event = wait_for(&app, "unhealthy", sick);
    assert!(
        event.value["reason"].as_str().unwrap().contains("no heartbeat (WATCHDOG=1) for 1s"),
        "{event:?}"
    );
    std::fs::remove_file(folder.path().join("still-1")).unwrap();
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn one_that_has_served_its_requests_is_replaced() {
    let Some(python) = require(Runtime::Python) else { return };
    let _turn = machine::together();
    let (folder, address) = (tempfile::tempdir().unwrap(), address::unused());
    let app = server(python, folder.path(), address).workers(1).option("--max-requests=20");
    let app = app.option("--min-uptime=1ms").start().unwrap();
    app.wait_ready(1).unwrap();
    let first = get(address, "/").unwrap();
    assert!((0..100).all(|_| get(address, "/count").is_some()));
    assert_eq!(wait_for(&app, "renewing", first).value["reason"], "requests");
    wait_for(&app, "exited", first);
    assert_ne!(get(address, "/"), Some(first));
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn one_that_has_lived_for_long_is_replaced() {
    let Some(python) = require(Runtime::Python) else { return };
    let _turn = machine::together();
    let (folder, address) = (tempfile::tempdir().unwrap(), address::unused());
    let app = server(python, folder.path(), address).workers(2).option("--max-lifetime=2s").start().unwrap();
    app.wait_ready(2).unwrap();
    let renewals = app.wait_count("renewing", 2, PATIENCE).unwrap();
    assert!(renewals.iter().all(|event| event.value["reason"] == "lifetime"));
    assert_ne!(renewals[0].worker_pid(), renewals[1].worker_pid());
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn behind_one_listener_failures_are_told_and_nobody_is_replaced() {
    let Some(node) = require(Runtime::Node) else { return };
    let _turn = machine::together();
    let (folder, address) = (tempfile::tempdir().unwrap(), address::unused());
    let app = often(server(node, folder.path(), address).workers(2).policy("shared"));
    let app = app.option("--health-http=/nowhere").start().unwrap();
    app.wait_ready(2).unwrap();
    let is_told = |part: &'static str| {
        move |event: &Event| event.value["text"].as_str().is_some_and(|text| text.contains(part))
    };
    app.wait_for(is_told("ask the app and not a worker"), PATIENCE).unwrap();
    // It has never passed, so it is not said to have become unhealthy; the status knows.
    let end = Instant::now() + PATIENCE;
    while app.status().unwrap()["health"]["failures"].as_u64() < Some(3) {
        assert!(Instant::now() < end, "{:#?}", app.lines());
    }
    let status = app.status().unwrap();
    assert_eq!(status["health"]["reason"], "it answered 404 Not Found");
    assert!(status["workers"].as_array().unwrap().iter().all(|worker| worker["health"].is_null()));
    assert_eq!((count(&app, "renewing"), count(&app, "exited")), (0, 0));
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn one_that_was_given_its_socket_is_ready_when_it_has_passed() {
    let Some(python) = require(Runtime::Python) else { return };
    let _turn = machine::together();
    let address = address::unused();
    let app = app::script(python, "bad/listen-fds.py").workers(2).option("--no-adopt");
    let app = app.option(format!("--listen={address}")).option("--health-http=/").start().unwrap();
    // Nobody connects but who asks.
    app.wait_ready(2).unwrap();
    assert_eq!(count(&app, "listening"), 2);
    assert!(get(address, "/").is_some());
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}
