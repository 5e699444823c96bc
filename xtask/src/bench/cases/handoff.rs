//! The hand-off case: what a connection that the primary accepts and hands over costs it. With a Rust server also the
//! ways in which it does not.

use allcores_testing::baseline::Peer;
use allcores_testing::load::Load;

use crate::bench::case::{Case, Expected, Plan};
use crate::bench::contender::{Contender, Contestant, Server, Setting, Way};
use crate::bench::load::{self, COST};
use crate::bench::metric::Metric;
use crate::bench::record::Sample;
use crate::bench::{Arguments, duration};

/// Of node: few, and more than can be served at once.
const CLIENTS: [usize; 2] = [8, 64];

/// Of the Rust server.
const FEW: usize = CLIENTS[0];

const OF_RUST: &str = "Rust, 2 workers, 8 clients";

pub(super) const CASE: Case = Case {
    name: "handoff",
    about: "node; what a connection that the primary hands over costs it; and the policies with a Rust server",
    metrics: &[
        Metric::higher("requests/s").plotted(),
        Metric::lower(COST).plotted(),
        Metric::lower("p50 ms"),
        Metric::lower("p99 ms"),
        Metric::lower("failed").summed(),
    ],
    expected: &[
        Expected::Never("failed"),
        Expected::NotWorse {
            metric: COST,
            ours: "allcores lanes",
            than: "allcores round-robin",
            group: OF_RUST,
        },
    ],
    remarks: "\
The plain server is one process of the same program, which uses all cores by itself: what there is to be had.",
    plan,
};

fn plan(arguments: &Arguments) -> Plan {
    let time = duration(arguments.given.seconds);
    let contender = |name: &str, way, server: &Server, workers, clients| {
        let setting = Setting { way, server: server.clone(), workers };
        Contender::serving(name, setting, move |contestant: &Contestant, _| {
            let load = Load::new(contestant.address).clients(clients);
            // Until node has compiled what is called for each connection: the longer, the more workers share a core.
            load::warm_up(&load, time * 2)?;
            Ok(Sample::only(load::closed_loop(&load, time, contestant)?))
        })
    };
    let node = Server::Node(arguments.node_server.clone());
    let of_node = |(workers, clients)| {
        [
            ("allcores round-robin", Way::allcores("round-robin")),
            ("node:cluster round robin", Way::Peer(Peer::NodeClusterRoundRobin)),
        ]
        .map(|(name, way)| {
            let group = format!("node, {workers} workers, {clients} clients");
            contender(name, way, &node, workers, clients).group(group)
        })
    };
    let of_rust = ["round-robin", "sticky", "shared", "lanes"].map(|policy| {
        let name = format!("allcores {policy}");
        contender(&name, Way::allcores(policy), &Server::Example("hello"), 2, FEW).group(OF_RUST)
    });
    let plain = contender("plain axum, 1 process", Way::Plain, &Server::Example("axum-hello"), 1, FEW);
    let all = CLIENTS.into_iter().flat_map(|clients| [2, 4].map(|workers| (workers, clients)));
    let contenders = all.flat_map(of_node).chain(of_rust);
    Plan {
        title: "answers at once; one connection per request; what the primary spends on each".into(),
        packages: &["allcores-example-hello", "axum-hello"],
        contenders: contenders.chain([plain.group(OF_RUST)]).collect(),
        left_out: Vec::new(),
        each: load::time_of(time) + time * 2,
    }
}
