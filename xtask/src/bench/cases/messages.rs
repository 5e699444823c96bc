//! The messages case: one primary and one worker that talk, each Rust or node.
//!
//! The two programs measure by themselves and print what they found; here they are only started and read. What they
//! say, both say alike: values that are written as JSON by the one and read into a value by the other. A message that is
//! counted has been so read by who it was for.

use std::process::Command;
use std::time::Duration;

use allcores_testing::runtimes::target;
use anyhow::{Context, ensure};
use serde::Deserialize;

use crate::bench::case::{Case, Expected, Plan};
use crate::bench::contender::{Contender, Turn};
use crate::bench::metric::Metric;
use crate::bench::record::{Metrics, Role, Sample};
use crate::bench::{Arguments, duration};

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

pub(super) const CASE: Case = Case {
    name: "messages",
    about: "messages between a primary and a worker, Rust and node, 100 bytes and 10 kB",
    metrics: &[
        Metric::higher("to worker/s").plotted(),
        Metric::higher("to primary/s").plotted(),
        Metric::higher("round trips/s, 1").plotted(),
        Metric::lower("p50 µs"),
        Metric::lower("p99 µs"),
        Metric::higher("round trips/s, 16"),
        Metric::lower("p50 µs, 16"),
        Metric::lower("p99 µs, 16"),
    ],
    expected: &[
        Expected::NotWorse {
            metric: "to worker/s",
            ours: "Rust primary, Rust worker",
            than: "node primary, node worker",
            group: "",
        },
        Expected::NotWorse {
            metric: "to primary/s",
            ours: "Rust primary, Rust worker",
            than: "node primary, node worker",
            group: "",
        },
    ],
    remarks: "Round trips are made one by one, and 16 at a time. Of several at a time node answers on the thread that has read \
              them; the crate has a thread that carries the channel, which wakes the program's.",
    plan,
};

/// A pair and how long their messages are.
#[derive(Clone, Debug)]
struct Talk {
    pair: Pair,
    bytes: u32,
}

fn plan(arguments: &Arguments) -> Plan {
    let time = duration(arguments.given.seconds);
    let pairs = [
        ("Rust primary, Rust worker", Role::Ours, Pair::RustRust),
        ("Rust primary, node worker", Role::Ours, Pair::RustNode),
        ("node primary, node worker", Role::Peer, Pair::NodeNode),
    ];
    let contenders = |bytes| {
        pairs.map(|(name, role, pair)| {
            let talk = Talk { pair, bytes };
            let measure = move |_: Turn<'_>| Ok(Sample::only(talk.measure(time / MEASUREMENTS)?));
            Contender::new(name, role, measure).group(format!("{bytes} bytes"))
        })
    };
    Plan {
        title: "one primary, one worker; messages in a second one way, and round trips".into(),
        packages: &["allcores-parity"],
        contenders: SIZES.into_iter().flat_map(contenders).collect(),
        left_out: Vec::new(),
        each: time + Duration::from_secs(1),
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
