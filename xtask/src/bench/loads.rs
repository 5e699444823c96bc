//! Two loads at once, for cases in which something is done to an app that serves: clients with a connection for each request, and
//! clients that keep theirs and never pause. And what they saw of it.

use std::net::SocketAddr;
use std::time::Duration;

use allcores_testing::load::{FailureKind, Failures, Load, Report, Running};
use anyhow::ensure;

use super::load::float;
use super::metric::Metric;
use super::record::{Metrics, Sample};

/// How many clients each of the two loads has.
const CLIENTS: usize = 8;

/// A request that has no answer by then has failed: nothing here takes as long.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

/// How many answers there are to be before anything is done, and after.
const SOME: u64 = 200;

/// How long they may take.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) const ANSWERED: Metric = Metric::informative("answered").summed();
/// What failed and is not repeatable.
pub(super) const LOST: Metric = Metric::lower("lost").summed();
/// What failed on a connection that had served before, without a byte of an answer: a client repeats that by itself.
pub(super) const REPEATABLE: Metric = Metric::lower("repeatable").summed();
pub(super) const REFUSED: Metric = Metric::lower("refused").summed();
pub(super) const RESET: Metric = Metric::lower("reset").summed();
pub(super) const TIMED_OUT: Metric = Metric::lower("timeout").summed();
pub(super) const CLOSED: Metric = Metric::lower("closed early").summed();

/// The two loads.
#[derive(Debug)]
pub(super) struct Loads {
    single: Running,
    kept: Running,
}

/// What they saw.
#[derive(Debug)]
pub(super) struct Seen {
    single: Metrics,
    kept: Metrics,
}

/// Says what the loads are.
pub(super) fn title() -> String {
    format!("{CLIENTS} clients with a connection for each request and {CLIENTS} that keep theirs")
}

impl Loads {
    pub(super) fn start(address: SocketAddr) -> anyhow::Result<Self> {
        let load = || Load::new(address).clients(CLIENTS).timeout(TIMEOUT);
        let loads = Self { single: load().spawn(), kept: load().keep_alive().spawn() };
        loads.pass()?;
        Ok(loads)
    }

    /// Waits for some answers.
    pub(super) fn pass(&self) -> anyhow::Result<()> {
        for load in [&self.single, &self.kept] {
            ensure!(load.wait_ok(load.ok() + SOME, PATIENCE), "the app does not answer");
        }
        Ok(())
    }

    /// Ends both. Some of the answers to either may have been waited for until a request timed out.
    pub(super) fn stop(self) -> Seen {
        Seen { single: seen(&self.single.stop(), false), kept: seen(&self.kept.stop(), true) }
    }
}

impl Seen {
    /// A sample for each load, with numbers that are about what was done and not about a load.
    pub(super) fn samples(self, mut own: Metrics) -> Vec<Sample> {
        own.extend(self.single);
        vec![
            Sample { load: "a connection for each request".into(), metrics: own },
            Sample { load: "connections are kept".into(), metrics: self.kept },
        ]
    }
}

fn seen(report: &Report, is_kept: bool) -> Metrics {
    let is_closed = |kind| matches!(kind, FailureKind::Reset | FailureKind::ClosedEarly);
    let is_repeatable = |nth: u32, kind: FailureKind| is_kept && nth > 1 && is_closed(kind);
    let repeatable =
        report.failed.iter().filter(|failure| is_repeatable(failure.nth, failure.kind)).count() as u64;
    let Failures { refused, reset, timeout, closed_early, short, .. } = report.failures;
    vec![
        (ANSWERED.name, float(report.ok)),
        (LOST.name, float(report.failures.total() - repeatable)),
        (REPEATABLE.name, float(repeatable)),
        (REFUSED.name, float(refused)),
        (RESET.name, float(reset)),
        (TIMED_OUT.name, float(timeout)),
        (CLOSED.name, float(closed_early + short)),
    ]
}
