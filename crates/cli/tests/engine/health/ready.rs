//! Workers that say when they are ready.

use std::net::TcpStream;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
use std::time::Duration;

use allcores_testing::app::App;
use allcores_testing::runtimes::{Runtime, fixture, require};
use allcores_testing::{address, machine};

use super::{PATIENCE, get, pid, server, touch, wait_for, worker};
use crate::app;

/// Only the worker of slot 0 says that it is ready; the other one does so when it is told.
fn one_gets_everything_until_the_other_is_ready(
    app: App,
    folder: &std::path::Path,
    address: std::net::SocketAddr,
) {
    touch(folder, "ready-0");
    let app = app.workers(2).option("--wait-ready").start().unwrap();
    app.wait_count("listening", 2, PATIENCE).unwrap();
    app.wait_ready(1).unwrap();
    let early = worker(&app, 1);
    assert_eq!((&early["state"], &worker(&app, 0)["state"]), (&"listening".into(), &"ready".into()));
    let early = pid(&early);
    for _ in 0..50 {
        let answerer = get(address, "/").unwrap();
        assert_eq!(
            app::slot_of(&app::workers(&app.status().unwrap()), answerer),
            Some(0),
            "{early} is not ready"
        );
    }
    touch(folder, "ready-1");
    wait_for(&app, "ready", early);
    let answers =
        (0..200).map(|_| app::slot_of(&app::workers(&app.status().unwrap()), get(address, "/").unwrap()));
    assert!(answers.collect::<std::collections::BTreeSet<_>>().contains(&Some(1)));
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn a_node_worker_gets_connections_when_it_has_said_that_it_is_ready() {
    let Some(node) = require(Runtime::Node) else { return };
    let _turn = machine::together();
    let (folder, address) = (tempfile::tempdir().unwrap(), address::unused());
    let app = server(node, folder.path(), address).env("WAITS", "1");
    one_gets_everything_until_the_other_is_ready(app, folder.path(), address);
}

#[test]
fn a_python_worker_gets_connections_when_it_has_said_that_it_is_ready() {
    let Some(python) = require(Runtime::Python) else { return };
    let _turn = machine::together();
    let (folder, address) = (tempfile::tempdir().unwrap(), address::unused());
    let app = server(python, folder.path(), address);
    one_gets_everything_until_the_other_is_ready(app, folder.path(), address);
}

#[test]
fn a_grandchild_may_say_that_the_worker_is_ready() {
    let Some(python) = require(Runtime::Python) else { return };
    let _turn = machine::together();
    let (folder, address) = (tempfile::tempdir().unwrap(), address::unused());
    let line =
        format!("{} {}; exit $?", python.program().unwrap().display(), fixture("health/server.py").display());
    let app = app::command(["sh", "-c", &line]).folder(folder.path());
    let app = app.address(address);
    one_gets_everything_until_the_other_is_ready(app, folder.path(), address);
}

#[test]
fn nobody_is_answered_before_a_worker_is_ready_and_what_it_says_is_shown() {
    let Some(python) = require(Runtime::Python) else { return };
    let _turn = machine::together();
    let (folder, address) = (tempfile::tempdir().unwrap(), address::unused());
    let app = server(python, folder.path(), address).workers(1).option("--wait-ready").start().unwrap();
    app.wait_count("listening", 1, PATIENCE).unwrap();
    let attempt = || TcpStream::connect_timeout(&address, Duration::from_millis(200));
    assert_eq!(attempt().unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    touch(folder.path(), "ready-0");
    app.wait_ready(1).unwrap();
    assert!(get(address, "/").is_some());
    assert_eq!(worker(&app, 0)["said_status"], "warm");
    let shown = String::from_utf8(app.run(["status", app.name()]).unwrap().stdout).unwrap();
    assert!(shown.contains("says \u{201c}warm\u{201d}"), "{shown}");
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn one_that_never_says_so_has_failed_and_it_is_told_what_was_missing() {
    let Some(node) = require(Runtime::Node) else { return };
    let _turn = machine::together();
    let (folder, address) = (tempfile::tempdir().unwrap(), address::unused());
    let app = server(node, folder.path(), address).env("WAITS", "1").workers(1).option("--wait-ready");
    let app = app.option("--ready-timeout=1s").option("--max-restarts=1").option("--backoff=10ms");
    let app = app.start().unwrap();
    let late = app.wait_count("not_ready", 2, PATIENCE).unwrap();
    assert!(late.iter().all(|event| event.value["lack"] == "word" && event.value["limit_seconds"] == 1.0));
    assert_eq!(app.wait(PATIENCE).unwrap().code(), Some(3), "{:#?}", app.lines());
}

#[test]
fn a_process_that_is_not_the_workers_is_not_believed() {
    let Some(python) = require(Runtime::Python) else { return };
    let _turn = machine::together();
    let (folder, address) = (tempfile::tempdir().unwrap(), address::unused());
    let app = server(python, folder.path(), address).workers(1).option("--wait-ready").start().unwrap();
    app.wait_count("listening", 1, PATIENCE).unwrap();
    let environment = std::fs::read(format!("/proc/{}/environ", pid(&worker(&app, 0)))).unwrap();
    let variable =
        environment.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(b"NOTIFY_SOCKET=@"));
    let name = UnixAddress::from_abstract_name(variable.expect("it has one")).unwrap();
    UnixDatagram::unbound().unwrap().send_to_addr(b"READY=1", &name).unwrap();
    let is_told = |event: &allcores_testing::app::Event| {
        event.value["text"].as_str().is_some_and(|text| text.contains("is not one of its processes"))
    };
    app.wait_for(is_told, PATIENCE).unwrap();
    assert_eq!(worker(&app, 0)["state"], "listening");
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn one_that_says_that_it_stops_gets_nothing_more() {
    let Some(python) = require(Runtime::Python) else { return };
    let _turn = machine::together();
    let (folder, address) = (tempfile::tempdir().unwrap(), address::unused());
    let app = server(python, folder.path(), address).workers(2).start().unwrap();
    app.wait_ready(2).unwrap();
    touch(folder.path(), "stopping-1");
    let stays = pid(&worker(&app, 0));
    let end = std::time::Instant::now() + PATIENCE;
    while worker(&app, 1)["state"] != "online" {
        assert!(std::time::Instant::now() < end, "{:#?}", app.lines());
    }
    assert!((0..100).all(|_| get(address, "/") == Some(stays)));
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}
