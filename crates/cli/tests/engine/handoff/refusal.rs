//! Workers that want no more connections, and a primary that can have no more: nothing spins, and nobody is forgotten.

use std::io::Write;
use std::time::{Duration, Instant};

use allcores_testing::app::{Event, RunningApp};
use allcores_testing::runtimes::{Runtime, require};
use allcores_testing::{address, machine};

use super::{PATIENCE, answer, connect, pending, program};
use crate::{app, proc};

/// Answers after a byte has come: until then a connection counts.
const LIMITED: &str = "const server = require('net').createServer(socket => {
    socket.on('error', () => {}).once('data', () => socket.end(`HTTP/1.1 200 OK\\n\\n${process.pid}\\n`));
});
server.maxConnections = 1;
listen(server);";

/// The CPU time, in hundredths of a second, that the primary takes in one second.
fn ticks_of_a_second(app: &RunningApp) -> u64 {
    let (started, before) = (Instant::now(), proc::cpu_ticks(app.pid()));
    // Nothing is waited for: what is measured is that nothing happens.
    std::thread::sleep(Duration::from_secs(1).saturating_sub(started.elapsed()));
    proc::cpu_ticks(app.pid()) - before
}

fn full_workers_are_not_pestered(runtime: Runtime) {
    const WORKERS: u16 = 2;
    let Some(runtime) = require(runtime) else { return };
    let _turn = machine::alone();
    let (folder, address) = (tempfile::tempdir().unwrap(), address::unused());
    let app = program(runtime, folder.path(), address, LIMITED).workers(WORKERS).policy("round-robin");
    let app = app.start().unwrap();
    app.wait_ready(WORKERS.into()).unwrap();
    let mut first: Vec<_> = (0..WORKERS).map(|_| connect(address)).collect();
    let mut waiting: Vec<_> = (0..4).map(|_| connect(address)).collect();
    let deadline = Instant::now() + PATIENCE;
    while pending(&app.status().unwrap()) != 4 {
        assert!(Instant::now() < deadline, "{:#}", app.status().unwrap());
    }
    let ticks = ticks_of_a_second(&app);
    eprintln!("{runtime}: {ticks} hundredths of a second of CPU while all refuse");
    // It is looked whether they have closed something; a primary that offers its connections round takes all there is.
    assert!(ticks <= 8, "{ticks}");
    for stream in first.iter_mut().chain(&mut waiting) {
        stream.write_all(b"x").unwrap();
    }
    let started = Instant::now();
    // Each is closed when it has its answer, which makes room.
    let readers = first.into_iter().chain(waiting).map(|stream| std::thread::spawn(move || answer(stream)));
    for reader in readers.collect::<Vec<_>>() {
        reader.join().unwrap().unwrap();
    }
    eprintln!("{runtime}: all served {:?} after there was room", started.elapsed());
    assert_eq!(pending(&app.status().unwrap()), 0);
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn full_node_workers_are_not_pestered() {
    full_workers_are_not_pestered(Runtime::Node);
}

#[test]
fn full_node24_workers_are_not_pestered() {
    full_workers_are_not_pestered(Runtime::Node24);
}

#[test]
fn no_more_are_accepted_than_may_wait() {
    const PENDING: usize = 10;
    const CLIENTS: usize = 60;
    let Some(node) = require(Runtime::Node) else { return };
    let _turn = machine::alone();
    let address = address::unused();
    let app = app::server(node, address).workers(2).policy("round-robin");
    let app = app.option(format!("--pending={PENDING}")).start().unwrap();
    app.wait_ready(2).unwrap();
    let workers = app::workers(&app.status().unwrap());
    app::hold_still(&workers);
    let before = proc::descriptors(app.pid()).len();
    let clients: Vec<_> = (0..CLIENTS).map(|_| connect(address)).collect();
    // The last has connected, so all are in the kernel's queue, or in the primary's.
    let held = || proc::descriptors(app.pid()).len().saturating_sub(before);
    let deadline = Instant::now() + PATIENCE;
    while held() < PENDING + 2 {
        assert!(Instant::now() < deadline, "{} held", held());
    }
    let ticks = ticks_of_a_second(&app);
    assert!(ticks <= 3, "{ticks} while it can't take more");
    let (held, status) = (held(), app.status().unwrap());
    assert!(held <= PENDING + 4 && pending(&status) == PENDING as u64 + 2, "{held} held, {status:#}");
    app::let_run(&workers);
    for mut stream in &clients {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    }
    for stream in &clients {
        answer(stream).unwrap();
    }
}

#[test]
fn a_primary_without_descriptors_waits_and_says_so() {
    const CLIENTS: usize = 100;
    let Some(node) = require(Runtime::Node) else { return };
    let _turn = machine::alone();
    let address = address::unused();
    let app = app::server(node, address).workers(2).policy("round-robin");
    let app = app.wrapper(["prlimit", "--nofile=48:48"]).start().unwrap();
    app.wait_ready(2).unwrap();
    let workers = app::workers(&app.status().unwrap());
    app::hold_still(&workers);
    let clients: Vec<_> = (0..CLIENTS).map(|_| connect(address)).collect();
    let is_said =
        |event: &Event| event.value["text"].as_str().is_some_and(|text| text.contains("can't accept"));
    app.wait_for(is_said, PATIENCE).unwrap();
    let ticks = ticks_of_a_second(&app);
    assert!(ticks <= 3, "{ticks} while it has no descriptors");
    app::let_run(&workers);
    for mut stream in &clients {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    }
    for stream in &clients {
        answer(stream).unwrap();
    }
    let said = app.events().into_iter().filter(|event| is_said(event)).count();
    assert_eq!(said, 1, "{:#?}", app.lines());
}
