//! Sockets that travel with messages.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use allcores::{ExitStatus, Handle, Signal};
use allcores_parity::{Run, client, on_each_node};
use serde_json::json;

/// As long as Node's own test has it.
const LONG: usize = 800_004;

/// The stream that came with a message.
fn stream(handle: Option<Handle>) -> TcpStream {
    let Some(Handle::TcpStream(stream)) = handle else { panic!("no stream: {handle:?}") };
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    stream
}

/// Both ends of a connection of ours.
fn connection() -> (TcpStream, TcpStream) {
    let (listener, port) = client::listener();
    let client = client::connect(client::local(port)).unwrap();
    (client, client::accept(&listener))
}

on_each_node!(net_send);
/// cluster-net-send
async fn net_send(run: Run) {
    let (listener, port) = client::listener();
    let mut stage = run.stage_with("handles.js", "sends_socket", &json!({ "port": port })).await;
    let worker = stage.fork().await;
    let mut other_end = client::accept(&listener);
    let said = stage.said(&worker).await;
    assert_eq!(said.value, "take it");
    let received = stream(said.handle);
    other_end.write_all(b"hello").unwrap();
    drop(other_end);
    assert_eq!(client::rest(received).unwrap(), "hello");
}

on_each_node!(send_handle_twice);
/// cluster-send-handle-twice
async fn send_handle_twice(run: Run) {
    let (listener, port) = client::listener();
    let mut stage = run.stage_with("handles.js", "sends_socket_twice", &json!({ "port": port })).await;
    let worker = stage.fork().await;
    let _other_end = client::accept(&listener);
    let (first, second) = (stage.said(&worker).await, stage.said(&worker).await);
    assert_eq!((&first.value, &second.value), (&json!("first"), &json!("second")));
    assert!(first.handle.is_some() && second.handle.is_none(), "{first:?} {second:?}");
    drop(worker.disconnect());
    assert_eq!(stage.gone(&worker).await, ExitStatus::Code(0));
}

on_each_node!(large_payload);
/// cluster-send-handle-large-payload
async fn large_payload(run: Run) {
    let (listener, port) = client::listener();
    let mut stage = run.stage_with("handles.js", "large_payload", &json!({ "port": port })).await;
    let worker = stage.fork().await;
    assert_eq!(stage.message(&worker).await, "ready");
    let (ours, theirs) = connection();
    worker.send_with_handle(&json!({ "payload": "x".repeat(LONG) }), theirs).unwrap();
    assert_eq!(client::rest(ours).unwrap(), "from the worker");
    let mut other_end = client::accept(&listener);
    let said = stage.said(&worker).await;
    assert_eq!(said.value["length"], LONG);
    assert_eq!(said.value["payload"].as_str().map(str::len), Some(LONG));
    other_end.write_all(b"whole").unwrap();
    drop(other_end);
    assert_eq!(client::rest(stream(said.handle)).unwrap(), "whole");
}

on_each_node!(net_server);
/// net-listen-handle-in-cluster-1, child-process-fork-net-server: both sides accept on one listener.
async fn net_server(run: Run) {
    let mut stage = run.stage("handles.js", "takes_server").await;
    let worker = stage.fork().await;
    assert_eq!(stage.message(&worker).await, "ready");
    let listener = TcpListener::bind(client::local(0)).unwrap();
    let address = listener.local_addr().unwrap();
    worker.send_with_handle("listen", listener.try_clone().unwrap()).unwrap();
    assert_eq!(stage.message(&worker).await, json!({ "listening": true, "address": address.port() }));
    assert_eq!(client::ask(address).unwrap(), "1");
    assert!(!stage.kinds(&worker).contains(&"listening"), "the primary is not asked");
    // Whoever accepts first has the next; with the worker gone it is us.
    worker.kill(Signal::KILL).unwrap();
    stage.gone(&worker).await;
    let client = client::connect(address).unwrap();
    listener.set_nonblocking(false).unwrap();
    client::accept(&listener).write_all(b"primary").unwrap();
    assert_eq!(client::rest(client).unwrap(), "primary");
}

on_each_node!(net_server_to_primary);
/// child-process-fork-net-server, the other way.
async fn net_server_to_primary(run: Run) {
    let mut stage = run.stage("handles.js", "sends_server").await;
    let worker = stage.fork().await;
    let said = stage.said(&worker).await;
    let Some(Handle::TcpListener(listener)) = said.handle else { panic!("no listener: {said:?}") };
    assert_eq!(said.value["port"], listener.local_addr().unwrap().port());
}

on_each_node!(net_socket);
/// child-process-fork-net-socket, cluster-send-socket-to-worker-http-server as far as it is the channel's
async fn net_socket(run: Run) {
    let mut stage = run.stage("handles.js", "takes_socket").await;
    let worker = stage.fork().await;
    assert_eq!(stage.message(&worker).await, "ready");
    let (ours, theirs) = connection();
    worker.send_with_handle("first", theirs).unwrap();
    assert_eq!(client::rest(ours).unwrap(), "first: echo");
}

on_each_node!(fork_net);
/// child-process-fork-net: twelve sockets over three workers.
async fn fork_net(run: Run) {
    let mut stage = run.stage("handles.js", "takes_socket").await;
    let workers = stage.fork_many(3).await;
    for worker in &workers {
        assert_eq!(stage.message(worker).await, "ready");
    }
    let mut ends = Vec::new();
    for number in 0..12 {
        let (ours, theirs) = connection();
        workers[number % 3].send_with_handle(&number, theirs).unwrap();
        ends.push(ours);
    }
    for (number, end) in ends.into_iter().enumerate() {
        assert_eq!(client::rest(end).unwrap(), format!("{number}: echo"));
    }
}

on_each_node!(closed_channel);
/// child-process-fork-closed-channel-segfault: what can't be sent any more is closed.
async fn closed_channel(run: Run) {
    let mut stage = run.stage("handles.js", "exits_with_first").await;
    let worker = stage.fork().await;
    assert_eq!(stage.message(&worker).await, "ready");
    let mut ends = Vec::new();
    for number in 0..10 {
        let (ours, theirs) = connection();
        // The channel may be known to have closed by then, or not yet.
        let _ = worker.send_with_handle(&number, theirs);
        ends.push(ours);
    }
    assert_eq!(stage.gone(&worker).await, ExitStatus::Code(42));
    for end in ends {
        // An end or a reset; not silence.
        assert_eq!(client::rest(end).unwrap_or_default(), "");
    }
    let (_ours, theirs) = connection();
    assert!(worker.send_with_handle("late", theirs).is_err());
}

on_each_node!(fork_dgram);
/// child-process-fork-dgram
async fn fork_dgram(run: Run) {
    let mut stage = run.stage("handles.js", "takes_dgram").await;
    let worker = stage.fork().await;
    assert_eq!(stage.message(&worker).await, "ready");
    let ours = UdpSocket::bind(client::local(0)).unwrap();
    ours.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    let address = ours.local_addr().unwrap();
    worker.send_with_handle("read", ours.try_clone().unwrap()).unwrap();
    assert_eq!(stage.message(&worker).await, "bound");
    let sender = UdpSocket::bind(client::local(0)).unwrap();
    sender.send_to(b"to the worker", address).unwrap();
    assert_eq!(stage.message(&worker).await, json!({ "text": "to the worker" }));
    drop(worker.disconnect());
    worker.kill(Signal::KILL).unwrap();
    stage.gone(&worker).await;
    ours.set_nonblocking(false).unwrap();
    sender.send_to(b"to the primary", address).unwrap();
    let mut buffer = [0; 32];
    let (length, _) = ours.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"to the primary");
}

on_each_node!(dgram_to_primary);
/// child-process-fork-dgram, the other way.
async fn dgram_to_primary(run: Run) {
    let mut stage = run.stage("handles.js", "sends_dgram").await;
    let worker = stage.fork().await;
    let said = stage.said(&worker).await;
    let Some(Handle::UdpSocket(socket)) = said.handle else { panic!("no socket: {said:?}") };
    assert_eq!(said.value["port"], socket.local_addr().unwrap().port());
}

on_each_node!(pass_fd);
/// child-process-pass-fd: eight workers with ten sockets each.
async fn pass_fd(run: Run) {
    const WORKERS: usize = 8;
    let (listener, port) = client::listener();
    let mut stage = run.stage_with("handles.js", "sends_many", &json!({ "port": port })).await;
    stage.begin_to_read().await;
    for worker in stage.fork_many(WORKERS).await {
        stage.online(&worker).await;
    }
    let mut others: Vec<_> = (0..WORKERS * 10).map(|_| client::accept(&listener)).collect();
    let mut numbers = BTreeSet::new();
    for _ in 0..others.len() {
        let said = stage.anybody().await;
        let mut received = stream(said.handle);
        let local = said.value["local"].as_u64().unwrap();
        let other =
            others.iter_mut().find(|other| u64::from(other.peer_addr().unwrap().port()) == local).unwrap();
        let number = said.value["number"].as_str().unwrap().to_owned();
        received.write_all(number.as_bytes()).unwrap();
        assert_eq!(client::bytes(&mut *other, number.len()).unwrap(), number);
        other.write_all(number.as_bytes()).unwrap();
        assert_eq!(client::bytes(&mut received, number.len()).unwrap(), number);
        numbers.insert(number);
    }
    assert_eq!(numbers.len(), others.len());
}

on_each_node!(keep_open);
/// child-process-send-keep-open
async fn keep_open(run: Run) {
    let (listener, port) = client::listener();
    let mut stage = run.stage_with("handles.js", "keeps_open", &json!({ "port": port })).await;
    let worker = stage.fork().await;
    let mut other_end = client::accept(&listener);
    let mut received = stream(stage.said(&worker).await.handle);
    assert_eq!(client::bytes(&mut other_end, 16).unwrap(), "from the worker\n");
    received.write_all(b"from the primary").unwrap();
    assert_eq!(client::bytes(&mut other_end, 16).unwrap(), "from the primary");
}

on_each_node!(gives_away);
/// child-process-fork-getconnections and -fork-net: whoever gave its connections away gets an answer when it asks
/// how many are left, and when it closes.
async fn gives_away(run: Run) {
    let mut stage = run.stage("handles.js", "gives_away").await;
    let worker = stage.fork().await;
    let port =
        stage.message(&worker).await["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap();
    let client = client::connect(client::local(port)).unwrap();
    let mut received = stream(stage.said(&worker).await.handle);
    received.write_all(b"served by the primary").unwrap();
    drop(received);
    assert_eq!(client::rest(client).unwrap(), "served by the primary");
    let told = stage.message(&worker).await;
    assert!(told["error"].is_null() && told["count"].is_u64(), "{told}");
    assert_eq!(stage.message(&worker).await, "closed");
}

on_each_node!(unix_stream);
/// What Node's tests have for TCP alone: a connection over a Unix socket.
async fn unix_stream(run: Run) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let mut stage = run.stage_with("handles.js", "sends_pipe", &json!({ "path": path })).await;
    let worker = stage.fork().await;
    let (mut other_end, _) = listener.accept().unwrap();
    let said = stage.said(&worker).await;
    let Some(Handle::UnixStream(received)) = said.handle else { panic!("no stream: {said:?}") };
    received.set_nonblocking(false).unwrap();
    other_end.write_all(b"hello").unwrap();
    drop(other_end);
    assert_eq!(client::rest(received).unwrap(), "hello");
}
