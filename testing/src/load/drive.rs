//! Makes the requests when they are due, and writes down what came of them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::connection::{Connection, Failed};
use super::report::{Failure, FailureKind, Failures, Latencies, Report};
use super::{Arrival, Load, Mode, Stop, StopFlag};

/// How many failures are kept one by one.
const MAX_FAILED: usize = 10_000;

/// How much of a body tells it from others.
const BODY_KEY: usize = 64;

/// How long a client whose connection was refused waits: a refusal costs nothing, and would be repeated for ever.
const REFUSED_PAUSE: Duration = Duration::from_millis(1);

/// How long the pacer may sleep before it looks at the stop flag again.
const LONGEST_NAP: Duration = Duration::from_millis(10);

/// A load under way, shared by all its tasks.
pub(super) struct Run {
    load: Load,
    flag: StopFlag,
    /// When its thread began, as what a load waits for a thread is no part of its time.
    started: OnceLock<Instant>,
    numbers: AtomicU64,
    next_source: AtomicUsize,
    next_target: AtomicU16,
    tally: Mutex<Tally>,
    answered: Condvar,
}

#[derive(Default)]
struct Tally {
    ok: u64,
    failures: Failures,
    failed: Vec<Failure>,
    by_body: BTreeMap<String, u64>,
    latencies: Vec<Duration>,
    unsent: u64,
    last: Duration,
}

/// What is known of a request however it ends, a timeout included.
#[derive(Default)]
struct Attempt {
    connection: Option<Connection>,
    local: Option<SocketAddr>,
}

impl Run {
    pub(super) fn new(load: Load, flag: StopFlag) -> Self {
        Self {
            load,
            flag,
            started: OnceLock::new(),
            numbers: AtomicU64::new(0),
            next_source: AtomicUsize::new(0),
            next_target: AtomicU16::new(0),
            tally: Mutex::default(),
            answered: Condvar::new(),
        }
    }

    pub(super) fn ok(&self) -> u64 {
        self.tally().ok
    }

    pub(super) fn wait_ok(&self, count: u64, timeout: Duration) -> bool {
        self.wait(timeout, |tally| tally.ok >= count)
    }

    pub(super) fn bodies(&self) -> usize {
        self.tally().by_body.len()
    }

    pub(super) fn wait_bodies(&self, count: usize, timeout: Duration) -> bool {
        self.wait(timeout, |tally| tally.by_body.len() >= count)
    }

    fn wait(&self, timeout: Duration, is_enough: impl Fn(&Tally) -> bool) -> bool {
        let (tally, _) = self
            .answered
            .wait_timeout_while(self.tally(), timeout, |tally| !is_enough(tally))
            .unwrap_or_else(PoisonError::into_inner);
        is_enough(&tally)
    }

    /// Gives the number of the next request, unless the load has ended.
    fn next_number(&self) -> Option<u64> {
        if self.is_over() {
            return None;
        }
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        match self.load.stop {
            Stop::Count(count) if number >= count => None,
            _ => Some(number),
        }
    }

    fn started(&self) -> Instant {
        *self.started.get_or_init(Instant::now)
    }

    fn is_over(&self) -> bool {
        let is_late = matches!(self.load.stop, Stop::After(time) if self.started().elapsed() >= time);
        is_late || self.flag.is_raised()
    }

    /// Makes one request, on the kept connection if there is one, and keeps the connection if that is possible.
    async fn request(&self, number: u64, due: Instant, kept: Option<Connection>) -> Outcome {
        let path = self.load.paths.pick(number, self.load.seed);
        let kept = kept.filter(Connection::is_idle);
        let mut attempt = Attempt { local: kept.as_ref().map(Connection::local), connection: kept };
        let answer = tokio::time::timeout(self.load.timeout, self.exchange(&mut attempt, &path))
            .await
            .unwrap_or_else(|_| Err(Failed::new(FailureKind::Timeout, "no complete answer in time")));
        let now = Instant::now();
        match answer {
            Ok((body, is_kept_alive)) => {
                self.record_ok(&body, now - due, now);
                Outcome::Answered(attempt.connection.filter(|_| is_kept_alive))
            }
            Err(failed) => {
                let kind = failed.kind;
                self.record_failure(&attempt, path, failed, now);
                Outcome::Failed(kind)
            }
        }
    }

    async fn exchange(&self, attempt: &mut Attempt, path: &str) -> Result<(Vec<u8>, bool), Failed> {
        if attempt.connection.is_none() {
            let opened = Connection::open(self.target(), self.source(), &mut attempt.local).await?;
            attempt.connection = Some(opened);
        }
        let connection = attempt.connection.as_mut().expect("just opened");
        let is_last = self.load.mode == Mode::ConnectionPerRequest;
        let answer = connection.get(path, is_last).await?;
        if !(200..300).contains(&answer.status) {
            return Err(Failed::new(FailureKind::BadStatus, format!("status {}", answer.status)));
        }
        Ok((answer.body, answer.is_kept_alive && !is_last))
    }

    /// Gives the address of the next connection.
    fn target(&self) -> SocketAddr {
        let mut target = self.load.target;
        let nth = self.next_target.fetch_add(1, Ordering::Relaxed) % self.load.ports;
        target.set_port(target.port() + nth);
        target
    }

    fn source(&self) -> Option<Ipv4Addr> {
        let sources = &self.load.sources;
        let next = self.next_source.fetch_add(1, Ordering::Relaxed);
        sources.get(next.checked_rem(sources.len())?).copied()
    }

    fn record_ok(&self, body: &[u8], latency: Duration, now: Instant) {
        let key = String::from_utf8_lossy(&body[..body.len().min(BODY_KEY)]);
        let mut tally = self.tally();
        tally.ok += 1;
        tally.latencies.push(latency);
        tally.last = now - self.started();
        match tally.by_body.get_mut(key.trim()) {
            Some(count) => *count += 1,
            None => drop(tally.by_body.insert(key.trim().to_owned(), 1)),
        }
        self.answered.notify_all();
    }

    fn record_failure(&self, attempt: &Attempt, path: String, failed: Failed, now: Instant) {
        let Failed { kind, detail } = failed;
        let at = now - self.started();
        let nth = attempt.connection.as_ref().map_or(0, Connection::requests);
        let mut tally = self.tally();
        tally.failures.count(kind);
        tally.last = at;
        if tally.failed.len() < MAX_FAILED {
            tally.failed.push(Failure { at, kind, local: attempt.local, path, nth, detail });
        }
    }

    fn report(&self) -> Report {
        let tally = std::mem::take(&mut *self.tally());
        Report {
            ok: tally.ok,
            failures: tally.failures,
            failed: tally.failed,
            by_body: tally.by_body,
            latencies: Latencies::new(tally.latencies),
            unsent: tally.unsent,
            elapsed: tally.last,
        }
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What came of a request.
enum Outcome {
    /// A good answer, and the connection if it can be used again.
    Answered(Option<Connection>),
    Failed(FailureKind),
}

/// Runs a load to its end on the calling thread.
pub(super) fn run(run: &Arc<Run>) -> Report {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime for the load");
    runtime.block_on(async {
        // From here on its time counts.
        run.started();
        let mut tasks = JoinSet::new();
        match run.load.arrival {
            Arrival::Closed { clients } => {
                for _ in 0..clients {
                    tasks.spawn(closed_client(Arc::clone(run)));
                }
            }
            Arrival::Open { rate_per_s, max_in_flight } => {
                open(run, rate_per_s, max_in_flight, &mut tasks).await;
            }
        }
        tasks.join_all().await;
    });
    run.report()
}

/// A client that waits for its answers.
async fn closed_client(run: Arc<Run>) {
    let mut kept = None;
    while let Some(number) = run.next_number() {
        kept = match run.request(number, Instant::now(), kept.take()).await {
            Outcome::Answered(connection) => connection,
            Outcome::Failed(FailureKind::Refused) => {
                tokio::time::sleep(REFUSED_PAUSE).await;
                None
            }
            Outcome::Failed(_) => None,
        };
    }
}

/// Starts each request when it is due, or as soon after as there is room for it.
async fn open(run: &Arc<Run>, rate_per_s: f64, max_in_flight: usize, tasks: &mut JoinSet<()>) {
    let (due_in, mut due_out) = mpsc::unbounded_channel();
    let pacer = std::thread::spawn({
        let run = Arc::clone(run);
        move || pace(&run, rate_per_s, &due_in)
    });
    let room = Arc::new(Semaphore::new(max_in_flight));
    let idle = Arc::new(Mutex::new(Vec::new()));
    let mut is_overrun = false;
    while let Some((number, due)) = due_out.recv().await {
        while tasks.try_join_next().is_some() {}
        let had_to_wait = room.available_permits() == 0;
        let place = Arc::clone(&room).acquire_owned().await.expect("the semaphore is never closed");
        // What was due while another waited for room until after the end, waited too.
        is_overrun |= had_to_wait && run.is_over();
        if is_overrun {
            run.tally().unsent += 1;
            continue;
        }
        let (run, idle) = (Arc::clone(run), Arc::clone(&idle));
        tasks.spawn(async move {
            let kept = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            if let Outcome::Answered(Some(connection)) = run.request(number, due, kept).await {
                idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            }
            drop(place);
        });
    }
    pacer.join().expect("the pacer does not panic");
}

/// Says when requests are due. On a thread of its own, since the runtime's timers know whole milliseconds only.
fn pace(run: &Run, rate_per_s: f64, due_in: &mpsc::UnboundedSender<(u64, Instant)>) {
    let mut rng = fastrand::Rng::with_seed(run.load.seed);
    let mut due = run.started();
    loop {
        due += Duration::from_secs_f64(crate::stats::exponential(&mut rng, rate_per_s));
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() || run.is_over() {
                break;
            }
            std::thread::sleep(left.min(LONGEST_NAP));
        }
        let Some(number) = run.next_number() else { return };
        if due_in.send((number, due)).is_err() {
            return;
        }
    }
}
