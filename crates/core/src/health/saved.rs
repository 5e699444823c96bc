//! How somebody does in its checks as data, to go on in another process.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Checks, Subject};

/// How one subject does in its checks, as data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckSaved {
    due: Duration,
    has_passed: bool,
    is_unhealthy: bool,
    failures: u32,
    is_silent: bool,
    wait: Duration,
}

impl<K: Ord + Copy> Checks<K> {
    /// Takes down how everybody does. A check that is under way at `now` is made anew.
    pub fn save(&self, now: Duration) -> Vec<(K, CheckSaved)> {
        let save = |(key, subject): (&K, &Subject)| {
            let Subject { due, has_passed, is_unhealthy, failures, is_silent, wait } = *subject;
            let due = due.unwrap_or(now);
            (*key, CheckSaved { due, has_passed, is_unhealthy, failures, is_silent, wait })
        };
        self.subjects.iter().map(save).collect()
    }

    /// Checks `subject` from now on, as one that does so well.
    pub fn resume(&mut self, subject: K, saved: CheckSaved) {
        let CheckSaved { due, has_passed, is_unhealthy, failures, is_silent, wait } = saved;
        let restored = Subject { due: Some(due), has_passed, is_unhealthy, failures, is_silent, wait };
        self.subjects.insert(subject, restored);
    }
}

#[cfg(test)]
mod tests {
    use crate::health::{Checks, Finding, HealthSettings, Outcome};

    use super::*;

    #[test]
    fn who_has_passed_and_failed_since_goes_on_from_there() {
        let ms = Duration::from_millis;
        let mut before = Checks::new(HealthSettings::default());
        before.begin('a', ms(0));
        before.tell('a', Outcome::Passed, ms(0));
        before.tell('a', Outcome::Failed { is_silent: true }, ms(1));
        before.tell('a', Outcome::Failed { is_silent: true }, ms(2));
        before.take_due(ms(9000));
        let mut after = Checks::new(HealthSettings::default());
        for (subject, saved) in before.save(ms(9001)) {
            let text = serde_json::to_string(&saved).unwrap();
            after.resume(subject, serde_json::from_str(&text).unwrap());
        }
        assert_eq!(after.take_due(ms(9001)), Some('a'), "the check that was under way is made again");
        let found = after.tell('a', Outcome::Failed { is_silent: true }, ms(9002));
        assert_eq!(found, Some(Finding::Unhealthy { failures: 3, is_silent: true }));
    }
}
