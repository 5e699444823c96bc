//! Each runtime's ordinary server: four workers behind one port, and nothing left of them after the stop.

use std::net::TcpListener;
use std::time::Duration;

use allcores_testing::app::Event;
use allcores_testing::load::Load;
use allcores_testing::runtimes::{Runtime, require};
use allcores_testing::{address, machine};

use rustix::process::Signal;

use crate::proc::Process;
use crate::{app, proc};

const WORKERS: u16 = 4;

/// How many connections, one after the other. Chance gives each worker 100 ± 8.7 of them.
const CONNECTIONS: u64 = 400;

/// Fewer are 4.6 standard deviations away: not chance. (A worker that other tests keep from the CPU is rightly given fewer:
/// the machine is taken alone.)
const FEWEST: u64 = 60;

/// How long the kernel may take to bury what was killed.
const BURIAL: Duration = Duration::from_secs(5);

/// Four workers of the server share one port, evenly, and are gone after SIGTERM.
fn serves(runtime: Runtime, rung: &str) {
    let Some(runtime) = require(runtime) else { return };
    let _turn = machine::alone();
    let address = address::unused();
    let app = app::server(runtime, address).workers(WORKERS).start().unwrap();
    app.wait_ready(WORKERS.into()).unwrap();

    let status = app.status().unwrap();
    assert_eq!(status["listening"], serde_json::json!([address.to_string()]), "{status:#}");
    let views = status["workers"].as_array().unwrap();
    assert_eq!(views.len(), usize::from(WORKERS), "{status:#}");
    assert!(views.iter().all(|worker| worker["state"] == "ready" && worker["rung"] == rung), "{status:#}");

    let report = Load::new(address).requests(CONNECTIONS).run_blocking();
    assert!(report.is_clean() && report.ok == CONNECTIONS, "{report}");
    let workers = app::workers(&status);
    let shares = app::by_slot(&workers, &report.by_body);
    eprintln!("{runtime}: answers by slot: {shares:?}");
    assert!(shares.len() == workers.len() && shares.values().all(|share| *share >= FEWEST), "{shares:?}");

    let members: Vec<Process> =
        workers.values().flat_map(|worker| proc::session(*worker)).filter_map(Process::open).collect();
    assert!(members.len() >= workers.len(), "{members:?}");
    let code = app.stop().unwrap().code();
    assert_eq!(code, Some(0), "{:#?}", app.lines());
    for member in &members {
        assert!(member.has_ended_within(BURIAL), "{} of {members:?} is left", member.pid);
    }
    TcpListener::bind(address).expect("the port is free again");
}

/// A worker that is killed is replaced in its slot, by one that gets its share.
fn is_replaced(runtime: Runtime) {
    const SLOT: u64 = 1;
    let Some(runtime) = require(runtime) else { return };
    let _turn = machine::alone();
    let address = address::unused();
    let app = app::server(runtime, address).workers(WORKERS).start().unwrap();
    app.wait_ready(WORKERS.into()).unwrap();
    let before = app::workers(&app.status().unwrap());
    let position = app.position();
    Process::open(before[&SLOT]).expect("it runs").signal(Signal::KILL);
    let is_ready = |event: &Event| event.kind() == "ready" && event.slot() == Some(SLOT);
    app.wait_for_since(position, is_ready, Duration::from_secs(30)).unwrap();

    let report = Load::new(address).requests(CONNECTIONS).run_blocking();
    assert!(report.is_clean(), "{report}");
    let workers = app::workers(&app.status().unwrap());
    assert_ne!(workers[&SLOT], before[&SLOT]);
    let shares = app::by_slot(&workers, &report.by_body);
    eprintln!("{runtime}: answers by slot after a kill in slot {SLOT}: {shares:?}");
    assert!(shares.len() == workers.len() && shares.values().all(|share| *share >= FEWEST), "{shares:?}");
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

macro_rules! each {
    ($($name:ident: $runtime:ident by $rung:literal,)+) => {
        mod four_workers_share_a_port {
            use super::*;

            $(#[test]
            fn $name() {
                serves(Runtime::$runtime, $rung);
            })+
        }

        mod a_killed_worker_is_replaced {
            use super::*;

            $(#[test]
            fn $name() {
                is_replaced(Runtime::$runtime);
            })+
        }
    };
}

each! {
    python: Python by "adopted",
    node: Node by "node",
    node22: Node22 by "node",
    node24: Node24 by "node",
    node26: Node26 by "node",
    npm: Npm by "adopted",
    bun: Bun by "adopted",
    deno: Deno by "adopted",
    go: Go by "adopted",
    java: Java by "adopted",
    puma: Puma by "adopted",
    php: Php by "adopted",
    uvicorn: Uvicorn by "adopted",
    gunicorn: Gunicorn by "adopted",
    axum: Axum by "adopted",
}
