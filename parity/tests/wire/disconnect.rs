//! Leaving together, and being ready to begin again.

use allcores::{ExitStatus, Fork};
use allcores_parity::{Run, client, on_each_node};

on_each_node!(disconnect: round_robin, lanes);
/// cluster-disconnect
async fn disconnect(run: Run) {
    const WORKERS: usize = 4;
    let mut stage = run.stage("disconnect.js", "two_servers").await;
    let mut first_ports = None;
    for _ in 0..2 {
        let workers = stage.fork_many(WORKERS).await;
        let mut all = Vec::new();
        for worker in &workers {
            let mut ports: Vec<_> =
                stage.listenings(worker, 2).await.iter().map(|address| address.port).collect();
            ports.sort_unstable();
            all.push(ports);
        }
        assert_ne!(all[0][0], all[0][1], "two ports");
        assert!(all.iter().all(|ports| *ports == all[0]), "of every worker the same: {all:?}");
        for port in &all[0] {
            assert_eq!(client::ask(client::local(u16::try_from(*port).unwrap())).unwrap(), "echo");
        }
        stage.cluster.disconnect().await;
        assert!(stage.cluster.workers().is_empty());
        for worker in &workers {
            assert_eq!(stage.gone(worker).await, ExitStatus::Code(0));
        }
        first_ports.get_or_insert(all.remove(0));
    }
}

on_each_node!(idle_worker);
/// cluster-disconnect-idle-worker
async fn idle_worker(run: Run) {
    let stage = run.stage("disconnect.js", "idle").await;
    stage.fork_many(2).await;
    stage.cluster.disconnect().await;
    assert!(stage.cluster.workers().is_empty());
}

on_each_node!(before_exit);
/// cluster-disconnect-before-exit
async fn before_exit(run: Run) {
    let mut stage = run.stage("disconnect.js", "idle").await;
    let worker = stage.fork().await;
    stage.online(&worker).await;
    drop(worker.disconnect());
    stage.disconnect(&worker).await;
    stage.cluster.disconnect().await;
    assert_eq!(stage.exit(&worker).await, ExitStatus::Code(0));
}

on_each_node!(race);
/// cluster-disconnect-exitedAfterDisconnect-race
async fn race(run: Run) {
    let mut stage = run.stage("disconnect.js", "race").await;
    let worker = stage.fork().await;
    assert_eq!(stage.gone(&worker).await, ExitStatus::Code(0));
    assert_eq!(worker.exited_after_disconnect(), Some(true));
}

on_each_node!(leak: shared, round_robin);
/// cluster-disconnect-leak: the worker asks when it has been told to go.
async fn leak(run: Run) {
    let mut stage = run.stage("disconnect.js", "listens_anyhow").await;
    let worker = stage.fork().await;
    stage.cluster.disconnect().await;
    stage.gone(&worker).await;
    assert!(stage.cluster.workers().is_empty());
}

/// One worker holds the listener, the other is disconnected; then all are.
async fn unshared(run: Run, part: &str) {
    let mut stage = run.stage("disconnect.js", part).await;
    let holder = stage.cluster.fork_with(Fork::new().env("ROLE", "holder")).await.unwrap();
    stage.listening(&holder).await;
    assert_eq!(stage.message(&holder).await, "bound");
    let other = stage.fork().await;
    stage.online(&other).await;
    drop(other.disconnect());
    assert_eq!(stage.gone(&other).await, ExitStatus::Code(0));
    stage.cluster.disconnect().await;
    assert_eq!(stage.gone(&holder).await, ExitStatus::Code(0));
}

on_each_node!(unshared_tcp: round_robin, shared);
/// cluster-disconnect-unshared-tcp
async fn unshared_tcp(run: Run) {
    unshared(run, "unshared_tcp").await;
}

on_each_node!(unshared_udp: round_robin);
/// cluster-disconnect-unshared-udp
async fn unshared_udp(run: Run) {
    unshared(run, "unshared_udp").await;
}
