//! When who is to be asked how it is, and what the answers mean.
//!
//! Knows no socket and no process: whoever is due is asked elsewhere, and what came of it is told here. What is done
//! about one that is unhealthy, the pool decides.

mod saved;

use std::collections::BTreeMap;
use std::time::Duration;

pub use saved::CheckSaved;

/// How often to ask, and how much to believe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HealthSettings {
    /// From the end of one check to the beginning of the next.
    pub interval: Duration,
    /// Failures in a row that make a subject unhealthy; zero counts as one.
    pub threshold: u32,
}

impl Default for HealthSettings {
    fn default() -> Self {
        Self { interval: Duration::from_secs(5), threshold: 3 }
    }
}

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All is well.
    Passed,
    /// It is not. `is_silent`: there was no answer at all.
    Failed {
        /// See above.
        is_silent: bool,
    },
}

/// What is to be made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It has passed for the first time, or for the first time after it was unhealthy.
    Healthy,
    /// It has failed so often in a row. Found again each time it has failed as often once more.
    Unhealthy {
        /// How often in a row.
        failures: u32,
        /// None of those checks got any answer.
        is_silent: bool,
    },
}

/// The first wait before one that has never passed is asked again. It doubles up to the interval: one that takes long to
/// start is not kept from it by being asked.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// Who is checked, and how they did.
#[derive(Debug)]
pub struct Checks<K> {
    settings: HealthSettings,
    subjects: BTreeMap<K, Subject>,
}

#[derive(Debug)]
struct Subject {
    /// `None` while it is being asked.
    due: Option<Duration>,
    has_passed: bool,
    is_unhealthy: bool,
    failures: u32,
    /// Of these failures, those in which there was no answer, if all were so.
    is_silent: bool,
    wait: Duration,
}

impl<K: Ord + Copy> Checks<K> {
    /// Nobody is checked at first.
    pub fn new(settings: HealthSettings) -> Self {
        Self { settings, subjects: BTreeMap::new() }
    }

    /// Checks `subject` from now on, at once. Nothing if it is checked already.
    pub fn begin(&mut self, subject: K, now: Duration) {
        self.subjects.entry(subject).or_insert(Subject {
            due: Some(now),
            has_passed: false,
            is_unhealthy: false,
            failures: 0,
            is_silent: true,
            wait: FIRST_WAIT,
        });
    }

    /// Checks it no more.
    pub fn end(&mut self, subject: K) {
        self.subjects.remove(&subject);
    }

    /// When the next one is due.
    pub fn next_due(&self) -> Option<Duration> {
        self.subjects.values().filter_map(|subject| subject.due).min()
    }

    /// The one that has been due for longest, to be asked now. It is not due again until its outcome is told.
    pub fn take_due(&mut self, now: Duration) -> Option<K> {
        let due = self.subjects.iter_mut().filter(|(_, subject)| subject.due.is_some_and(|due| due <= now));
        let (key, subject) = due.min_by_key(|(_, subject)| subject.due)?;
        subject.due = None;
        Some(*key)
    }

    /// Puts off a check that could not be made, through no fault of the subject's.
    pub fn skip(&mut self, subject: K, now: Duration) {
        if let Some(subject) = self.subjects.get_mut(&subject) {
            subject.due = Some(now.saturating_add(self.settings.interval));
        }
    }

    /// Takes in what came of a check.
    pub fn tell(&mut self, subject: K, outcome: Outcome, now: Duration) -> Option<Finding> {
        let HealthSettings { interval, threshold } = self.settings;
        let subject = self.subjects.get_mut(&subject)?;
        if subject.has_passed || outcome == Outcome::Passed {
            subject.wait = interval;
        } else {
            subject.wait = subject.wait.min(interval);
        }
        subject.due = Some(now.saturating_add(subject.wait));
        subject.wait = subject.wait.saturating_mul(2);
        match outcome {
            Outcome::Passed => {
                let is_news = !subject.has_passed || subject.is_unhealthy;
                subject.has_passed = true;
                subject.is_unhealthy = false;
                subject.failures = 0;
                subject.is_silent = true;
                is_news.then_some(Finding::Healthy)
            }
            Outcome::Failed { is_silent } => {
                subject.failures = subject.failures.saturating_add(1);
                subject.is_silent &= is_silent;
                // One that has never passed is not ready yet, which is another thing.
                let is_news = subject.has_passed && subject.failures.is_multiple_of(threshold.max(1));
                subject.is_unhealthy |= is_news;
                let (failures, is_silent) = (subject.failures, subject.is_silent);
                is_news.then_some(Finding::Unhealthy { failures, is_silent })
            }
        }
    }

    /// It has failed too often in a row.
    pub fn is_unhealthy(&self, subject: K) -> bool {
        self.subjects.get(&subject).is_some_and(|subject| subject.is_unhealthy)
    }

    /// How often it has failed in a row; `None` if it is not checked, or has not been asked yet.
    pub fn failures(&self, subject: K) -> Option<u32> {
        let subject = self.subjects.get(&subject)?;
        (subject.has_passed || subject.failures > 0).then_some(subject.failures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSED: Outcome = Outcome::Passed;
    const WRONG: Outcome = Outcome::Failed { is_silent: false };
    const SILENT: Outcome = Outcome::Failed { is_silent: true };

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn checks() -> Checks<u8> {
        let mut checks = Checks::new(HealthSettings::default());
        checks.begin(1, ms(0));
        checks
    }

    #[test]
    fn one_that_has_begun_is_asked_at_once_and_then_at_intervals() {
        let mut checks = checks();
        checks.begin(1, ms(9));
        assert_eq!(checks.next_due(), Some(ms(0)));
        assert_eq!(checks.take_due(ms(0)), Some(1));
        assert_eq!((checks.take_due(ms(0)), checks.next_due()), (None, None));
        assert_eq!(checks.tell(1, PASSED, ms(3)), Some(Finding::Healthy));
        assert_eq!(checks.next_due(), Some(ms(5003)));
        assert_eq!(checks.take_due(ms(5002)), None);
        assert_eq!(checks.take_due(ms(5003)), Some(1));
        assert_eq!(checks.tell(1, PASSED, ms(5004)), None);
    }

    #[test]
    fn one_that_has_never_passed_is_asked_ever_less_often_and_is_not_unhealthy() {
        let (mut checks, mut now, mut waits) = (checks(), ms(0), Vec::new());
        for _ in 0..8 {
            assert_eq!(checks.tell(1, WRONG, now), None);
            waits.push(checks.next_due().unwrap().saturating_sub(now));
            now = checks.next_due().unwrap();
        }
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000].map(ms));
        assert_eq!(checks.failures(1), Some(8));
        assert_eq!(checks.tell(1, PASSED, now), Some(Finding::Healthy));
        assert_eq!(checks.next_due(), Some(now + ms(5000)));
    }

    #[test]
    fn failures_in_a_row_make_it_unhealthy_and_one_success_healthy_again() {
        let mut checks = checks();
        checks.tell(1, PASSED, ms(0));
        let mut tell = |outcome| checks.tell(1, outcome, ms(1));
        assert_eq!([WRONG, WRONG, PASSED, WRONG, WRONG].map(&mut tell), [None; 5]);
        let unhealthy = |failures| Some(Finding::Unhealthy { failures, is_silent: false });
        assert_eq!(tell(WRONG), unhealthy(3));
        assert_eq!([WRONG, WRONG, WRONG].map(&mut tell), [None, None, unhealthy(6)]);
        assert_eq!(tell(PASSED), Some(Finding::Healthy));
        assert_eq!(tell(PASSED), None);
        assert!(!checks.is_unhealthy(1));
    }

    #[test]
    fn who_has_waited_for_longest_is_asked_first() {
        let mut checks = checks();
        checks.begin(0, ms(1));
        assert_eq!([ms(2); 3].map(|now| checks.take_due(now)), [Some(1), Some(0), None]);
    }

    #[test]
    fn one_that_could_not_be_asked_is_asked_later() {
        let mut checks = checks();
        checks.take_due(ms(0));
        checks.skip(1, ms(7));
        assert_eq!((checks.next_due(), checks.failures(1)), (Some(ms(5007)), None));
    }

    #[test]
    fn only_one_that_never_answered_is_silent() {
        let mut checks = checks();
        checks.tell(1, PASSED, ms(0));
        let mut third = |outcomes: [Outcome; 3]| outcomes.map(|outcome| checks.tell(1, outcome, ms(1)))[2];
        assert_eq!(third([SILENT; 3]), Some(Finding::Unhealthy { failures: 3, is_silent: true }));
        assert_eq!(third([PASSED, SILENT, WRONG]), None);
        assert_eq!(third([SILENT, PASSED, PASSED]), None);
    }

    #[test]
    fn one_that_has_ended_is_forgotten() {
        let mut checks = checks();
        checks.take_due(ms(0));
        checks.end(1);
        assert_eq!(checks.tell(1, PASSED, ms(1)), None);
        assert_eq!((checks.next_due(), checks.failures(1)), (None, None));
    }
}
