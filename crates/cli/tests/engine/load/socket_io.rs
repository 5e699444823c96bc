//! Socket.io, which needs that all requests of a session come to the process that began it.
//!
//! Its clients begin with long polling, each request on a connection of its own, and upgrade to WebSocket.

use std::process::{Command, Stdio};
use std::time::Duration;

use allcores_testing::process::{Event, Process};
use allcores_testing::runtimes::{Install, Runtime, fixture, require};
use allcores_testing::{address, machine, skip};
use serde_json::Value;

use crate::app;

const WORKERS: u16 = 4;
const CLIENTS: u64 = 200;

/// How long all clients together may take; alone, they take a second.
const PATIENCE: Duration = Duration::from_mins(1);

/// Has all clients connect, who can be told apart by their `address`, or a `query` field, or a `cookie`, and
/// gives their report; `None` where socket.io is not installed.
fn fare(policy: &str, mark: &str) -> Option<Value> {
    let node = require(Runtime::Node)?;
    if let Err(why) = Install::SocketIo.product("node_modules/socket.io/package.json") {
        skip::report(&format!("{why:#}"));
        return None;
    }
    let _turn = machine::alone();
    let modules = Install::SocketIo.folder().join("node_modules");
    let address = address::unused();
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let app = app::script(node, "socket-io/server.js").workers(WORKERS).policy(policy);
    let app = app.env("NODE_PATH", &modules).env("HOST", &host).env("PORT", &port).start().unwrap();
    app.wait_ready(WORKERS.into()).unwrap();

    let mut clients = Command::new(node.program().unwrap());
    clients.arg(fixture("socket-io/clients.js")).arg(CLIENTS.to_string()).arg(mark);
    clients.env("NODE_PATH", &modules).env("HOST", &host).env("PORT", &port).stdin(Stdio::null());
    let clients = Process::spawn(&mut clients).unwrap();
    let report = clients.wait_for(|event: &Event| event.kind() == "report", PATIENCE).unwrap().value;
    eprintln!("{policy}: {report}");
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
    Some(report)
}

/// The control: without stickiness the fixture's clients do meet processes that don't know them.
#[track_caller]
fn sessions_are_unknown(policy: &str) {
    let Some(report) = fare(policy, "address") else { return };
    assert!(report["unknown"].as_u64().unwrap() > 0, "{report}");
    assert!(report["echoed"].as_u64().unwrap() < CLIENTS, "{report}");
}

#[test]
fn socket_io_sessions_are_unknown_to_other_workers_with_lanes() {
    sessions_are_unknown("lanes");
}

#[test]
fn socket_io_sessions_are_unknown_to_other_workers_with_round_robin() {
    sessions_are_unknown("round-robin");
}

/// All clients connect, upgrade and are answered by one process each, and none meets one that does not know it.
#[track_caller]
fn sessions_are_known(policy: &str, mark: &str) {
    let Some(report) = fare(policy, mark) else { return };
    let fared = |what: &str| report[what].as_u64().unwrap();
    assert_eq!([fared("connected"), fared("upgraded"), fared("echoed")], [CLIENTS; 3], "{report}");
    assert_eq!(fared("unknown"), 0, "{report}");
    assert_eq!(report["errors"], serde_json::json!({}), "{report}");
    // Each has a quarter of the clients, more or less: rendezvous hashing knows nothing of who is here.
    let shares: Vec<u64> =
        report["workers"].as_object().unwrap().values().filter_map(Value::as_u64).collect();
    assert_eq!(shares.len(), usize::from(WORKERS), "{report}");
    assert!(shares.iter().all(|share| *share >= CLIENTS / 10), "{report}");
}

#[test]
fn socket_io_sessions_are_known_when_sticky_by_source() {
    sessions_are_known("sticky", "address");
}

#[test]
fn socket_io_sessions_are_known_when_sticky_by_query() {
    sessions_are_known("sticky:query=client", "query");
}

#[test]
fn socket_io_sessions_are_known_when_sticky_by_cookie() {
    sessions_are_known("sticky:cookie=client", "cookie");
}
