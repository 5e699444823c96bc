//! How workers are looked after while they serve.

use std::ffi::OsString;
use std::time::Duration;

use allcores_core::health::HealthSettings;

/// How workers are looked after while they serve. Nothing is done by default.
#[derive(Clone, Debug, Default)]
pub struct Upkeep {
    /// Asks each worker how it is. One that has not passed once is not ready; one that fails too often is replaced.
    pub health: Option<Health>,
    /// Workers are to send `WATCHDOG=1` to their `NOTIFY_SOCKET` at least this often.
    pub watchdog: Option<Duration>,
    /// Replaces a worker whose processes have more resident memory than this, in bytes.
    pub max_memory: Option<u64>,
    /// Replaces a worker that says that it has served so many requests.
    pub max_requests: Option<u64>,
    /// Limits that the kernel holds each worker with its descendants to: files of a cgroup (version 2), and what is written
    /// to them, e.g. `("memory.max", "512M")`.
    pub cgroup: Vec<(String, String)>,
}

/// How a worker is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// What is done.
    pub check: HealthCheck,
    /// How long an answer may take.
    pub timeout: Duration,
    /// How often it is done, and how many failures are too many.
    pub settings: HealthSettings,
}

impl Health {
    /// By this check: every 5 s, with 2 s for an answer, and three failures in a row are too many.
    pub fn new(check: HealthCheck) -> Self {
        Self { check, timeout: Duration::from_secs(2), settings: HealthSettings::default() }
    }

    /// Asks for this path by HTTP/1.1; a status from 200 to 399 is well.
    pub fn http(path: impl Into<String>) -> Self {
        Self::new(HealthCheck::Http { path: path.into() })
    }

    /// Connects; a worker that accepts is well.
    pub fn tcp() -> Self {
        Self::new(HealthCheck::Tcp)
    }

    /// Runs a command by `sh -c`; exit code 0 is well.
    pub fn exec(command: impl Into<OsString>) -> Self {
        Self::new(HealthCheck::Exec { command: command.into() })
    }

    /// How long an answer may take.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long after a check the next one follows.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.settings.interval = interval;
        self
    }

    /// How many failures in a row are too many.
    #[must_use]
    pub fn threshold(mut self, failures: u32) -> Self {
        self.settings.threshold = failures;
        self
    }
}

/// What is done to see whether a worker is well.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HealthCheck {
    /// Asks for this path by HTTP/1.1, and expects a status from 200 to 399.
    Http {
        /// With its leading slash.
        path: String,
    },
    /// Connects, and expects that the worker accepts.
    Tcp,
    /// Runs a command by `sh -c`, and expects exit code 0.
    Exec {
        /// The command line.
        command: OsString,
    },
}
