//! The throughput case: servers that answer at once, and as many requests as the machine gives.
//!
//! Each contender is started once in a round, and loaded in several ways, one after the other.

use std::path::{Path, PathBuf};
use std::time::Duration;

use allcores_testing::load::{Load, Mode};

use crate::bench::case::{Case, Expected, Plan};
use crate::bench::contender::{Contender, Contestant, Server, Setting, Turn, Way, absent_peers, node_peers};
use crate::bench::load::{self, CLOSED_LOOP, COST};
use crate::bench::record::Sample;
use crate::bench::{Arguments, duration};

const WORKERS: u16 = 4;

/// How many clients there are, one number after the other.
const CLIENTS: [usize; 4] = [1, 8, 64, 512];

/// A server that does so little that what manages it is what is measured.
const LEAST: &str = "testing/baselines/net.js";

/// How many clients that one has: enough to keep it busy, and more than that.
const CLIENTS_OF_LEAST: [usize; 2] = [8, 64];

pub(super) const CASE: Case = Case {
    name: "throughput",
    about: "node; answers at once, a connection for each request and kept ones, 4 workers",
    metrics: CLOSED_LOOP,
    expected: &[
        Expected::Never("failed"),
        Expected::NotWorse { metric: COST, ours: "allcores auto", than: "node:cluster round robin", group: "a connection for each request" },
    ],
    remarks: "\
On two cores, which the clients use too, the work of the workers bounds what a manager can make a difference of: node's `http` \
takes most of the time of a connection. Beside it stands a server on node's `net` that answers with a fixed text, where more \
of the difference is seen. With connections that last for one request, what `auto` \
costs the primary is looking after the queues, a few times in a hundredth of a second whoever comes. With kept connections nobody who hands over or accepts has anything to do, apart from nginx, which every byte passes.

node:cluster shared and SO_REUSEPORT have nothing between kernel and worker: the one lets all workers accept from one socket, \
the other spreads by hash alone; what they cost in other cases is seen in *mixed* and *fairness*.",
    plan,
};

/// What is asked of a server, one after the other.
type Loads = Vec<(usize, Mode)>;

fn plan(arguments: &Arguments) -> Plan {
    let time = duration(arguments.given.seconds);
    let per_request = |clients| (clients, Mode::ConnectionPerRequest);
    let http: Loads = if arguments.quick {
        vec![per_request(8), (8, Mode::KeepAlive)]
    } else {
        CLIENTS.into_iter().flat_map(|clients| [per_request(clients), (clients, Mode::KeepAlive)]).collect()
    };
    let least: Loads = if arguments.quick { vec![] } else { CLIENTS_OF_LEAST.map(per_request).into() };
    let groups: [(&str, PathBuf, Loads); 2] =
        [("node's http", arguments.node_server.clone(), http), ("node's net", LEAST.into(), least)];
    let groups = groups.into_iter().filter(|(_, _, loads)| !loads.is_empty());
    let contenders: Vec<_> =
        groups.flat_map(|(name, script, loads)| contenders(name, &script, &loads, time)).collect();
    Plan {
        title: format!("answers at once, {WORKERS} node workers"),
        packages: &[],
        // Of both servers: five loads of a contender on average.
        each: load::time_of(time) * if arguments.quick { 2 } else { 5 },
        contenders,
        left_out: absent_peers(),
    }
}

fn contenders(group: &str, script: &Path, loads: &Loads, time: Duration) -> Vec<Contender> {
    let contender = |(name, way)| {
        let loads = loads.clone();
        let setting = Setting { way, server: Server::Node(script.to_owned()), workers: WORKERS };
        let measure = move |contestant: &Contestant, _: Turn<'_>| {
            loads.iter().map(|(clients, mode)| measure(contestant, *clients, *mode, time)).collect()
        };
        Contender::serving(name, setting, measure).group(group)
    };
    [("allcores auto", Way::allcores("auto"))].into_iter().chain(node_peers()).map(contender).collect()
}

fn measure(contestant: &Contestant, clients: usize, mode: Mode, time: Duration) -> anyhow::Result<Sample> {
    let load = Load::new(contestant.address).clients(clients).mode(mode);
    let how = match mode {
        Mode::ConnectionPerRequest => "a connection for each request",
        Mode::KeepAlive => "connections are kept",
    };
    let noun = if clients == 1 { "client" } else { "clients" };
    let metrics = load::closed_loop(&load, time, contestant)?;
    Ok(Sample { load: format!("{clients} {noun}, {how}"), metrics })
}
