//! Everything at once, at random; `cargo xtask chaos` goes on for longer.

use std::time::Duration;

use allcores_testing::chaos::Chaos;
use allcores_testing::machine;
use allcores_testing::runtimes::{Runtime, require};

/// One whose first actions are of every kind.
const SEED: u64 = 44956;

#[test]
fn whatever_happens_nothing_is_lost_but_what_a_harmed_worker_had_accepted() {
    if require(Runtime::Node).is_none() {
        return;
    }
    let _turn = machine::alone();
    let (binary, policy) = (env!("CARGO_BIN_EXE_allcores").into(), "auto".into());
    let chaos = Chaos { binary, time: Duration::from_secs(12), seed: SEED, policy };
    let outcome = chaos.run(|action| eprintln!("{action}")).unwrap();
    eprint!("{outcome}");
    assert!(outcome.is_clean(), "{outcome}");
}
