//! A node worker that computes for long: who came to it while it was busy is served by another.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use allcores_testing::app::Event;
use allcores_testing::load::Load;
use allcores_testing::runtimes::{Runtime, require};
use allcores_testing::{address, machine};

use crate::app;
use crate::proc::cpu_ticks;

/// How long the one worker computes. All else must have been answered by then.
const BURN_MS: u32 = 3000;

/// Sends a request, and reads its answer to the end.
fn get(address: SocketAddr, path: &str) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

fn relieves_a_busy_worker(runtime: Runtime) {
    let Some(runtime) = require(runtime) else { return };
    let _turn = machine::alone();
    let address = address::unused();
    let app = app::server(runtime, address).workers(2).start().unwrap();
    let ready = app.wait_ready(2).unwrap();
    let pids: Vec<u32> = ready.iter().filter_map(Event::worker_pid).collect();
    let idle: Vec<u64> = pids.iter().map(|pid| cpu_ticks(*pid)).collect();

    let has_burnt = Arc::new(AtomicBool::new(false));
    let burning = std::thread::spawn({
        let has_burnt = Arc::clone(&has_burnt);
        move || {
            get(address, &format!("/burn?ms={BURN_MS}"));
            has_burnt.store(true, Ordering::SeqCst);
        }
    });
    // Not before it computes: what it accepted together with that request is its own.
    while !pids.iter().zip(&idle).any(|(pid, idle)| cpu_ticks(*pid) > idle + 20) {
        assert!(!has_burnt.load(Ordering::SeqCst), "no worker was seen to compute");
        std::thread::yield_now();
    }
    let report = Load::new(address).clients(2).requests(200).run_blocking();
    assert!(!has_burnt.load(Ordering::SeqCst), "somebody waited for the busy worker: {report}");
    assert!(report.is_clean(), "{report}");
    eprintln!(
        "{runtime}: {} answered beside a busy worker, the slowest after {:?}",
        report.ok,
        report.latencies.max()
    );
    burning.join().unwrap();
}

macro_rules! each {
    ($($name:ident: $runtime:ident,)+) => {
        $(#[test]
        fn $name() {
            relieves_a_busy_worker(Runtime::$runtime);
        })+
    };
}

each! {
    who_came_to_a_busy_node_worker_is_served_by_another: Node,
    who_came_to_a_busy_node22_worker_is_served_by_another: Node22,
    who_came_to_a_busy_node24_worker_is_served_by_another: Node24,
    who_came_to_a_busy_node26_worker_is_served_by_another: Node26,
}
