//! The throughput case: a server that answers at once, and as many requests as the machine gives.

use allcores_testing::baseline::Peer;
use allcores_testing::load::{Load, Mode};

use crate::bench::case::{Case, Expected, Plan};
use crate::bench::contender::{Contender, Contestant, Server, Setting, Way};
use crate::bench::load::{self, CLOSED_LOOP};
use crate::bench::record::Sample;
use crate::bench::{Arguments, duration};

const WORKERS: u16 = 4;

/// What each contender is loaded with, one after the other.
const LOADS: [(usize, Mode); 2] = [(8, Mode::ConnectionPerRequest), (8, Mode::KeepAlive)];

pub(super) const CASE: Case = Case {
    name: "throughput",
    about: "node; answers at once, a connection per request and kept ones, 4 workers",
    metrics: CLOSED_LOOP,
    expected: &[
        Expected::Never("failed"),
        Expected::NotWorse("primary's CPU %", "allcores auto", "node:cluster round robin"),
    ],
    remarks: "",
    plan,
};

fn plan(arguments: &Arguments) -> Plan {
    let time = duration(arguments.given.seconds);
    let contender = |name: &str, way| {
        let server = Server::Node(arguments.node_server.clone());
        Contender::serving(name, Setting { way, server, workers: WORKERS }, move |contestant, _| {
            LOADS.into_iter().map(|(clients, mode)| measure(contestant, clients, mode, time)).collect()
        })
    };
    Plan {
        title: format!("answers at once, {WORKERS} node workers"),
        packages: &[],
        contenders: vec![
            contender("allcores auto", Way::allcores("auto")),
            contender("node:cluster round robin", Way::Peer(Peer::NodeClusterRoundRobin)),
            contender("node:cluster shared", Way::Peer(Peer::NodeClusterNone)),
        ],
        left_out: Vec::new(),
        each: load::time_of(time) * 2,
    }
}

fn measure(
    contestant: &Contestant,
    clients: usize,
    mode: Mode,
    time: std::time::Duration,
) -> anyhow::Result<Sample> {
    let load = Load::new(contestant.address).clients(clients).mode(mode);
    let how = match mode {
        Mode::ConnectionPerRequest => "a connection per request",
        Mode::KeepAlive => "connections kept",
    };
    let metrics = load::closed_loop(&load, time, contestant)?;
    Ok(Sample { load: format!("{clients} clients, {how}"), metrics })
}
