//! What the cases do alike to a server, and the numbers that they take from it.

use std::time::Duration;

use allcores_testing::load::{Load, Report};
use anyhow::ensure;

use super::contender::Contestant;
use super::machine;
use super::metric::Metric;
use super::record::Metrics;

/// How long a server is warmed up at most, with the load that it is then measured with.
const WARM_UP: Duration = Duration::from_secs(3);

/// What stands between kernel and workers costs for each request that is answered.
pub(super) const COST: &str = "manager's CPU µs/request";

/// What [`closed_loop`] gives.
pub(super) const CLOSED_LOOP: &[Metric] = &[
    Metric::higher("requests/s").plotted(),
    Metric::lower("p50 ms"),
    Metric::lower("p99 ms").plotted(),
    Metric::lower(COST),
    Metric::lower("failed").summed(),
];

/// Warms up, loads for this time, and tells what clients that wait for their answers have seen.
pub(super) fn closed_loop(load: &Load, time: Duration, contestant: &Contestant) -> anyhow::Result<Metrics> {
    warm_up(load, time)?;
    let (report, cpu) = loaded(load, time, contestant);
    Ok(vec![
        ("requests/s", report.throughput()),
        ("p50 ms", ms(report.latencies.p50())),
        ("p99 ms", ms(report.latencies.p99())),
        (COST, cost(cpu, &report)),
        ("failed", failed(&report)),
    ])
}

/// Loads for this time; gives the CPU time of what manages, too.
pub(super) fn loaded(load: &Load, time: Duration, contestant: &Contestant) -> (Report, Duration) {
    let before = machine::cpu_time(&contestant.manager_pids());
    let report = load.clone().during(time).run_blocking();
    (report, machine::cpu_time(&contestant.manager_pids()).saturating_sub(before))
}

/// See [`COST`].
pub(super) fn cost(cpu: Duration, report: &Report) -> f64 {
    cpu.as_secs_f64() * 1e6 / float(report.ok.max(1))
}

/// Loads for a while, and fails where nothing answers: what is broken is not worth measuring. No longer than is then
/// measured.
pub(super) fn warm_up(load: &Load, time: Duration) -> anyhow::Result<()> {
    let report = load.clone().during(time.min(WARM_UP)).run_blocking();
    ensure!(report.ok > 0, "nothing answered while warming up:\n{report}");
    Ok(())
}

/// How long warming up and measuring take, with the start of a contender and its end.
pub(super) fn time_of(time: Duration) -> Duration {
    time.min(WARM_UP) + time + Duration::from_secs(1)
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

pub(super) fn mebibytes(kib: u64) -> f64 {
    float(kib) / 1024.0
}

#[expect(clippy::cast_precision_loss, reason = "no count here reaches 2^52")]
pub(super) fn float(count: u64) -> f64 {
    count as f64
}
