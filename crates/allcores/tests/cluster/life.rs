//! Forking, coming up, going down.

use std::io::Read;
use std::time::Duration;

use allcores::{AddressType, ErrorKind, Event, ExitStatus, Fork, Policy, Signal, WorkerId, WorkerState};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{exists, gone, names_until, script, start, until, within};

const SERVER: &str = "require('node:http').createServer((q, s) => s.end('hi')).listen(0, '127.0.0.1');";

#[tokio::test]
async fn events_come_in_nodes_order_and_the_handle_knows_before() {
    let mut cluster = start(script(SERVER)).await;
    let worker = cluster.fork().await.unwrap();
    assert_eq!((worker.id(), worker.state()), (WorkerId(1), WorkerState::Starting));
    assert!(worker.is_connected() && !worker.is_dead());
    assert_eq!(worker.exited_after_disconnect(), None);
    assert_eq!(cluster.workers(), std::slice::from_ref(&worker));

    until(&mut cluster, |event| {
        matches!(event, Event::Fork { worker } if worker.id() == WorkerId(1)).then_some(())
    })
    .await;
    until(&mut cluster, |event| matches!(event, Event::Online { .. }).then_some(())).await;
    assert!(worker.state() >= WorkerState::Online);
    let address = until(&mut cluster, |event| match event {
        Event::Listening { address, .. } => Some(address.clone()),
        _ => None,
    })
    .await;
    assert_eq!((address.address_type, address.address.as_deref()), (AddressType::Tcp4, Some("127.0.0.1")));
    assert!(address.port > 0);
    assert_eq!((address.fd, worker.state()), (None, WorkerState::Listening));

    worker.kill(Signal::TERM).unwrap();
    let names = names_until(&mut cluster, |event| matches!(event, Event::Exit { .. })).await;
    assert_eq!(names.iter().filter(|name| **name == "disconnect").count(), 1, "{names:?}");
    assert_eq!(within("exit", worker.exited()).await, ExitStatus::Signal(15));
    assert_eq!((worker.exited_after_disconnect(), worker.state()), (Some(false), WorkerState::Dead));
    assert!(cluster.workers().is_empty());
    assert!(!exists(worker.pid()));
    within("stop", cluster.stop()).await.unwrap();
}

#[tokio::test]
async fn nobody_is_replaced_and_a_fork_takes_the_free_slot() {
    let mut cluster = start(script("process.exit(42)").workers(2)).await;
    let [first, second] = &cluster.workers()[..] else { panic!("not two workers") };
    let (first, second) = (first.clone(), second.clone());
    assert_eq!((first.slot().0, second.slot().0), (0, 1));
    assert_eq!(within("exit", first.exited()).await, ExitStatus::Code(42));
    assert_eq!(within("exit", second.exited()).await, ExitStatus::Code(42));
    let third = cluster.fork().await.unwrap();
    assert_eq!((third.id(), third.slot().0), (WorkerId(3), 0));
    gone(&mut cluster, &third).await;
    assert_eq!(third.exited_after_disconnect(), Some(false));
    assert!(cluster.workers().is_empty());
}

#[tokio::test]
async fn a_worker_that_is_disconnected_goes_with_code_0() {
    let mut cluster = start(script(SERVER).workers(2)).await;
    for _ in 0..2 {
        until(&mut cluster, |event| matches!(event, Event::Listening { .. }).then_some(())).await;
    }
    let worker = cluster.workers()[0].clone();
    let departure = worker.disconnect();
    assert_eq!(worker.exited_after_disconnect(), Some(true));
    assert_eq!(within("its end", departure).await, ExitStatus::Code(0));
    assert!(!worker.is_connected());
    assert_eq!(worker.exited_after_disconnect(), Some(true));
    assert_eq!(cluster.workers().len(), 1);
}

#[tokio::test]
async fn a_cluster_that_was_disconnected_can_fork_again() {
    let mut cluster = start(script(SERVER).workers(3)).await;
    for round in 0..2 {
        for _ in 0..3 {
            until(&mut cluster, |event| matches!(event, Event::Listening { .. }).then_some(())).await;
        }
        within("all to be gone", cluster.disconnect()).await;
        assert!(cluster.workers().is_empty());
        if round == 0 {
            for _ in 0..3 {
                cluster.fork().await.unwrap();
            }
        }
    }
    within("nobody to be gone", cluster.disconnect()).await;
    within("stop", cluster.stop()).await.unwrap();
}

/// Each answer takes its worker a quarter of a second, in which that does nothing else.
const SLOW: &str = "require('node:http').createServer((q, s) => {
    for (const until = Date.now() + 250; Date.now() < until;);
    s.end(String(process.pid));
}).listen(0, '127.0.0.1');";

/// Starts two slow workers and has many clients connect; then all are disconnected. Says who was answered.
async fn waiting_while_all_leave(policy: Policy) -> Vec<String> {
    const CLIENTS: usize = 10;
    let mut cluster = start(script(SLOW).policy(policy).workers(2)).await;
    let mut address = None;
    for _ in 0..2 {
        address = until(&mut cluster, |event| match event {
            Event::Listening { address, .. } => Some(address.socket_addr()),
            _ => None,
        })
        .await;
    }
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = TcpStream::connect(address.unwrap()).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        clients.push(client);
    }
    let answers = async {
        let mut answers = Vec::new();
        for (nth, mut client) in clients.into_iter().enumerate() {
            let mut answer = String::new();
            let read = client.read_to_string(&mut answer).await;
            read.unwrap_or_else(|error| panic!("client {nth}, after {answers:?}: {error}"));
            answers.push(answer.lines().last().expect("an answer").to_owned());
        }
        answers
    };
    let (answers, ()) = within("all", async { tokio::join!(answers, cluster.disconnect()) }).await;
    assert!(TcpStream::connect(address.unwrap()).await.is_err(), "the address is not free");
    // It goes on after that.
    let worker = cluster.fork().await.unwrap();
    let again = until(&mut cluster, |event| match event {
        Event::Listening { address, .. } => address.socket_addr(),
        _ => None,
    })
    .await;
    TcpStream::connect(again).await.unwrap();
    worker.kill(Signal::KILL).unwrap();
    within("stop", cluster.stop()).await.unwrap();
    assert_eq!(answers.len(), CLIENTS);
    answers
}

#[tokio::test]
async fn who_waits_for_its_turn_is_served_before_all_are_gone() {
    waiting_while_all_leave(Policy::RoundRobin).await;
}

#[tokio::test]
async fn who_waits_in_a_lane_is_served_before_all_are_gone() {
    waiting_while_all_leave(Policy::Lanes).await;
}

#[tokio::test]
async fn who_waits_at_a_shared_listener_is_served_before_all_are_gone() {
    waiting_while_all_leave(Policy::Shared).await;
}

#[tokio::test]
async fn who_is_forked_while_all_leave_takes_new_connections() {
    let code =
        format!("process.send(process.pid); {}", SLOW.replace("listen(0,", "listen(process.env.PORT,"));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for policy in [Policy::RoundRobin, Policy::Lanes] {
        let mut cluster = start(script(&code).env("PORT", port.to_string()).policy(policy)).await;
        let first = cluster.fork().await.unwrap();
        let listens = |event: &Event| match event {
            Event::Listening { address, worker } => Some((address.socket_addr().unwrap(), worker.id())),
            _ => None,
        };
        let (address, _) = until(&mut cluster, listens).await;
        // It has a connection that does not end: it takes its time to go.
        let mut held = TcpStream::connect(address).await.unwrap();
        held.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        until(&mut cluster, |event| matches!(event, Event::Ready { .. }).then_some(())).await;
        let left = async {
            cluster.disconnect().await;
        };
        let forked = async {
            while first.exited_after_disconnect().is_none() {
                tokio::task::yield_now().await;
            }
            let second = cluster.fork().await.unwrap();
            let mut events = second.events();
            // One that listens gets connections from then on when it is ready.
            while !matches!(within("an event", events.next()).await, Some(Event::Ready { .. })) {}
            let mut client = within("a connection", TcpStream::connect(address)).await.unwrap();
            client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            within("an answer", client.read_to_string(&mut answer)).await.unwrap();
            assert!(answer.ends_with(&second.pid().to_string()), "{answer}");
            drop(held);
        };
        within("both", async { tokio::join!(left, forked) }).await;
        assert_eq!(cluster.workers().len(), 1);
        within("stop", cluster.stop()).await.unwrap();
    }
}

#[tokio::test]
async fn a_worker_that_was_disconnected_finishes_its_answer_though_the_cluster_stops() {
    const LATE: &str = "require('node:http')
        .createServer((q, s) => setTimeout(() => s.end('done'), Number(process.env.MILLIS)))
        .listen(0, '127.0.0.1');";
    let workers = |millis: &str| script(LATE).workers(1).env("MILLIS", millis);
    // It lands when the cluster stops, or has been asked to go; and needs longer than who is to go gets.
    let landing = workers("1500").kill_timeout(Duration::from_millis(200));
    let asked = workers("6500");
    for (builder, before) in [(landing, Duration::ZERO), (asked, Duration::from_millis(500))] {
        let mut cluster = start(builder.drain_timeout(Duration::from_secs(10))).await;
        let address = until(&mut cluster, |event| match event {
            Event::Listening { address, .. } => address.socket_addr(),
            _ => None,
        })
        .await;
        until(&mut cluster, |event| matches!(event, Event::Ready { .. }).then_some(())).await;
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        let departure = cluster.workers()[0].disconnect();
        tokio::time::sleep(before).await;
        let mut answer = String::new();
        let (read, stopped) =
            within("both", async { tokio::join!(client.read_to_string(&mut answer), cluster.stop()) }).await;
        read.unwrap_or_else(|error| panic!("stopped {before:?} after: {error}"));
        assert!(answer.ends_with("done"), "stopped {before:?} after: {answer}");
        stopped.unwrap();
        assert_eq!(within("its end", departure).await, ExitStatus::Code(0));
    }
}

#[tokio::test]
async fn a_worker_says_itself_that_it_leaves() {
    for leave in ["disconnect", "kill"] {
        let code = format!("cluster.worker.{leave}()");
        let mut cluster = start(script(&code)).await;
        let worker = cluster.fork().await.unwrap();
        gone(&mut cluster, &worker).await;
        assert_eq!(worker.exited_after_disconnect(), Some(true), "{leave}");
        assert_eq!(worker.exited().await, ExitStatus::Code(0), "{leave}");
    }
}

#[tokio::test]
async fn messages_go_both_ways() {
    let echo = "process.on('message', m => process.send({ echo: m })); process.send('up');";
    let cluster = start(script(echo)).await;
    let worker = cluster.fork().await.unwrap();
    let mut events = worker.events();
    let (_, up) = within("a message", events.next_message()).await.unwrap();
    assert_eq!(up.parse::<&str>().unwrap(), "up");
    assert!(worker.send(&serde_json::json!({ "a": [1, "ü", null] })).unwrap());
    let (from, answer) = within("an answer", events.next_message()).await.unwrap();
    assert_eq!(from, worker);
    assert_eq!(answer.json(), r#"{"echo":{"a":[1,"ü",null]}}"#);
    worker.kill(Signal::KILL).unwrap();
    within("exit", worker.exited()).await;
    while within("the end", events.next()).await.is_some() {}
    assert_eq!(worker.send("too late").unwrap_err().kind(), ErrorKind::Disconnected);
}

#[tokio::test]
async fn what_was_written_before_the_end_comes_before_the_end() {
    let code = "for (let i = 0; i < 2000; i++) process.send(i); process.on('disconnect', () => {});
                setImmediate(() => process.kill(process.pid, 'SIGKILL'));";
    let mut cluster = start(script(code)).await;
    let worker = cluster.fork().await.unwrap();
    let mut next = 0;
    until(&mut cluster, |event| match event {
        Event::Message { message, .. } => {
            assert_eq!(message.parse::<u32>().unwrap(), next);
            next += 1;
            None
        }
        Event::Disconnect { .. } | Event::Exit { .. } => Some(()),
        _ => None,
    })
    .await;
    assert!(next > 0);
    gone(&mut cluster, &worker).await;
}

#[tokio::test]
async fn a_program_that_does_not_exist_is_an_error_and_no_end() {
    let error =
        within("the start", allcores::Builder::new().exec("no-such-program").workers(1).start()).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::NotFound);
    let cluster = start(allcores::Builder::new().exec("no-such-program")).await;
    assert_eq!(cluster.fork().await.unwrap_err().kind(), ErrorKind::NotFound);
    cluster.setup(allcores::ClusterSettings::new().exec("true")).unwrap();
    let worker = cluster.fork().await.unwrap();
    assert_eq!(within("exit", worker.exited()).await, ExitStatus::Code(0));
}

#[tokio::test]
async fn a_cluster_that_is_of_no_use_ends_and_says_why() {
    let builder = script("process.exit(3)").workers(1).keep(true);
    let cluster = start(builder.max_restarts(1).backoff(Duration::from_millis(1))).await;
    let why = within("its end", cluster.ended()).await.unwrap_err();
    assert_eq!(why.kind(), ErrorKind::Stopped);
    let reason = std::error::Error::source(&why).unwrap().to_string();
    assert!(reason.contains("no worker ever served") && reason.contains("code 3"), "{reason}");
    assert!(within("serving", cluster.serve()).await.is_err(), "and so does who serves");
}

#[tokio::test]
async fn what_one_worker_alone_was_given_ends_with_it() {
    let say = "process.send(process.env.SERVICE ?? 'none'); process.on('message', () => process.exit(0));";
    let mut cluster = start(script(say)).await;
    let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let worker = cluster.fork_with(Fork::new().env("SERVICE", "scheduler").descriptor(theirs)).await.unwrap();
    let said = until(&mut cluster, |event| match event {
        Event::Message { message, .. } => Some(message.json().to_owned()),
        _ => None,
    });
    assert_eq!(said.await, "\"scheduler\"");
    worker.send("go").unwrap();
    gone(&mut cluster, &worker).await;
    ours.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert_eq!(ours.read(&mut [0]).unwrap(), 0, "somebody still has its other end");
    cluster.scale(1).await.unwrap();
    let said = until(&mut cluster, |event| match event {
        Event::Message { message, .. } => Some(message.json().to_owned()),
        _ => None,
    });
    assert_eq!(said.await, "\"none\"", "the next of its slot has nothing to do with it");
    within("stop", cluster.stop()).await.unwrap();
}

#[tokio::test]
async fn settings_that_are_named_again_are_there_once() {
    let cluster = start(script("").env("A", "1")).await;
    let settings = cluster.settings();
    cluster.setup(settings.env("A", "2")).unwrap();
    let env = cluster.settings().env;
    assert_eq!(env, [("A".into(), "2".into())]);
}

/// Polls a future once, and drops it.
fn begin(future: impl Future) {
    let mut future = std::pin::pin!(future);
    let _ = future.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
}

#[tokio::test]
async fn what_was_asked_for_comes_though_nobody_waits_for_it() {
    let mut cluster = start(script(SERVER)).await;
    begin(cluster.fork());
    let id = until(&mut cluster, |event| match event {
        Event::Fork { worker } => Some(worker.id()),
        _ => None,
    });
    assert_eq!(id.await, WorkerId(1));
    begin(cluster.scale(3));
    for _ in 0..3 {
        until(&mut cluster, |event| matches!(event, Event::Listening { .. }).then_some(())).await;
    }
    assert_eq!(cluster.workers().len(), 3);
    begin(cluster.disconnect());
    for _ in 0..6 {
        until(&mut cluster, |event| {
            matches!(event, Event::Exit { .. } | Event::Disconnect { .. }).then_some(())
        })
        .await;
    }
    assert!(cluster.workers().is_empty());
}

#[tokio::test]
async fn descriptors_of_a_worker_that_does_not_come_to_be_are_closed() {
    let cluster = start(script(SERVER)).await;
    cluster.setup(allcores::ClusterSettings::new().exec("/nonexistent/program")).unwrap();
    let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let error = cluster.fork_with(Fork::new().descriptor(theirs)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(ours.read(&mut [0]).unwrap(), 0);
}

#[tokio::test]
async fn descriptors_for_a_slot_that_is_no_more_are_closed() {
    let mut cluster = start(script(SERVER).workers(1).keep(true).backoff(Duration::from_mins(10))).await;
    until(&mut cluster, |event| matches!(event, Event::Ready { .. }).then_some(())).await;
    let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    cluster.setup(allcores::ClusterSettings::new().exec("false")).unwrap();
    cluster.fork_with(Fork::new().descriptor(theirs)).await.unwrap();
    // Its replacement is to have the same, and waits for its time.
    until(&mut cluster, |event| {
        matches!(event, Event::Respawning { delay, .. } if !delay.is_zero()).then_some(())
    })
    .await;
    within("the scaling", cluster.scale(1)).await.unwrap();
    assert_eq!(ours.read(&mut [0]).unwrap(), 0);
}

#[tokio::test]
async fn what_a_worker_says_of_listeners_that_it_was_not_given_is_not_told() {
    let mut cluster = start(script(
        "const say = (more) => process.send({ cmd: 'NODE_CLUSTER', act: 'listening', addressType: 4, index: 0, ...more });
        say({ port: 1, address: '127.0.0.1' });
        say({ port: 1, address: 'x'.repeat(1 << 20) });
        const server = require('node:net').createServer().listen(0, '127.0.0.1', () => {
            setImmediate(() => {
                const { port } = server.address();
                for (let times = 0; times < 9; times += 1) say({ port, address: '127.0.0.1' });
                process.send('done');
            });
        });",
    ))
    .await;
    let worker = cluster.fork().await.unwrap();
    let mut listens = Vec::new();
    until(&mut cluster, |event| {
        if let Event::Listening { address, .. } = event {
            listens.push(address.clone());
        }
        matches!(event, Event::Message { .. }).then_some(())
    })
    .await;
    assert_eq!(listens.len(), 1, "{listens:?}");
    assert!(listens[0].port > 1, "{listens:?}");
    worker.kill(Signal::KILL).unwrap();
    gone(&mut cluster, &worker).await;
}
