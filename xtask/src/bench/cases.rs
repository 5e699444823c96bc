//! The cases: who is compared, under which load, and which numbers are taken from it.

use std::time::Duration;

use allcores_testing::baseline::Peer;
use allcores_testing::load::{Load, Report, hold};
use allcores_testing::stats;
use anyhow::ensure;

use super::contender::{Contender, Contestant, Discipline, Server};
use super::{Arguments, Case, Metrics, control, duration, logs, machine, messages};

/// How long every contender is warmed up with the load that it is then measured with.
const WARM_UP: Duration = Duration::from_secs(1);

/// What one request of the sync case takes if nothing else does.
const SYNC_SERVICE_MS: u32 = 10;

/// How busy the workers of the sync case are to be.
const SYNC_LOAD: f64 = 0.7;

/// How many arrivals are simulated: p99 then is stable to a few per cent.
const SIMULATED: usize = 500_000;

/// Measures a contender that serves. The seed is the same for all contenders of a round, and another in each round.
pub(super) type Measure = Box<dyn FnMut(&Contestant, u64) -> anyhow::Result<Metrics>>;

/// A case that is ready to be run.
pub(super) struct Plan {
    pub(super) title: String,
    pub(super) server: Server,
    /// What has to be built besides allcores.
    pub(super) packages: &'static [&'static str],
    pub(super) contenders: Vec<Contender>,
    pub(super) measure: Measure,
}

/// `None` for what is no measurement of contenders in rounds.
pub(super) fn plan(case: Case, arguments: &Arguments) -> anyhow::Result<Option<Plan>> {
    Ok(Some(match case {
        Case::Mixed => mixed(arguments),
        Case::Throughput => throughput(arguments),
        Case::Sync => sync(arguments),
        Case::Fairness => fairness(arguments),
        Case::Steering => steering(arguments),
        Case::Handoff => handoff(arguments),
        Case::Messages => messages::plan(arguments),
        Case::Control => control::plan(arguments),
        Case::Logs => logs::plan(arguments)?,
        Case::Reload => return Ok(None),
    }))
}

fn mixed(arguments: &Arguments) -> Plan {
    Plan {
        title: format!("one request in twenty burns 50 ms; {} clients, 4 workers", arguments.clients),
        server: Server::Node(arguments.node_server.clone()),
        packages: &[],
        contenders: vec![
            Contender::allcores("allcores auto", "auto"),
            Contender::allcores("allcores lanes, steering off", "lanes").env("ALLCORES_STEERING", "off"),
            Contender::allcores("allcores shared", "shared"),
            Contender::allcores("allcores round-robin", "round-robin"),
            Contender::peer("node:cluster rr", Peer::NodeClusterRoundRobin),
            Contender::peer("node:cluster none", Peer::NodeClusterNone),
        ],
        measure: measure_mixed(arguments),
    }
}

fn steering(arguments: &Arguments) -> Plan {
    let contender = |tick: u32| {
        Contender::allcores(&format!("tick {tick} µs"), "lanes")
            .env("ALLCORES_STEER_TICK_US", tick.to_string())
    };
    Plan {
        title: format!("the mixed load over the steering tick; {} clients, 4 workers", arguments.clients),
        contenders: [200, 500, 1000, 2000].into_iter().map(contender).collect(),
        ..mixed(arguments)
    }
}

fn measure_mixed(arguments: &Arguments) -> Measure {
    let (clients, time) = (arguments.clients, duration(arguments.seconds));
    Box::new(move |contestant, seed| {
        let load = Load::new(contestant.address).seed(seed).clients(clients);
        closed_loop(&load.weighted_paths([(19, "/"), (1, "/burn?ms=50")]), time, contestant)
    })
}

fn throughput(arguments: &Arguments) -> Plan {
    let time = duration(arguments.seconds);
    let contenders = |(workers, clients)| {
        [
            Contender::allcores("allcores auto", "auto"),
            Contender::peer("node:cluster rr", Peer::NodeClusterRoundRobin),
            Contender::peer("node:cluster none", Peer::NodeClusterNone),
        ]
        .map(|contender| contender.workers(workers).clients(clients))
    };
    Plan {
        title: "answers at once; one connection per request".into(),
        server: Server::Node(arguments.node_server.clone()),
        packages: &[],
        contenders: [(2, 8), (2, 32), (4, 8), (4, 32)].into_iter().flat_map(contenders).collect(),
        measure: Box::new(move |contestant, _| {
            closed_loop(&Load::new(contestant.address).clients(contestant.clients), time, contestant)
        }),
    }
}

fn sync(arguments: &Arguments) -> Plan {
    let time = duration(arguments.seconds);
    let mut service = None;
    Plan {
        title: format!(
            "one request of {SYNC_SERVICE_MS} ms at a time; {:.0} % load, open loop, 4 workers; waiting time",
            SYNC_LOAD * 100.0
        ),
        server: Server::Python(arguments.python_server.clone()),
        packages: &[],
        contenders: vec![
            Contender::allcores("allcores lanes", "lanes"),
            Contender::allcores("allcores shared", "shared"),
            Contender::allcores("allcores auto", "auto"),
            Contender::simulated("theory: one queue", Discipline::OneQueue),
            Contender::simulated("theory: blind lanes", Discipline::BlindLanes),
        ],
        measure: Box::new(move |contestant, seed| {
            if let Some(discipline) = contestant.simulated() {
                let nominal = Duration::from_millis(SYNC_SERVICE_MS.into());
                return Ok(simulate(discipline, contestant.workers, service.unwrap_or(nominal)));
            }
            // Measured once: all contenders get the same load, and the theory is about the same server.
            let service = match service {
                Some(service) => service,
                None => *service.insert(service_time(contestant)?),
            };
            open_loop(contestant, service, time, seed)
        }),
    }
}

fn fairness(arguments: &Arguments) -> Plan {
    let connections = arguments.connections;
    Plan {
        title: format!("{connections} connections opened one after the other and held, 4 workers"),
        server: Server::Node(arguments.node_server.clone()),
        packages: &[],
        contenders: vec![
            Contender::allcores("allcores auto", "auto"),
            Contender::allcores("allcores lanes, steering off", "lanes").env("ALLCORES_STEERING", "off"),
            Contender::peer("node:cluster rr", Peer::NodeClusterRoundRobin),
            Contender::peer("node:cluster none", Peer::NodeClusterNone),
        ],
        measure: Box::new(move |contestant, _| {
            let held = hold(contestant.address, connections, "/")?;
            let mut shares: Vec<_> = held.by_body().values().map(|count| float(*count)).collect();
            ensure!(shares.len() <= contestant.workers.into(), "`/` must answer with the worker's pid only");
            // A worker that got none has no body to be known by.
            shares.resize(contestant.workers.into(), 0.0);
            let most = shares.iter().copied().fold(0.0, f64::max);
            let fewest = shares.iter().copied().fold(f64::INFINITY, f64::min);
            Ok(vec![("Jain's index", stats::jain(&shares)), ("most", most), ("fewest", fewest)])
        }),
    }
}

/// The primary accepts, and hands over. With a Rust server also the ways in which it does not.
fn handoff(arguments: &Arguments) -> Plan {
    let time = duration(arguments.seconds);
    let node = |workers| {
        [
            Contender::peer("node, node:cluster rr", Peer::NodeClusterRoundRobin),
            Contender::allcores("node, allcores round-robin", "round-robin"),
        ]
        .map(|contender| contender.workers(workers))
    };
    let policies = ["round-robin", "sticky", "shared", "lanes"];
    let rust = policies.map(|policy| Contender::allcores(&format!("rust, allcores {policy}"), policy));
    let rust = rust.map(|contender| contender.server(Server::Example("hello")).workers(2));
    let plain = Contender::plain("rust, plain axum, 1 process").server(Server::Example("axum-hello"));
    Plan {
        title: "answers at once; one connection per request, 8 clients; what the primary spends on each"
            .into(),
        server: Server::Node(arguments.node_server.clone()),
        packages: &["allcores-example-hello", "axum-hello"],
        contenders: [2, 4].into_iter().flat_map(node).chain([plain]).chain(rust).collect(),
        measure: Box::new(move |contestant, _| {
            let load = Load::new(contestant.address).clients(contestant.clients);
            warm_up(&load)?;
            let cpu = machine::cpu_time(contestant.primary_pid());
            let report = load.during(time).run_blocking();
            let cpu = machine::cpu_time(contestant.primary_pid()).saturating_sub(cpu);
            let each = contestant.primary_pid().map(|_| cpu.as_secs_f64() * 1e6 / float(report.ok));
            Ok(vec![
                ("connections/s", report.throughput()),
                ("primary's CPU µs/connection", each.unwrap_or(0.0)),
                ("p50 ms", ms(report.latencies.p50())),
                ("p99 ms", ms(report.latencies.p99())),
                ("failed", failed(&report)),
            ])
        }),
    }
}

/// Warms up, loads for this time, and tells what clients that wait for their answers have seen.
fn closed_loop(load: &Load, time: Duration, contestant: &Contestant) -> anyhow::Result<Metrics> {
    warm_up(load)?;
    let cpu = machine::cpu_time(contestant.primary_pid());
    let report = load.clone().during(time).run_blocking();
    let cpu = machine::cpu_time(contestant.primary_pid()).saturating_sub(cpu);
    Ok(vec![
        ("p50 ms", ms(report.latencies.p50())),
        ("p99 ms", ms(report.latencies.p99())),
        ("requests/s", report.throughput()),
        ("primary's CPU %", 100.0 * cpu.as_secs_f64() / report.elapsed.as_secs_f64()),
        ("failed", failed(&report)),
    ])
}

/// Tells how long one request takes a server that has nothing else to do.
fn service_time(contestant: &Contestant) -> anyhow::Result<Duration> {
    let load = Load::new(contestant.address).path(sync_path());
    warm_up(&load)?;
    Ok(load.requests(100).run_blocking().latencies.p50())
}

fn open_loop(
    contestant: &Contestant,
    service: Duration,
    time: Duration,
    seed: u64,
) -> anyhow::Result<Metrics> {
    let load = Load::new(contestant.address)
        .path(sync_path())
        .rate(sync_rate(contestant.workers, service))
        .seed(seed)
        .during(time);
    warm_up(&load)?;
    let report = load.run_blocking();
    let wait = |latency: Duration| ms(latency.saturating_sub(service));
    Ok(vec![
        ("p50 of wait, ms", wait(report.latencies.p50())),
        ("p99 of wait, ms", wait(report.latencies.p99())),
        ("service, ms", ms(service)),
        ("failed", failed(&report)),
    ])
}

fn simulate(discipline: Discipline, workers: u16, service: Duration) -> Metrics {
    let (servers, rate) = (usize::from(workers), sync_rate(workers, service));
    let each = |_: &mut stats::Rng| service.as_secs_f64();
    let waits = match discipline {
        Discipline::OneQueue => stats::simulate_queue(servers, rate, each, SIMULATED),
        Discipline::BlindLanes => stats::simulate_random_lanes(servers, rate, each, SIMULATED),
    };
    let wait = |part| ms(stats::quantile(&waits, part).copied().unwrap_or_default());
    vec![("p50 of wait, ms", wait(0.5)), ("p99 of wait, ms", wait(0.99)), ("service, ms", ms(service))]
}

fn sync_path() -> String {
    format!("/sleep?ms={SYNC_SERVICE_MS}")
}

fn sync_rate(workers: u16, service: Duration) -> f64 {
    SYNC_LOAD * f64::from(workers) / service.as_secs_f64()
}

/// Loads for a while, and fails where nothing answers: what is broken is not worth measuring.
pub(super) fn warm_up(load: &Load) -> anyhow::Result<()> {
    let report = load.clone().during(WARM_UP).run_blocking();
    ensure!(report.ok > 0, "nothing answered while warming up:\n{report}");
    Ok(())
}

pub(super) fn failed(report: &Report) -> f64 {
    if report.failures.total() + report.unsent > 0 {
        eprintln!("{report}");
    }
    float(report.failures.total() + report.unsent)
}

pub(super) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[expect(clippy::cast_precision_loss, reason = "no count here reaches 2^52")]
pub(super) fn float(count: u64) -> f64 {
    count as f64
}
