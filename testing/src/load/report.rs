//! What a load saw.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// How a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FailureKind {
    /// Nobody listened.
    Refused,
    /// The connection was reset, while connecting, sending or receiving.
    Reset,
    /// The answer was not complete in time.
    Timeout,
    /// The connection ended in good order before the body of the answer began.
    ClosedEarly,
    /// The connection ended in good order within the body of the answer.
    Short,
    /// The answer is complete, and its status is not 2xx.
    BadStatus,
    /// Something else: no HTTP, no local port, no descriptor.
    Other,
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::ClosedEarly => "closed early",
            Self::Short => "short",
            Self::BadStatus => "bad status",
            Self::Other => "other",
        })
    }
}

/// One request that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// When it had failed, since the start of the load.
    pub at: Duration,
    /// How it failed.
    pub kind: FailureKind,
    /// The client's address, if it got as far as having one.
    pub local: Option<SocketAddr>,
    /// What was asked for.
    pub path: String,
    /// Which request on its connection it was, from 1; 0 if there was no connection yet.
    ///
    /// One above 1 that was closed early may be the race that HTTP/1.1 has by design (RFC 9112, 9.5): the server ended
    /// an idle connection just as the request was sent.
    pub nth: u32,
    /// What exactly went wrong, in words.
    pub detail: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, kind, path, nth, detail, .. } = self;
        let local = self.local.map_or_else(|| "?".into(), |local| local.to_string());
        write!(f, "{at:.3?}: {kind}: {path}, request {nth} from {local}: {detail}")
    }
}

/// How many requests failed, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// See [`FailureKind::Refused`].
    pub refused: u64,
    /// See [`FailureKind::Reset`].
    pub reset: u64,
    /// See [`FailureKind::Timeout`].
    pub timeout: u64,
    /// See [`FailureKind::ClosedEarly`].
    pub closed_early: u64,
    /// See [`FailureKind::Short`].
    pub short: u64,
    /// See [`FailureKind::BadStatus`].
    pub bad_status: u64,
    /// See [`FailureKind::Other`].
    pub other: u64,
}

impl Failures {
    /// Adds all kinds up.
    pub fn total(&self) -> u64 {
        let Self { refused, reset, timeout, closed_early, short, bad_status, other } = self;
        refused + reset + timeout + closed_early + short + bad_status + other
    }

    pub(super) fn count(&mut self, kind: FailureKind) {
        *match kind {
            FailureKind::Refused => &mut self.refused,
            FailureKind::Reset => &mut self.reset,
            FailureKind::Timeout => &mut self.timeout,
            FailureKind::ClosedEarly => &mut self.closed_early,
            FailureKind::Short => &mut self.short,
            FailureKind::BadStatus => &mut self.bad_status,
            FailureKind::Other => &mut self.other,
        } += 1;
    }
}

/// How long the good answers took.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    sorted: Vec<Duration>,
}

impl Latencies {
    pub(super) fn new(mut latencies: Vec<Duration>) -> Self {
        latencies.sort_unstable();
        Self { sorted: latencies }
    }

    /// Gives the latency that this part of the answers did not exceed (nearest rank); zero if there are none.
    ///
    /// # Panics
    ///
    /// If `part` is not in 0 to 1.
    pub fn quantile(&self, part: f64) -> Duration {
        crate::stats::quantile(&self.sorted, part).copied().unwrap_or_default()
    }

    /// The median.
    pub fn p50(&self) -> Duration {
        self.quantile(0.5)
    }

    /// Exceeded by one answer in ten.
    pub fn p90(&self) -> Duration {
        self.quantile(0.9)
    }

    /// Exceeded by one answer in a hundred.
    pub fn p99(&self) -> Duration {
        self.quantile(0.99)
    }

    /// Exceeded by one answer in a thousand.
    pub fn p999(&self) -> Duration {
        self.quantile(0.999)
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        self.quantile(1.0)
    }

    /// All of them, the shortest first.
    pub fn sorted(&self) -> &[Duration] {
        &self.sorted
    }
}

/// What a load saw.
#[derive(Clone, Debug)]
pub struct Report {
    /// Complete answers with a status of 2xx.
    pub ok: u64,
    /// Requests that failed, by kind.
    pub failures: Failures,
    /// The failures, one by one, in the order in which they happened; of very many the first 10 000.
    pub failed: Vec<Failure>,
    /// Good answers by body, without white space around it: fixtures answer with the pid of the worker.
    pub by_body: BTreeMap<String, u64>,
    /// How long the good answers took.
    pub latencies: Latencies,
    /// Requests of an open load that were due before its end and had to wait for `max_in_flight` until after it: they
    /// were not sent. More than none means overload.
    pub unsent: u64,
    /// From the start to the last answer.
    pub elapsed: Duration,
}

impl Report {
    /// Gives the good answers in a second.
    pub fn throughput(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "no load makes 2^52 requests")]
        let ok = self.ok as f64;
        ok / self.elapsed.as_secs_f64().max(f64::EPSILON)
    }

    /// True if there were answers, all of them good.
    pub fn is_clean(&self) -> bool {
        self.ok > 0 && self.failures.total() == 0 && self.unsent == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ok, failures, latencies, unsent, elapsed, .. } = self;
        writeln!(f, "{ok} good answers in {elapsed:.2?}, {:.0}/s, {unsent} not sent", self.throughput())?;
        writeln!(
            f,
            "p50 {:.2?}, p90 {:.2?}, p99 {:.2?}, p99.9 {:.2?}, max {:.2?}",
            latencies.p50(),
            latencies.p90(),
            latencies.p99(),
            latencies.p999(),
            latencies.max()
        )?;
        writeln!(f, "{} failed: {failures:?}", failures.total())?;
        for failure in self.failed.iter().take(10) {
            writeln!(f, "  {failure}")?;
        }
        Ok(())
    }
}
