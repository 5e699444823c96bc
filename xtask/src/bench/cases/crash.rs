//! The crash case: workers are killed, one at a time, again and again, while clients open a connection for each request.
//!
//! Each victim is held still for a moment and looked at before it is killed: the connections that it had accepted by then nobody
//! can save, and every other request that fails was lost without need. The successor serves when an answer comes from a process
//! that had given none before. How soon that is seen depends on how many requests come, and on how they are shared out.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use allcores_testing::load::{Failure, Load};
use allcores_testing::proc::Process;
use allcores_testing::stats::median;
use anyhow::{Context, ensure};
use rustix::process::Signal;

use crate::bench::case::{Case, Expected, Plan};
use crate::bench::load::{self, float, ms};
use crate::bench::managed::{Managed, Manager, PATIENCE};
use crate::bench::metric::Metric;
use crate::bench::record::{Metrics, Sample};
use crate::bench::{Arguments, duration};

const WORKERS: u16 = 4;

const CLIENTS: usize = 8;

/// How long it is from one kill to the next, at least. The oldest worker is killed: so it has lived for more than the second that
/// allcores and PM2, unless they are told otherwise, ask of one that has started well.
const EVERY: Duration = Duration::from_millis(300);

/// A request that has no answer by then has failed: nothing here takes as long.
const TIMEOUT: Duration = Duration::from_secs(5);

const MANAGERS: [Manager; 4] = [Manager::Allcores(&[]), Manager::NodeCluster, Manager::Pm2, Manager::Loop];

pub(super) const CASE: Case = Case {
    name: "crash",
    about: "node; workers are killed under load: how soon another serves, and what is lost with them",
    metrics: &[
        Metric::lower("ms until a successor serves").plotted(),
        Metric::lower("at most, ms"),
        Metric::lower("failed a crash").plotted(),
        Metric::lower("lost with the worker a crash"),
        Metric::lower("lost without need a crash"),
        Metric::lower("refused a crash"),
        Metric::lower("reset a crash"),
        Metric::lower("timed out a crash"),
        Metric::informative("crashes"),
    ],
    expected: &[Expected::Never("lost without need a crash")],
    remarks: "\
What a worker had accepted when it was killed is lost with it, whoever manages it; all else that fails is lost without need. Most \
of the time until the successor serves is that of a runtime that boots. node:cluster forks at `exit`, as its documentation shows. \
The plain group has no manager: the loop that restarts its members is the benchmark's own, and knows of the kill at once.",
    plan,
};

fn plan(arguments: &Arguments) -> Plan {
    let time = duration(arguments.given.seconds);
    let contender = |manager: Manager| {
        manager.contender(&arguments.node_server, WORKERS, move |app| Ok(Sample::only(measure(app, time)?)))
    };
    Plan {
        title: format!(
            "the oldest of {WORKERS} node workers is killed every {} ms; {CLIENTS} clients, one connection per request",
            EVERY.as_millis()
        ),
        packages: &[],
        contenders: MANAGERS.map(contender).into(),
        left_out: Vec::new(),
        each: load::time_of(time) + Duration::from_secs(2),
    }
}

fn measure(app: &mut Managed, time: Duration) -> anyhow::Result<Metrics> {
    let load = Load::new(app.address).clients(CLIENTS).timeout(TIMEOUT);
    // That every worker has lived for a second.
    load::warm_up(&load, EVERY * WORKERS.into())?;
    let load = load.spawn();
    ensure!(load.wait_bodies(WORKERS.into(), PATIENCE), "not every worker answers");

    let (began, mut accepted, mut took) = (Instant::now(), BTreeSet::new(), Vec::new());
    while took.is_empty() || began.elapsed() < time {
        let seen = load.bodies();
        let victim = *app.workers()?.first().context("there is no worker")?;
        let process = Process::open(victim).filter(Process::hold_still);
        let process = process.with_context(|| format!("the worker {victim} has ended by itself"))?;
        accepted.extend(process.peers());
        let killed = Instant::now();
        process.signal(Signal::KILL);
        app.replace(victim)?;
        ensure!(load.wait_bodies(seen + 1, PATIENCE), "nobody serves in the place of the worker {victim}");
        took.push(ms(killed.elapsed()));
        std::thread::sleep(EVERY.saturating_sub(killed.elapsed()));
    }
    let report = load.stop();
    let (failed, kept) = (report.failures.total(), report.failed.len() as u64);
    ensure!(failed == kept, "{failed} requests failed, and only {kept} of them are known");

    let crashes = float(took.len() as u64);
    let each = |count: u64| float(count) / crashes;
    let with_worker = lost_with_workers(&report.failed, &accepted);
    Ok(vec![
        ("ms until a successor serves", median(&took)),
        ("at most, ms", took.iter().copied().fold(0.0, f64::max)),
        ("failed a crash", each(failed)),
        ("lost with the worker a crash", each(with_worker)),
        ("lost without need a crash", each(failed - with_worker)),
        ("refused a crash", each(report.failures.refused)),
        ("reset a crash", each(report.failures.reset)),
        ("timed out a crash", each(report.failures.timeout)),
        ("crashes", crashes),
    ])
}

/// Counts the requests that failed on connections which a victim had accepted.
fn lost_with_workers(failed: &[Failure], accepted: &BTreeSet<SocketAddr>) -> u64 {
    failed.iter().filter(|failure| failure.local.is_some_and(|client| accepted.contains(&client))).count()
        as u64
}
