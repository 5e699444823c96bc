//! Nothing leaks: not from the primary into itself, nor into its workers.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use allcores_testing::app::find_release;
use allcores_testing::process::Process;
use allcores_testing::runtimes::{Runtime, require};
use allcores_testing::{address, machine, skip};
use rustix::process::Signal;

use crate::{app, proc};

/// Listens and does nothing else, as early as python can.
const LISTENER: &str = "\
import _socket, os
listener = _socket.socket()
listener.bind((os.environ['HOST'], int(os.environ['PORT'])))
listener.listen()
listener._accept()
";

/// How long a python or a node may take to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// What descriptors are, without what tells two of a kind apart.
fn kinds(pid: u32) -> Vec<String> {
    let mut kinds: Vec<String> = proc::descriptors(pid).into_iter().map(|(_, link)| kind_of(&link)).collect();
    kinds.sort_unstable();
    kinds
}

fn kind_of(link: &str) -> String {
    match link.split_once(":[") {
        // Of these the brackets hold what they are, of others a number.
        Some(("anon_inode", _)) | None => link.to_owned(),
        Some((kind, _)) => kind.to_owned(),
    }
}

#[test]
fn a_thousand_respawns_leave_no_descriptor_behind() {
    const WORKERS: u16 = 8;
    const RESPAWNS: usize = 1000;
    let Some(python) = require(Runtime::Python) else { return };
    let _turn = machine::alone();
    let address = address::unused();
    let command = [python.program().unwrap(), "-ISc".into(), LISTENER.into()];
    let app = app::command(command).workers(WORKERS).option("--min-uptime=1ms").option("--backoff=1ms");
    let app = app.address(address);
    let app = app.option("--max-restarts=100000").start().unwrap();
    app.wait_ready(WORKERS.into()).unwrap();
    let before = (kinds(app.pid()), proc::resident_kib(app.pid()));
    for round in 1..=RESPAWNS / usize::from(WORKERS) {
        for worker in app::workers(&app.status().unwrap()).into_values() {
            let numbers: Vec<i32> = proc::descriptors(worker).into_iter().map(|(number, _)| number).collect();
            assert_eq!(numbers, [0, 1, 2, 3], "a worker has its streams and its lane, in round {round}");
            proc::Process::open(worker).expect("it runs").signal(Signal::KILL);
        }
        app.wait_count("ready", usize::from(WORKERS) * (round + 1), PATIENCE).unwrap();
    }
    let after = (kinds(app.pid()), proc::resident_kib(app.pid()));
    eprintln!(
        "the primary's descriptors: {} before, {} after {RESPAWNS} respawns; resident: {} KiB, {} KiB",
        before.0.len(),
        after.0.len(),
        before.1,
        after.1
    );
    assert!(before.0.len().abs_diff(after.0.len()) <= 2, "{before:#?}\n{after:#?}");
    assert_eq!(app.stop().unwrap().code(), Some(0));
}

#[test]
fn a_node_worker_has_the_channel_and_else_what_node_has_alone() {
    const SERVER: &str = "require('http').createServer().listen(process.env.PORT, process.env.HOST, () =>
        console.log(JSON.stringify({ event: 'serves' })))";
    let Some(node) = require(Runtime::Node) else { return };
    let _turn = machine::alone();
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("server.js");
    std::fs::write(&script, SERVER).unwrap();
    let program = node.program().unwrap();

    let address = address::unused();
    let mut command = Command::new(&program);
    command.arg(&script).stdin(Stdio::null());
    command.env("HOST", address.ip().to_string()).env("PORT", address.port().to_string());
    let alone = Process::spawn(&mut command).unwrap();
    alone.wait_count("serves", 1, PATIENCE).unwrap();
    let mut expected = kinds(alone.pid());
    // What this test was itself started with, by whomever, goes on to what it starts; an app's workers don't get it.
    let inherited = proc::descriptors(std::process::id());
    for (number, link) in proc::descriptors(alone.pid()) {
        if number > 2 && inherited.contains(&(number, link.clone())) {
            let at = expected.iter().position(|kind| *kind == kind_of(&link)).expect("it is among them");
            expected.remove(at);
        }
    }
    expected.push("socket".into());
    expected.sort_unstable();

    let address = address::unused();
    let app = app::command([program, script.into()]).workers(4);
    let app = app.address(address);
    let app = app.start().unwrap();
    let mut serving = 0;
    app.wait_for(
        |event| {
            serving += usize::from(event.value["line"].as_str().is_some_and(|line| line.contains("serves")));
            serving == 4
        },
        PATIENCE,
    )
    .unwrap();
    for worker in app::workers(&app.status().unwrap()).into_values() {
        assert_eq!(kinds(worker), expected, "{:#?}", proc::descriptors(worker));
    }
    assert_eq!(app.stop().unwrap().code(), Some(0));
}

/// Reads the memory of a primary of eight node workers, in KiB, after each of ten times ten questions for its status: when it has
/// given back what only the answers needed, if it is more than `limit` before.
fn memory_of_eight(binary: impl Into<PathBuf>, memory: fn(u32) -> u64, limit: u64) -> Option<Vec<u64>> {
    let settled = |pid| {
        let until = Instant::now() + Duration::from_secs(1);
        loop {
            let kib = memory(pid);
            if kib <= limit || Instant::now() >= until {
                return kib;
            }
            std::thread::yield_now();
        }
    };
    let node = require(Runtime::Node)?;
    let _turn = machine::alone();
    let address = address::unused();
    let app = app::server(node, address).binary(binary).workers(8).start().unwrap();
    app.wait_ready(8).unwrap();
    let mut measured = vec![settled(app.pid())];
    for _ in 0..10 {
        for _ in 0..10 {
            app.status().unwrap();
        }
        measured.push(settled(app.pid()));
    }
    assert_eq!(app.stop().unwrap().code(), Some(0));
    Some(measured)
}

#[test]
fn the_primary_of_eight_node_workers_stays_below_eight_mebibytes() {
    const LIMIT: u64 = 8 * 1024;
    let binary = match find_release() {
        Ok(binary) => binary,
        Err(why) => skip!("{why:#}"),
    };
    let Some(resident) = memory_of_eight(binary, proc::resident_kib, LIMIT) else { return };
    eprintln!("the primary's resident memory, in KiB, after each 10 status queries: {resident:?}");
    assert!(resident.iter().all(|kib| *kib <= LIMIT), "{resident:?}");
}

#[test]
fn what_the_primary_of_eight_node_workers_allocates_stays_below_two_mebibytes() {
    const LIMIT: u64 = 2 * 1024;
    // Of this build, whose code alone is longer than all of the optimized one, only what is its own counts.
    let Some(own) = memory_of_eight(env!("CARGO_BIN_EXE_allcores"), proc::own_kib, LIMIT) else { return };
    eprintln!("the primary's own memory, in KiB, after each 10 status queries: {own:?}");
    assert!(own.iter().all(|kib| *kib <= LIMIT), "{own:?}");
}
