//! Messages and handles, both ways, and many of them.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use allcores_core::channel::{HandleKind, Incoming, user_with_handle};

use super::support::{BOUND, Primary, connection, soon};
use crate::worker::Worker;
use crate::worker::inbox::{HANDLES, LIMIT};
use crate::{ErrorKind, Handle};

fn number(text: &str) -> usize {
    text.parse().unwrap()
}

#[tokio::test]
async fn messages_go_both_ways_in_order_and_as_any_type() {
    let (mut primary, worker) = Primary::with_worker().await;
    assert!(worker.send(&("a\nb\u{2028}", 1.5, None::<u8>)).unwrap());
    assert_eq!(primary.hear().await, Incoming::User("[\"a\\nb\u{2028}\",1.5,null]".into()));
    primary.sender.send(r#"{"count":7}"#.into(), None);
    primary.flush().await;
    let message = soon(worker.next_message()).await.unwrap();
    assert_eq!(message.parse::<std::collections::BTreeMap<String, u32>>().unwrap()["count"], 7);
    assert_eq!(message.parse::<u8>().unwrap_err().kind(), ErrorKind::Message);
    for value in 0..10_000 {
        worker.send(&value).unwrap();
    }
    for value in 0..10_000 {
        assert_eq!(primary.hear().await, Incoming::User(value.to_string().into()));
    }
    soon(worker.drained()).await;
}

#[tokio::test]
async fn what_the_other_side_would_end_the_channel_for_is_refused() {
    let (mut primary, worker) = Primary::with_worker().await;
    let error = worker.send(&"x".repeat(64 * 1024 * 1024)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Message);
    let order = serde_json::json!({ "cmd": "NODE_CLUSTER", "act": "close", "key": "k" });
    assert_eq!(worker.send(&order).unwrap_err().kind(), ErrorKind::Message);
    let (socket, _) = std::os::unix::net::UnixStream::pair().unwrap();
    let (error, socket) = worker.send_with_handle(&order, socket).unwrap_err().into_parts();
    assert_eq!((error.kind(), socket.is_some()), (ErrorKind::Message, true));
    worker.send("fine").unwrap();
    assert_eq!(primary.hear().await, Incoming::User(r#""fine""#.into()));
}

#[tokio::test]
async fn a_primary_that_does_not_read_makes_send_advise_to_wait() {
    let (mut primary, worker) = Primary::with_worker().await;
    let text = "x".repeat(1000);
    let mut sent = 0;
    while worker.send(&text).unwrap() {
        sent += 1;
        assert!(sent < 10_000, "the channel takes everything");
    }
    for _ in 0..=sent {
        assert!(matches!(primary.hear().await, Incoming::User(_)));
    }
    soon(worker.drained()).await;
    assert!(worker.send(&text).unwrap());
}

#[tokio::test]
async fn what_nobody_has_asked_for_is_kept_up_to_a_number() {
    let (mut primary, worker) = Primary::with_worker().await;
    for value in 0..LIMIT + 100 {
        primary.sender.send(value.to_string(), None);
    }
    let line = primary.speaker.disconnect();
    primary.sender.send(line, None);
    primary.flush().await;
    // All has been read by then.
    soon(worker.shutdown()).await;
    for value in 0..LIMIT {
        assert_eq!(number(soon(worker.next_message()).await.unwrap().json()), value);
    }
    primary.sender.send("1".into(), None);
    primary.flush().await;
    assert_eq!(number(soon(worker.next_message()).await.unwrap().json()), 1);
}

#[tokio::test]
async fn who_reads_slowly_loses_nothing_and_holds_the_sender_back() {
    let (mut primary, worker) = Primary::with_worker().await;
    primary.settle(&worker).await;
    let text = format!("{:?}", "x".repeat(1000));
    let count = 4 * LIMIT;
    for _ in 0..count {
        primary.sender.send_user(text.clone()).unwrap();
    }
    let sender = primary.sender.clone();
    let (read, heard) = soon(async {
        let read = async {
            // Not one is taken until no more are read.
            while !worker.link.inbox.is_behind() {
                tokio::task::yield_now().await;
            }
            // What is said meanwhile gets through all the same, and what is behind them too, when it is waited for.
            worker.send("meanwhile").unwrap();
            let listening = worker.listen("127.0.0.1:7000").await;
            for _ in 0..count {
                assert_eq!(worker.next_message().await.unwrap().json(), text);
            }
            listening
        };
        let heard = async {
            let heard = primary.hear().await;
            assert!(sender.queued_bytes() > text.len() * count / 2);
            let query = primary.hear_query().await;
            primary.answer_by_handoff(&query, "k", None);
            primary.hear_listening().await;
            heard
        };
        tokio::join!(read, heard)
    })
    .await;
    assert_eq!(heard, Incoming::User(r#""meanwhile""#.into()));
    read.unwrap();
}

/// They would take up all descriptors that its process may have, and those beyond would be lost.
#[tokio::test]
async fn who_takes_sockets_slowly_has_few_of_them_wait_and_loses_none() {
    for has_asked in [true, false] {
        let (mut primary, worker) = Primary::with_worker().await;
        if has_asked {
            primary.settle(&worker).await;
        }
        take_sockets_slowly(primary, worker).await;
    }
}

async fn take_sockets_slowly(mut primary: Primary, worker: Worker) {
    let line = user_with_handle(HandleKind::NetSocket, "1", None);
    let count = 4 * HANDLES;
    let mut is_told_to_wait = false;
    for _ in 0..count {
        let (socket, _) = std::os::unix::net::UnixStream::pair().unwrap();
        is_told_to_wait |= !primary.sender.send_user_with(line.clone(), Arc::new(socket.into())).unwrap();
    }
    assert!(is_told_to_wait, "each is a descriptor of the sender's");
    let sender = primary.sender.clone();
    let read = async {
        // Not one is taken until no more are read.
        while !worker.link.inbox.is_behind() {
            tokio::task::yield_now().await;
        }
        worker.send("behind").unwrap();
        for _ in 0..count {
            let message = worker.next_message().await.unwrap();
            assert!(message.has_handle(), "{message:?}");
        }
        worker.send("all").unwrap();
    };
    let hear = async {
        assert_eq!(primary.hear().await, Incoming::User(r#""behind""#.into()));
        let queued = sender.queued_bytes();
        assert_eq!(primary.hear().await, Incoming::User(r#""all""#.into()));
        queued
    };
    let ((), queued) = soon(async { tokio::join!(read, hear) }).await;
    assert!(queued > 0, "all were taken in at once");
}

/// Its own acknowledgement is behind what has not been taken, and who is to take it waits.
#[tokio::test]
async fn who_is_behind_and_waits_until_a_socket_is_through_does_not_wait_for_ever() {
    let (mut primary, worker) = Primary::with_worker().await;
    primary.settle(&worker).await;
    for number in 0..4 * LIMIT {
        primary.sender.send_user(number.to_string()).unwrap();
    }
    let said = soon(async {
        let say = async {
            while !worker.link.inbox.is_behind() {
                tokio::task::yield_now().await;
            }
            // The channel's thread waits for somebody to take them by now.
            tokio::time::sleep(Duration::from_millis(20)).await;
            let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            worker.send_with_handle("a socket", ours).unwrap();
            worker.send("behind it").unwrap();
            worker.drained().await;
        };
        let hear = async { (primary.hear().await, primary.hear().await) };
        tokio::join!(say, hear).1
    })
    .await;
    assert!(matches!(said.0, Incoming::Handle { .. }), "{said:?}");
    assert_eq!(said.1, Incoming::User(r#""behind it""#.into()));
}

#[tokio::test]
async fn sockets_go_both_ways() {
    let (mut primary, worker) = Primary::with_worker().await;
    let (server, mut client) = connection();
    let line = user_with_handle(HandleKind::NetSocket, r#"{"take":"this"}"#, None);
    primary.sender.send_user_with(line, Arc::new(server.into())).unwrap();
    primary.flush().await;
    let message = soon(worker.next_message()).await.unwrap();
    assert_eq!(message.json(), r#"{"take":"this"}"#);
    let Some(Handle::TcpStream(stream)) = message.take_handle() else { panic!("{message:?}") };
    worker.send_with_handle("back", stream).unwrap();
    let (heard, descriptor) = primary.hear_with_descriptor().await;
    let Incoming::Handle { kind: HandleKind::NetSocket, message, .. } = heard else { panic!("{heard:?}") };
    assert_eq!(*message, Incoming::User(r#""back""#.into()));
    let mut server = std::net::TcpStream::from(descriptor.unwrap());
    server.write_all(b"x").unwrap();
    drop(server);
    primary.settle(&worker).await;
    client.set_read_timeout(Some(BOUND)).unwrap();
    let mut read = String::new();
    client.read_to_string(&mut read).unwrap();
    assert_eq!(read, "x", "and nobody else has it open");
}

#[tokio::test]
async fn each_kind_of_socket_arrives_as_what_it_is() {
    let (mut primary, worker) = Primary::with_worker().await;
    let udp = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (unix, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    worker.send_with_handle("udp", udp).unwrap();
    worker.send_with_handle("listener", listener).unwrap();
    worker.send_with_handle("unix", unix).unwrap();
    worker.send("plain").unwrap();
    for expected in [HandleKind::DgramSocket4, HandleKind::NetServer, HandleKind::NetSocket] {
        let (heard, descriptor) = primary.hear_with_descriptor().await;
        assert!(matches!(heard, Incoming::Handle { kind, .. } if kind == expected), "{heard:?}");
        assert!(Handle::of(descriptor.unwrap()).is_ok());
    }
    assert_eq!(primary.hear().await, Incoming::User(r#""plain""#.into()));
}

#[tokio::test]
async fn a_socket_that_is_not_sent_comes_back() {
    let (primary, worker) = Primary::with_worker().await;
    let (server, mut client) = connection();
    // JSON has no such keys.
    let message = std::collections::BTreeMap::from([((1, 2), 3)]);
    let (error, handle) = worker.send_with_handle(&message, server).unwrap_err().into_parts();
    assert_eq!(error.kind(), ErrorKind::Message);
    drop(primary);
    soon(worker.shutdown()).await;
    let error = worker.send_with_handle("late", handle.unwrap()).unwrap_err();
    assert_eq!(error.error().kind(), ErrorKind::Disconnected);
    let Some(Handle::TcpStream(mut server)) = error.into_handle() else { panic!("it is lost") };
    server.write_all(b"served here").unwrap();
    drop(server);
    let mut read = String::new();
    client.read_to_string(&mut read).unwrap();
    assert_eq!(read, "served here");
    let error: crate::Error = Worker::alone().send_with_handle("", client).unwrap_err().into();
    assert_eq!(error.kind(), ErrorKind::Disconnected);
}

#[tokio::test]
async fn a_node_primary_that_counts_its_connections_is_answered() {
    let (mut primary, _worker) = Primary::with_worker().await;
    let (server, _client) = connection();
    let server = OwnedFd::from(server);
    primary
        .sender
        .send_user_with(user_with_handle(HandleKind::NetSocket, "1", Some("4:a:1")), Arc::new(server))
        .unwrap();
    primary.sender.send(r#"{"cmd":"NODE_SOCKET_NOTIFY_CLOSE","key":"4:a:1"}"#.into(), None);
    let heard = primary.hear().await;
    assert!(format!("{heard:?}").contains("AllClosed"), "{heard:?}");
}
