//! Writes one reading: as OpenMetrics, which the library knows, and as the older text format, which everything else reads.

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use allcores::Slot;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::tally::{Exit, Renewal, SlotTally, Tally};
use crate::view::{StateView, StatusView, WorkerView};

/// The content type of OpenMetrics.
pub(crate) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The content type of the older format.
pub(crate) const PLAIN_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What an app is like at one moment.
#[derive(Debug)]
pub(crate) struct Reading {
    status: StatusView,
    tally: Tally,
    /// By worker; absent where they could not be counted.
    connections: BTreeMap<u32, u64>,
}

/// A value with what it is about.
type Sample = (Vec<(&'static str, String)>, f64);

impl Reading {
    /// Puts together what is known. The tally learns from it how much CPU time was used.
    pub(crate) fn new(status: StatusView, tally: &mut Tally, connections: BTreeMap<u32, u64>) -> Self {
        for worker in &status.workers {
            let used = worker.cpu_seconds.and_then(|used| std::time::Duration::try_from_secs_f64(used).ok());
            if let Some(used) = used {
                tally.cpu(Slot(worker.slot), worker.id, used);
            }
        }
        Self { status, tally: tally.clone(), connections }
    }

    /// Writes it as OpenMetrics.
    pub(crate) fn into_open_metrics(self) -> String {
        let labels = [("app".into(), self.status.name.clone().into())];
        let mut registry = Registry::with_prefix_and_labels("allcores", labels.into_iter());
        registry.register_collector(Box::new(self));
        let mut written = String::new();
        // Writing to a string can't fail, and nothing here refuses to be written.
        let _ = text::encode(&mut written, &registry);
        written
    }

    /// One for each slot that has ever had a worker.
    fn by_slot(&self, value: impl Fn(&SlotTally) -> Option<f64>) -> Vec<Sample> {
        let slots = self.tally.slots.iter();
        slots.filter_map(|(slot, tally)| Some((vec![on(*slot)], value(tally)?))).collect()
    }

    fn counts(&self, value: impl Fn(&SlotTally) -> u64) -> Vec<Sample> {
        self.by_slot(|tally| Some(count(value(tally))))
    }

    /// Sums over the workers of a slot, of which there are two while one replaces the other.
    fn sums(&self, value: impl Fn(&WorkerView) -> Option<f64>) -> Vec<Sample> {
        let mut sums = BTreeMap::<u16, f64>::new();
        for worker in &self.status.workers {
            if let Some(value) = value(worker) {
                *sums.entry(worker.slot).or_default() += value;
            }
        }
        sums.into_iter().map(|(slot, sum)| (vec![on(slot)], sum)).collect()
    }

    fn states(&self) -> Vec<Sample> {
        let mut workers: BTreeMap<(u16, &str), u64> = BTreeMap::new();
        for slot in self.tally.slots.keys() {
            workers.extend(STATES.map(|(_, name)| ((*slot, name), 0)));
        }
        for worker in &self.status.workers {
            if let Some((_, name)) = STATES.iter().find(|(state, _)| *state == worker.state) {
                *workers.entry((worker.slot, name)).or_default() += 1;
            }
        }
        let sample =
            |((slot, state), workers)| (vec![on(slot), ("state", str::to_owned(state))], count(workers));
        workers.into_iter().map(sample).collect()
    }

    fn queues(&self) -> Vec<Sample> {
        let mut queues = BTreeMap::<(u16, &str), f64>::new();
        for worker in &self.status.workers {
            for lane in &worker.lanes {
                if let Some(depth) = lane.depth {
                    *queues.entry((worker.slot, &lane.address)).or_default() += f64::from(depth);
                }
            }
        }
        let sample = |((slot, address), depth)| (vec![on(slot), ("address", str::to_owned(address))], depth);
        queues.into_iter().map(sample).collect()
    }

    /// Jain's index over the connections of those that get any: 1 where all have as many, 1/N where one has all.
    /// None while there are no connections, as there is nothing to be fair about.
    fn fairness(&self) -> Option<f64> {
        let ready = self.status.workers.iter().filter(|worker| worker.state == StateView::Ready);
        let held: Vec<f64> =
            ready.filter_map(|worker| self.connections.get(&worker.id)).map(|held| count(*held)).collect();
        let sum: f64 = held.iter().sum();
        let squares: f64 = held.iter().map(|held| held * held).sum();
        (sum > 0.0).then(|| sum * sum / (count(held.len() as u64) * squares))
    }
}

const STATES: [(StateView, &str); 7] = [
    (StateView::Starting, "starting"),
    (StateView::Online, "online"),
    (StateView::Listening, "listening"),
    (StateView::Ready, "ready"),
    (StateView::Hung, "hung"),
    (StateView::Draining, "draining"),
    (StateView::Exited, "exited"),
];

impl Collector for Reading {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut sheet = Sheet { encoder: &mut encoder };
        self.write_app(&mut sheet)?;
        self.write_workers(&mut sheet)?;
        self.write_counters(&mut sheet)
    }
}

impl Reading {
    fn write_app(&self, sheet: &mut Sheet<'_, '_>) -> fmt::Result {
        let (status, tally) = (&self.status, &self.tally);
        let version = vec![("version", status.version.clone())];
        sheet.gauge("build_info", "The version of allcores that the primary runs", vec![(version, 1.0)])?;
        let since = humantime::parse_rfc3339(&status.since).ok();
        let since = since.map(seconds).into_iter().map(app).collect();
        sheet.gauge("start_time_seconds", "When the primary was started, in seconds since 1970", since)?;
        let generation = vec![app(f64::from(status.generation))];
        sheet.gauge("generation", "What the workers run: counts reloads, from 1", generation)?;
        let target = vec![app(f64::from(status.target))];
        sheet.gauge("workers_wanted", "How many workers there should be", target)?;
        let is_reloading = if status.reload.is_some() { 1.0 } else { 0.0 };
        sheet.gauge("reloading", "1 while a reload is under way", vec![app(is_reloading)])?;
        let took = tally.last_reload.map(|took| app(took.as_secs_f64())).into_iter().collect();
        sheet.gauge("last_reload_duration_seconds", "How long the last reload took that succeeded", took)?;
        let pending = status.addresses.iter().filter_map(|address| {
            Some((vec![("address", address.address.clone())], count(address.pending? as u64)))
        });
        let help = "Connections that the primary has accepted and no worker has taken";
        sheet.gauge("pending_connections", help, pending.collect())?;
        let help = "Jain's index over the open connections of workers that are ready: 1 is even, 1/N is all with one";
        sheet.gauge("fairness_ratio", help, self.fairness().map(app).into_iter().collect())
    }

    fn write_workers(&self, sheet: &mut Sheet<'_, '_>) -> fmt::Result {
        sheet.gauge("workers", "How many workers of a slot are in a state", self.states())?;
        let started = self.by_slot(|slot| slot.started.map(seconds));
        let help = "When the newest worker of a slot was started, in seconds since 1970";
        sheet.gauge("worker_start_time_seconds", help, started)?;
        let memory = self.sums(|worker| worker.rss_bytes.map(count));
        sheet.gauge("worker_resident_memory_bytes", "Resident memory of the processes of a slot", memory)?;
        let open = self.sums(|worker| self.connections.get(&worker.id).copied().map(count));
        sheet.gauge(
            "worker_connections",
            "Connections that workers of a slot have accepted and not closed",
            open,
        )?;
        let help = "Connections that wait to be accepted";
        sheet.gauge("worker_queue_length", help, self.queues())?;
        let failures = self.sums(|worker| Some(f64::from(worker.health.as_ref()?.failures)));
        sheet.gauge("worker_health_check_failures", "Health checks that have failed in a row", failures)
    }

    fn write_counters(&self, sheet: &mut Sheet<'_, '_>) -> fmt::Result {
        let (status, tally) = (&self.status, &self.tally);
        let reloads = &tally.reloads;
        let outcomes = [
            ("succeeded", reloads.succeeded),
            ("rolled_back", reloads.rolled_back),
            ("failed", reloads.failed),
        ];
        let outcomes = outcomes.map(|(outcome, times)| (vec![("outcome", outcome.to_owned())], count(times)));
        sheet.counter("reloads", "Reloads, by how they ended", outcomes.into())?;
        let strays = vec![app(count(status.strays))];
        sheet.counter(
            "strays",
            "Connections taken from lanes that nobody accepted from, and passed on",
            strays,
        )?;
        let written = vec![app(count(status.output.written))];
        sheet.counter(
            "log_lines",
            "Lines that were written to the log, of workers and of allcores",
            written,
        )?;
        let dropped = vec![app(count(status.output.dropped))];
        sheet.counter(
            "dropped_lines",
            "Lines of workers that nobody read, or that could not be written",
            dropped,
        )?;
        let refused = vec![app(count(tally.addresses_unavailable))];
        sheet.counter(
            "addresses_unavailable",
            "Addresses that workers asked for and could not have",
            refused,
        )?;

        sheet.counter("worker_starts", "Workers that were started", self.counts(|slot| slot.starts))?;
        let failures = self.counts(|slot| slot.start_failures);
        sheet.counter("worker_start_failures", "Workers that could not be started", failures)?;
        let exits = Exit::ALL
            .map(|exit| self.labelled("reason", exit.label(), move |slot| slot.exits.get(&exit).copied()));
        sheet.counter("worker_exits", "Workers that have ended, by how", exits.concat())?;
        let renewals = Renewal::ALL
            .map(|why| self.labelled("reason", why.label(), move |slot| slot.renewals.get(&why).copied()));
        sheet.counter(
            "worker_renewals",
            "Workers that got a successor while they served, by why",
            renewals.concat(),
        )?;
        let late = self.counts(|slot| slot.not_ready);
        sheet.counter("worker_not_ready", "Workers that were not ready in time", late)?;
        sheet.counter("worker_hangs", "Workers that hung", self.counts(|slot| slot.hung))?;
        let unwell = self.counts(|slot| slot.unhealthy);
        sheet.counter("worker_unhealthy", "Workers that failed too many health checks", unwell)?;
        let loops = self.counts(|slot| slot.crash_loops);
        sheet.counter(
            "worker_crash_loops",
            "Times that workers of a slot began to end early again and again",
            loops,
        )?;
        let cpu = self.by_slot(|slot| Some(slot.cpu.as_secs_f64()));
        sheet.counter(
            "worker_cpu_seconds",
            "CPU time that the workers of a slot have used, one after the other",
            cpu,
        )
    }

    fn labelled(
        &self,
        label: &'static str,
        value: &'static str,
        times: impl Fn(&SlotTally) -> Option<u64>,
    ) -> Vec<Sample> {
        let mut samples = self.counts(|slot| times(slot).unwrap_or_default());
        for (labels, _) in &mut samples {
            labels.push((label, value.to_owned()));
        }
        samples
    }
}

/// Where families of samples are written; one without samples is left out.
struct Sheet<'a, 'b> {
    encoder: &'a mut DescriptorEncoder<'b>,
}

impl Sheet<'_, '_> {
    fn gauge(&mut self, name: &str, help: &str, samples: Vec<Sample>) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, samples, ConstGauge::new)
    }

    /// `_total` is put behind the name.
    fn counter(&mut self, name: &str, help: &str, samples: Vec<Sample>) -> fmt::Result {
        self.family(name, help, MetricType::Counter, samples, ConstCounter::new)
    }

    fn family<M: EncodeMetric>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        samples: Vec<Sample>,
        metric: fn(f64) -> M,
    ) -> fmt::Result {
        if samples.is_empty() {
            return Ok(());
        }
        let mut family = self.encoder.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in samples {
            metric(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

fn on(slot: u16) -> (&'static str, String) {
    ("slot", slot.to_string())
}

/// A sample about the app as a whole.
fn app(value: f64) -> Sample {
    (Vec::new(), value)
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "samples are f64; beyond 2^53 the last digits do not matter")]
fn count(number: u64) -> f64 {
    number as f64
}

/// Turns OpenMetrics into the older text format. There a counter's family has the name of its samples, with `_total`, and
/// nothing marks the end.
pub(crate) fn plain(open_metrics: &str) -> String {
    let kind = |line: &str| {
        let (name, kind) = line.strip_prefix("# TYPE ")?.split_once(' ')?;
        (kind == "counter").then(|| name.to_owned())
    };
    let counters: std::collections::HashSet<String> = open_metrics.lines().filter_map(kind).collect();
    let mut written = String::with_capacity(open_metrics.len() + 16 * counters.len());
    for line in open_metrics.lines().filter(|line| *line != "# EOF") {
        let mut words = line.splitn(4, ' ');
        let about = (words.next(), words.next(), words.next(), words.next());
        match about {
            (Some("#"), Some(what), Some(name), Some(rest)) if counters.contains(name) => {
                written.extend(["# ", what, " ", name, "_total ", rest]);
            }
            _ => written.push_str(line),
        }
        written.push('\n');
    }
    written
}
