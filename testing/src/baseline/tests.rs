//! With real node.

use std::collections::BTreeSet;
use std::fs;

use super::*;
use crate::load::Load;
use crate::process::free_port;
use crate::stats;

const SERVER: &str = "require('http').createServer((q, s) => s.end(String(process.pid)))
    .listen(Number(process.env.PORT), process.env.HOST);";

/// Serves with two workers, and gives their pids and how many connections each had.
fn serve(peer: Peer) -> (RunningBaseline, Vec<f64>) {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("server.js");
    fs::write(&script, SERVER).unwrap();
    let running = Baseline::new(peer, script, 2).start(free_port().unwrap()).unwrap();
    let report = Load::new(running.address()).clients(8).requests(2000).run_blocking();
    assert!(report.is_clean(), "{report}");
    let pids: BTreeSet<_> = running.worker_pids().iter().map(u32::to_string).collect();
    assert_eq!(pids.len(), 2);
    assert!(report.by_body.keys().all(|pid| pids.contains(pid)), "{:?}", report.by_body);
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    let shares = pids.iter().map(|pid| report.by_body.get(pid).copied().unwrap_or(0) as f64).collect();
    (running, shares)
}

#[test]
fn node_cluster_hands_off_one_after_the_other() {
    let (running, shares) = serve(Peer::NodeClusterRoundRobin);
    assert!(stats::jain(&shares) > 0.99, "{shares:?}");
    assert!(running.primary_pid().is_some());
    running.stop().unwrap();
}

#[test]
fn node_cluster_none_serves_from_one_listener() {
    let (running, _) = serve(Peer::NodeClusterNone);
    assert!(running.primary_pid().is_some());
    running.stop().unwrap();
}

#[test]
fn a_reuse_port_group_is_spread_by_the_kernel() {
    let (running, shares) = serve(Peer::ReusePort);
    // By chance alone this is missed by ten standard deviations.
    assert!(stats::jain(&shares) > 0.95, "{shares:?}");
    assert_eq!(running.primary_pid(), None);
    running.stop().unwrap();
}

#[test]
fn a_shared_listener_is_served_by_any() {
    let (running, _) = serve(Peer::SharedListener);
    assert_eq!(running.primary_pid(), None);
    running.stop().unwrap();
}
