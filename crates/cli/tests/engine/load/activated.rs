//! Sockets that a service manager has bound and passed on: the primary's next programs go on with the very same, under load.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use allcores_testing::app::App;
use allcores_testing::load::Load;
use allcores_testing::runtimes::{Runtime, require};
use allcores_testing::{address, machine, skip};

use super::let_pass;
use crate::app;
use crate::upgrade::upgrade;

const ACTIVATE: &str = "/usr/bin/systemd-socket-activate";
const WORKERS: u16 = 2;
const UPGRADES: u64 = 3;

/// Has it started by its first connection, with the socket that this was made to.
fn activated(app: App, address: SocketAddr) -> App {
    let mut words = vec![ACTIVATE.to_owned(), "--fdname=front".to_owned(), format!("--listen={address}")];
    // What is not named it does not pass on.
    words.extend(["ALLCORES_RUNTIME_DIR", "HOST", "PORT"].map(|name| format!("--setenv={name}")));
    app.wrapper(words).workers(WORKERS)
}

/// Makes the first connection, as soon as there is a socket.
fn wake(address: SocketAddr) -> TcpStream {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => return stream,
            Err(error) => assert!(Instant::now() < deadline, "{address}: {error}"),
        }
    }
}

/// The sockets that listen on an address, by their inodes.
fn listening(address: SocketAddr) -> BTreeSet<u64> {
    let SocketAddr::V4(address) = address else { panic!("{address}") };
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    // Others have the same port at hosts of their own. The number of the host is shown as the machine has it in memory.
    let local = format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port());
    // After much load the table has a hundred thousand connections that are over.
    let lines = table.lines().filter(|line| line.contains(&local));
    let rows = lines.map(|line| line.split_whitespace().collect::<Vec<_>>());
    // Local address, state (0A: it listens), inode.
    rows.filter(|row| row[1] == local && row[3] == "0A").map(|row| row[9].parse().unwrap()).collect()
}

/// Upgrades an activated app under load, again and again, and then has it reloaded.
fn loses_nothing(app: App, address: SocketAddr, rung: &str) {
    let _turn = machine::alone();
    let app = activated(app, address).start().unwrap();
    drop(wake(address));
    // One that was passed its socket is known to serve by what it accepts.
    let load = Load::new(address).spawn();
    app.wait_ready(WORKERS.into()).unwrap();
    let workers = app::workers(&app.status().unwrap());
    let sockets = listening(address);
    assert!(!sockets.is_empty(), "{address}");
    for nth in 1..=UPGRADES {
        upgrade(&app);
        let_pass(&load, 20);
        let status = app.status().unwrap();
        assert_eq!((&status["pid"], &status["upgrades"]), (&app.pid().into(), &nth.into()));
        assert_eq!(app::workers(&status), workers);
        assert_eq!(status["workers"][0]["rung"], rung);
        assert_eq!(listening(address), sockets, "after upgrade {nth}");
    }
    // Those who begin to listen now get their share of what was carried.
    let output = app.run(["reload", app.name()]).unwrap();
    assert!(output.status.success(), "{output:?}");
    let_pass(&load, 20);
    let status = app.status().unwrap();
    assert!(app::workers(&status).values().all(|pid| !workers.values().any(|old| old == pid)), "{status}");
    assert_eq!(status["workers"][0]["rung"], rung);
    assert!(sockets.is_subset(&listening(address)), "{sockets:?}, {:?}", listening(address));
    let report = load.stop();
    assert!(report.is_clean(), "{report}");
    assert!(app.events().iter().all(|event| event.kind() != "notice"), "{:#?}", app.lines());
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn upgrading_carries_a_passed_socket_that_a_program_binds_by_itself() {
    let Some(python) = require(Runtime::Python) else { return };
    if !Path::new(ACTIVATE).exists() {
        skip!("systemd-socket-activate: it is not installed");
    }
    let address = address::unused();
    loses_nothing(app::server(python, address).policy("lanes"), address, "adopted");
}

#[test]
fn upgrading_carries_a_passed_socket_that_is_passed_on() {
    let Some(python) = require(Runtime::Python) else { return };
    if !Path::new(ACTIVATE).exists() {
        skip!("systemd-socket-activate: it is not installed");
    }
    let address = address::unused();
    // With `auto` it would be told that one listener serves it better.
    let app = app::script(python, "operate/takes_sockets.py").option("--pass-sockets").policy("lanes");
    loses_nothing(app, address, "inherited");
}
