//! Round-robin: who is free gets the next, and all who are free get as many.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use allcores_testing::app::Event;
use allcores_testing::load::Load;
use allcores_testing::runtimes::{Runtime, require};
use allcores_testing::{address, machine};
use serde_json::json;

use super::{PATIENCE, answer, ask, connect, program};
use crate::{app, proc};

const WORKERS: u16 = 4;

/// Whether somebody had his turn ten times, about: one that has answered may not have said yet that it is idle.
fn is_about_ten(share: u64) -> bool {
    (5..=15).contains(&share)
}

fn take_turns(runtime: Runtime) {
    let Some(runtime) = require(runtime) else { return };
    let _turn = machine::together();
    let address = address::unused();
    let app = app::server(runtime, address).workers(WORKERS).policy("round-robin").start().unwrap();
    app.wait_ready(WORKERS.into()).unwrap();
    let listening = app.wait_count("listening", WORKERS.into(), PATIENCE).unwrap();
    assert!(listening.iter().all(|event| event.value["policy"] == "round-robin"), "{listening:#?}");
    let report = Load::new(address).requests(100).run_blocking();
    assert!(report.is_clean(), "{report}");
    // Whoever is idle has his turn, one after the other; one that has answered may not have said yet that it is.
    assert_eq!(report.by_body.len(), 4, "{:?}", report.by_body);
    assert!(report.by_body.values().all(|share| (23..=27).contains(share)), "{:?}", report.by_body);
    let status = app.status().unwrap();
    let expected = json!([{"address": address.to_string(), "policy": "round-robin", "pending": 0}]);
    assert_eq!(status["addresses"], expected);
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

/// The one that computes has one client more at the most, and whoever else comes waits for nobody.
fn pass_over_who_is_busy(runtime: Runtime) {
    let Some(runtime) = require(runtime) else { return };
    let _turn = machine::alone();
    let address = address::unused();
    let app = app::server(runtime, address).workers(3).policy("round-robin").start().unwrap();
    app.wait_ready(3).unwrap();
    let idle: Vec<(u32, u64)> =
        app::workers(&app.status().unwrap()).into_values().map(|pid| (pid, proc::cpu_ticks(pid))).collect();
    let burning = std::thread::spawn(move || ask(&connect(address), "/burn?ms=3000", "").unwrap());
    while !idle.iter().any(|(pid, before)| proc::cpu_ticks(*pid) > before + 20) {
        std::thread::yield_now();
    }
    let clients: Vec<_> =
        (0..60).map(|_| std::thread::spawn(move || ask(&connect(address), "/", ""))).collect();
    let mut by_pid: BTreeMap<u32, u64> = BTreeMap::new();
    for client in clients {
        *by_pid.entry(client.join().unwrap().unwrap()).or_default() += 1;
    }
    let busy = burning.join().unwrap();
    assert!(by_pid.get(&busy).copied().unwrap_or(0) <= 1, "{busy} was busy: {by_pid:?}");
    assert!(by_pid.len() >= 2, "{by_pid:?}");
}

macro_rules! each {
    ($($turns:ident, $busy:ident: $runtime:ident,)+) => {
        $(#[test]
        fn $turns() {
            take_turns(Runtime::$runtime);
        }

        #[test]
        fn $busy() {
            pass_over_who_is_busy(Runtime::$runtime);
        })+
    };
}

each! {
    idle_node_workers_take_turns, a_busy_node_worker_is_passed_over: Node,
    idle_node22_workers_take_turns, a_busy_node22_worker_is_passed_over: Node22,
    idle_node24_workers_take_turns, a_busy_node24_worker_is_passed_over: Node24,
    idle_node26_workers_take_turns, a_busy_node26_worker_is_passed_over: Node26,
}

#[test]
fn workers_take_turns_at_a_unix_socket_whose_file_goes_with_the_app() {
    let Some(node) = require(Runtime::Node) else { return };
    let _turn = machine::together();
    let folder = tempfile::tempdir().unwrap();
    let path = app::socket_in(folder.path());
    let app = app::script(node, "node-unix/server.js").env("SOCKET", &path).workers(WORKERS);
    let app = app.policy("round-robin").start().unwrap();
    app.wait_ready(WORKERS.into()).unwrap();
    let mut by_pid: BTreeMap<u32, u64> = BTreeMap::new();
    for _ in 0..40 {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        *by_pid.entry(answer(stream).unwrap()).or_default() += 1;
    }
    assert!(by_pid.len() == 4 && by_pid.values().all(|share| is_about_ten(*share)), "{by_pid:?}");
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "files are left");
}

#[test]
fn several_servers_of_a_program_have_their_own_turns() {
    const SERVERS: &str = "for (const _ of [1, 2]) require('http')
        .createServer((q, a) => a.end(`${process.pid}\\n`)).listen(0, process.env.HOST);";
    let Some(node) = require(Runtime::Node) else { return };
    let _turn = machine::together();
    let folder = tempfile::tempdir().unwrap();
    let app = program(node, folder.path(), address::unused(), SERVERS).workers(2).policy("round-robin");
    let app = app.start().unwrap();
    app.wait_count("listening", 4, PATIENCE).unwrap();
    let status = app.status().unwrap();
    let addresses = status["listening"].as_array().unwrap();
    assert_eq!(addresses.len(), 2, "the n-th listen(0) of each worker is the same port: {status:#}");
    for address in addresses {
        let report = Load::new(address.as_str().unwrap().parse().unwrap()).requests(20).run_blocking();
        assert!(
            report.is_clean()
                && report.by_body.len() == 2
                && report.by_body.values().all(|share| is_about_ten(*share)),
            "{report}"
        );
    }
}

#[test]
fn nodes_own_variable_chooses_the_policy_where_none_is_given() {
    let Some(node) = require(Runtime::Node) else { return };
    let _turn = machine::together();
    for (value, option, policy) in
        [("rr", None, "round-robin"), ("none", None, "shared"), ("rr", Some("lanes"), "lanes")]
    {
        let app = app::server(node, address::unused()).workers(1).env("NODE_CLUSTER_SCHED_POLICY", value);
        let app = option.into_iter().fold(app, |app, option: &str| app.policy(option)).start().unwrap();
        let listening = app.wait_count("listening", 1, PATIENCE).unwrap();
        assert_eq!(listening[0].value["policy"], policy, "{value}, {option:?}");
    }
}

#[test]
fn programs_without_a_channel_get_lanes_and_it_is_said_once() {
    let Some(python) = require(Runtime::Python) else { return };
    let _turn = machine::together();
    let address = address::unused();
    let app = app::server(python, address).workers(2).policy("round-robin").start().unwrap();
    app.wait_ready(2).unwrap();
    let is_lanes = |event: &Event| event.value["policy"] == "lanes" && event.value["rung"] == "adopted";
    let listening = app.wait_count("listening", 2, PATIENCE).unwrap();
    assert!(listening.iter().all(is_lanes), "{listening:#?}");
    let said = |event: &Event| {
        event.value["text"].as_str().is_some_and(|text| text.contains("hands connections over"))
    };
    let notices = app.events().into_iter().filter(said).count();
    assert_eq!(notices, 1, "{:#?}", app.lines());
    assert!(Load::new(address).requests(20).run_blocking().is_clean());
}

#[test]
fn while_no_worker_lives_connections_wait_for_the_next() {
    let Some(node) = require(Runtime::Node) else { return };
    let _turn = machine::together();
    let address = address::unused();
    let app = app::server(node, address).workers(1).policy("round-robin");
    let app = app.option("--min-uptime=1m").option("--backoff=500ms").start().unwrap();
    app.wait_ready(1).unwrap();
    for _ in 0..2 {
        let worker = app::workers(&app.status().unwrap())[&0];
        let position = app.position();
        proc::Process::open(worker).unwrap().signal(rustix::process::Signal::KILL);
        app.wait_for_since(position, |event| event.kind() == "exited", PATIENCE).unwrap();
        let waiting: Vec<_> = (0..20).map(|_| connect(address)).collect();
        for mut stream in &waiting {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        }
        for stream in &waiting {
            answer(stream).unwrap();
        }
    }
}

#[test]
fn what_a_worker_holds_of_a_connection_is_its_own() {
    const ECHO: &str = "listen(require('net').createServer(socket => socket.pipe(socket)));";
    let Some(node) = require(Runtime::Node) else { return };
    let _turn = machine::together();
    let (folder, address) = (tempfile::tempdir().unwrap(), address::unused());
    let app = program(node, folder.path(), address, ECHO).workers(2).policy("round-robin").start().unwrap();
    app.wait_ready(2).unwrap();
    let before = proc::descriptors(app.pid());
    let mut streams: Vec<_> = (0..50).map(|_| connect(address)).collect();
    for stream in &mut streams {
        stream.write_all(b"hello").unwrap();
        stream.read_exact(&mut [0; 5]).unwrap();
    }
    let after = proc::settled_descriptors(app.pid(), before.len());
    assert_eq!(after, before, "the primary keeps nothing of what was taken");
    // The peer's end is seen, though another process had the connection first.
    for stream in &mut streams {
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut [0; 5]).unwrap(), 0);
    }
}

/// A worker that is asked to leave gets nothing more, and the pool goes on.
#[test]
fn a_worker_that_closes_its_server_is_out_and_may_come_back() {
    const SERVER: &str = "const server = require('http').createServer((q, a) => {
        a.end(`${process.pid}\\n`);
        if (q.url === '/close') server.close(() => setTimeout(() => listen(server), 300));
    });
    listen(server);";
    let Some(node) = require(Runtime::Node) else { return };
    let _turn = machine::together();
    let (folder, address) = (tempfile::tempdir().unwrap(), address::unused());
    let app = program(node, folder.path(), address, SERVER).workers(2).policy("round-robin").start().unwrap();
    app.wait_ready(2).unwrap();
    for _ in 0..3 {
        let position = app.position();
        let gone = ask(&connect(address), "/close", "").unwrap();
        let back = |event: &Event| event.kind() == "ready" && event.worker_pid() == Some(gone);
        app.wait_for_since(position, back, Duration::from_secs(10)).unwrap();
        let report = Load::new(address).requests(20).run_blocking();
        assert!(
            report.is_clean()
                && report.by_body.len() == 2
                && report.by_body.values().all(|share| is_about_ten(*share)),
            "{report}"
        );
    }
}

/// What the crate's workers can say about an address, said by a node program.
#[test]
fn whoever_asks_for_an_address_first_says_how_it_is_served() {
    const SERVER: &str = "const send = process.send;
    process.send = (message, ...rest) => {
        if (message.act === 'queryServer') message.policy = process.env[`POLICY_${process.env.ALLCORES_SLOT}`];
        return send.call(process, message, ...rest);
    };
    const server = require('http').createServer((q, a) => a.end(`${process.pid}\\n`));
    server.on('error', error => console.log(JSON.stringify({ failed: error.code })));
    // All others wait for the first.
    const begin = () => require('net').connect(process.env.PORT, process.env.HOST)
        .on('connect', function () { this.destroy(); listen(server); })
        .on('error', () => setTimeout(begin, 20));
    if (process.env.ALLCORES_SLOT === '0') listen(server); else begin();";
    let Some(node) = require(Runtime::Node) else { return };
    let _turn = machine::together();
    let (folder, address) = (tempfile::tempdir().unwrap(), address::unused());
    let app = program(node, folder.path(), address, SERVER).workers(3).policy("lanes");
    let app =
        app.env("POLICY_0", "round-robin").env("POLICY_1", "sticky:cookie=a").env("POLICY_2", "fastest");
    let app = app.start().unwrap();
    let listening = app.wait_count("listening", 2, PATIENCE).unwrap();
    assert!(listening.iter().all(|event| event.value["policy"] == "round-robin"), "{listening:#?}");
    let failed = |event: &Event| event.value["line"].as_str().is_some_and(|line| line.contains("EINVAL"));
    app.wait_for(failed, PATIENCE).unwrap();
    let said = |event: &Event| {
        event.value["text"].as_str().is_some_and(|text| text.contains("asks for sticky:cookie=a"))
    };
    assert_eq!(app.events().into_iter().filter(said).count(), 1, "{:#?}", app.lines());
    assert!(Load::new(address).requests(20).run_blocking().is_clean());
}
