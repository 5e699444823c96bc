//! A stop under load: who is connected is served.

use allcores_testing::load::{FailureKind, Report};
use allcores_testing::runtimes::{Runtime, require};
use allcores_testing::{address, machine};

use super::{let_pass, start, start_busy};
use crate::app;

const WORKERS: u16 = 4;

fn loses_no_connection(runtime: Runtime, policy: &str) {
    let Some(runtime) = require(runtime) else { return };
    let _turn = machine::alone();
    let address = address::unused();
    let app = app::server(runtime, address).workers(WORKERS).policy(policy).start().unwrap();
    app.wait_ready(WORKERS.into()).unwrap();
    let load = start(address);
    let_pass(&load, 1000);
    let code = app.stop().unwrap().code();
    let report = load.stop();
    assert_eq!(code, Some(0), "{:#?}", app.lines());
    judge(&report, runtime, policy);
}

/// All workers are busy most of the time, so that connections wait in every place where they can.
fn loses_no_connection_while_all_are_busy(runtime: Runtime, policy: &str) {
    let Some(runtime) = require(runtime) else { return };
    let _turn = machine::alone();
    let address = address::unused();
    let app = app::server(runtime, address).workers(WORKERS).policy(policy).start().unwrap();
    app.wait_ready(WORKERS.into()).unwrap();
    let load = start_busy(address);
    let_pass(&load, 200);
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
    judge(&load.stop(), runtime, &format!("{policy}, busy"));
}

fn judge(report: &Report, runtime: Runtime, what: &str) {
    eprintln!("{runtime}, {what}, stop: {} answered, {:?}", report.ok, report.failures);
    let never_connected = |kind| matches!(kind, FailureKind::Refused | FailureKind::Timeout);
    let lost: Vec<_> =
        report.failed.iter().filter(|failure| failure.nth > 0 || !never_connected(failure.kind)).collect();
    assert!(lost.is_empty(), "{report}\n{lost:#?}");
}

#[test]
fn a_stop_answers_all_who_wait_for_busy_node_workers() {
    loses_no_connection_while_all_are_busy(Runtime::Node, "auto");
}

#[test]
fn a_stop_answers_all_who_wait_for_busy_node26_workers() {
    loses_no_connection_while_all_are_busy(Runtime::Node26, "auto");
}

#[test]
fn a_stop_answers_all_whose_turn_has_not_come() {
    loses_no_connection_while_all_are_busy(Runtime::Node, "round-robin");
}

#[test]
fn a_stop_answers_all_whose_turn_has_not_come_at_node26() {
    loses_no_connection_while_all_are_busy(Runtime::Node26, "round-robin");
}

#[test]
fn a_stop_answers_all_sticky_clients_of_busy_workers() {
    loses_no_connection_while_all_are_busy(Runtime::Node, "sticky:query=ms");
}

macro_rules! each {
    ($($name:ident: $runtime:ident, $policy:literal,)+) => {
        $(#[test]
        fn $name() {
            loses_no_connection(Runtime::$runtime, $policy);
        })+
    };
}

each! {
    a_stop_answers_all_who_are_connected_to_python: Python, "lanes",
    a_stop_answers_all_who_are_connected_to_python_by_one_listener: Python, "shared",
    a_stop_answers_all_who_are_connected_to_node: Node, "lanes",
    a_stop_answers_all_who_are_connected_to_node_by_turns: Node, "round-robin",
    a_stop_answers_all_who_are_connected_to_node26_by_turns: Node26, "round-robin",
    a_stop_answers_all_sticky_clients_of_node: Node, "sticky",
    a_stop_answers_all_who_are_connected_to_node26: Node26, "lanes",
    a_stop_answers_all_who_are_connected_to_go: Go, "lanes",
}
