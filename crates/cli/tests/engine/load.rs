//! Apps under load: what is lost when workers are killed, come, go and stop. Each test has the machine for itself.

mod activated;
mod chaos;
mod crash;
mod descriptors;
mod health;
mod hint;
mod relief;
mod reload;
mod scale;
mod socket_io;
mod spread;
mod stop;
mod unix;
mod upgrade;

use std::net::SocketAddr;
use std::time::Duration;

use allcores_testing::load::{Load, Running};

/// How many clients ask at a time, each on a new connection as soon as it has its answer.
const CLIENTS: usize = 8;

/// Starts the load, and waits until it is well under way.
fn start(address: SocketAddr) -> Running {
    let load = Load::new(address).clients(CLIENTS).spawn();
    assert!(load.wait_ok(100, Duration::from_secs(20)), "the app answers");
    load
}

/// The same, with requests that keep all workers busy most of the time, so that connections wait wherever they can.
fn start_busy(address: SocketAddr) -> Running {
    let load = Load::new(address).clients(3 * CLIENTS).weighted_paths([(3, "/"), (1, "/burn?ms=30")]).spawn();
    assert!(load.wait_ok(100, Duration::from_secs(20)), "the app answers");
    load
}

/// Waits until so many more requests have been answered.
fn let_pass(load: &Running, answers: u64) {
    assert!(load.wait_ok(load.ok() + answers, Duration::from_secs(30)), "the app still answers");
}
