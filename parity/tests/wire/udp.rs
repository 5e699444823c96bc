//! Datagrams.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use allcores::{AddressType, ExitStatus, Signal};
use allcores_parity::{Run, client, on_each_node};
use allcores_testing::process::free_port;
use allcores_testing::skip;
use serde_json::json;

/// A socket of ours, and its port. Reading does not take for ever.
fn socket() -> (UdpSocket, u16) {
    let socket = UdpSocket::bind(client::local(0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

on_each_node!(dgram_1: shared);
/// cluster-dgram-1
async fn dgram_1(run: Run) {
    let mut stage = run.stage("udp.js", "takes_ten").await;
    let workers = stage.fork_many(4).await;
    let mut ports = BTreeSet::new();
    for worker in &workers {
        let address = stage.listening(worker).await;
        assert_eq!((address.address_type, address.fd), (AddressType::Udp4, Some(-1)));
        ports.insert(client::at(&address));
    }
    assert_eq!(ports.len(), 1, "they share a port: {ports:?}");
    let (sender, _) = socket();
    for _ in 0..40 {
        sender.send_to(b"datagram", ports.first().unwrap()).unwrap();
    }
    for worker in &workers {
        assert_eq!(stage.message(worker).await, json!({ "taken": 10 }));
    }
    stage.cluster.disconnect().await;
}

on_each_node!(spread: round_robin, lanes);
/// What cluster-dgram-1 is elsewhere: each flow has its worker, and flows are spread. Those of a worker that closes
/// its socket go to others.
async fn spread(run: Run) {
    let mut stage = run.stage("udp.js", "tells").await;
    let workers = stage.fork_many(2).await;
    let mut address = client::local(0);
    for worker in &workers {
        address = client::at(&stage.listening(worker).await);
    }
    let senders: Vec<_> = (0..40).map(|_| socket().0).collect();
    for round in 0..2 {
        for (number, sender) in senders.iter().enumerate() {
            sender.send_to(format!("{number}/{round}").as_bytes(), address).unwrap();
        }
    }
    let mut flows = BTreeSet::new();
    for _ in 0..2 * senders.len() {
        let said = stage.anybody().await;
        let text = said.value["text"].as_str().unwrap().to_owned();
        flows.insert((text.split('/').next().unwrap().to_owned(), said.worker));
    }
    assert_eq!(flows.len(), senders.len(), "each flow stays at its worker");
    let used: BTreeSet<_> = flows.iter().map(|(_, worker)| *worker).collect();
    assert_eq!(used.len(), workers.len(), "all workers have some");

    workers[0].send("close").unwrap();
    assert_eq!(stage.message(&workers[0]).await, "closed");
    for (number, sender) in senders.iter().enumerate() {
        sender.send_to(number.to_string().as_bytes(), address).unwrap();
    }
    for _ in &senders {
        assert_eq!(stage.anybody().await.worker, workers[1].id());
    }
}

on_each_node!(death: round_robin, lanes, shared);
/// The datagrams of a worker that died go to those that live.
async fn death(run: Run) {
    let mut stage = run.stage("udp.js", "tells").await;
    let workers = stage.fork_many(2).await;
    let mut address = client::local(0);
    for worker in &workers {
        address = client::at(&stage.listening(worker).await);
    }
    workers[0].kill(Signal::KILL).unwrap();
    stage.gone(&workers[0]).await;
    for number in 0..20 {
        let (sender, _) = socket();
        sender.send_to(number.to_string().as_bytes(), address).unwrap();
        assert_eq!(stage.message(&workers[1]).await, json!({ "text": number.to_string() }));
    }
}

on_each_node!(dgram_2: round_robin, lanes);
/// cluster-dgram-2
async fn dgram_2(run: Run) {
    let (receiver, port) = socket();
    let mut stage = run.stage_with("udp.js", "sends_ten", &json!({ "port": port })).await;
    let workers = stage.fork_many(4).await;
    let mut senders = BTreeSet::new();
    for _ in 0..40 {
        let (_, sender) = receiver.recv_from(&mut [0; 16]).unwrap();
        senders.insert(sender);
    }
    assert_eq!(senders.len(), 1, "they share a port: {senders:?}");
    stage.cluster.disconnect().await;
    for worker in &workers {
        assert_eq!(stage.gone(worker).await, ExitStatus::Code(0));
    }
}

on_each_node!(ipv6only: round_robin);
/// cluster-dgram-ipv6only
async fn ipv6only(run: Run) {
    if !client::has_ipv6() {
        skip!("no IPv6 here");
    }
    let options = json!({ "port": free_port().unwrap() });
    let mut stage = run.stage_with("udp.js", "ipv6_only", &options).await;
    let worker = stage.fork().await;
    assert_eq!(stage.message(&worker).await, "both");
}

on_each_node!(reuse: round_robin);
/// cluster-dgram-reuse
async fn reuse(run: Run) {
    let options = json!({ "port": free_port().unwrap() });
    let mut stage = run.stage_with("udp.js", "reuse", &options).await;
    let worker = stage.fork().await;
    assert_eq!(stage.message(&worker).await, "both");
}

on_each_node!(bind_error: round_robin);
/// dgram-cluster-bind-error
async fn bind_error(run: Run) {
    let mut stage = run.stage("udp.js", "bind_error").await;
    let worker = stage.fork().await;
    assert_eq!(stage.message(&worker).await, json!({ "code": "EADDRNOTAVAIL", "syscall": "bind" }));
    assert_eq!(stage.message(&worker).await, "bound");
}

on_each_node!(close_during_bind: round_robin);
/// dgram-cluster-close-during-bind
async fn close_during_bind(run: Run) {
    let mut stage = run.stage("udp.js", "close_during_bind").await;
    let worker = stage.fork().await;
    assert_eq!(stage.message(&worker).await, "closed");
    drop(worker.disconnect());
    assert_eq!(stage.gone(&worker).await, ExitStatus::Code(0));
    assert_eq!(stage.unread(), 0, "it was never bound");
}

on_each_node!(exclusive_implicit_bind: round_robin, lanes);
/// dgram-exclusive-implicit-bind
async fn exclusive_implicit_bind(run: Run) {
    let (receiver, port) = socket();
    let stage = run.stage_with("udp.js", "implicit_bind", &json!({ "port": port })).await;
    for role in ["binds", "sends", "binds", "sends"] {
        stage.fork_with("ROLE", role).await;
    }
    let senders: BTreeSet<SocketAddr> = (0..4).map(|_| receiver.recv_from(&mut [0; 16]).unwrap().1).collect();
    assert_eq!(senders.len(), 3, "{senders:?}");
    stage.cluster.disconnect().await;
}

on_each_node!(unreferenced: round_robin);
/// dgram-unref-in-cluster
async fn unreferenced(run: Run) {
    let mut stage = run.stage("udp.js", "unreferenced").await;
    let worker = stage.fork().await;
    assert_eq!(stage.gone(&worker).await, ExitStatus::Code(0));
}

on_each_node!(bind_shared_ports: round_robin, lanes);
/// dgram-bind-shared-ports
async fn bind_shared_ports(run: Run) {
    let (shared, exclusive) = (free_port().unwrap(), free_port().unwrap());
    let mut stage = run.stage("udp.js", "on_command").await;
    let workers = stage.fork_many(2).await;
    let mut random = Vec::new();
    for worker in &workers {
        assert_eq!(stage.message(worker).await, "ready");
        worker.send(&json!({ "port": 0, "exclusive": false })).unwrap();
        random.push(stage.message(worker).await["port"].as_u64().unwrap());
        worker.send(&json!({ "port": shared, "exclusive": false })).unwrap();
        assert_eq!(stage.message(worker).await, json!({ "port": shared }));
    }
    assert_eq!(random[0], random[1]);
    workers[0].send(&json!({ "port": exclusive, "exclusive": true })).unwrap();
    assert_eq!(stage.message(&workers[0]).await, json!({ "port": exclusive }));
    workers[1].send(&json!({ "port": exclusive, "exclusive": true })).unwrap();
    assert_eq!(stage.message(&workers[1]).await["code"], "EADDRINUSE");
}

on_each_node!(bind_shared_ports_after_port_0: round_robin);
/// dgram-bind-shared-ports-after-port-0, which Node fails: a port that the kernel chose can be asked for by number.
async fn bind_shared_ports_after_port_0(run: Run) {
    let mut stage = run.stage("udp.js", "on_command").await;
    let workers = stage.fork_many(2).await;
    for worker in &workers {
        assert_eq!(stage.message(worker).await, "ready");
    }
    workers[0].send(&json!({ "port": 0 })).unwrap();
    let told = stage.message(&workers[0]).await;
    workers[1].send(&told).unwrap();
    assert_eq!(stage.message(&workers[1]).await, told);
}
