//! Sockets that travel with messages.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use allcores::{ClusterSettings, ErrorKind, Event, ExitStatus, Handle};
use allcores_parity::client;
use allcores_parity::stage::Seen;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::json;

use crate::{play, stage};

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

/// cluster-net-send, child-process-send-keep-open: a copy stays usable.
#[test]
fn net_send() {
    play(async {
        let (listener, port) = client::listener();
        let connect = json!({ "connect": { "to": client::local(port), "and_write": "kept" } });
        let mut stage = stage(json!([connect])).await;
        let worker = stage.fork().await;
        let mut other_end = client::accept(&listener);
        let said = stage.said(&worker).await;
        assert_eq!(said.value, "connection");
        let received = stream(said.handle);
        assert_eq!(client::bytes(&mut other_end, 4).unwrap(), "kept");
        other_end.write_all(b"hello").unwrap();
        drop(other_end);
        assert_eq!(client::rest(received).unwrap(), "hello");
    });
}

/// sequential/cluster-send-handle-large-payload, in both directions.
#[test]
fn large_payload() {
    play(async {
        let mut stage = stage(json!(["echo"])).await;
        let worker = stage.fork().await;
        let (mut ours, theirs) = connection();
        worker.send_with_handle(&"x".repeat(LONG), theirs).unwrap();
        let said = stage.said(&worker).await;
        assert_eq!(said.value.as_str().map(str::len), Some(LONG));
        ours.write_all(b"there and back").unwrap();
        drop(ours);
        assert_eq!(client::rest(stream(said.handle)).unwrap(), "there and back");
    });
}

/// net-listen-handle-in-cluster-1, child-process-fork-net-server: both sides accept on one listener.
#[test]
fn net_server() {
    play(async {
        let mut stage = stage(json!([])).await;
        let worker = stage.fork().await;
        let listener = TcpListener::bind(client::local(0)).unwrap();
        let address = listener.local_addr().unwrap();
        worker.send_with_handle("serve", listener.try_clone().unwrap()).unwrap();
        assert_eq!(stage.message(&worker).await, json!({ "listening": address.port() }));
        assert_eq!(client::ask(address).unwrap(), "1");
        assert!(!stage.kinds(&worker).contains(&"listening"), "the primary is not asked");
        worker.disconnect().await;
        let client = client::connect(address).unwrap();
        listener.set_nonblocking(false).unwrap();
        client::accept(&listener).write_all(b"primary").unwrap();
        assert_eq!(client::rest(client).unwrap(), "primary");
    });
}

/// child-process-fork-net-server and -fork-dgram, from the worker.
#[test]
fn servers_to_primary() {
    play(async {
        let mut stage = stage(json!(["send_listener", "send_udp"])).await;
        let worker = stage.fork().await;
        let said = stage.said(&worker).await;
        let Some(Handle::TcpListener(listener)) = said.handle else { panic!("no listener: {said:?}") };
        assert_eq!(said.value, listener.local_addr().unwrap().port());
        let said = stage.said(&worker).await;
        let Some(Handle::UdpSocket(socket)) = said.handle else { panic!("no socket: {said:?}") };
        assert_eq!(said.value, socket.local_addr().unwrap().port());
    });
}

/// child-process-fork-net, child-process-fork-net-socket: twelve sockets over three workers.
#[test]
fn fork_net() {
    play(async {
        let stage = stage(json!([])).await;
        let workers = stage.fork_many(3).await;
        let mut ends = Vec::new();
        for number in 0..12 {
            let (ours, theirs) = connection();
            workers[number % 3].send_with_handle("serve", theirs).unwrap();
            ends.push(ours);
        }
        for (number, end) in ends.into_iter().enumerate() {
            assert_eq!(client::rest(end).unwrap(), workers[number % 3].id().to_string());
        }
    });
}

/// child-process-fork-closed-channel-segfault: what can't be sent any more is closed.
#[test]
fn closed_channel() {
    play(async {
        let mut stage = stage(json!([])).await;
        let worker = stage.fork().await;
        stage.online(&worker).await;
        worker.send(&json!({ "exit": 42 })).unwrap();
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
        let (ours, theirs) = connection();
        let error = worker.send_with_handle("late", theirs).unwrap_err();
        assert_eq!(error.error().kind(), ErrorKind::Disconnected);
        stream(error.into_handle()).write_all(b"still ours").unwrap();
        assert_eq!(client::rest(ours).unwrap(), "still ours");
    });
}

/// child-process-fork-dgram
#[test]
fn fork_dgram() {
    play(async {
        let mut stage = stage(json!([])).await;
        let worker = stage.fork().await;
        let ours = UdpSocket::bind(client::local(0)).unwrap();
        let address = ours.local_addr().unwrap();
        worker.send_with_handle("serve", ours.try_clone().unwrap()).unwrap();
        assert_eq!(stage.message(&worker).await, "bound");
        let sender = UdpSocket::bind(client::local(0)).unwrap();
        sender.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
        sender.send_to(b"to the worker", address).unwrap();
        assert_eq!(stage.message(&worker).await, json!({ "datagram": "to the worker" }));
        let mut buffer = [0; 32];
        let length = sender.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"1");
        worker.disconnect().await;
        ours.set_nonblocking(false).unwrap();
        sender.send_to(b"to the primary", address).unwrap();
        let (length, _) = ours.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"to the primary");
    });
}

/// child-process-pass-fd: eight workers with ten sockets each.
#[test]
fn pass_fd() {
    play(async {
        const EACH: usize = 10;
        let (listener, port) = client::listener();
        let connect = json!({ "connect": { "to": client::local(port) } });
        let mut stage = stage(json!(vec![connect; EACH])).await;
        // Whoever has asked for an event once loses none.
        stage.cluster.setup(ClusterSettings::new()).unwrap();
        assert!(matches!(stage.cluster.next_event().await, Some(Event::Setup { .. })));
        let workers = stage.fork_many(8).await;
        let count = workers.len() * EACH;
        let mut others: Vec<_> = (0..count).map(|_| client::accept(&listener)).collect();
        let mut ports = BTreeSet::new();
        for _ in 0..count {
            let mut received = stream(stage.anybody().await.handle);
            let local = received.local_addr().unwrap();
            let other = others.iter_mut().find(|other| other.peer_addr().unwrap() == local).unwrap();
            received.write_all(b"there").unwrap();
            assert_eq!(client::bytes(&mut *other, 5).unwrap(), "there");
            other.write_all(b"back").unwrap();
            assert_eq!(client::bytes(&mut received, 4).unwrap(), "back");
            ports.insert(local.port());
        }
        assert_eq!(ports.len(), count);
    });
}

/// What Node's tests have for TCP alone: a connection of a Unix socket.
#[test]
fn unix_stream() {
    play(async {
        let stage = stage(json!([])).await;
        let worker = stage.fork().await;
        let (ours, theirs) = UnixStream::pair().unwrap();
        worker.send_with_handle("serve", theirs).unwrap();
        assert_eq!(client::rest(ours).unwrap(), "1");
    });
}

/// listen-fd-server, listen-fd-detached: an inherited listener serves when whoever gave it has closed it.
#[test]
fn inherited() {
    play(async {
        let mut stage = stage(json!([{ "inherited": 4 }])).await;
        let listener = TcpListener::bind(client::local(0)).unwrap();
        let address = listener.local_addr().unwrap();
        let fork = allcores::Fork::new().descriptor(listener);
        let worker = stage.cluster.fork_with(fork).await.unwrap();
        assert_eq!(stage.message(&worker).await, json!({ "listening": address.port() }));
        assert_eq!(client::ask(address).unwrap(), "1");
    });
}

/// A worker that can't take in what it is sent, and not when it is sent again either: Node's primary warns of that
/// (`SentHandleNotReceivedWarning`), and here it is an event. What is behind it gets through.
#[test]
fn not_received() {
    play(async {
        let mut stage = stage(json!([{ "say": "ready" }, "echo"])).await;
        let worker = stage.fork().await;
        assert_eq!(stage.message(&worker).await, "ready");
        // No descriptor is left for it.
        let limit = Rlimit { current: Some(0), maximum: Some(0) };
        let pid = Pid::from_raw(i32::try_from(worker.pid()).unwrap());
        prlimit(pid, Resource::Nofile, limit).unwrap();
        worker.send_with_handle("lost", connection().0).unwrap();
        worker.send("behind").unwrap();
        let error = stage
            .until("what was not received is told", |seen| {
                seen.iter().find_map(|seen| match seen {
                    Seen::Wrong(error) => Some(error.clone()),
                    _ => None,
                })
            })
            .await;
        assert!(error.contains("could not take the socket in"), "{error}");
        assert_eq!(stage.message(&worker).await, "behind");
    });
}
