//! What an operator may set about the pool.

use std::time::Duration;

/// What an operator may set about the pool, validated.
///
/// A duration of `Duration::MAX` means "without a limit".
#[derive(Clone, Debug)]
pub struct PoolSettings {
    /// How many workers to keep; zero counts as one.
    pub workers: u16,
    /// A worker that was up this long has started well: its slot's backoff begins anew.
    pub min_uptime: Duration,
    /// More early exits in a row than this in one slot are a crash loop.
    pub max_restarts: u32,
    /// The first wait between a crash and its replacement; doubles with each early exit in a row.
    pub backoff: Duration,
    /// The longest such wait.
    pub backoff_max: Duration,
    /// How long a worker that is steered away from goes on accepting, for handshakes under way.
    pub linger: Duration,
    /// How long a draining worker may keep its connections before it is asked to stop all the same.
    pub drain_timeout: Duration,
    /// How long a worker that was asked to stop may take before it is killed.
    pub kill_timeout: Duration,
    /// Replaces a worker whose waiting connections have not moved for this long.
    pub hang_timeout: Option<Duration>,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            workers: 1,
            min_uptime: Duration::from_secs(1),
            max_restarts: 5,
            backoff: Duration::from_millis(100),
            backoff_max: Duration::from_secs(15),
            linger: Duration::from_secs(1),
            drain_timeout: Duration::from_secs(10),
            kill_timeout: Duration::from_secs(5),
            hang_timeout: None,
        }
    }
}
