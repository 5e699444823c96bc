//! Leaving together, and being ready to begin again.

use allcores::{ExitStatus, WorkerHandle};
use allcores_parity::client;
use serde_json::json;

use crate::{POLICIES, listen, play, port, stage, stage_by};

/// cluster-disconnect
#[test]
fn disconnect() {
    play(async {
        for policy in POLICIES {
            let mut stage = stage_by(&policy, json!([listen(), listen()])).await;
            for _ in 0..2 {
                let workers = stage.fork_many(4).await;
                let mut all = Vec::new();
                for worker in &workers {
                    all.push([port(stage.message(worker).await), port(stage.message(worker).await)]);
                }
                assert_ne!(all[0][0], all[0][1], "two ports");
                assert!(all.iter().all(|ports| *ports == all[0]), "of every worker the same: {all:?}");
                for port in all[0] {
                    let number = client::ask(client::local(port)).unwrap();
                    assert!(workers.iter().any(|worker| worker.id().to_string() == number), "{number}");
                }
                stage.cluster.disconnect().await;
                assert!(stage.cluster.workers().is_empty());
                assert!(workers.iter().all(WorkerHandle::is_dead), "all of them are gone");
                for port in all[0] {
                    assert!(client::connect(client::local(port)).is_err(), "nobody listens any more");
                }
            }
        }
    });
}

/// cluster-disconnect-idle-worker
#[test]
fn idle_worker() {
    play(async {
        let stage = stage(json!([])).await;
        stage.fork_many(2).await;
        stage.cluster.disconnect().await;
        assert!(stage.cluster.workers().is_empty());
    });
}

/// cluster-disconnect-with-no-workers: a future does nothing before it is polled.
#[test]
fn with_no_workers() {
    play(async {
        let mut stage = stage(json!([])).await;
        stage.cluster.disconnect().await;
        let worker = stage.fork().await;
        stage.online(&worker).await;
    });
}

/// cluster-disconnect-before-exit
#[test]
fn before_exit() {
    play(async {
        let mut stage = stage(json!({ "now": [], "at_end": ["disconnect"] })).await;
        let worker = stage.fork().await;
        stage.online(&worker).await;
        drop(worker.disconnect());
        stage.disconnect(&worker).await;
        drop(worker.disconnect());
        stage.cluster.disconnect().await;
        assert_eq!(stage.exit(&worker).await, ExitStatus::Code(0));
    });
}

/// cluster-disconnect-leak: the worker asks when it has been told to go.
#[test]
fn leak() {
    play(async {
        for policy in POLICIES {
            let mut stage = stage_by(&policy, json!([listen()])).await;
            let worker = stage.fork().await;
            stage.cluster.disconnect().await;
            assert_eq!(stage.gone(&worker).await, ExitStatus::Code(0));
            assert!(stage.cluster.workers().is_empty());
        }
    });
}

/// One worker holds the address, the other is disconnected; then all are.
async fn unshared(holds: serde_json::Value) {
    for policy in POLICIES {
        let mut stage = stage_by(&policy, json!([])).await;
        let (holder, other) = (stage.fork().await, stage.fork().await);
        holder.send(&holds).unwrap();
        port(stage.message(&holder).await);
        stage.online(&other).await;
        assert_eq!(other.disconnect().await, ExitStatus::Code(0));
        assert!(holder.is_connected());
        stage.cluster.disconnect().await;
        assert_eq!(stage.gone(&holder).await, ExitStatus::Code(0));
    }
}

/// cluster-disconnect-unshared-tcp
#[test]
fn unshared_tcp() {
    play(unshared(listen()));
}

/// cluster-disconnect-unshared-udp
#[test]
fn unshared_udp() {
    play(unshared(json!({ "bind_udp": { "at": "127.0.0.1:0" } })));
}
