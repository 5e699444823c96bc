//! With real node.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::*;
use crate::load::{Load, hold};
use crate::process::free_port;
use crate::stats;

const SERVER: &str = "require('http').createServer((q, s) => s.end(String(process.pid)))
    .listen(Number(process.env.PORT), process.env.HOST);";

/// Starts two workers.
fn start(peer: Peer) -> RunningBaseline {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("server.js");
    fs::write(&script, SERVER).unwrap();
    Baseline::new(peer, script, 2).start(free_port().unwrap()).unwrap()
}

/// Gives how many connections each worker had, and checks that nobody else had any.
fn shares(running: &RunningBaseline, by_body: &BTreeMap<String, u64>) -> Vec<f64> {
    let pids: BTreeSet<_> = running.worker_pids().iter().map(u32::to_string).collect();
    assert_eq!(pids.len(), 2);
    assert!(by_body.keys().all(|pid| pids.contains(pid)), "{by_body:?}");
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    let share = |pid| by_body.get(pid).copied().unwrap_or(0) as f64;
    pids.iter().map(share).collect()
}

/// Serves with two workers under load, and gives how many connections each had.
fn serve(peer: Peer) -> (RunningBaseline, Vec<f64>) {
    let running = start(peer);
    let report = Load::new(running.address()).clients(8).requests(2000).run_blocking();
    assert!(report.is_clean(), "{report}");
    let shares = shares(&running, &report.by_body);
    (running, shares)
}

#[test]
fn node_cluster_hands_connections_off_in_turn() {
    let running = start(Peer::NodeClusterRoundRobin);
    // One after the other, so that both workers are free each time: under load a worker that is quicker to acknowledge
    // is back in the queue earlier, and gets more.
    let held = hold(running.address(), 200, "/").unwrap();
    let shares = shares(&running, held.by_body());
    assert!(stats::jain(&shares) > 0.99, "{shares:?}");
    assert_eq!(running.manager_pids().len(), 1);
    drop(held);
    running.stop().unwrap();
}

#[test]
fn node_cluster_none_serves_from_one_listener() {
    let (running, _) = serve(Peer::NodeClusterNone);
    assert_eq!(running.manager_pids().len(), 1);
    running.stop().unwrap();
}

#[test]
fn a_reuse_port_group_is_spread_by_the_kernel() {
    let (running, shares) = serve(Peer::ReusePort);
    // By chance alone this is missed by ten standard deviations.
    assert!(stats::jain(&shares) > 0.95, "{shares:?}");
    assert!(running.manager_pids().is_empty());
    running.stop().unwrap();
}

#[test]
fn a_shared_listener_is_served_by_any() {
    let (running, _) = serve(Peer::SharedListener);
    assert!(running.manager_pids().is_empty());
    running.stop().unwrap();
}
