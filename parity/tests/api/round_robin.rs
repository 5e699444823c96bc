//! Connections that the primary hands over.

use std::collections::BTreeMap;

use allcores::Policy;
use allcores_parity::client;
use serde_json::json;

use crate::{listen, play, port, stage_by};

/// Idle workers take turns: Node's own order, which none of its tests look at. How often each has one depends on when it
/// is idle, which a busy machine decides; nobody is passed over.
#[test]
fn fair() {
    play(async {
        let mut stage = stage_by(&Policy::RoundRobin, json!([listen()])).await;
        let mut ports = Vec::new();
        for worker in stage.fork_many(3).await {
            ports.push(port(stage.message(&worker).await));
        }
        let mut counts = BTreeMap::<String, u32>::new();
        for _ in 0..30 {
            *counts.entry(client::ask(client::local(ports[0])).unwrap()).or_default() += 1;
        }
        assert_eq!(counts.len(), 3, "{counts:?}");
    });
}

/// cluster-net-server-drop-connection and net-server-max-connections, as Rust servers limit connections: by accepting
/// no more. What one does not take goes to others, and what has closed makes room.
#[test]
fn accepts_no_more() {
    play(async {
        let limited = json!({ "listen": { "at": "127.0.0.1:0", "do": "one_by_one" } });
        let mut stage = stage_by(&Policy::RoundRobin, json!([])).await;
        let (one, other) = (stage.fork().await, stage.fork().await);
        one.send(&limited).unwrap();
        let port = port(stage.message(&one).await);
        let mut first = client::connect(client::local(port)).unwrap();
        assert_eq!(client::bytes(&mut first, 1).unwrap(), "1");
        let (tell, told) = std::sync::mpsc::channel();
        for _ in 0..10 {
            let client = client::connect(client::local(port)).unwrap();
            let tell = tell.clone();
            std::thread::spawn(move || tell.send(client::bytes(client, 1)));
        }
        let answer = || told.recv().unwrap().unwrap();
        other.send(&listen()).unwrap();
        stage.message(&other).await;
        // A worker that was quick before has up to four that it has not taken; those behind them waited in the primary.
        for _ in 0..6 {
            assert_eq!(answer(), "2");
        }
        drop(first);
        for _ in 6..10 {
            answer();
        }
    });
}

/// cluster-worker-handle-close: what waits in a listener that is dropped goes to another worker.
#[test]
fn handle_close() {
    play(async {
        let silent = json!({ "listen": { "at": "127.0.0.1:0", "do": "nothing" } });
        let mut stage = stage_by(&Policy::RoundRobin, json!([])).await;
        let (one, other) = (stage.fork().await, stage.fork().await);
        one.send(&silent).unwrap();
        let port = port(stage.message(&one).await);
        let client = client::connect(client::local(port)).unwrap();
        other.send(&listen()).unwrap();
        stage.message(&other).await;
        one.send(&json!({ "close": port })).unwrap();
        assert_eq!(client::rest(client).unwrap(), "2");
    });
}

/// sticky_handle.js, iphash_handle.js: one client, one worker; and another when that has gone.
#[test]
fn sticky() {
    play(async {
        let policy: Policy = "sticky".parse().unwrap();
        let mut stage = stage_by(&policy, json!([listen()])).await;
        let mut ports = Vec::new();
        let workers = stage.fork_many(3).await;
        for worker in &workers {
            ports.push(port(stage.message(worker).await));
        }
        let address = client::local(ports[0]);
        let first = client::ask(address).unwrap();
        assert!((0..20).all(|_| client::ask(address).unwrap() == first));
        let left = workers.iter().find(|worker| worker.id().to_string() == first).unwrap();
        left.disconnect().await;
        let next = client::ask(address).unwrap();
        assert_ne!(next, first);
        assert!((0..20).all(|_| client::ask(address).unwrap() == next));
    });
}
