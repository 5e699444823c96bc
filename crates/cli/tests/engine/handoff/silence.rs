//! Workers that do not answer for what they were handed, and die of it: their clients go to others.

use std::collections::BTreeSet;
use std::io::Write;
use std::time::Duration;

use allcores_testing::app::Event;
use allcores_testing::load::Load;
use allcores_testing::runtimes::{Runtime, require};
use allcores_testing::{address, extent, machine};
use rustix::process::Signal;

use super::{PATIENCE, answer, ask, connect};
use crate::proc::Process;
use crate::{app, proc};

const WORKERS: u16 = 4;

/// How many of them are killed; `ALLCORES_TEST_KILLS` asks for another number.
fn kills() -> u32 {
    extent::of("KILLS", 8)
}

/// Kills workers that have been handed connections and have not answered for them, under load. Their clients are
/// served by others; lost is what a worker had accepted before it was held still, and nothing else.
fn no_client_hangs(runtime: Runtime, policy: &str) {
    let Some(runtime) = require(runtime) else { return };
    let _turn = machine::alone();
    let address = address::unused();
    let app = app::server(runtime, address).workers(WORKERS).policy(policy);
    let app = app.option("--min-uptime=1ms").option("--backoff=1ms").start().unwrap();
    app.wait_ready(WORKERS.into()).unwrap();
    let before = proc::descriptors(app.pid()).len();
    let load = Load::new(address).clients(8).spawn();
    assert!(load.wait_ok(100, PATIENCE), "the app answers");
    let (mut accepted, mut unanswered) = (BTreeSet::new(), 0);
    for nth in 0..kills() {
        let slot = u64::from(nth) % u64::from(WORKERS);
        let position = app.position();
        let victim = Process::open(app::workers(&app.status().unwrap())[&slot]).expect("it runs");
        assert!(victim.hold_still());
        accepted.extend(victim.peers());
        // Until it has its turn again, and one more that it will never answer for.
        assert!(load.wait_ok(load.ok() + 60, PATIENCE), "the others answer");
        let status = app.status().unwrap();
        let depth = |worker: &serde_json::Value| worker["lanes"][0]["depth"].as_u64();
        let its = status["workers"]
            .as_array()
            .unwrap()
            .iter()
            .find(|worker| worker["slot"] == slot)
            .and_then(depth);
        unanswered += its.unwrap_or(0);
        victim.signal(Signal::KILL);
        let is_back = |event: &Event| event.kind() == "ready" && event.slot() == Some(slot);
        app.wait_for_since(position, is_back, Duration::from_secs(30)).unwrap();
    }
    let report = load.stop();
    let is_accepted =
        |local: Option<std::net::SocketAddr>| local.is_some_and(|local| accepted.contains(&local));
    let others: Vec<_> = report.failed.iter().filter(|failure| !is_accepted(failure.local)).collect();
    let after = proc::settled_descriptors(app.pid(), before + 1).len();
    eprintln!(
        "{runtime}, {policy}: {} kills, {} answered, {unanswered} handed to the dead and served by others, {} \
         lost that the dead had accepted; the primary's descriptors: {before} before, {after} after",
        kills(),
        report.ok,
        report.failed.len() - others.len(),
    );
    assert!(others.is_empty(), "{others:#?}\n{report}");
    assert!(unanswered >= u64::from(kills()) / 2, "hardly any was unanswered: {unanswered}");
    assert!(after <= before + 1, "{:#?}", proc::descriptors(app.pid()));
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn no_client_of_killed_node_workers_hangs() {
    no_client_hangs(Runtime::Node, "round-robin");
}

#[test]
fn no_client_of_killed_node26_workers_hangs() {
    no_client_hangs(Runtime::Node26, "round-robin");
}

#[test]
fn all_clients_of_a_worker_that_dies_silent_are_served_by_another() {
    const CLIENTS: usize = 30;
    let Some(node) = require(Runtime::Node) else { return };
    let _turn = machine::together();
    let address = address::unused();
    for policy in ["round-robin", "sticky"] {
        let app = app::server(node, address).workers(2).policy(policy).start().unwrap();
        app.wait_ready(2).unwrap();
        // Under `sticky` all these clients are one.
        let its = ask(&connect(address), "/", "").unwrap();
        let workers = app::workers(&app.status().unwrap());
        app::hold_still(&workers);
        let clients: Vec<_> = (0..CLIENTS).map(|_| connect(address)).collect();
        for mut stream in &clients {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        }
        Process::open(its).unwrap().signal(Signal::KILL);
        workers.values().filter(|pid| **pid != its).for_each(|pid| proc::resume_group(*pid));
        for stream in &clients {
            assert_ne!(answer(stream).unwrap(), its);
        }
        assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
    }
}

#[test]
fn a_worker_that_does_not_answer_for_a_connection_hangs_and_is_replaced() {
    let Some(node) = require(Runtime::Node) else { return };
    let _turn = machine::together();
    let address = address::unused();
    let app = app::server(node, address).workers(1).policy("round-robin").option("--hang-timeout=500ms");
    let app = app.start().unwrap();
    let ready = app.wait_ready(1).unwrap();
    let hung = ready[0].worker_pid().unwrap();
    proc::stop_group(hung);
    let client = connect(address);
    let served = ask(&client, "/", "").unwrap();
    assert_ne!(served, hung);
    app.wait_for(|event| event.kind() == "hung" && event.worker_pid() == Some(hung), PATIENCE).unwrap();
}
