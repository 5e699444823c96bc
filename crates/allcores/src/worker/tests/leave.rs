//! The ways to go.

use std::future::poll_fn;
use std::io::{self, Write};

use allcores_core::channel::Incoming;
use tokio::io::AsyncReadExt;
use tokio::sync::watch;

use super::listen::{listen_by_handoff, listen_by_lane};
use super::support::{Primary, connection, soon};
use crate::ErrorKind;

#[tokio::test]
async fn a_worker_that_disconnects_closes_says_so_waits_and_closes_the_channel() {
    let (mut primary, worker) = Primary::with_worker().await;
    let mut listener = listen_by_handoff(&mut primary, &worker, "k").await;
    let seq = primary.hand_over("k", connection().0);
    primary.settle(&worker).await;
    assert_eq!(worker.exited_after_disconnect(), None);
    let shutdown = worker.shutdown();
    let leaving = tokio::spawn({
        let worker = worker.clone();
        async move { worker.disconnect().await }
    });
    assert_eq!(primary.hear_close().await, "k");
    assert_eq!(primary.hear_accepted().await, (seq, false));
    let Incoming::Leaving { seq } = primary.hear().await else { panic!("it does not say that it leaves") };
    soon(shutdown).await;
    assert!(worker.is_connected(), "it has not been let go");
    let line = primary.speaker.acknowledge(seq);
    primary.sender.send(line, None);
    primary.hear_end().await;
    soon(leaving).await.unwrap();
    assert_eq!((worker.is_connected(), worker.exited_after_disconnect()), (false, Some(true)));
    assert_eq!(listener.accept().await.unwrap_err().kind(), io::ErrorKind::NotConnected);
    soon(worker.disconnect()).await;
}

#[tokio::test]
async fn a_worker_that_is_told_to_go_closes_and_keeps_the_channel_until_it_is_done() {
    let (mut primary, worker) = Primary::with_worker().await;
    let mut listener = listen_by_handoff(&mut primary, &worker, "k").await;
    let accept = tokio::spawn(async move { listener.accept().await.map(drop) });
    let asking = tokio::spawn({
        let worker = worker.clone();
        async move { worker.listen("127.0.0.1:7002").await.map(drop) }
    });
    let query = primary.hear_query().await;
    let shutdown = worker.shutdown();
    let line = primary.speaker.disconnect();
    primary.sender.send(line, None);
    assert_eq!(primary.hear_close().await, "k");
    assert_eq!(soon(asking).await.unwrap().unwrap_err().kind(), ErrorKind::Disconnected);
    // The two have crossed.
    primary.answer_by_handoff(&query, "late", None);
    assert_eq!(primary.hear_close().await, "late");
    soon(shutdown).await;
    assert_eq!(soon(accept).await.unwrap().unwrap_err().kind(), io::ErrorKind::NotConnected);
    assert_eq!((worker.is_connected(), worker.exited_after_disconnect()), (true, Some(true)));
    let late = primary.hand_over("k", connection().0);
    assert_eq!(primary.hear_accepted().await, (late, false));
    let error = soon(worker.listen("127.0.0.1:7001")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disconnected, "Node's primary would never answer");
    assert!(worker.send("bye").unwrap());
    soon(worker.disconnect()).await;
    assert_eq!(primary.hear().await, Incoming::User(r#""bye""#.into()));
    primary.hear_end().await;
    assert_eq!(worker.send("late").unwrap_err().kind(), ErrorKind::Disconnected);
}

#[tokio::test]
async fn a_worker_that_kills_itself_is_known_to_go_of_its_own_will() {
    let (mut primary, worker) = Primary::with_worker().await;
    let mut listener = listen_by_handoff(&mut primary, &worker, "k").await;
    worker.kill();
    worker.kill();
    assert_eq!(primary.hear_close().await, "k");
    let Incoming::Leaving { seq } = primary.hear().await else { panic!("it does not say that it leaves") };
    let line = primary.speaker.acknowledge(seq);
    primary.sender.send(line, None);
    primary.hear_end().await;
    soon(worker.shutdown()).await;
    assert_eq!(worker.exited_after_disconnect(), Some(true));
    assert_eq!(soon(listener.accept()).await.unwrap_err().kind(), io::ErrorKind::NotConnected);
}

#[tokio::test]
async fn a_primary_that_goes_ends_all_waiting_and_takes_back_what_was_not_accepted() {
    let (mut primary, worker) = Primary::with_worker().await;
    let mut listener = listen_by_handoff(&mut primary, &worker, "k").await;
    primary.hand_over("k", connection().0);
    primary.settle(&worker).await;
    let asking = tokio::spawn({
        let worker = worker.clone();
        async move { worker.listen("127.0.0.1:7001").await.map(drop) }
    });
    primary.hear_query().await;
    drop(primary);
    soon(worker.shutdown()).await;
    assert_eq!(soon(asking).await.unwrap().unwrap_err().kind(), ErrorKind::Disconnected);
    // The primary has a copy of it, which it gives to another: it must not be served twice.
    assert_eq!(soon(listener.accept()).await.unwrap_err().kind(), io::ErrorKind::NotConnected);
    assert!(soon(worker.next_message()).await.is_none());
    assert_eq!((worker.is_connected(), worker.exited_after_disconnect()), (false, Some(false)));
}

#[tokio::test]
async fn one_that_has_lost_its_primary_serves_its_lane_until_it_is_to_stop() {
    for is_killed in [false, true] {
        let (mut primary, worker) = Primary::with_worker().await;
        let (mut listener, address) = listen_by_lane(&mut primary, &worker, "k").await;
        drop(primary);
        soon(worker.shutdown()).await;
        let _client = std::net::TcpStream::connect(address).unwrap();
        soon(listener.accept()).await.unwrap();
        let accept = tokio::spawn(async move { listener.accept().await.map(drop) });
        tokio::task::yield_now().await;
        if is_killed {
            worker.kill();
        } else {
            soon(worker.disconnect()).await;
        }
        assert_eq!(soon(accept).await.unwrap().unwrap_err().kind(), io::ErrorKind::NotConnected);
        assert_eq!(worker.exited_after_disconnect(), Some(false), "it was lost before");
    }
}

/// Whoever is first may be anywhere in it when the second begins.
#[tokio::test]
async fn of_two_that_disconnect_at_once_neither_closes_the_channel_before_the_primary_has_heard() {
    let (mut primary, worker) = Primary::with_worker().await;
    worker.link.leave();
    let leaving = tokio::spawn({
        let worker = worker.clone();
        async move { worker.disconnect().await }
    });
    let Incoming::Leaving { seq } = primary.hear().await else { panic!("it does not say that it leaves") };
    let line = primary.speaker.acknowledge(seq);
    primary.sender.send(line, None);
    primary.hear_end().await;
    soon(leaving).await.unwrap();
}

/// Between the two steps of whoever accepts, another thread has the listener closed.
#[tokio::test]
async fn a_connection_is_refused_that_was_taken_while_its_listener_was_closed() {
    let (mut primary, worker) = Primary::with_worker().await;
    let grant = worker.link.grant_alone().unwrap();
    let seq = primary.hand_over("own:1", connection().0);
    primary.settle(&worker).await;
    let Ok(handed) = poll_fn(|context| grant.intake.poll_take(context)).await else { panic!("none came") };
    assert_eq!(handed.seq, seq);
    worker.link.told_to_go();
    assert!(!worker.link.accept(&grant, seq), "another worker has it by now");
    assert_eq!(primary.hear_close().await, "own:1");
    assert_eq!(primary.hear_accepted().await, (seq, false));
}

#[tokio::test]
async fn a_connection_is_not_served_if_the_primary_can_not_hear_that_it_was_taken() {
    let (mut primary, worker) = Primary::with_worker().await;
    let grant = worker.link.grant_alone().unwrap();
    let seq = primary.hand_over("own:1", connection().0);
    primary.settle(&worker).await;
    drop(primary);
    // Also before our own side has noticed.
    assert!(!worker.link.accept(&grant, seq));
}

/// As hyper does: a connection that is told of the end before it has read anything is closed.
#[tokio::test]
async fn who_was_accepted_is_read_before_a_server_is_told_to_end() {
    let (mut primary, worker) = Primary::with_worker().await;
    let mut listener = listen_by_handoff(&mut primary, &worker, "k").await;
    let (end, ended) = watch::channel(false);
    let shutdown = worker.shutdown();
    let ending = tokio::spawn(async move {
        shutdown.await;
        end.send(true).unwrap();
    });
    let mut clients = Vec::new();
    for _ in 0..3 {
        let (connection, mut client) = connection();
        client.write_all(b"request").unwrap();
        primary.hand_over("k", connection);
        clients.push(client);
    }
    primary.settle(&worker).await;
    let mut serving = Vec::new();
    for _ in &clients {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut ended = ended.clone();
        serving.push(tokio::spawn(async move {
            let mut request = [0; 7];
            tokio::select! {
                biased;
                _ = ended.wait_for(|has_ended| *has_ended) => false,
                read = stream.read(&mut request) => read.unwrap() > 0,
            }
        }));
    }
    // What the channel's thread does when it is told to, before anything else has its turn here.
    worker.link.told_to_go();
    for connection in serving {
        assert!(soon(connection).await.unwrap(), "it was closed unread");
    }
    soon(ending).await.unwrap();
}

#[tokio::test]
async fn who_waits_until_all_is_written_and_looks_no_more_keeps_no_channel_open() {
    let (mut primary, worker) = Primary::with_worker().await;
    let text = "x".repeat(1000);
    let mut sent = 1;
    while worker.send(&text).unwrap() {
        sent += 1;
    }
    let mut drained = std::pin::pin!(worker.drained());
    tokio::select! {
        biased;
        () = &mut drained => panic!("nobody has read it"),
        () = std::future::ready(()) => {}
    }
    for _ in 0..sent {
        assert!(matches!(primary.hear().await, Incoming::User(_)));
    }
    worker.kill();
    let Incoming::Leaving { seq } = primary.hear().await else { panic!("it does not say that it leaves") };
    let line = primary.speaker.acknowledge(seq);
    primary.sender.send(line, None);
    primary.hear_end().await;
    soon(worker.disconnect()).await;
    soon(drained).await;
}
