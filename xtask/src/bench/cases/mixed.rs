//! The mixed case: a few requests that keep a worker busy, among many that do not. Who waits behind them?

use allcores_testing::load::Load;

use crate::bench::case::{Case, Expected, Plan};
use crate::bench::contender::{Contender, Contestant, Server, Setting, Turn, Way, absent_peers, node_peers};
use crate::bench::load::{self, CLOSED_LOOP};
use crate::bench::record::Sample;
use crate::bench::{Arguments, duration};

const WORKERS: u16 = 4;

pub(super) const CASE: Case = Case {
    name: "mixed",
    about: "node; one request in twenty burns 50 ms of CPU; closed loop, 4 workers",
    metrics: CLOSED_LOOP,
    expected: &[
        Expected::Never("failed"),
        Expected::NotWorse { metric: "requests/s", ours: "allcores auto", than: "allcores lanes, steering off", group: "" },
    ],
    remarks: "\
`steering off` is no way to run anything: it is what lanes alone would do, and shows what steering is worth.

node:cluster's round robin queues every connection in one place. With lanes a connection that has come to a worker which \
then turns busy is given to another once two looks, two milliseconds apart, have found that the worker does nothing for those that wait.",
    plan,
};

fn plan(arguments: &Arguments) -> Plan {
    let contender = |name: &str, way| contender(name, way, arguments);
    Plan {
        title: format!(
            "one request in twenty burns 50 ms; {} clients, {WORKERS} node workers",
            arguments.given.clients
        ),
        packages: &[],
        contenders: [
            contender("allcores auto", Way::allcores("auto")),
            contender(
                "allcores lanes, steering off",
                Way::allcores_with("lanes", "ALLCORES_STEERING", "off"),
            ),
            contender("allcores shared", Way::allcores("shared")),
            contender("allcores round-robin", Way::allcores("round-robin")),
        ]
        .into_iter()
        .chain(node_peers().map(|(name, way)| contender(name, way)))
        .collect(),
        left_out: absent_peers(),
        each: load::time_of(duration(arguments.given.seconds)),
    }
}

/// A way to run the node server, under the mixed load.
pub(super) fn contender(name: &str, way: Way, arguments: &Arguments) -> Contender {
    let (clients, time) = (arguments.given.clients, duration(arguments.given.seconds));
    let setting = Setting { way, server: Server::Node(arguments.node_server.clone()), workers: WORKERS };
    Contender::serving(name, setting, move |contestant: &Contestant, turn: Turn<'_>| {
        let load = Load::new(contestant.address).seed(turn.seed).clients(clients);
        let load = load.weighted_paths([(19, "/"), (1, "/burn?ms=50")]);
        Ok(Sample::only(load::closed_loop(&load, time, contestant)?))
    })
}
