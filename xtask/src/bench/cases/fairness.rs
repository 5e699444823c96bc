//! The fairness case: connections that are opened one after the other and held. Who gets them?
//!
//! Nothing else tells the workers apart, as none of them is ever busy.

use std::time::Duration;

use allcores_testing::load::hold;
use allcores_testing::stats;
use anyhow::ensure;

use crate::bench::Arguments;
use crate::bench::case::{Case, Expected, Plan};
use crate::bench::contender::{Contender, Contestant, Server, Setting, Way, absent_peers, node_peers};
use crate::bench::load::float;
use crate::bench::metric::Metric;
use crate::bench::record::{Metrics, Sample};

const WORKERS: u16 = 4;

pub(super) const CASE: Case = Case {
    name: "fairness",
    about: "node; connections opened one after the other and held: who gets them",
    metrics: &[
        Metric::higher("Jain's index").plotted(),
        Metric::lower("most").plotted(),
        Metric::higher("fewest").plotted(),
    ],
    expected: &[Expected::NotWorse {
        metric: "Jain's index",
        ours: "allcores auto",
        than: "allcores lanes, steering off",
        group: "",
    }],
    remarks: "\
Jain's index is 1 where all workers have the same, and 1/n where one has all. Handing over in turn is exact; lanes are filled \
by the kernel's hash, and steered as workers get ahead of the others. SO_REUSEPORT without a manager is that hash alone.",
    plan,
};

fn plan(arguments: &Arguments) -> Plan {
    let connections = arguments.given.connections;
    let contender = |name: &str, way| {
        let server = Server::Node(arguments.node_server.clone());
        Contender::serving(name, Setting { way, server, workers: WORKERS }, move |contestant, _| {
            Ok(Sample::only(measure(contestant, connections)?))
        })
    };
    Plan {
        title: format!(
            "{connections} connections opened one after the other and held, {WORKERS} node workers"
        ),
        packages: &[],
        contenders: [
            contender("allcores auto", Way::allcores("auto")),
            contender(
                "allcores lanes, steering off",
                Way::allcores_with("lanes", "ALLCORES_STEERING", "off"),
            ),
        ]
        .into_iter()
        .chain(node_peers().map(|(name, way)| contender(name, way)))
        .collect(),
        left_out: absent_peers(),
        each: Duration::from_secs(2),
    }
}

fn measure(contestant: &Contestant, connections: usize) -> anyhow::Result<Metrics> {
    let held = hold(contestant.address, connections, "/")?;
    let mut shares: Vec<_> = held.by_body().values().map(|count| float(*count)).collect();
    ensure!(shares.len() <= contestant.workers.into(), "`/` must answer with the worker's pid only");
    // A worker that got none has no body to be known by.
    shares.resize(contestant.workers.into(), 0.0);
    let most = shares.iter().copied().fold(0.0, f64::max);
    let fewest = shares.iter().copied().fold(f64::INFINITY, f64::min);
    Ok(vec![("Jain's index", stats::jain(&shares)), ("most", most), ("fewest", fewest)])
}
