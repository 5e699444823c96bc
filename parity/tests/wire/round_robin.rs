//! Connections that the primary accepts and hands over.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;

use allcores::ExitStatus;
use allcores_parity::{Node, Run, client, on_each_node};
use allcores_testing::process::free_port;
use serde_json::json;

on_each_node!(drop_connection: round_robin);
/// cluster-net-server-drop-connection
async fn drop_connection(run: Run) {
    const CLIENTS: usize = 10;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let mut stage = run.stage_with("round_robin.js", "max_connections", &json!({ "path": path })).await;
    let mut workers = Vec::new();
    for max in ["0", "1", "9"] {
        let worker = stage.fork_with("MAX", max).await;
        stage.listening(&worker).await;
        workers.push(worker.id());
    }
    let clients: Vec<_> = (0..CLIENTS).map(|_| UnixStream::connect(&path).unwrap()).collect();
    let mut counts = BTreeMap::new();
    for _ in &clients {
        *counts.entry(stage.anybody().await.worker).or_insert(0) += 1;
    }
    let counts: Vec<_> = workers.iter().map(|id| counts.get(id).copied().unwrap_or(0)).collect();
    if run.node == Node::V20 {
        // There, 0 is no limit.
        assert!(counts[1] <= 1 && counts[2] <= 9, "{counts:?}");
        assert_eq!(counts.iter().sum::<usize>(), CLIENTS);
    } else {
        assert_eq!(counts, [0, 1, 9]);
    }
}

on_each_node!(handle_close: round_robin);
/// cluster-worker-handle-close; and another worker serves the client.
async fn handle_close(run: Run) {
    let port = free_port().unwrap();
    let mut stage = run.stage_with("round_robin.js", "handle_close", &json!({ "port": port })).await;
    let closes = stage.fork_with("ROLE", "closes").await;
    stage.listening(&closes).await;
    let serves = stage.fork().await;
    stage.listening(&serves).await;
    for _ in 0..2 {
        assert_eq!(client::ask(client::local(port)).unwrap(), "served");
    }
    assert_eq!(stage.message(&closes).await, "handle closed");
    drop(closes.disconnect());
    assert_eq!(stage.gone(&closes).await, ExitStatus::Code(0));
}

/// A worker that goes when nothing keeps it any more.
async fn ends(run: Run, part: &str) {
    let mut stage = run.stage("round_robin.js", part).await;
    let worker = stage.fork().await;
    assert_eq!(stage.gone(&worker).await, ExitStatus::Code(0), "{part}");
}

on_each_node!(rr_handle_close: round_robin, lanes);
/// cluster-rr-handle-close
async fn rr_handle_close(run: Run) {
    ends(run, "closed_and_unreferenced").await;
}

on_each_node!(rr_handle_keep_loop_alive: round_robin, lanes);
/// cluster-rr-handle-keep-loop-alive
async fn rr_handle_keep_loop_alive(run: Run) {
    let mut stage = run.stage("round_robin.js", "keeps_alive").await;
    let worker = stage.fork().await;
    assert_eq!(stage.message(&worker).await, "alive");
}

on_each_node!(rr_handle_ref_unref: round_robin, lanes);
/// cluster-rr-handle-ref-unref
async fn rr_handle_ref_unref(run: Run) {
    ends(run.clone(), "unreferenced_before").await;
    ends(run, "unreferenced_after").await;
}

on_each_node!(rr_ref: round_robin, lanes);
/// cluster-rr-ref
async fn rr_ref(run: Run) {
    let mut stage = run.stage("round_robin.js", "referenced_again").await;
    let worker = stage.fork().await;
    assert_eq!(stage.message(&worker).await, "closed");
    assert_eq!(stage.gone(&worker).await, ExitStatus::Code(0));
}

on_each_node!(drops_in_the_worker: round_robin);
/// http-server-drop-connections-in-cluster
async fn drops_in_the_worker(run: Run) {
    let mut stage = run.stage("round_robin.js", "drops").await;
    let worker = stage.fork().await;
    let address = client::at(&stage.listening(&worker).await);
    if run.node == Node::V20 {
        // There, 0 is no limit, and the event unknown.
        assert!(client::get(address).unwrap().1.contains("served"));
        return;
    }
    let client = client::connect(address).unwrap();
    assert_eq!(client::rest(client).unwrap_or_default(), "");
    assert_eq!(stage.message(&worker).await, json!({ "drop": "number" }));
}
