//! Load: HTTP/1.1 GET requests against a loopback server, every failure counted by its kind.
//!
//! Owns its connections, and its own thread with a current-thread runtime, so that any test can use it. Request and
//! answer are written and read by hand, since a client library would retry, pool and rename just the failures that
//! are to be seen. Deliberately does not judge: a [`Report`] is handed back, the test decides.
//!
//! Closed arrivals model clients that wait for their answer; open arrivals model a public that does not, and their
//! latency counts from the moment at which the request was *due*, so that a stalled server can't hide its stall
//! (G. Tene's "coordinated omission").

mod answer;
mod connection;
mod drive;
mod held;
mod report;
#[cfg(test)]
mod tests;

pub use held::{Held, hold};
pub use report::{Failure, FailureKind, Failures, Latencies, Report};

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use drive::Run;

/// How long a request may take unless [`Load::timeout`] says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Whether a connection carries one request or many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Each request opens a connection and says `Connection: close`.
    ConnectionPerRequest,
    /// A connection is used until the server ends it.
    KeepAlive,
}

/// When requests are made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arrival {
    /// Each of so many clients sends its next request when it has the answer to its last.
    Closed {
        /// How many clients.
        clients: usize,
    },
    /// Requests are due at random times (a Poisson process), whether or not earlier ones were answered.
    Open {
        /// The mean number of requests in a second.
        rate_per_s: f64,
        /// A request that is due while so many are under way waits for one to end; its latency keeps counting.
        max_in_flight: usize,
    },
}

/// When the load ends. Requests under way are always finished first, and counted.
#[derive(Clone, Debug)]
pub enum Stop {
    /// After this time.
    After(Duration),
    /// After this many requests.
    Count(u64),
    /// When the flag is raised, by [`Running::stop`] or by whoever has a clone of it.
    Flag(StopFlag),
}

/// Ends a load from outside; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// Asks the load to end.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// True once the load was asked to end.
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is asked for.
#[derive(Clone)]
enum Paths {
    Weighted(Vec<(u32, String)>),
    By(Arc<dyn Fn(u64) -> String + Send + Sync>),
}

impl Paths {
    /// Picks the path of the request with this number: the same one whatever order the requests end up in.
    fn pick(&self, number: u64, seed: u64) -> String {
        match self {
            Self::By(path) => path(number),
            Self::Weighted(paths) => {
                let sum: u32 = paths.iter().map(|(weight, _)| weight).sum();
                let (round, nth) = (number / u64::from(sum), number % u64::from(sum));
                // Far apart, so that no two seeds draw the same numbers in another order.
                let seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(round);
                let mut order: Vec<u32> = (0..sum).collect();
                fastrand::Rng::with_seed(seed).shuffle(&mut order);
                let mut left = order[usize::try_from(nth).expect("it is below the sum of the weights")];
                for (weight, path) in paths {
                    if left < *weight {
                        return path.clone();
                    }
                    left -= weight;
                }
                unreachable!("the number drawn is below the sum of the weights")
            }
        }
    }
}

/// A load to be run.
///
/// # Examples
///
/// ```no_run
/// # use std::time::Duration;
/// # use allcores_testing::load::Load;
/// let target = "127.0.0.1:8080".parse().unwrap();
/// let load = Load::new(target).clients(8).spawn();
/// // … reload the app …
/// let report = load.stop();
/// assert!(report.is_clean(), "{report}");
/// ```
#[derive(Clone)]
pub struct Load {
    target: SocketAddr,
    /// How many, from the target's on, get connections in turn.
    ports: u16,
    paths: Paths,
    mode: Mode,
    arrival: Arrival,
    stop: Stop,
    timeout: Duration,
    seed: u64,
    sources: Vec<Ipv4Addr>,
}

impl Load {
    /// Describes a load of one client that asks for `/`, one connection per request, until it is stopped.
    ///
    /// # Panics
    ///
    /// If the target is not a loopback address.
    pub fn new(target: SocketAddr) -> Self {
        assert!(target.ip().is_loopback(), "load goes to loopback addresses only, not to {target}");
        Self {
            target,
            ports: 1,
            paths: Paths::Weighted(vec![(1, "/".into())]),
            mode: Mode::ConnectionPerRequest,
            arrival: Arrival::Closed { clients: 1 },
            stop: Stop::Flag(StopFlag::default()),
            timeout: TIMEOUT,
            seed: 1,
            sources: connection::sources(target),
        }
    }

    /// Connects to this many ports in turn, from the target's on.
    ///
    /// # Panics
    ///
    /// If that is none, or there are not as many.
    #[must_use]
    pub fn ports(mut self, count: u16) -> Self {
        assert!(
            count > 0 && self.target.port().checked_add(count - 1).is_some(),
            "there are no {count} ports from {}",
            self.target
        );
        self.ports = count;
        self
    }

    /// Asks for this path only.
    #[must_use]
    pub fn path(self, path: impl Into<String>) -> Self {
        self.weighted_paths([(1, path.into())])
    }

    /// Asks for each path as often as its weight says, in random order: of as many requests as the weights add up to, in each
    /// such round anew. So two loads of the same length have the same work, whatever else they have.
    ///
    /// # Panics
    ///
    /// If the weights add up to nothing.
    #[must_use]
    pub fn weighted_paths<P: Into<String>>(mut self, paths: impl IntoIterator<Item = (u32, P)>) -> Self {
        let paths: Vec<_> = paths.into_iter().map(|(weight, path)| (weight, path.into())).collect();
        assert!(paths.iter().any(|(weight, _)| *weight > 0), "at least one path needs a weight");
        self.paths = Paths::Weighted(paths);
        self
    }

    /// Asks for the path that the function gives for the number of the request, from 0.
    #[must_use]
    pub fn paths_by(mut self, path: impl Fn(u64) -> String + Send + Sync + 'static) -> Self {
        self.paths = Paths::By(Arc::new(path));
        self
    }

    /// Sets whether connections are kept.
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Keeps connections: short for [`Mode::KeepAlive`].
    #[must_use]
    pub fn keep_alive(self) -> Self {
        self.mode(Mode::KeepAlive)
    }

    /// Sets when requests are made.
    #[must_use]
    pub fn arrival(mut self, arrival: Arrival) -> Self {
        self.arrival = arrival;
        self
    }

    /// Has this many clients that wait for their answers: short for [`Arrival::Closed`].
    #[must_use]
    pub fn clients(self, clients: usize) -> Self {
        self.arrival(Arrival::Closed { clients })
    }

    /// Makes this many requests in a second, at most 10 000 at a time: short for [`Arrival::Open`].
    #[must_use]
    pub fn rate(self, rate_per_s: f64) -> Self {
        self.arrival(Arrival::Open { rate_per_s, max_in_flight: 10_000 })
    }

    /// Sets when the load ends.
    #[must_use]
    pub fn stop(mut self, stop: Stop) -> Self {
        self.stop = stop;
        self
    }

    /// Ends after this time: short for [`Stop::After`].
    #[must_use]
    pub fn during(self, time: Duration) -> Self {
        self.stop(Stop::After(time))
    }

    /// Ends after this many requests: short for [`Stop::Count`].
    #[must_use]
    pub fn requests(self, count: u64) -> Self {
        self.stop(Stop::Count(count))
    }

    /// Sets how long one request may take, from its connect to the end of its answer (default: 10 s).
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets what arrival times and weighted paths are drawn from (default: 1).
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Connects from this address only, instead of from many.
    #[must_use]
    pub fn source(mut self, source: Ipv4Addr) -> Self {
        self.sources = vec![source];
        self
    }

    /// Runs the load and waits for its end.
    ///
    /// # Panics
    ///
    /// If the load has no end by itself: then use [`Load::spawn`].
    pub fn run_blocking(self) -> Report {
        assert!(!matches!(self.stop, Stop::Flag(_)), "this load ends only when it is stopped: spawn it");
        self.spawn().join()
    }

    /// Starts the load on a thread of its own.
    ///
    /// # Panics
    ///
    /// If the system has no thread or no epoll left.
    pub fn spawn(self) -> Running {
        let flag = match &self.stop {
            Stop::Flag(flag) => flag.clone(),
            Stop::After(_) | Stop::Count(_) => StopFlag::default(),
        };
        let run = Arc::new(Run::new(self, flag.clone()));
        let thread = std::thread::Builder::new()
            .name("load".into())
            .spawn({
                let run = Arc::clone(&run);
                move || drive::run(&run)
            })
            .expect("a thread for the load");
        Running { run, flag, thread: Some(thread) }
    }
}

impl fmt::Debug for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Load")
            .field("target", &self.target)
            .field("mode", &self.mode)
            .field("arrival", &self.arrival)
            .field("stop", &self.stop)
            .finish_non_exhaustive()
    }
}

/// A load under way. Dropping it asks the load to end, and does not wait.
pub struct Running {
    run: Arc<Run>,
    flag: StopFlag,
    thread: Option<JoinHandle<Report>>,
}

impl Running {
    /// Asks the load to end, waits for the requests under way, and reports.
    pub fn stop(self) -> Report {
        self.flag.raise();
        self.join()
    }

    /// Waits for the load to end by itself, and reports.
    ///
    /// # Panics
    ///
    /// If the load panicked.
    pub fn join(mut self) -> Report {
        let thread = self.thread.take().expect("only taken here");
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Counts the good answers so far.
    pub fn ok(&self) -> u64 {
        self.run.ok()
    }

    /// Counts the bodies that differ among the good answers so far: of servers that answer with their pid, how many have.
    pub fn bodies(&self) -> usize {
        self.run.bodies()
    }

    /// Waits until there were answers with this many bodies that differ; false if there were not within the timeout.
    pub fn wait_bodies(&self, count: usize, timeout: Duration) -> bool {
        self.run.wait_bodies(count, timeout)
    }

    /// Waits until there were this many good answers since the start; false if there were not within the timeout.
    pub fn wait_ok(&self, count: u64, timeout: Duration) -> bool {
        self.run.wait_ok(count, timeout)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.flag.raise();
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("ok", &self.ok()).finish_non_exhaustive()
    }
}
