//! The memory case: what managers and workers have in memory, after they have served for a while.
//!
//! Resident memory counts a page that several processes share for each of them, so that sums of it say too much; *private* is what
//! would be free if the process ended.

use allcores_testing::cost::Memory;
use allcores_testing::load::Load;
use anyhow::ensure;

use crate::bench::case::{Case, Expected, Plan};
use crate::bench::contender::{Contender, Contestant, Server, Setting, Way, absent_peers, node_peers};
use crate::bench::load::{self, mebibytes};
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
    let manager = Sum::of(managers)?;
    let workers: Vec<u32> = contestant.worker_pids().into_iter().collect();
    ensure!(!workers.is_empty(), "there are no workers");
    let number = f64::from(u32::try_from(workers.len())?);
    let of_workers = Sum::of(workers)?;
    Ok(vec![
        ("manager's RSS MiB", mebibytes(manager.resident)),
        ("manager's private MiB", mebibytes(manager.private)),
        ("a worker's RSS MiB", mebibytes(of_workers.resident) / number),
        ("a worker's private MiB", mebibytes(of_workers.private) / number),
    ])
}

/// What processes have together, in KiB.
#[derive(Default)]
struct Sum {
    resident: u64,
    private: u64,
}

impl Sum {
    fn of(pids: Vec<u32>) -> anyhow::Result<Self> {
        let mut sum = Self::default();
        for pid in pids {
            let memory = Memory::of(pid)?;
            sum.resident += memory.resident;
            sum.private += memory.private;
        }
        Ok(sum)
    }
}
