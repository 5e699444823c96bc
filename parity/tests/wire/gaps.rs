//! What Node's tests do not look at, and where its primary does worse.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{Shutdown, TcpStream};

use allcores::{ExitStatus, Signal, WorkerHandle};
use allcores_parity::{Run, Stage, client, on_each_node, process};
use allcores_testing::process::free_port;
use rustix::process::{Pid, Resource, Rlimit};
use serde_json::json;

/// Where a worker listens.
async fn port_of(stage: &mut Stage, worker: &WorkerHandle) -> u16 {
    u16::try_from(stage.listening(worker).await.port).unwrap()
}

/// Two workers that name themselves to their clients, on one port.
async fn pair(run: &Run) -> (Stage, WorkerHandle, WorkerHandle, u16) {
    pair_of(run, "names_itself").await
}

/// Two workers that do this, on one port.
async fn pair_of(run: &Run, act: &str) -> (Stage, WorkerHandle, WorkerHandle, u16) {
    let options = json!({ "port": free_port().unwrap() });
    let mut stage = run.stage_with("round_robin.js", act, &options).await;
    let (one, two) = (stage.fork().await, stage.fork().await);
    let port = port_of(&mut stage, &one).await;
    port_of(&mut stage, &two).await;
    (stage, one, two, port)
}

on_each_node!(dies_with_unacknowledged: round_robin, auto);
/// A worker dies with connections that it has not acknowledged: others serve them. Node's clients hang.
async fn dies_with_unacknowledged(run: Run) {
    let (mut stage, one, two, port) = pair(&run).await;
    process::stop(one.pid());
    let clients: Vec<_> = (0..8).map(|_| client::connect(client::local(port)).unwrap()).collect();
    process::kill(one.pid());
    for client in clients {
        assert_eq!(client::rest(client).unwrap(), two.id().to_string());
    }
    assert_eq!(stage.gone(&one).await, ExitStatus::Signal(9));
}

on_each_node!(out_of_descriptors: round_robin);
/// A worker has no descriptor left for what it is handed: another takes it. Node's primary loses it.
async fn out_of_descriptors(run: Run) {
    let (mut stage, one, two, port) = pair_of(&run, "names_itself_and_what_it_misses").await;
    let limit = u64::try_from(process::descriptors(one.pid())).unwrap();
    let limit = Rlimit { current: Some(limit), maximum: Some(limit) };
    let pid = Pid::from_raw(i32::try_from(one.pid()).unwrap());
    rustix::process::prlimit(pid, Resource::Nofile, limit).unwrap();
    for _ in 0..6 {
        assert_eq!(client::ask(client::local(port)).unwrap(), two.id().to_string());
    }
    assert_eq!(stage.message(&one).await, "missed", "it was handed one");
}

on_each_node!(full: round_robin);
/// All workers have as many connections as they want: who comes waits in the primary, and no more than may wait there; all
/// are served when there is room. Node's primary and workers hand them round and round, and it accepts without end.
async fn full(run: Run) {
    const PENDING: usize = 8;
    let options = json!({ "port": free_port().unwrap() });
    let builder = run.builder("round_robin.js", "one_at_a_time", &options).pending(PENDING);
    let mut stage = Stage::open(builder).await;
    let mut port = 0;
    for worker in stage.fork_many(2).await {
        port = port_of(&mut stage, &worker).await;
    }
    let clients: Vec<_> = (0..40).map(|_| client::connect(client::local(port)).unwrap()).collect();
    let mut most = 0;
    while most < PENDING {
        let snapshot = stage.cluster.snapshot().await.unwrap();
        most = most.max(snapshot.addresses[0].pending.unwrap());
    }
    // Looked at again and again, while all wait.
    for _ in 0..50 {
        let snapshot = stage.cluster.snapshot().await.unwrap();
        most = most.max(snapshot.addresses[0].pending.unwrap());
    }
    // Some of them are on their way to workers, four to each at the most.
    assert!(most <= PENDING + 2 * 4, "{most} of 40 were accepted");
    let readers: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            std::thread::spawn(move || {
                client.write_all(b"x").unwrap();
                client::rest(client).unwrap()
            })
        })
        .collect();
    for reader in readers {
        let name = reader.join().unwrap();
        assert!(["1", "2"].contains(&name.as_str()), "{name}");
    }
}

on_each_node!(disconnect_behind_connection: round_robin, auto);
/// A worker is disconnected right behind connections with a request on them: they are served. Node's resets them from
/// 26.4 on, if the worker has not read yet.
async fn disconnect_behind_connection(run: Run) {
    let options = json!({ "port": free_port().unwrap() });
    let mut stage = run.stage_with("round_robin.js", "answers_http", &options).await;
    let mut worker = stage.fork().await;
    let port = port_of(&mut stage, &worker).await;
    for _ in 0..3 {
        let clients: Vec<_> = (0..4).map(|_| client::asking(client::local(port)).unwrap()).collect();
        drop(worker.disconnect());
        let next = stage.fork().await;
        for client in clients {
            let (head, _) = client::answer(client).unwrap();
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        }
        assert_eq!(stage.gone(&worker).await, ExitStatus::Code(0));
        port_of(&mut stage, &next).await;
        worker = next;
    }
}

on_each_node!(disconnect_behind_unread: round_robin, auto);
/// A worker is disconnected that is busy between accepting a connection and reading from it: its client is served.
async fn disconnect_behind_unread(run: Run) {
    // Longer than handshakes are waited for.
    let mut stage = run.stage_with("round_robin.js", "answers_http_late", &json!({ "busy": 300 })).await;
    let worker = stage.fork().await;
    let port = port_of(&mut stage, &worker).await;
    let client = client::asking(client::local(port)).unwrap();
    assert_eq!(stage.message(&worker).await, "accepted");
    drop(worker.disconnect());
    let (head, _) = client::answer(client).unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(stage.gone(&worker).await, ExitStatus::Code(0));
}

on_each_node!(fair: round_robin);
/// Idle workers get connections in turn.
async fn fair(run: Run) {
    const WORKERS: usize = 4;
    let options = json!({ "port": free_port().unwrap() });
    let mut stage = run.stage_with("round_robin.js", "names_itself", &options).await;
    let mut port = 0;
    for worker in stage.fork_many(WORKERS).await {
        port = port_of(&mut stage, &worker).await;
    }
    let mut counts = BTreeMap::new();
    for _ in 0..WORKERS * 10 {
        *counts.entry(client::ask(client::local(port)).unwrap()).or_insert(0) += 1;
    }
    // One that has answered may not have said yet that it is idle, so turns are not always strict.
    assert!(counts.len() == WORKERS && counts.values().all(|count| (5..=15).contains(count)), "{counts:?}");
}

on_each_node!(nonblocking: round_robin, shared, lanes);
/// A client that reads nothing of a long answer does not stop its worker.
async fn nonblocking(run: Run) {
    let mut stage = run.stage("round_robin.js", "floods").await;
    let worker = stage.fork().await;
    let port = port_of(&mut stage, &worker).await;
    let _client = client::connect(client::local(port)).unwrap();
    assert_eq!(stage.message(&worker).await, "written");
    worker.send("are you there?").unwrap();
    assert_eq!(stage.message(&worker).await, json!({ "text": "are you there?" }));
}

on_each_node!(fence: round_robin);
/// A long message in front of connections for several listeners: nobody gets another's.
async fn fence(run: Run) {
    const LISTENERS: usize = 3;
    let parameters = json!({ "listeners": LISTENERS });
    let mut stage = run.stage_with("round_robin.js", "names_the_client", &parameters).await;
    let worker = stage.fork().await;
    let addresses = stage.listenings(&worker, LISTENERS).await;
    // Handles end where a read of 64 KiB does, or beyond, or before.
    for length in [65_300, 65_450, 65_530, 70_000] {
        process::stop(worker.pid());
        worker.send(&"x".repeat(length)).unwrap();
        let clients: Vec<TcpStream> =
            addresses.iter().map(|address| client::connect(client::at(address)).unwrap()).collect();
        process::resume(worker.pid());
        for mut client in clients {
            let own = client.local_addr().unwrap().port();
            write!(client, "{own}").unwrap();
            assert_eq!(client::rest(&client).unwrap(), format!("{own} {own}"));
        }
        assert_eq!(stage.message(&worker).await, json!({ "length": length }));
    }
}

on_each_node!(unread_messages);
/// A worker that reads nothing: what is sent waits, `send` says so, others are served meanwhile, and nothing is lost.
async fn unread_messages(run: Run) {
    const COUNT: usize = 20_000;
    let mut stage = run.stage_with("round_robin.js", "counts", &json!({ "last": COUNT })).await;
    let (deaf, other) = (stage.fork().await, stage.fork().await);
    assert_eq!(stage.message(&deaf).await, "ready");
    assert_eq!(stage.message(&other).await, "ready");
    process::stop(deaf.pid());
    let pad = "x".repeat(60);
    let mut refused = 0;
    for n in 0..COUNT {
        refused += usize::from(!deaf.send(&json!({ "n": n, "pad": pad })).unwrap());
    }
    assert!(refused > 0, "nobody was told to wait");
    other.send(&json!({ "n": 1 })).unwrap();
    assert_eq!(stage.message(&other).await, json!({ "expected": 0, "got": 1 }));
    process::resume(deaf.pid());
    assert_eq!(stage.message(&deaf).await, json!({ "all": COUNT }));
    deaf.drained().await;
    assert!(deaf.send(&json!({ "n": COUNT })).unwrap());
}

on_each_node!(unread_connections: round_robin);
/// More connections than fit into the channel of a worker that reads nothing: all are served when it reads again.
async fn unread_connections(run: Run) {
    let mut stage = run.stage("round_robin.js", "names_itself").await;
    let worker = stage.fork().await;
    let port = port_of(&mut stage, &worker).await;
    process::stop(worker.pid());
    let clients: Vec<_> = (0..300).map(|_| client::connect(client::local(port)).unwrap()).collect();
    process::resume(worker.pid());
    for client in clients {
        assert_eq!(client::rest(client).unwrap(), worker.id().to_string());
    }
}

on_each_node!(malformed);
/// A worker that writes what is no message harms nobody else.
async fn malformed(run: Run) {
    for what in ["words", "empty", "cut", "deep", "types", "bytes"] {
        let mut stage = run.stage_with("round_robin.js", "garbage", &json!({ "what": what })).await;
        let (bad, good) = (stage.fork().await, stage.fork().await);
        assert_eq!(stage.message(&bad).await, "ready");
        assert_eq!(stage.message(&good).await, "ready");
        bad.send("go").unwrap();
        stage.disconnect(&bad).await;
        assert!(good.is_connected(), "{what}");
        drop(good.disconnect());
        assert_eq!(stage.gone(&good).await, ExitStatus::Code(0), "{what}");
    }
}

on_each_node!(disconnected_with_queue: round_robin);
/// cluster-disconnect-handles: connections that wait in the primary when its only worker disconnects are served, by it
/// or by the next.
async fn disconnected_with_queue(run: Run) {
    let options = json!({ "port": free_port().unwrap() });
    let mut stage = run.stage_with("round_robin.js", "names_itself", &options).await;
    let first = stage.fork().await;
    let port = port_of(&mut stage, &first).await;
    process::stop(first.pid());
    let clients: Vec<_> = (0..3).map(|_| client::connect(client::local(port)).unwrap()).collect();
    drop(first.disconnect());
    let next = stage.fork().await;
    port_of(&mut stage, &next).await;
    process::resume(first.pid());
    for client in clients {
        let name = client::rest(client).unwrap();
        assert!([first.id().to_string(), next.id().to_string()].contains(&name), "{name:?}");
    }
    assert_eq!(stage.gone(&first).await, ExitStatus::Code(0));
}

on_each_node!(all_workers_gone: round_robin, lanes);
/// The address stays bound while no worker lives: who connects then is served by the next.
async fn all_workers_gone(run: Run) {
    let options = json!({ "port": free_port().unwrap() });
    let mut stage = run.stage_with("round_robin.js", "names_itself", &options).await;
    let first = stage.fork().await;
    let port = port_of(&mut stage, &first).await;
    first.kill(Signal::KILL).unwrap();
    stage.gone(&first).await;
    let client = client::connect(client::local(port)).unwrap();
    let next = stage.fork().await;
    assert_eq!(client::rest(&client).unwrap(), next.id().to_string());
    let _ = client.shutdown(Shutdown::Both);
}
