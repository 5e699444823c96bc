//! The memory case: what managers and workers have in memory, after they have served for a while.
//!
//! Resident memory counts a page that several processes share for each of them, so that sums of it say too much; *private* is what
//! would be free if the process ended.

use std::fs;

use allcores_testing::load::Load;
use anyhow::{Context, ensure};

use crate::bench::case::{Case, Expected, Plan};
use crate::bench::contender::{Contender, Contestant, Server, Setting, Way, absent_peers, node_peers};
use crate::bench::load;
use crate::bench::metric::Metric;
use crate::bench::record::{Metrics, Sample};
use crate::bench::{Arguments, duration};

const WORKERS: u16 = 4;

/// How many clients have asked before it is looked.
const CLIENTS: usize = 8;

pub(super) const METRICS: &[Metric] = &[
    Metric::lower("manager's RSS MiB").plotted(),
    Metric::lower("manager's private MiB"),
    Metric::lower("a worker's RSS MiB").plotted(),
    Metric::lower("a worker's private MiB"),
];

pub(super) const CASE: Case = Case {
    name: "memory",
    about: "node; what managers and workers have in memory after they have served",
    metrics: METRICS,
    expected: &[Expected::NotWorse {
        metric: "manager's RSS MiB",
        ours: "allcores auto",
        than: "node:cluster round robin",
        group: "",
    }],
    remarks: "\
The manager is everything that stands between kernel and workers: with nginx its master and its own workers, with PM2 the daemon. \
Of the workers it is the mean. A node that is not a worker of node:cluster's has no channel to load code for.",
    plan,
};

fn plan(arguments: &Arguments) -> Plan {
    let time = duration(arguments.given.seconds);
    let contender = |(name, way)| {
        let server = Server::Node(arguments.node_server.clone());
        let setting = Setting { way, server, workers: WORKERS };
        Contender::serving(name, setting, move |contestant: &Contestant, _| {
            load::warm_up(&Load::new(contestant.address).clients(CLIENTS), time)?;
            Ok(Sample::only(memory(contestant)?))
        })
    };
    Plan {
        title: format!("{WORKERS} node workers that have answered {CLIENTS} clients for a while"),
        packages: &[],
        contenders: [("allcores auto", Way::allcores("auto"))]
            .into_iter()
            .chain(node_peers())
            .map(contender)
            .collect(),
        left_out: absent_peers(),
        each: load::time_of(time),
    }
}

/// What manager and workers have now.
pub(super) fn memory(contestant: &Contestant) -> anyhow::Result<Metrics> {
    let managers = contestant.manager_pids();
    let manager = Memory::of(managers)?;
    let workers: Vec<u32> = contestant.worker_pids().into_iter().collect();
    ensure!(!workers.is_empty(), "there are no workers");
    let number = f64::from(u32::try_from(workers.len())?);
    let of_workers = Memory::of(workers)?;
    Ok(vec![
        ("manager's RSS MiB", manager.resident),
        ("manager's private MiB", manager.private),
        ("a worker's RSS MiB", of_workers.resident / number),
        ("a worker's private MiB", of_workers.private / number),
    ])
}

/// The memory of processes together, in MiB.
struct Memory {
    resident: f64,
    private: f64,
}

impl Memory {
    fn of(pids: Vec<u32>) -> anyhow::Result<Self> {
        let mut sum = Self { resident: 0.0, private: 0.0 };
        for pid in pids {
            let path = format!("/proc/{pid}/smaps_rollup");
            let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
            sum.resident += mebibytes(&text, "Rss:")?;
            sum.private += mebibytes(&text, "Private_Clean:")? + mebibytes(&text, "Private_Dirty:")?;
        }
        Ok(sum)
    }
}

/// The value of a line like "Rss:     1234 kB".
fn mebibytes(text: &str, name: &str) -> anyhow::Result<f64> {
    let line = text.lines().find(|line| line.starts_with(name)).with_context(|| format!("no line {name}"))?;
    let kibibytes: u32 = line.split_whitespace().nth(1).context("no value")?.parse()?;
    Ok(f64::from(kibibytes) / 1024.0)
}
