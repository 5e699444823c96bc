//! The sync case: a server that takes one connection at a time, at a load that queues can bear, beside the theory of
//! such queues.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use allcores_testing::load::Load;
use allcores_testing::stats;

use crate::bench::case::{Case, Expected, Plan};
use crate::bench::contender::{Contender, Contestant, Server, Setting, Turn, Way};
use crate::bench::load::{self, failed, ms};
use crate::bench::metric::Metric;
use crate::bench::record::{Metrics, Role, Sample};
use crate::bench::{Arguments, duration};

const WORKERS: u16 = 4;

/// What one request takes if nothing else does.
const SERVICE: Duration = Duration::from_millis(10);

/// How busy the workers are to be.
const LOAD: f64 = 0.7;

/// How many arrivals are simulated: p99 then is stable to a few per cent.
const SIMULATED: usize = 500_000;

pub(super) const CASE: Case = Case {
    name: "sync",
    about: "python, one request of 10 ms at a time; open loop at 70 % load, 4 workers, beside the theory",
    metrics: &[
        Metric::lower("p50 of wait, ms").plotted(),
        Metric::lower("p99 of wait, ms").plotted(),
        Metric::informative("service, ms"),
        Metric::lower("failed").summed(),
    ],
    expected: &[
        Expected::Never("failed"),
        Expected::NotWorse {
            metric: "p50 of wait, ms",
            ours: "allcores shared",
            than: "allcores lanes",
            group: "",
        },
    ],
    remarks: "\
The theories are simulations: one queue that all workers take from (M/D/4), which nothing can be better than, and lanes that \
are chosen blindly, which is what SO_REUSEPORT alone would do. A server that takes one connection at a time is best served by \
`--policy shared`; with `auto`, allcores says so when it sees it. A measurement of a few seconds is too short for the \
p99 of `shared` to reach the theory's.",
    plan,
};

/// How connections wait, in a simulation.
#[derive(Clone, Copy, Debug)]
enum Discipline {
    /// In one queue that all workers take from.
    OneQueue,
    /// In the queue of a worker that was picked blindly.
    BlindLanes,
}

/// What a request takes. Measured once: all contenders get the same load, and the theory is about the same server.
type Service = Rc<Cell<Option<Duration>>>;

fn plan(arguments: &Arguments) -> Plan {
    let time = duration(arguments.given.seconds);
    let service = Service::default();
    let allcores = |policy| {
        let server = Server::Python(arguments.python_server.clone());
        let setting = Setting { way: Way::allcores(policy), server, workers: WORKERS };
        let shared = Rc::clone(&service);
        Contender::serving(format!("allcores {policy}"), setting, move |contestant, turn: Turn<'_>| {
            let service = match shared.get() {
                Some(service) => service,
                None => service_time(contestant, time)?,
            };
            shared.set(Some(service));
            Ok(Sample::only(open_loop(contestant, service, time, turn.seed)?))
        })
    };
    let theory = |name: &str, discipline| {
        let service = Rc::clone(&service);
        Contender::new(name, Role::Limit, move |_| {
            Ok(Sample::only(simulate(discipline, service.get().unwrap_or(SERVICE))))
        })
    };
    Plan {
        title: format!(
            "python `http.server`, one request of {} ms at a time; {:.0} % load, open loop, {WORKERS} workers",
            SERVICE.as_millis(),
            LOAD * 100.0
        ),
        packages: &[],
        contenders: vec![
            allcores("auto"),
            allcores("lanes"),
            allcores("shared"),
            theory("theory: one queue", Discipline::OneQueue),
            theory("theory: blind lanes", Discipline::BlindLanes),
        ],
        left_out: Vec::new(),
        each: load::time_of(time),
    }
}

/// Tells how long one request takes a server that has nothing else to do.
fn service_time(contestant: &Contestant, time: Duration) -> anyhow::Result<Duration> {
    let load = Load::new(contestant.address).path(path());
    load::warm_up(&load, time)?;
    Ok(load.requests(100).run_blocking().latencies.p50())
}

fn open_loop(
    contestant: &Contestant,
    service: Duration,
    time: Duration,
    seed: u64,
) -> anyhow::Result<Metrics> {
    let load = Load::new(contestant.address).path(path()).rate(rate(service)).seed(seed);
    load::warm_up(&load, time)?;
    let report = load.during(time).run_blocking();
    let wait = |latency: Duration| ms(latency.saturating_sub(service));
    Ok(vec![
        ("p50 of wait, ms", wait(report.latencies.p50())),
        ("p99 of wait, ms", wait(report.latencies.p99())),
        ("service, ms", ms(service)),
        ("failed", failed(&report)),
    ])
}

fn simulate(discipline: Discipline, service: Duration) -> Metrics {
    let (servers, rate) = (usize::from(WORKERS), rate(service));
    let each = |_: &mut stats::Rng| service.as_secs_f64();
    let waits = match discipline {
        Discipline::OneQueue => stats::simulate_queue(servers, rate, each, SIMULATED),
        Discipline::BlindLanes => stats::simulate_random_lanes(servers, rate, each, SIMULATED),
    };
    let wait = |part| ms(stats::quantile(&waits, part).copied().unwrap_or_default());
    vec![("p50 of wait, ms", wait(0.5)), ("p99 of wait, ms", wait(0.99)), ("service, ms", ms(service))]
}

fn path() -> String {
    format!("/sleep?ms={}", SERVICE.as_millis())
}

fn rate(service: Duration) -> f64 {
    LOAD * f64::from(WORKERS) / service.as_secs_f64()
}
