//! How many tests passed, failed and were skipped, as told by the test runners.

use std::collections::HashSet;
use std::fmt;
use std::ops::{Add, AddAssign};
use std::process::ExitStatus;

/// Numbers of tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Counts {
    /// Reads the report that nextest writes.
    pub(super) fn from_junit(report: &str) -> Option<Self> {
        let root = report.split('<').find(|tag| tag.starts_with("testsuites"))?;
        let number = |name: &str| {
            let (_, value) = root.split_once(&format!(" {name}=\""))?;
            value.split('"').next()?.parse::<usize>().ok()
        };
        let failed = number("failures")? + number("errors")?;
        Some(Self { passed: number("tests")?.checked_sub(failed)?, failed, skipped: 0 })
    }

    /// Reads the line that closes the output of a test binary.
    pub(super) fn from_libtest(line: &str) -> Option<Self> {
        let mut counts = Self::default();
        for part in line.strip_prefix("test result: ")?.split_once(". ")?.1.split("; ") {
            let Some((number, word)) = part.trim().split_once(' ') else { continue };
            match word {
                "passed" => counts.passed = number.parse().ok()?,
                "failed" => counts.failed = number.parse().ok()?,
                _ => {}
            }
        }
        Some(counts)
    }

    /// Holds the counts against the runner's exit: one that failed without a failed test (the build failed, a test binary
    /// crashed) counts as a failure.
    pub(super) fn confirmed_by(mut self, status: ExitStatus) -> Self {
        if !status.success() {
            self.failed = self.failed.max(1);
        }
        self
    }

    /// Takes the tests named in the skip log out of those that passed.
    pub(super) fn less_skipped(mut self, log: &str) -> Self {
        let names = log.lines().filter_map(|line| line.strip_prefix("skipped: ")?.split(": ").next());
        let skipped = names.collect::<HashSet<_>>().len().min(self.passed);
        self.passed -= skipped;
        self.skipped += skipped;
        self
    }

    pub(super) fn total(self) -> usize {
        self.passed + self.failed + self.skipped
    }

    /// Whether tests have run, and none has failed.
    pub(super) fn is_success(self) -> bool {
        self.failed == 0 && self.total() > 0
    }
}

impl Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    const PASSED: Counts = Counts { passed: 3, failed: 0, skipped: 0 };

    #[test]
    fn junit_failures_and_errors_are_failed() {
        let report = "<?xml version=\"1.0\"?>\n<testsuites name=\"nextest-run\" tests=\"12\" failures=\"1\" errors=\"2\">\n\
                      <testsuite name=\"a\" tests=\"4\" failures=\"0\">";
        assert_eq!(Counts::from_junit(report), Some(Counts { passed: 9, failed: 3, skipped: 0 }));
        assert_eq!(Counts::from_junit(""), None);
    }

    #[test]
    fn only_the_closing_line_of_libtest_counts() {
        let line = "test result: FAILED. 4 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        assert_eq!(Counts::from_libtest(line), Some(Counts { passed: 4, failed: 1, skipped: 0 }));
        assert_eq!(Counts::from_libtest("test tests::a ... ok\n"), None);
    }

    #[test]
    fn a_test_that_skips_twice_is_skipped_once() {
        let log =
            "skipped: fixtures::puma: ruby: why\nskipped: fixtures::puma: again\nskipped: fixtures::go: no\n";
        assert_eq!(PASSED.less_skipped(log), Counts { passed: 1, failed: 0, skipped: 2 });
    }

    #[test]
    fn a_runner_that_fails_without_a_failed_test_is_a_failure() {
        assert!(PASSED.confirmed_by(ExitStatus::from_raw(0)).is_success());
        assert!(!PASSED.confirmed_by(ExitStatus::from_raw(256)).is_success());
    }

    #[test]
    fn no_tests_are_no_success() {
        assert!(!Counts::default().is_success());
    }
}
