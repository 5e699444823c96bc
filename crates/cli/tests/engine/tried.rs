//! Addresses that programs bind only to see whether they can, and those that go together or do not.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use allcores_testing::app::{RunningApp, free_port};
use allcores_testing::load::Load;
use allcores_testing::runtimes::{Runtime, fixture, require};
use allcores_testing::{machine, skip};

use crate::app;

/// Long enough for anything on a busy machine.
const LONG: Duration = Duration::from_secs(30);

/// Waits until the app listens at these addresses, and at no others.
#[track_caller]
fn listens_only_at(app: &RunningApp, expected: &[String]) {
    let deadline = Instant::now() + LONG;
    loop {
        let status = app.status().unwrap();
        let listening: Vec<&str> =
            status["listening"].as_array().unwrap().iter().filter_map(|address| address.as_str()).collect();
        if listening == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{listening:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Where anything was said to be listened on.
fn told(app: &RunningApp) -> Vec<String> {
    let events = app.events();
    let listening = events.iter().filter(|event| event.kind() == "listening");
    let mut told: Vec<String> =
        listening.map(|event| event.value["address"].as_str().unwrap().to_owned()).collect();
    told.sort();
    told.dedup();
    told
}

/// Has each of so many workers try the port on all addresses before it serves on one.
fn serves_after_it_has_tried(runtime: Runtime, script: &str, workers: u16) {
    let Some(runtime) = require(runtime) else { return };
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        skip!("this machine has no IPv6");
    }
    let _turn = machine::together();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().unwrap()));
    let app = app::script(runtime, script).workers(workers).env("SERVES", "1");
    let app = app.address(address);
    let app = app.start().unwrap();
    app.wait_ready(workers.into()).unwrap();
    listens_only_at(&app, &[address.to_string()]);
    let report = Load::new(address).requests(200).run_blocking();
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.by_body.len(), usize::from(workers), "{report}");
    let failed = app.events().iter().any(|event| matches!(event.kind(), "exited" | "address_unavailable"));
    assert!(!failed, "{:#?}", app.lines());
    // What was bound to all addresses is closed, for others too.
    let elsewhere = SocketAddr::from(([127, 0, 0, 7], address.port()));
    TcpListener::bind(elsewhere).expect("another address with that port is free");
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn a_python_program_serves_after_it_has_tried_addresses() {
    serves_after_it_has_tried(Runtime::Python, "bad/tries.py", 1);
}

#[test]
fn python_workers_that_try_addresses_are_not_in_each_others_way() {
    serves_after_it_has_tried(Runtime::Python, "bad/tries.py", 3);
}

#[test]
fn a_node_program_serves_after_it_has_tried_addresses() {
    serves_after_it_has_tried(Runtime::Node, "bad/tries.js", 1);
}

#[test]
fn node_workers_that_try_addresses_are_not_in_each_others_way() {
    serves_after_it_has_tried(Runtime::Node, "bad/tries.js", 3);
}

#[test]
fn nobody_is_said_to_listen_where_addresses_were_only_tried_and_clients_are_refused() {
    let Some(python) = require(Runtime::Python) else { return };
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        skip!("this machine has no IPv6");
    }
    let _turn = machine::together();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().unwrap()));
    let app = app::script(python, "bad/tries.py").workers(2).env("PORT", address.port().to_string());
    let app = app.start().unwrap();
    for slot in 0..2 {
        let has_tried = |event: &allcores_testing::process::Event| {
            event.slot() == Some(slot) && event.value["line"] == "tried"
        };
        app.wait_for(has_tried, LONG).unwrap();
    }
    listens_only_at(&app, &[]);
    let error = TcpStream::connect(address).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    let status = app.status().unwrap();
    assert!(
        status["workers"].as_array().unwrap().iter().all(|worker| worker["state"] != "ready"),
        "{status}"
    );
    eprintln!("said to be listened on: {:?}", told(&app));
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn what_was_tried_is_closed_while_the_worker_goes_on_to_try_others() {
    let Some(python) = require(Runtime::Python) else { return };
    let _turn = machine::together();
    let once = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().unwrap()));
    let app = app::script(python, "bad/tries-on.py").workers(1).env("PORT", once.port().to_string());
    let app = app.env("PORT2", free_port().unwrap().to_string()).start().unwrap();
    app.wait_for(|event| event.value["line"] == "tried", LONG).unwrap();
    let deadline = Instant::now() + LONG;
    while let Err(error) = TcpListener::bind(once) {
        assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
        assert!(Instant::now() < deadline, "nobody has it, and it is not closed: {}", app.status().unwrap());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn each_worker_may_bind_beside_its_own_what_the_program_may_alone() {
    let Some(python) = require(Runtime::Python) else { return };
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        skip!("this machine has no IPv6");
    }
    let _turn = machine::together();
    let port = free_port().unwrap().to_string();
    let mut alone = Command::new(python.program().unwrap());
    let alone = alone.arg(fixture("bad/overlaps.py")).env("PORT", &port).stdout(Stdio::piped());
    let mut alone = alone.spawn().unwrap();
    let mut expected = Vec::new();
    for line in std::io::BufRead::lines(std::io::BufReader::new(alone.stdout.take().unwrap())) {
        let line = line.unwrap();
        if line == "done" {
            break;
        }
        expected.push(line);
    }
    alone.kill().unwrap();
    alone.wait().unwrap();
    assert!(expected.iter().any(|line| line.ends_with("may")), "{expected:#?}");
    assert!(expected.iter().any(|line| line.ends_with("in use")), "{expected:#?}");
    let app = app::script(python, "bad/overlaps.py").workers(2).env("PORT", port).start().unwrap();
    for slot in 0..2 {
        let is_done = |event: &allcores_testing::process::Event| {
            event.slot() == Some(slot) && event.value["line"] == "done"
        };
        app.wait_for(is_done, LONG).unwrap();
    }
    let mut lines = BTreeMap::<u64, Vec<String>>::new();
    for event in app.events() {
        if let (Some(slot), Some(line)) = (event.slot(), event.value["line"].as_str())
            && line != "done"
        {
            lines.entry(slot).or_default().push(line.to_owned());
        }
    }
    for (slot, said) in &lines {
        for (said, expected) in said.iter().zip(&expected) {
            assert_eq!(said, expected, "slot {slot}");
        }
    }
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}
