//! What a process has, again and again, and whether it has come to have more.

use std::fmt;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::proc;
use crate::stats::median;

/// A process at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// When, in seconds since the beginning.
    pub at: f64,
    /// All memory that is there, code included, in KiB.
    pub resident_kib: u64,
    /// Heap and stacks, in KiB.
    pub anonymous_kib: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
    /// Timers of the kernel's: POSIX timers and timerfds. Those that a program keeps itself are memory.
    pub timers: u64,
    /// Processes that it has started, or taken over, and that are not gone.
    pub children: u64,
}

/// Something that must not grow.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    /// What it is called.
    pub name: &'static str,
    /// What it is counted in.
    pub unit: &'static str,
    /// Takes it out of a sample.
    pub of: fn(&Sample) -> u64,
    /// By so much it may be more in the end.
    pub slack: f64,
    /// Or by this part of what it was, if that is more.
    pub part: f64,
}

/// All of them. Memory may differ by what the allocator keeps for a burst, and by code that is read again when it is needed; a
/// descriptor or a child more may be a question or a replacement that is under way.
pub const MEASURES: [Measure; 6] = [
    Measure { name: "resident", unit: "KiB", of: |sample| sample.resident_kib, slack: 2048.0, part: 0.1 },
    Measure { name: "anonymous", unit: "KiB", of: |sample| sample.anonymous_kib, slack: 1024.0, part: 0.1 },
    Measure { name: "descriptors", unit: "", of: |sample| sample.descriptors, slack: 2.0, part: 0.0 },
    Measure { name: "threads", unit: "", of: |sample| sample.threads, slack: 1.0, part: 0.0 },
    Measure { name: "timers", unit: "", of: |sample| sample.timers, slack: 0.0, part: 0.0 },
    Measure { name: "children", unit: "", of: |sample| sample.children, slack: 1.0, part: 0.0 },
];

/// This part of the samples is of the time in which a program comes to have what it keeps.
pub(super) const WARM_UP: f64 = 1.0 / 6.0;

/// Whether something has grown: after the warm-up, the median of the last third of the samples is more than that of the first
/// third by more than it may be.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// Of what.
    pub measure: &'static str,
    /// The median of the first third.
    pub first: f64,
    /// The median of the last.
    pub last: f64,
    /// What that may have been.
    pub bound: f64,
    /// Whether it was more.
    pub has_grown: bool,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { measure, first, last, bound, has_grown } = self;
        let verdict = if *has_grown { "has grown" } else { "flat" };
        write!(f, "{measure}: {first:.0} at first, {last:.0} at last, at most {bound:.0}: {verdict}")
    }
}

impl Sample {
    /// Looks at a process; `None` if it has gone.
    pub fn of(pid: u32, at: Duration) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.split_whitespace().next()?.parse().ok()
        };
        let descriptors = proc::descriptors(pid);
        let timerfds = descriptors.iter().filter(|(_, link)| link.contains("[timerfd]")).count();
        let posix = fs::read_to_string(format!("/proc/{pid}/timers")).unwrap_or_default();
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
        let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
        Some(Self {
            at: at.as_secs_f64(),
            resident_kib: field("VmRSS")?,
            anonymous_kib: field("RssAnon")?,
            descriptors: descriptors.len() as u64,
            threads: field("Threads")?,
            timers: (timerfds + posix.lines().filter(|line| line.starts_with("ID:")).count()) as u64,
            children: children.map(|of_task| of_task.split_whitespace().count() as u64).sum(),
        })
    }
}

/// Looks at a process until it is over, or the process has gone.
pub(super) fn every(time: Duration, pid: u32, is_over: &AtomicBool) -> Vec<Sample> {
    let (begin, mut samples) = (Instant::now(), Vec::new());
    while !is_over.load(Ordering::Relaxed)
        && let Some(sample) = Sample::of(pid, begin.elapsed())
    {
        samples.push(sample);
        thread::sleep(time);
    }
    samples
}

/// Says of each measure whether it has grown. Of too few samples nothing can be said that is good.
pub fn judge(samples: &[Sample]) -> Vec<Verdict> {
    let warm = samples.iter().position(|sample| sample.at >= samples[samples.len() - 1].at * WARM_UP);
    let samples = &samples[warm.unwrap_or(0)..];
    let third = samples.len() / 3;
    let verdict = |measure: &Measure| {
        let of = |part: &[Sample]| {
            #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 of anything")]
            let values: Vec<f64> = part.iter().map(|sample| (measure.of)(sample) as f64).collect();
            median(&values)
        };
        if third == 0 {
            return Verdict { measure: measure.name, first: 0.0, last: 0.0, bound: 0.0, has_grown: true };
        }
        let (first, last) = (of(&samples[..third]), of(&samples[samples.len() - third..]));
        let bound = first + measure.slack.max(first * measure.part);
        Verdict { measure: measure.name, first, last, bound, has_grown: last > bound }
    };
    MEASURES.iter().map(verdict).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many samples, whose heap and descriptors are these by number.
    fn samples(count: u32, of: impl Fn(u32) -> (u64, u64)) -> Vec<Sample> {
        let sample = |nth| {
            let (anonymous_kib, descriptors) = of(nth);
            let (resident_kib, at) = (9000, f64::from(nth) * 2.0);
            Sample { at, resident_kib, anonymous_kib, descriptors, threads: 3, timers: 0, children: 4 }
        };
        (0..count).map(sample).collect()
    }

    fn grown(samples: &[Sample]) -> Vec<&'static str> {
        judge(samples)
            .into_iter()
            .filter(|verdict| verdict.has_grown)
            .map(|verdict| verdict.measure)
            .collect()
    }

    #[test]
    fn what_leaks_slowly_has_grown() {
        assert_eq!(grown(&samples(150, |nth| (3000 + u64::from(nth) * 20, 40))), ["anonymous"]);
        assert_eq!(grown(&samples(150, |nth| (3000, 40 + u64::from(nth) / 20))), ["descriptors"]);
    }

    #[test]
    fn bursts_and_a_warm_up_are_no_growth() {
        let bursts = |nth: u32| if nth.is_multiple_of(7) { (90_000, 400) } else { (3000, 40) };
        assert!(grown(&samples(150, bursts)).is_empty());
        assert!(grown(&samples(150, |nth| (if nth < 20 { 500 } else { 3000 }, 40))).is_empty());
    }

    #[test]
    fn nothing_good_is_said_of_too_little() {
        assert_eq!(grown(&samples(2, |_| (3000, 40))).len(), MEASURES.len());
        assert_eq!(grown(&[]).len(), MEASURES.len());
    }

    #[test]
    fn a_process_is_seen_as_it_is() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let own = Sample::of(std::process::id(), Duration::ZERO).unwrap();
        assert!(own.children >= 1 && own.threads >= 1 && own.descriptors >= 3, "{own:?}");
        assert!(own.resident_kib > own.anonymous_kib && own.anonymous_kib > 0, "{own:?}");
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(Sample::of(child.id(), Duration::ZERO), None);
    }
}
