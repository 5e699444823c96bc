//! Another number of workers under load: nobody notices.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use allcores_testing::load::Running;
use allcores_testing::runtimes::{Runtime, require};
use allcores_testing::{address, extent, machine};

use super::{let_pass, start, start_busy};
use crate::app;

fn loses_nothing(runtime: Runtime, policy: &str) {
    loses_nothing_of(runtime, policy, start, 150);
}

/// For how long the number of workers is changed again and again; `ALLCORES_TEST_SCALING` asks for so many seconds of it.
fn time() -> Duration {
    Duration::from_secs(extent::of("SCALING", 0).into())
}

fn loses_nothing_of(runtime: Runtime, policy: &str, start: fn(SocketAddr) -> Running, answers: u64) {
    let Some(runtime) = require(runtime) else { return };
    let _turn = machine::alone();
    let address = address::unused();
    let app = app::server(runtime, address).workers(2).policy(policy).start().unwrap();
    app.wait_ready(2).unwrap();
    let load = start(address);
    let (began, mut changes) = (Instant::now(), 0);
    while changes == 0 || began.elapsed() < time() {
        let steps: &[u16] = if time().is_zero() { &[1, 3] } else { &[2, 8, 1, 4] };
        for workers in steps {
            let_pass(&load, answers);
            app::scale(&app, *workers);
            changes += 1;
        }
    }
    let_pass(&load, answers);
    let report = load.stop();
    eprint!("{runtime}, {policy}, {changes} changes of the number of workers: {report}");
    assert!(report.is_clean(), "{report}");
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

macro_rules! each {
    ($($name:ident: $runtime:ident, $policy:literal,)+) => {
        $(#[test]
        fn $name() {
            loses_nothing(Runtime::$runtime, $policy);
        })+
    };
}

each! {
    scaling_python_loses_nothing: Python, "lanes",
    scaling_python_on_one_listener_loses_nothing: Python, "shared",
    scaling_node_loses_nothing: Node, "lanes",
    scaling_node_on_one_listener_loses_nothing: Node, "shared",
    scaling_node26_on_one_listener_loses_nothing: Node26, "shared",
    scaling_node_by_turns_loses_nothing: Node, "round-robin",
    scaling_node26_by_turns_loses_nothing: Node26, "round-robin",
    scaling_node_of_sticky_clients_loses_nothing: Node, "sticky",
    scaling_node26_loses_nothing: Node26, "lanes",
    scaling_go_loses_nothing: Go, "lanes",
    scaling_go_on_one_listener_loses_nothing: Go, "shared",
}

#[test]
fn scaling_busy_node26_loses_nothing() {
    loses_nothing_of(Runtime::Node26, "auto", start_busy, 100);
}
