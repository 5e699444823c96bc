//! Addresses other than one of IPv4 and TCP: two at once, IPv6, both families, UDP.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use allcores_testing::app::{Event, RunningApp, free_port};
use allcores_testing::load::Load;
use allcores_testing::runtimes::{Runtime, fixture, require};
use allcores_testing::{address, machine, skip};

use crate::app;

const WORKERS: u16 = 4;

/// How many connections or flows. That chance leaves one of four workers without any has a probability of 10^-49.
const ENOUGH: u64 = 400;

/// Checks that every worker answers at an address, and gives the answers by slot.
#[track_caller]
fn all_answer(app: &RunningApp, address: SocketAddr) -> BTreeMap<u64, u64> {
    let report = Load::new(address).requests(ENOUGH).run_blocking();
    assert!(report.is_clean(), "{address}: {report}");
    let shares = app::by_slot(&app::workers(&app.status().unwrap()), &report.by_body);
    eprintln!("{address}: answers by slot: {shares:?}");
    assert_eq!(shares.len(), usize::from(WORKERS), "{address}: {shares:?}");
    shares
}

#[track_caller]
fn assert_listens_at(app: &RunningApp, expected: &[String]) {
    let status = app.status().unwrap();
    let mut listening: Vec<&str> =
        status["listening"].as_array().unwrap().iter().filter_map(|address| address.as_str()).collect();
    let mut expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    listening.sort_unstable();
    expected.sort_unstable();
    assert_eq!(listening, expected);
}

#[test]
fn two_addresses_of_one_program_are_both_spread() {
    let Some(python) = require(Runtime::Python) else { return };
    let _turn = machine::together();
    let (one, other) = (address::unused(), address::unused());
    let app = app::script(python, "bad/two-ports.py").workers(WORKERS);
    let app = app.env("HOST", one.ip().to_string()).env("PORT", one.port().to_string());
    let app = app.env("PORT2", other.port().to_string()).start().unwrap();
    app.wait_ready(WORKERS.into()).unwrap();
    all_answer(&app, one);
    all_answer(&app, other);
    assert_listens_at(&app, &[one.to_string(), other.to_string()]);
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
    for address in [one, other] {
        TcpListener::bind(address).expect("both ports are free again");
    }
}

/// Serves at an IPv6 address, and is asked at others that lead there.
fn serves_ipv6(runtime: Runtime, ip: Ipv6Addr, clients: &[std::net::IpAddr]) {
    let Some(runtime) = require(runtime) else { return };
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        skip!("this machine has no IPv6");
    }
    let _turn = machine::together();
    let port = free_port().unwrap();
    let address = SocketAddr::from((ip, port));
    let app = app::server(runtime, address).workers(WORKERS).start().unwrap();
    app.wait_ready(WORKERS.into()).unwrap();
    for client in clients {
        all_answer(&app, SocketAddr::new(*client, port));
    }
    assert_listens_at(&app, &[address.to_string()]);
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
    TcpListener::bind(address).expect("the port is free again");
}

#[test]
fn node_serves_at_an_ipv6_address() {
    serves_ipv6(Runtime::Node, Ipv6Addr::LOCALHOST, &[Ipv6Addr::LOCALHOST.into()]);
}

#[test]
fn go_serves_at_an_ipv6_address() {
    serves_ipv6(Runtime::Go, Ipv6Addr::LOCALHOST, &[Ipv6Addr::LOCALHOST.into()]);
}

#[test]
fn java_serves_at_an_ipv6_address() {
    serves_ipv6(Runtime::Java, Ipv6Addr::LOCALHOST, &[Ipv6Addr::LOCALHOST.into()]);
}

#[test]
fn node_serves_both_families_at_the_wildcard_address() {
    let both = [Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()];
    serves_ipv6(Runtime::Node, Ipv6Addr::UNSPECIFIED, &both);
}

#[test]
fn go_serves_both_families_at_the_wildcard_address() {
    let both = [Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()];
    serves_ipv6(Runtime::Go, Ipv6Addr::UNSPECIFIED, &both);
}

/// Sends several datagrams on each of many flows: each flow has one worker, each worker has flows.
fn keeps_flows(runtime: Runtime, script: &str) {
    const DATAGRAMS: usize = 3;
    let Some(runtime) = require(runtime) else { return };
    let _turn = machine::together();
    let address = address::unused();
    let app = app::script(runtime, script).workers(WORKERS);
    let app = app.address(address);
    let app = app.start().unwrap();
    app.wait_ready(WORKERS.into()).unwrap();
    let mut by_pid = BTreeMap::new();
    for _ in 0..ENOUGH {
        let flow = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        flow.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        flow.connect(address).unwrap();
        let mut answers: Vec<String> = (0..DATAGRAMS).map(|_| ask(&flow)).collect();
        answers.dedup();
        assert_eq!(answers.len(), 1, "a flow moved from worker to worker: {answers:?}");
        *by_pid.entry(answers.remove(0)).or_default() += 1;
    }
    let shares = app::by_slot(&app::workers(&app.status().unwrap()), &by_pid);
    eprintln!("{runtime}: flows by slot: {shares:?}");
    assert_eq!(shares.len(), usize::from(WORKERS), "{shares:?}");
    assert_listens_at(&app, &[format!("udp {address}")]);
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
    UdpSocket::bind(address).expect("the port is free again");
}

fn ask(flow: &UdpSocket) -> String {
    flow.send(b"?").unwrap();
    let mut answer = [0; 32];
    let length = flow.recv(&mut answer).expect("an answer to a datagram");
    String::from_utf8_lossy(&answer[..length]).trim().to_owned()
}

#[test]
fn datagrams_do_not_go_to_a_worker_that_has_closed_its_socket_for_long() {
    /// In how many flows one after the other all are answered that would else go to it in half of all cases.
    const IN_A_ROW: usize = 40;
    let Some(python) = require(Runtime::Python) else { return };
    let _turn = machine::together();
    let address = address::unused();
    let app = app::script(python, "bad/closes-udp.py").workers(2);
    let app = app.address(address);
    let app = app.start().unwrap();
    app.wait_ready(2).unwrap();
    // Until it is not looked any more whether it only tried to bind: what is closed by then is found otherwise.
    std::thread::sleep(Duration::from_secs(2));
    let flow = || {
        let flow = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        flow.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        flow.connect(address).unwrap();
        flow
    };
    flow().send(b"close").unwrap();
    let (mut answered, mut lost, deadline) = (0, 0, Instant::now() + Duration::from_mins(1));
    while answered < IN_A_ROW {
        assert!(Instant::now() < deadline, "{lost} are lost, and more");
        let flow = flow();
        flow.send(b"?").unwrap();
        if flow.recv(&mut [0; 32]).is_ok() {
            answered += 1;
        } else {
            (answered, lost) = (0, lost + 1);
        }
    }
    eprintln!("{lost} lost until it was found");
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn datagrams_of_one_client_go_to_one_node_worker() {
    keeps_flows(Runtime::Node, "node-dgram/server.js");
}

#[test]
fn datagrams_of_one_client_go_to_one_python_worker() {
    keeps_flows(Runtime::Python, "python-udp/server.py");
}

/// Has a new version listen elsewhere, which is taken back: the app has the address that it had, and no other.
fn gives_up_what_a_version_that_was_taken_back_listened_on(runtime: Runtime) {
    let Some(runtime) = require(runtime) else { return };
    let _turn = machine::together();
    let (address, other) = (address::unused(), address::unused());
    let app = app::server(runtime, address).workers(2).start().unwrap();
    app.wait_ready(2).unwrap();
    let mut words = ["reload", app.name(), "--ready-timeout", "3s"].map(OsString::from).to_vec();
    for (name, value) in runtime.env(other) {
        let mut variable = OsString::from(format!("{name}="));
        variable.push(value);
        words.extend(["--env".into(), variable]);
    }
    words.push("--".into());
    words.extend(runtime.command(other).unwrap());
    let reload = app.run(words).unwrap();
    assert_eq!(reload.status.code(), Some(8), "{reload:?}");
    assert_listens_at(&app, &[address.to_string()]);
    TcpListener::bind(other).expect("another may have the address");
    let report = Load::new(address).requests(20).run_blocking();
    assert!(report.is_clean(), "{report}");
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn an_address_of_a_node_version_that_was_taken_back_is_free_again() {
    gives_up_what_a_version_that_was_taken_back_listened_on(Runtime::Node);
}

#[test]
fn an_address_of_a_python_version_that_was_taken_back_is_free_again() {
    gives_up_what_a_version_that_was_taken_back_listened_on(Runtime::Python);
}

#[test]
fn a_reload_does_not_wait_for_an_inspector_that_was_opened_in_one_worker() {
    let Some(node) = require(Runtime::Node) else { return };
    let _turn = machine::together();
    let (folder, served, inspected) = (tempfile::tempdir().unwrap(), address::unused(), free_port().unwrap());
    let program = fixture("node-http/server.js");
    let text = format!("process.debugPort = {};\nrequire({:?});\n", inspected, program.display().to_string());
    std::fs::write(folder.path().join("app.js"), text).unwrap();
    let app = app::command([node.program().unwrap(), folder.path().join("app.js").into()]).workers(2);
    let app =
        app.env("HOST", served.ip().to_string()).env("PORT", served.port().to_string()).start().unwrap();
    app.wait_ready(2).unwrap();
    let opened = format!("127.0.0.1:{inspected}");
    // The second time there is what the first one has left.
    for _ in 0..2 {
        let position = app.position();
        app.run(["signal", "USR1", app.name(), "--slot", "1"]).unwrap();
        let is_opened = |event: &Event| event.value["address"] == opened.as_str();
        app.wait_for_since(position, is_opened, Duration::from_secs(30)).unwrap();
        let reload = app.run(["reload", app.name(), "--ready-timeout", "30s"]).unwrap();
        assert!(reload.status.success(), "{reload:?}\n{:#?}", app.lines());
    }
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}
