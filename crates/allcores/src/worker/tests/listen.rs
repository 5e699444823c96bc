//! Listening, in each way that a primary may answer.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use allcores_core::channel::{AddressKind, Ask, FLAG_IPV6_ONLY, Incoming};
use allcores_testing::own_process::is_moved_to_own_process;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::support::{Primary, connection, soon};
use crate::worker::{ListenOptions, Listener, Worker};
use crate::{ErrorKind, Policy};

const ANY: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

fn lane() -> (std::net::TcpListener, SocketAddr) {
    let socket = std::net::TcpListener::bind(ANY).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// A listener that was given a lane, and what the worker asked for.
pub(super) async fn listen_by_lane(
    primary: &mut Primary,
    worker: &Worker,
    key: &str,
) -> (Listener, SocketAddr) {
    let (socket, address) = lane();
    let (listener, ()) = soon(async {
        tokio::join!(worker.listen(address), async {
            let query = primary.hear_query().await;
            primary.give(&query, key, socket);
            assert_eq!(primary.hear_listening().await, i64::from(address.port()));
        })
    })
    .await;
    (listener.unwrap(), address)
}

pub(super) async fn listen_by_handoff(primary: &mut Primary, worker: &Worker, key: &str) -> Listener {
    let address: SocketAddr = "127.0.0.1:7000".parse().unwrap();
    let (listener, ()) = soon(async {
        tokio::join!(worker.listen(address), async {
            let query = primary.hear_query().await;
            primary.answer_by_handoff(&query, key, Some(address));
            assert_eq!(primary.hear_listening().await, 7000);
        })
    })
    .await;
    listener.unwrap()
}

#[tokio::test]
async fn a_lane_is_accepted_from_and_its_port_is_told() {
    let (mut primary, worker) = Primary::with_worker().await;
    let (mut listener, address) = listen_by_lane(&mut primary, &worker, "k").await;
    assert_eq!(listener.local_addr().unwrap(), address);
    let client = std::net::TcpStream::connect(address).unwrap();
    let (_, peer) = soon(listener.accept()).await.unwrap();
    assert_eq!(peer, client.local_addr().unwrap());
}

#[tokio::test]
async fn the_query_says_all_that_was_asked_for() {
    let (mut primary, worker) = Primary::with_worker().await;
    let options = ListenOptions::new().policy(Policy::RoundRobin).backlog(33).ipv6_only(true);
    let (result, query) = soon(async {
        tokio::join!(worker.listen_with("[::1]:81", options), async {
            let query = primary.hear_query().await;
            let line = primary.speaker.refuse_listener(&query, "k", libc::EACCES);
            primary.sender.send(line, None);
            primary.flush().await;
            query
        })
    })
    .await;
    assert_eq!((query.kind, query.port, query.address.as_deref()), (AddressKind::Tcp6, 81, Some("::1")));
    assert_eq!((query.flags, query.backlog, query.is_crate), (FLAG_IPV6_ONLY, 33, true));
    assert_eq!(query.policy.as_deref(), Some("round-robin"));
    assert_eq!(result.unwrap_err().kind(), ErrorKind::AddressUnavailable);
}

#[tokio::test]
async fn an_errno_is_the_error_that_one_gets_without_a_primary() {
    let (mut primary, worker) = Primary::with_worker().await;
    let (result, ()) = soon(async {
        tokio::join!(worker.listen("127.0.0.1:80"), async {
            let query = primary.hear_query().await;
            let line = primary.speaker.refuse_listener(&query, "k", libc::EADDRINUSE);
            primary.sender.send(line, None);
            primary.flush().await;
        })
    })
    .await;
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddressUnavailable);
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::AddrInUse);
}

#[tokio::test]
async fn an_address_of_one_interface_is_asked_for_with_it() {
    let (mut primary, worker) = Primary::with_worker().await;
    // The first interface of each network namespace.
    let address = SocketAddrV6::new("fe80::1".parse().unwrap(), 7000, 0, 1);
    let query = tokio::select! {
        _ = worker.listen(address) => panic!("not answered yet"),
        query = primary.hear_query() => query,
    };
    assert_eq!(query.address.as_deref(), Some("fe80::1%lo"));
}

#[tokio::test]
async fn a_listener_that_there_is_no_room_for_is_an_error_and_is_given_back() {
    let (mut primary, worker) = Primary::with_worker().await;
    let (result, ()) = soon(async {
        tokio::join!(worker.listen("127.0.0.1:7000"), async {
            let query = primary.hear_query().await;
            // As if the descriptor that came with it had met a full table.
            let line = primary.speaker.give_listener(&query, "k");
            primary.sender.send(line, None);
            assert_eq!(primary.hear_close().await, "k");
        })
    })
    .await;
    let error = io::Error::from(result.unwrap_err());
    let source = std::error::Error::source(error.get_ref().unwrap()).unwrap();
    let source = source.downcast_ref::<io::Error>().unwrap();
    assert_eq!(source.raw_os_error(), Some(libc::EMFILE));
}

/// Whoever waits for the answer may be on another thread, and ask for the same again as soon as it is there.
#[tokio::test]
async fn an_address_is_free_again_when_it_is_told_that_there_is_no_room_for_it() {
    struct Look(Worker, AtomicBool);
    impl Wake for Look {
        fn wake(self: Arc<Self>) {
            let reserved = self.0.link.places.reserve(AddressKind::Tcp4, Some("127.0.0.1"), 7000);
            self.1.store(reserved.is_ok(), Ordering::Relaxed);
        }
    }
    let (mut primary, worker) = Primary::with_worker().await;
    let place = worker.link.places.reserve(AddressKind::Tcp4, Some("127.0.0.1"), 7000).unwrap();
    let ask = Ask::new(AddressKind::Tcp4, Some("127.0.0.1".into()), 7000);
    let mut asking = std::pin::pin!(worker.link.ask(&ask, place));
    let look = Arc::new(Look(worker.clone(), AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&look));
    assert!(asking.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let query = primary.hear_query().await;
    worker.link.answer_lost(query.seq, "k");
    assert!(look.1.load(Ordering::Relaxed), "it is taken still");
    assert_eq!(soon(asking).await.unwrap_err().raw_os_error(), Some(libc::EMFILE));
    assert_eq!(primary.hear_close().await, "k");
}

#[tokio::test]
async fn a_connection_that_is_handed_over_is_acknowledged_when_it_is_accepted_and_not_before() {
    let (mut primary, worker) = Primary::with_worker().await;
    let mut listener = listen_by_handoff(&mut primary, &worker, "k").await;
    assert_eq!(listener.local_addr().unwrap().port(), 7000);
    let (server, client) = connection();
    let seq = primary.hand_over("k", server);
    primary.settle(&worker).await;
    let (stream, peer) = soon(listener.accept()).await.unwrap();
    assert_eq!(peer, client.local_addr().unwrap());
    assert_eq!(primary.hear_accepted().await, (seq, true));
    // It does not block, though the primary left it so.
    assert_eq!(stream.try_read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn a_client_that_has_gone_is_passed_over() {
    let (mut primary, worker) = Primary::with_worker().await;
    let mut listener = listen_by_handoff(&mut primary, &worker, "k").await;
    let (server, gone) = connection();
    rustix::net::sockopt::set_socket_linger(&gone, Some(std::time::Duration::ZERO)).unwrap();
    drop(gone);
    let gone = primary.hand_over("k", server);
    let (server, client) = connection();
    let next = primary.hand_over("k", server);
    primary.settle(&worker).await;
    let (_, peer) = soon(listener.accept()).await.unwrap();
    assert_eq!(peer, client.local_addr().unwrap());
    // Neither is for another worker.
    assert_eq!((primary.hear_accepted().await, primary.hear_accepted().await), ((gone, true), (next, true)));
}

#[tokio::test]
async fn connections_that_follow_the_answer_at_once_are_not_lost() {
    let (mut primary, worker) = Primary::with_worker().await;
    let ((server, _client), address) = (connection(), "127.0.0.1:7000".parse().unwrap());
    let (listener, seq) = soon(async {
        tokio::join!(worker.listen(address), async {
            let query = primary.hear_query().await;
            primary.answer_by_handoff(&query, "k", Some(address));
            let seq = primary.hand_over("k", server);
            primary.hear_listening().await;
            seq
        })
    })
    .await;
    soon(listener.unwrap().accept()).await.unwrap();
    assert_eq!(primary.hear_accepted().await, (seq, true));
}

#[tokio::test]
async fn neither_the_lane_nor_what_is_handed_over_starves_the_other() {
    let (mut primary, worker) = Primary::with_worker().await;
    let (mut listener, address) = listen_by_lane(&mut primary, &worker, "k").await;
    let own: Vec<_> = (0..9).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
    // From here on the reactor knows that there is something in the lane.
    soon(listener.accept()).await.unwrap();
    let handed: Vec<_> = (0..8).map(|_| connection()).collect();
    for (server, _) in &handed {
        primary.hand_over("k", server.try_clone().unwrap());
    }
    primary.settle(&worker).await;
    let mut is_own = Vec::new();
    for _ in 0..8 {
        let (_, peer) = soon(listener.accept()).await.unwrap();
        is_own.push(own.iter().any(|client| client.local_addr().unwrap() == peer));
    }
    assert_eq!(is_own.iter().filter(|is_own| **is_own).count(), 4, "{is_own:?}");
}

#[tokio::test]
async fn a_dropped_listener_is_closed_and_what_waited_is_given_back() {
    let (mut primary, worker) = Primary::with_worker().await;
    let listener = listen_by_handoff(&mut primary, &worker, "k").await;
    let seq = primary.hand_over("k", connection().0);
    primary.settle(&worker).await;
    drop(listener);
    assert_eq!(primary.hear_close().await, "k");
    assert_eq!(primary.hear_accepted().await, (seq, false));
    let late = primary.hand_over("k", connection().0);
    assert_eq!(primary.hear_accepted().await, (late, false));
    // And it may be listened on again.
    listen_by_handoff(&mut primary, &worker, "k2").await;
}

#[tokio::test]
async fn an_accept_that_is_given_up_loses_nothing() {
    let (mut primary, worker) = Primary::with_worker().await;
    let mut listener = listen_by_handoff(&mut primary, &worker, "k").await;
    {
        let mut accept = std::pin::pin!(listener.accept());
        tokio::select! {
            biased;
            _ = &mut accept => panic!("nothing has come"),
            () = std::future::ready(()) => {}
        }
        primary.hand_over("k", connection().0);
        primary.settle(&worker).await;
    }
    soon(listener.accept()).await.unwrap();
    assert!(primary.hear_accepted().await.1);
}

#[tokio::test]
async fn a_listener_that_nobody_waits_for_any_more_is_given_back() {
    let (mut primary, worker) = Primary::with_worker().await;
    let query = tokio::select! {
        _ = worker.listen("127.0.0.1:7000") => panic!("not answered yet"),
        query = primary.hear_query() => query,
    };
    primary.answer_by_handoff(&query, "k", None);
    assert_eq!(primary.hear_close().await, "k");
}

/// A primary of Node's that is asked for it a second time before it hears of the close ends, with all its workers.
#[tokio::test]
async fn an_address_that_nobody_waits_for_any_more_is_asked_for_again_when_it_has_been_given_back() {
    let (mut primary, worker) = Primary::with_worker().await;
    let query = tokio::select! {
        _ = worker.listen("127.0.0.1:7000") => panic!("not answered yet"),
        query = primary.hear_query() => query,
    };
    let error = soon(worker.listen("127.0.0.1:7000")).await.unwrap_err();
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::AddrInUse);
    primary.answer_by_handoff(&query, "k", None);
    assert_eq!(primary.hear_close().await, "k", "before it is asked for again");
    // Its place follows.
    while worker.link.places.reserve(AddressKind::Tcp4, Some("127.0.0.1"), 7000).is_err() {
        tokio::task::yield_now().await;
    }
    let _listener = listen_by_handoff(&mut primary, &worker, "again").await;
}

#[tokio::test]
async fn an_address_is_listened_on_once_and_any_port_as_often_as_one_likes() {
    let (mut primary, worker) = Primary::with_worker().await;
    let _listener = listen_by_handoff(&mut primary, &worker, "k").await;
    let error = soon(worker.listen("127.0.0.1:7000")).await.unwrap_err();
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::AddrInUse);
    let mut listeners = Vec::new();
    for nth in 0..3 {
        let (socket, address) = lane();
        let (listener, ()) = soon(async {
            tokio::join!(worker.listen(ANY), async {
                let query = primary.hear_query().await;
                assert_eq!((query.port, query.index), (0, nth));
                primary.give(&query, &format!("any{nth}"), socket);
                assert_eq!(primary.hear_listening().await, i64::from(address.port()));
            })
        })
        .await;
        listeners.push(listener.unwrap());
    }
}

#[tokio::test]
async fn a_unix_socket_is_shared_or_handed_over() {
    let (mut primary, worker) = Primary::with_worker().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let (listener, ()) = soon(async {
        tokio::join!(worker.listen_unix(&path), async {
            let query = primary.hear_query().await;
            assert_eq!((query.kind, query.port), (AddressKind::Unix, -1));
            assert_eq!(query.address.as_deref(), path.to_str());
            primary.give(&query, "k", socket);
            assert_eq!(primary.hear_listening().await, -1);
        })
    })
    .await;
    let mut listener = listener.unwrap();
    assert_eq!(listener.local_addr().unwrap().as_pathname(), Some(path.as_path()));
    let _client = std::os::unix::net::UnixStream::connect(&path).unwrap();
    soon(listener.accept()).await.unwrap();
    let (server, _client) = std::os::unix::net::UnixStream::pair().unwrap();
    let seq = primary.hand_over("k", server);
    primary.settle(&worker).await;
    soon(listener.accept()).await.unwrap();
    assert_eq!(primary.hear_accepted().await, (seq, true));
}

#[tokio::test]
async fn a_udp_socket_that_was_closed_is_given_back_when_its_address_is_wanted_again() {
    let (mut primary, worker) = Primary::with_worker().await;
    let address = std::net::UdpSocket::bind(ANY).unwrap().local_addr().unwrap();
    for key in ["first", "second"] {
        let (socket, ()) = soon(async {
            tokio::join!(worker.bind_udp(address), async {
                if key == "second" {
                    assert_eq!(primary.hear_close().await, "first");
                }
                let query = primary.hear_query().await;
                assert_eq!((query.kind, query.index), (AddressKind::Udp4, 0));
                primary.give(&query, key, std::net::UdpSocket::bind(address).unwrap());
                primary.hear_listening().await;
            })
        })
        .await;
        assert_eq!(socket.unwrap().local_addr().unwrap(), address);
    }
}

#[tokio::test]
async fn a_udp_socket_that_can_not_be_looked_for_is_not_given_back() {
    if is_moved_to_own_process(
        "worker::tests::listen::a_udp_socket_that_can_not_be_looked_for_is_not_given_back",
    ) {
        return;
    }
    let (mut primary, worker) = Primary::with_worker().await;
    let address = std::net::UdpSocket::bind(ANY).unwrap().local_addr().unwrap();
    let (socket, ()) = soon(async {
        tokio::join!(worker.bind_udp(address), async {
            let query = primary.hear_query().await;
            primary.give(&query, "k", std::net::UdpSocket::bind(address).unwrap());
            primary.hear_listening().await;
        })
    })
    .await;
    let _socket = socket.unwrap();
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(0), ..before }).unwrap();
    worker.link.forget_closed_datagram_sockets();
    setrlimit(Resource::Nofile, before).unwrap();
    let error = soon(worker.bind_udp(address)).await.unwrap_err();
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::AddrInUse);
    worker.send("nothing was said of it").unwrap();
    assert!(matches!(primary.hear().await, Incoming::User(_)));
}
