//! What Node's tests pin about the API of cluster, shown of ours: a Rust primary with Rust workers.
//!
//! Each test plays a script in its workers, `src/bin/worker`, and says in its first line which of Node's it answers.

mod disconnect;
mod gaps;
mod handles;
mod ipc;
mod life;
mod listening;
mod other_primary;
mod round_robin;
mod settings;
mod udp;

use std::path::Path;
use std::time::Duration;

use allcores::{Builder, Policy};
use allcores_parity::Stage;
use allcores_testing::machine;
use serde_json::{Value, json};

/// More than any test takes on a machine that is busy with others.
const LIMIT: Duration = Duration::from_secs(40);

/// What workers run.
const WORKER: &str = env!("CARGO_BIN_EXE_parity-worker");

/// The policies that differ in how connections reach workers.
const POLICIES: [Policy; 3] = [Policy::Lanes, Policy::Shared, Policy::RoundRobin];

/// Runs a test.
fn play(test: impl Future<Output = ()>) {
    let _turn = machine::together();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let ended = tokio::time::timeout(LIMIT, test).await;
        assert!(ended.is_ok(), "it took more than {LIMIT:?}");
    });
}

/// A builder for workers that play this script.
#[expect(clippy::needless_pass_by_value, reason = "it is written on the spot")]
fn builder(script: Value) -> Builder {
    Builder::new().exec(WORKER).args([script.to_string()])
}

/// A cluster of workers that will play this script. None is forked yet.
async fn stage(script: Value) -> Stage {
    Stage::open(builder(script)).await
}

/// The same, by this policy.
async fn stage_by(policy: &Policy, script: Value) -> Stage {
    Stage::open(builder(script).policy(policy.clone())).await
}

/// Listening on a port that the kernel chooses.
fn listen() -> Value {
    listen_on(0)
}

/// Listening on loopback, on this port.
fn listen_on(port: u16) -> Value {
    json!({ "listen": { "at": format!("127.0.0.1:{port}") } })
}

/// What a worker says of an address that is taken.
fn in_use() -> Value {
    json!({ "error": "AddressUnavailable", "cause": "AddrInUse" })
}

/// The port that a worker says it listens on.
#[expect(clippy::needless_pass_by_value, reason = "it has just been said")]
fn port(said: Value) -> u16 {
    said["listening"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or_else(|| panic!("{said}"))
}

/// A path as JSON has it.
fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
