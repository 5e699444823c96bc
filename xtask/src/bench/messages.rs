//! The messages case: one primary and one worker that talk, each Rust or node.
//!
//! The two programs measure by themselves and print what they found; here they are only started and read. What they
//! say, both say alike: values that are written as JSON by the one and read into a value by the other. A message that is
//! counted has been so read by who it was for.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Deserialize;

use super::cases::Plan;
use super::contender::{Contender, Contestant, Server};
use super::{Arguments, Metrics, duration, target};

/// How long the messages are, in bytes.
const SIZES: [u32; 2] = [100, 10_000];

/// How many measurements a pair makes: a flood each way, and round trips one by one and several at a time.
const MEASUREMENTS: u32 = 4;

const SCRIPT: &str = "testing/baselines/messages.js";

/// Who talks with whom.
#[derive(Clone, Copy, Debug)]
enum Pair {
    NodeNode,
    RustNode,
    RustRust,
}

/// A pair and how long their messages are.
#[derive(Clone, Debug)]
pub(super) struct Talk {
    pair: Pair,
    pub(super) bytes: u32,
}

pub(super) fn plan(arguments: &Arguments) -> Plan {
    let each = duration(arguments.seconds) / MEASUREMENTS;
    let pairs = [
        ("node primary, node worker", Pair::NodeNode),
        ("Rust primary, node worker", Pair::RustNode),
        ("Rust primary, Rust worker", Pair::RustRust),
    ];
    let contenders = |bytes| {
        pairs.map(|(name, pair)| Contender::talk(&format!("{name}, {bytes} B"), Talk { pair, bytes }))
    };
    Plan {
        title: "one primary, one worker; messages in a second one way, and round trips, 1 and 16 at a time"
            .into(),
        server: Server::None,
        packages: &["allcores-parity"],
        contenders: SIZES.into_iter().flat_map(contenders).collect(),
        measure: Box::new(move |contestant: &Contestant, _| {
            contestant.talk().context("it only talks")?.measure(each)
        }),
    }
}

/// What a primary prints.
#[derive(Deserialize)]
struct Found {
    to_worker: f64,
    to_primary: f64,
    single: Echoes,
    several: Echoes,
}

/// Round trips: how many in a second, and how many microseconds each took.
#[derive(Deserialize)]
struct Echoes {
    rate: f64,
    p50: f64,
    p99: f64,
}

impl Talk {
    fn measure(&self, each: Duration) -> anyhow::Result<Metrics> {
        let mut command = match self.pair {
            Pair::NodeNode => Command::new("node"),
            Pair::RustNode | Pair::RustRust => Command::new(target().join("release/parity-messages")),
        };
        if let Pair::NodeNode = self.pair {
            command.arg(SCRIPT);
        }
        command.arg(self.bytes.to_string()).arg(each.as_millis().to_string());
        if let Pair::RustNode = self.pair {
            command.arg(SCRIPT);
        }
        let output = command.output().with_context(|| format!("start {command:?}"))?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{command:?}: {}: {stderr}", output.status);
        let found: Found = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("{command:?} printed {}", String::from_utf8_lossy(&output.stdout)))?;
        Ok(vec![
            ("to worker/s", found.to_worker),
            ("to primary/s", found.to_primary),
            ("round trips/s, 1", found.single.rate),
            ("p50 µs", found.single.p50),
            ("p99 µs", found.single.p99),
            ("round trips/s, 16", found.several.rate),
            ("p50 µs, 16", found.several.p50),
            ("p99 µs, 16", found.several.p99),
        ])
    }
}
