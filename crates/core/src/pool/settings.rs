//! What an operator may set about the pool.

use std::time::Duration;

/// What an operator may set about the pool, validated.
///
/// A duration of `Duration::MAX` means "without a limit".
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting that stands for itself")]
pub struct PoolSettings {
    /// How many workers to start with, and to keep.
    pub workers: u16,
    /// Fewer than this are never aimed at: 1 for an app that is to be up, 0 where workers are forked one by one.
    pub least: u16,
    /// Whether a worker that goes without having been asked to is replaced, and workers that keep crashing without ever
    /// having served end the pool. Without it the pool only carries out what it is told.
    pub keep: bool,
    /// A worker that was up this long has started well: its slot's backoff begins anew. One that fails before it was ready has
    /// not, within [`ready_timeout`](Self::ready_timeout).
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
    /// How long a worker that was asked to stop may take before it is killed. After half of it, one that was asked over its
    /// channel gets the stop signal too.
    pub kill_timeout: Duration,
    /// How long a worker that was disconnected may take before it is killed; its connections' end is not waited for
    /// otherwise.
    pub disconnect_timeout: Duration,
    /// Workers may listen nowhere: one that has been up for [`min_uptime`](Self::min_uptime) lacks no listener to be ready.
    pub no_listen: bool,
    /// A worker is not ready before it has said so.
    pub wait_ready: bool,
    /// A worker is not ready before it has passed a health check.
    pub wait_healthy: bool,
    /// How long a worker may take to be ready. Where one of these is set, it counts as one that has failed then; anywhere, one
    /// that ends otherwise than with exit code 0 before has started badly.
    pub ready_timeout: Duration,
    /// Replaces a worker that has lived for so long, more or less a tenth.
    pub max_lifetime: Option<Duration>,
    /// Replaces a worker whose waiting connections have not moved for this long.
    pub hang_timeout: Option<Duration>,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            workers: 1,
            least: 1,
            keep: true,
            min_uptime: Duration::from_secs(1),
            max_restarts: 5,
            backoff: Duration::from_millis(100),
            backoff_max: Duration::from_secs(15),
            linger: Duration::from_secs(1),
            drain_timeout: Duration::from_secs(10),
            kill_timeout: Duration::from_secs(5),
            disconnect_timeout: Duration::MAX,
            no_listen: false,
            wait_ready: false,
            wait_healthy: false,
            ready_timeout: Duration::from_mins(1),
            max_lifetime: None,
            hang_timeout: None,
        }
    }
}
