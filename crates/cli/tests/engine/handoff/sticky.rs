//! Sticky: each client has its worker, whatever it is told by.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use allcores_testing::app::{Event, RunningApp};
use allcores_testing::runtimes::{Runtime, require};
use allcores_testing::{address, machine};
use rustix::process::Signal;

use super::{PATIENCE, answer, ask, connect, connect_from};
use crate::app;
use crate::proc::Process;

const WORKERS: u16 = 4;

fn start(policy: &str) -> Option<(RunningApp, SocketAddr)> {
    let node = require(Runtime::Node)?;
    let address = address::unused();
    let app = app::server(node, address).workers(WORKERS).policy(policy).start().unwrap();
    app.wait_ready(WORKERS.into()).unwrap();
    Some((app, address))
}

/// Which worker each of these clients has, each asking several times.
fn workers_of(clients: std::ops::Range<u8>, ask: impl Fn(u8) -> u32) -> BTreeMap<u8, u32> {
    let mut workers = BTreeMap::new();
    for _ in 0..3 {
        for client in clients.clone() {
            let pid = ask(client);
            assert_eq!(*workers.entry(client).or_insert(pid), pid, "client {client} has changed its worker");
        }
    }
    let used: BTreeSet<_> = workers.values().collect();
    assert!(used.len() >= 3, "of {} clients only {used:?} have any", workers.len());
    workers
}

#[test]
fn clients_are_known_by_their_address_and_a_replacement_inherits_them() {
    let _turn = machine::together();
    let Some((app, address)) = start("sticky") else { return };
    let by_source = |client: u8| ask(&connect_from([127, 0, 1, client], address), "/", "").unwrap();
    let before = workers_of(1..30, by_source);
    let victim = before[&1];
    let slot = app::workers(&app.status().unwrap()).into_iter().find(|(_, pid)| *pid == victim).unwrap().0;
    let position = app.position();
    Process::open(victim).unwrap().signal(Signal::KILL);
    let is_back = |event: &Event| event.kind() == "ready" && event.slot() == Some(slot);
    let replacement = app.wait_for_since(position, is_back, PATIENCE).unwrap().worker_pid().unwrap();
    for (client, pid) in workers_of(1..30, by_source) {
        assert_eq!(
            pid,
            if before[&client] == victim { replacement } else { before[&client] },
            "client {client}"
        );
    }
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn clients_are_known_by_a_cookie() {
    let _turn = machine::together();
    let Some((_app, address)) = start("sticky:cookie=sid") else { return };
    workers_of(0..20, |client| {
        ask(&connect(address), "/", &format!("Cookie: a=b; sid=c{client}\r\n")).unwrap()
    });
}

#[test]
fn clients_are_known_by_a_header() {
    let _turn = machine::together();
    let Some((_app, address)) = start("sticky:header=X-User") else { return };
    workers_of(0..20, |client| ask(&connect(address), "/", &format!("x-user: c{client}\r\n")).unwrap());
}

#[test]
fn clients_are_known_by_a_query_parameter() {
    let _turn = machine::together();
    let Some((_app, address)) = start("sticky:query=sid") else { return };
    workers_of(0..20, |client| ask(&connect(address), &format!("/?a=b&sid=c{client}"), "").unwrap());
}

#[test]
fn without_the_field_clients_are_known_by_their_address() {
    let _turn = machine::together();
    let Some((_app, address)) = start("sticky:cookie=sid") else { return };
    workers_of(1..20, |client| {
        ask(&connect_from([127, 0, 1, client], address), "/", "Cookie: a=b\r\n").unwrap()
    });
}

#[test]
fn a_head_may_come_in_pieces_and_the_worker_reads_all_of_it() {
    let _turn = machine::together();
    let Some((app, address)) = start("sticky:cookie=sid") else { return };
    let expected = ask(&connect(address), "/", "Cookie: sid=slow\r\n").unwrap();
    let before = crate::proc::cpu_ticks(app.pid());
    let mut stream = connect_from([127, 0, 0, 9], address);
    for piece in
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nCookie: sid=slow\r\n\r\n".as_bytes().chunks(7)
    {
        stream.write_all(piece).unwrap();
        // Far enough apart that each is an arrival of its own.
        std::thread::sleep(Duration::from_millis(40));
    }
    assert_eq!(answer(stream).unwrap(), expected);
    let ticks = crate::proc::cpu_ticks(app.pid()) - before;
    assert!(ticks <= 5, "{ticks} for half heads");
}

#[test]
fn who_says_nothing_goes_by_address_after_a_while_and_holds_up_nobody() {
    let _turn = machine::together();
    let Some((app, address)) = start("sticky:cookie=sid") else { return };
    let started = Instant::now();
    let mut silent = connect_from([127, 0, 0, 9], address);
    silent.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n").unwrap();
    ask(&connect(address), "/", "Cookie: sid=quick\r\n").unwrap();
    assert!(started.elapsed() < Duration::from_secs(2), "somebody waited for the silent one");
    let before = crate::proc::cpu_ticks(app.pid());
    while super::pending(&app.status().unwrap()) > 0 {
        assert!(started.elapsed() < Duration::from_secs(8), "it still waits");
        // Each question costs the primary something, too.
        std::thread::sleep(Duration::from_millis(400));
    }
    let waited = started.elapsed();
    assert!(waited > Duration::from_secs(4), "{waited:?}");
    let ticks = crate::proc::cpu_ticks(app.pid()) - before;
    assert!(ticks <= 25, "{ticks} while somebody said nothing");
    silent.write_all(b"Connection: close\r\n\r\n").unwrap();
    answer(silent).unwrap();
}

#[test]
fn many_who_say_nothing_make_room_for_one_who_speaks() {
    let Some(node) = require(Runtime::Node) else { return };
    let _turn = machine::together();
    let address = address::unused();
    let app = app::server(node, address).workers(2).policy("sticky:cookie=sid").option("--pending=8");
    let app = app.start().unwrap();
    app.wait_ready(2).unwrap();
    let silent: Vec<_> = (0..100).map(|_| connect(address)).collect();
    let started = Instant::now();
    ask(&connect(address), "/", "Cookie: sid=a\r\n").unwrap();
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    drop(silent);
}

#[test]
fn what_is_no_request_goes_by_address_at_once() {
    let _turn = machine::together();
    let Some((_app, address)) = start("sticky:cookie=sid") else { return };
    let started = Instant::now();
    let mut stream = connect(address);
    stream.write_all(b"\x16\x03\x01 no request at all\r\n\r\n").unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut stream, &mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 400"), "{text}");
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}
