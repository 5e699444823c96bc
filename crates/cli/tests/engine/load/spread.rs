//! Connections that stay: each worker holds as many as the others.

use allcores_testing::load::hold;
use allcores_testing::runtimes::{Runtime, require};
use allcores_testing::{address, machine, stats};

use crate::app;

const WORKERS: u16 = 4;

#[test]
fn connections_that_stay_are_spread_evenly() {
    let Some(node) = require(Runtime::Node) else { return };
    let _turn = machine::alone();
    let address = address::unused();
    let app = app::server(node, address).workers(WORKERS).start().unwrap();
    app.wait_ready(WORKERS.into()).unwrap();
    let held = hold(address, 300, "/").unwrap();
    let counts = app::by_slot(&app::workers(&app.status().unwrap()), held.by_body());
    #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
    let shares: Vec<f64> =
        (0..WORKERS.into()).map(|slot| counts.get(&slot).copied().unwrap_or(0) as f64).collect();
    let jain = stats::jain(&shares);
    eprintln!("300 connections by slot: {counts:?}, Jain's index {jain:.4}");
    assert!(jain >= 0.98, "{jain}");
    drop(held);
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}
