//! The growth case: what a connection costs the primary as there are more workers, and more addresses. It must not depend on that.
//!
//! The server does as little as one can. Its connections go to all of its addresses in turn.

use std::time::Duration;

use allcores_testing::cost::Usage;
use allcores_testing::load::Load;
use anyhow::Context;

use crate::bench::case::{Case, Expected, Plan};
use crate::bench::contender::{Contender, Contestant, Server, Setting, Way};
use crate::bench::load::{self, failed, float, ms};
use crate::bench::metric::Metric;
use crate::bench::record::{Metrics, Sample};
use crate::bench::{Arguments, duration};

const CLIENTS: usize = 8;

const POLICIES: [&str; 2] = ["auto", "round-robin"];

/// With one address.
const WORKERS: [u16; 4] = [2, 16, 64, 256];

const PORTS: [u16; 3] = [1, 16, 64];

/// With several addresses.
const WORKERS_OF_PORTS: u16 = 4;

const COST: &str = "primary's CPU µs/connection";

pub(super) const CASE: Case = Case {
    name: "growth",
    about: "Rust; what a connection costs the primary with 2 to 256 workers, and with 1 to 64 addresses",
    metrics: &[
        Metric::lower(COST).plotted(),
        Metric::higher("connections/s").plotted(),
        Metric::lower("p99 ms"),
        Metric::lower("failed").summed(),
    ],
    expected: &[Expected::Never("failed")],
    remarks: "\
What counts is that the primary's CPU time for a connection stays as it is from the first row of each group to the last. Connections \
in a second also depend on how well the cores get along with so many processes.

Under `auto` the workers accept by themselves, and what the primary does is look after their queues: that is done for the time \
that passes and not for each connection, so that the fewer connections there are, the more of it falls to each.

Under `round-robin` it is always the turn of the worker that has been without one for the longest. With 256 of them that is 255 \
connections, after which a core has nothing of it in its caches.",
    plan,
};

fn plan(arguments: &Arguments) -> Plan {
    let time = duration(arguments.given.seconds);
    let contender = |name: String, policy, workers, ports: u16| {
        let way = Way::allcores_with(policy, "PORTS", ports.to_string());
        let setting = Setting { way, server: Server::Example("parity-ports"), workers };
        Contender::serving(name, setting, move |contestant: &Contestant, _| {
            Ok(Sample::only(measure(contestant, ports, time)?))
        })
    };
    let of_workers = |policy| {
        WORKERS.map(|workers| {
            contender(format!("workers: {workers}"), policy, workers, 1).group(format!("{policy}, 1 address"))
        })
    };
    let of_ports = |policy| {
        PORTS.map(|ports| {
            contender(format!("addresses: {ports}"), policy, WORKERS_OF_PORTS, ports)
                .group(format!("{policy}, {WORKERS_OF_PORTS} workers"))
        })
    };
    Plan {
        title: format!("answers at once; one connection per request, {CLIENTS} clients"),
        packages: &["allcores-parity"],
        contenders: POLICIES
            .into_iter()
            .flat_map(of_workers)
            .chain(POLICIES.into_iter().flat_map(of_ports))
            .collect(),
        left_out: Vec::new(),
        each: load::time_of(time) + Duration::from_secs(1),
    }
}

fn measure(contestant: &Contestant, ports: u16, time: Duration) -> anyhow::Result<Metrics> {
    let load = Load::new(contestant.address).ports(ports).clients(CLIENTS);
    load::warm_up(&load, time)?;
    let primary = *contestant.manager_pids().first().context("there is no primary")?;
    let before = Usage::of(primary)?;
    let report = load.during(time).run_blocking();
    let used = Usage::of(primary)?.since(before);
    Ok(vec![
        (COST, used.cpu.as_secs_f64() * 1e6 / float(report.ok)),
        ("connections/s", report.throughput()),
        ("p99 ms", ms(report.latencies.p99())),
        ("failed", failed(&report)),
    ])
}
