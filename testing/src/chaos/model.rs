//! What may be lost: what a worker that was killed or stopped had itself accepted, and on a kept connection what a client
//! repeats by itself. Nothing else.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::load::{Failure, FailureKind, Report};

/// What may be lost, and what was.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// The clients of connections that workers had accepted when they were harmed.
    doomed: BTreeSet<SocketAddr>,
    /// Requests that were lost with the worker that had accepted them.
    pub(super) with_worker: u64,
    /// Requests on kept connections that were closed before a byte of the answer came.
    pub(super) repeatable: u64,
    /// All others.
    pub(super) unexplained: Vec<String>,
}

impl Losses {
    /// A worker was harmed that had accepted the connections of these clients.
    pub(super) fn doom(&mut self, clients: impl IntoIterator<Item = SocketAddr>) {
        self.doomed.extend(clients);
    }

    /// Judges what a load saw.
    pub(super) fn judge(&mut self, name: &str, report: &Report, is_kept: bool) {
        for failure in &report.failed {
            if failure.local.is_some_and(|client| self.doomed.contains(&client)) {
                self.with_worker += 1;
            } else if is_kept && is_repeatable(failure) {
                self.repeatable += 1;
            } else {
                self.unexplained.push(format!("{name}: {failure}"));
            }
        }
    }
}

/// HTTP/1.1 has no way to end an idle connection that a request could not cross; so clients repeat such a one.
fn is_repeatable(failure: &Failure) -> bool {
    failure.nth > 1 && matches!(failure.kind, FailureKind::Reset | FailureKind::ClosedEarly)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::load::{Failures, Latencies};

    fn report(kind: FailureKind, nth: u32, port: u16) -> Report {
        let local = Some(([127, 0, 0, 1], port).into());
        let (at, path, detail) = (Duration::ZERO, "/".into(), String::new());
        Report {
            ok: 1,
            failures: Failures::default(),
            failed: vec![Failure { at, kind, local, path, nth, detail }],
            by_body: std::collections::BTreeMap::default(),
            latencies: Latencies::default(),
            unsent: 0,
            elapsed: Duration::ZERO,
        }
    }

    #[test]
    fn what_a_harmed_worker_had_accepted_may_be_lost_and_nothing_else() {
        let mut losses = Losses::default();
        losses.doom([([127, 0, 0, 1], 1).into()]);
        losses.judge("load", &report(FailureKind::Reset, 0, 1), false);
        assert_eq!((losses.with_worker, losses.unexplained.len()), (1, 0));
        losses.judge("load", &report(FailureKind::Reset, 0, 2), false);
        assert_eq!((losses.with_worker, losses.unexplained.len()), (1, 1));
    }

    #[test]
    fn only_a_kept_connection_that_ends_between_requests_is_repeated_upon() {
        let mut losses = Losses::default();
        losses.judge("kept", &report(FailureKind::ClosedEarly, 2, 3), true);
        assert_eq!((losses.repeatable, losses.unexplained.len()), (1, 0));
        losses.judge("kept", &report(FailureKind::Short, 2, 3), true);
        losses.judge("kept", &report(FailureKind::Reset, 1, 3), true);
        losses.judge("single", &report(FailureKind::Reset, 1, 3), false);
        losses.judge("kept", &report(FailureKind::Timeout, 2, 3), true);
        assert_eq!((losses.repeatable, losses.unexplained.len()), (1, 4));
    }
}
