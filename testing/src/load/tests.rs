//! Against servers that misbehave to order.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n1234";

/// A server that treats each connection as it is told, until it is dropped.
struct Scripted {
    address: SocketAddr,
    end: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Scripted {
    fn start<F: Future<Output = ()> + 'static>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self {
        let (end, ended) = tokio::sync::oneshot::channel();
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let tasks = tokio::task::LocalSet::new();
            let accept = async move {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    tokio::task::spawn_local(serve(stream));
                }
            };
            tasks.block_on(&runtime, async {
                tokio::select! { () = accept => {}, _ = ended => {} }
            });
        });
        Self { address: told.recv().unwrap(), end: Some(end), thread: Some(thread) }
    }

    /// Answers the first request of each connection with these bytes, and ends it.
    fn answering(bytes: &'static str) -> Self {
        Self::start(move |mut stream| async move {
            read_request(&mut stream).await;
            stream.write_all(bytes.as_bytes()).await.unwrap();
        })
    }

    /// Answers every request with these bytes.
    fn keeping(bytes: &'static str) -> Self {
        Self::start(move |mut stream| async move {
            while read_request(&mut stream).await {
                stream.write_all(bytes.as_bytes()).await.unwrap();
            }
        })
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        drop(self.end.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Reads up to the end of a request's head; false if there is none.
async fn read_request(stream: &mut TcpStream) -> bool {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return false;
        }
    }
    true
}

fn one(server: &Scripted) -> Report {
    Load::new(server.address).requests(1).timeout(Duration::from_secs(5)).run_blocking()
}

/// Checks that the one request failed, and how.
fn assert_failed(report: &Report, expected: FailureKind) {
    assert_eq!((report.ok, report.failures.total(), report.failed.len()), (0, 1, 1), "{report}");
    assert_eq!(report.failed[0].kind, expected, "{report}");
    assert!(report.failed[0].local.is_some(), "{report}");
    assert_eq!(report.failed[0].path, "/");
}

#[test]
fn a_good_answer_is_counted_by_its_body() {
    let report = one(&Scripted::answering(OK));
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.by_body.get("1234"), Some(&1));
    assert!(report.latencies.max() > Duration::ZERO);
}

#[test]
fn chunks_are_put_together() {
    let report = one(&Scripted::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n12\r\n3;x=y\r\n345\r\n0\r\nA: b\r\n\r\n",
    ));
    assert_eq!(report.by_body.get("12345"), Some(&1), "{report}");
}

#[test]
fn a_body_without_length_lasts_until_the_connection_ends() {
    let report = one(&Scripted::answering("HTTP/1.0 200 OK\r\n\r\n12\n"));
    assert_eq!(report.by_body.get("12"), Some(&1), "{report}");
}

#[test]
fn an_address_that_nobody_listens_on_refuses() {
    // Bound and not listening: nobody else can take the port meanwhile.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let report = Load::new(address).requests(1).run_blocking();
    assert_failed(&report, FailureKind::Refused);
    assert_eq!(report.failed[0].nth, 0);
}

#[test]
fn a_reset_is_told_from_an_end() {
    let server = Scripted::start(|mut stream| async move {
        read_request(&mut stream).await;
        stream.set_zero_linger().unwrap();
    });
    assert_failed(&one(&server), FailureKind::Reset);
}

#[test]
fn a_reset_within_the_body_is_a_reset() {
    let server = Scripted::start(|mut stream| async move {
        read_request(&mut stream).await;
        stream.write_all(&OK.as_bytes()[..OK.len() - 1]).await.unwrap();
        stream.set_zero_linger().unwrap();
    });
    assert_failed(&one(&server), FailureKind::Reset);
}

#[test]
fn an_end_before_the_answer_is_closed_early() {
    assert_failed(&one(&Scripted::answering("")), FailureKind::ClosedEarly);
}

#[test]
fn an_end_within_the_head_is_closed_early() {
    assert_failed(&one(&Scripted::answering("HTTP/1.1 200 OK\r\nContent-Le")), FailureKind::ClosedEarly);
}

#[test]
fn an_end_within_the_body_is_short() {
    assert_failed(
        &one(&Scripted::answering("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1234")),
        FailureKind::Short,
    );
}

#[test]
fn an_end_between_chunks_is_short() {
    assert_failed(
        &one(&Scripted::answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n12\r\n")),
        FailureKind::Short,
    );
}

#[test]
fn a_server_that_hangs_times_out() {
    let server = Scripted::start(|mut stream| async move {
        read_request(&mut stream).await;
        read_request(&mut stream).await;
    });
    let report = Load::new(server.address).requests(1).timeout(Duration::from_millis(50)).run_blocking();
    assert_failed(&report, FailureKind::Timeout);
}

#[test]
fn a_status_of_500_is_a_failure() {
    let report = one(&Scripted::answering("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"));
    assert_failed(&report, FailureKind::BadStatus);
    assert_eq!(report.failed[0].detail, "status 500");
}

#[test]
fn what_is_no_http_is_other() {
    assert_failed(&one(&Scripted::answering("SSH-2.0-x\r\n\r\n")), FailureKind::Other);
}

#[test]
fn keep_alive_uses_one_connection_until_the_server_ends_it() {
    let (tell, told) = mpsc::channel();
    let server = Scripted::start(move |mut stream| {
        tell.send(()).unwrap();
        async move {
            for _ in 0..5 {
                read_request(&mut stream).await;
                stream.write_all(OK.as_bytes()).await.unwrap();
            }
        }
    });
    let report = Load::new(server.address).keep_alive().requests(10).run_blocking();
    // The sixth request may cross the end of its connection: HTTP/1.1's own race, which is reported as it is.
    assert_eq!(report.ok + report.failures.total(), 10, "{report}");
    assert!(report.failed.iter().all(|failure| failure.nth == 6), "{report}");
    drop(server);
    assert_eq!(told.iter().count(), 2, "{report}");
}

#[test]
fn an_answer_that_says_close_ends_a_kept_connection() {
    let server = Scripted::answering("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\n1");
    let report = Load::new(server.address).keep_alive().requests(20).run_blocking();
    assert!(report.is_clean(), "{report}");
}

#[test]
fn a_count_is_kept_to_whatever_the_number_of_clients() {
    let server = Scripted::keeping(OK);
    let report = Load::new(server.address).clients(7).requests(100).run_blocking();
    assert_eq!(report.ok, 100, "{report}");
}

#[test]
fn open_latency_counts_from_when_the_request_was_due() {
    // Served one at a time, 20 ms each, 200 due in a second: the queue is on our side, and must be seen.
    let server = Scripted::start(|mut stream| async move {
        while read_request(&mut stream).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
            stream.write_all(OK.as_bytes()).await.unwrap();
        }
    });
    let arrival = Arrival::Open { rate_per_s: 200.0, max_in_flight: 1 };
    let report = Load::new(server.address).keep_alive().arrival(arrival).requests(20).run_blocking();
    assert_eq!(report.ok, 20, "{report}");
    assert!(report.latencies.max() > Duration::from_millis(200), "{report}");
}

#[test]
fn an_open_load_that_overruns_says_how_many_it_never_sent() {
    let server = Scripted::start(|mut stream| async move {
        read_request(&mut stream).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        stream.write_all(OK.as_bytes()).await.unwrap();
    });
    let arrival = Arrival::Open { rate_per_s: 500.0, max_in_flight: 2 };
    let report = Load::new(server.address).arrival(arrival).during(Duration::from_millis(300)).run_blocking();
    assert!(report.unsent > 50 && report.ok <= 10, "{report}");
    assert_eq!(report.failures.total(), 0, "{report}");
}

#[test]
fn an_open_load_keeps_its_rate() {
    let server = Scripted::keeping(OK);
    let report = Load::new(server.address).rate(1000.0).during(Duration::from_secs(1)).run_blocking();
    assert!(report.is_clean(), "{report}");
    assert!((850..1150).contains(&report.ok), "{report}");
}

#[test]
fn weighted_paths_come_as_often_as_they_should() {
    let load = Load::new("127.0.0.1:1".parse().unwrap()).weighted_paths([(19, "/"), (1, "/burn")]);
    let places = |seed: u64| -> Vec<u64> {
        (0..20_000).filter(|number| load.paths.pick(*number, seed) == "/burn").collect()
    };
    let burns = places(load.seed);
    let rounds: Vec<u64> = burns.iter().map(|number| number / 20).collect();
    assert_eq!(rounds, (0..1000).collect::<Vec<u64>>(), "one in each round");
    for place in 0..20 {
        let count = burns.iter().filter(|number| **number % 20 == place).count();
        assert!((20..90).contains(&count), "{count} at place {place}");
    }
    assert_ne!(burns, places(load.seed + 1));
}

#[test]
fn a_load_without_end_runs_until_it_is_stopped() {
    let server = Scripted::keeping(OK);
    let load = Load::new(server.address).clients(2).spawn();
    assert!(load.wait_ok(100, Duration::from_secs(10)));
    let report = load.stop();
    assert!(report.is_clean() && report.ok >= 100, "{report}");
}

#[test]
fn a_body_that_was_not_seen_before_is_waited_for() {
    let number = std::cell::Cell::new(0);
    let server = Scripted::start(move |mut stream| {
        number.set(number.get() + 1);
        // The second and third say the same, and so do all from the fourth on.
        let body = number.get().min(4) / 2;
        async move {
            read_request(&mut stream).await;
            stream.write_all(format!("HTTP/1.0 200 OK\r\n\r\n{body}").as_bytes()).await.unwrap();
        }
    });
    let load = Load::new(server.address).spawn();
    assert!(load.wait_bodies(3, Duration::from_secs(10)));
    assert!(!load.wait_bodies(4, Duration::from_millis(50)));
    assert_eq!(load.bodies(), 3);
    assert!(load.stop().is_clean());
}

#[test]
fn ports_are_connected_to_in_turn() {
    // Of this process's own host, and below all ports that are given out.
    let first = SocketAddr::from((crate::address::unused().ip(), 9000));
    let listeners: Vec<_> =
        (0..3).map(|nth| std::net::TcpListener::bind((first.ip(), first.port() + nth)).unwrap()).collect();
    let load = Load::new(first).ports(3).requests(6).timeout(Duration::from_millis(50)).run_blocking();
    // Nobody answers: what counts is who was connected to.
    assert_eq!(load.failures.timeout, 6, "{load}");
    for listener in listeners {
        listener.set_nonblocking(true).unwrap();
        assert_eq!(std::iter::from_fn(|| listener.accept().ok()).count(), 2);
    }
}

#[test]
fn requests_under_way_are_finished_at_the_stop() {
    let server = Scripted::start(|mut stream| async move {
        read_request(&mut stream).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        stream.write_all(OK.as_bytes()).await.unwrap();
    });
    let started = Instant::now();
    let report = Load::new(server.address).clients(3).during(Duration::from_millis(20)).run_blocking();
    assert!(report.is_clean() && report.ok == 3, "{report}");
    assert!(started.elapsed() >= Duration::from_millis(200));
}

#[test]
#[should_panic(expected = "loopback")]
fn only_loopback_is_loaded() {
    let _ = Load::new("192.0.2.1:80".parse().unwrap());
}

#[test]
fn held_connections_are_counted_by_who_has_them() {
    let server = Scripted::keeping(OK);
    let held = hold(server.address, 20, "/").unwrap();
    assert_eq!(held.by_body().get("1234"), Some(&20));
    assert_eq!(held.open(), 20);
}
