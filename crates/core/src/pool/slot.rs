//! One target slot: how its workers fared, and when it gets the next one.

use std::time::Duration;

use super::{LastExit, PoolSettings};

/// What outlives the workers of a slot.
#[derive(Debug, Default)]
pub(super) struct SlotState {
    /// Of which its workers are to be.
    pub(super) generation: u32,
    /// Workers that it ever got.
    pub(super) spawned: u32,
    /// Early exits in a row.
    pub(super) early_exits: u32,
    pub(super) last_exit: Option<LastExit>,
    /// When it gets its next worker, while it waits for one.
    pub(super) respawn_at: Option<Duration>,
}

impl SlotState {
    pub(super) fn new(generation: u32) -> Self {
        Self { generation, ..Self::default() }
    }

    pub(super) fn restarts(&self) -> u32 {
        self.spawned.saturating_sub(1)
    }

    pub(super) fn count_exit(&mut self, is_early: bool) {
        self.early_exits = if is_early { self.early_exits.saturating_add(1) } else { 0 };
    }

    pub(super) fn is_crash_looping(&self, max_restarts: u32) -> bool {
        self.early_exits > max_restarts
    }

    /// True for the early exit that begins a crash loop and each time their number has doubled since: a loop of a
    /// week is a dozen lines of log.
    pub(super) fn is_crash_loop_news(&self, max_restarts: u32) -> bool {
        let first = max_restarts.saturating_add(1);
        self.is_crash_looping(max_restarts)
            && self.early_exits.is_multiple_of(first)
            && (self.early_exits / first).is_power_of_two()
    }

    /// How long to wait before the next worker. One bad exit may be bad luck and is answered at once.
    pub(super) fn delay(&self, settings: &PoolSettings, jitter: &mut Jitter) -> Duration {
        let wait = if self.is_crash_looping(settings.max_restarts) {
            settings.backoff_max
        } else {
            match self.early_exits {
                0 | 1 => Duration::ZERO,
                exits => settings.backoff.saturating_mul(2_u32.saturating_pow(exits - 2)),
            }
        };
        jitter.spread(wait.min(settings.backoff_max)).min(settings.backoff_max)
    }
}

/// Spreads waits so that slots that crash together do not come back together. Marsaglia's xorshift64 (2003).
#[derive(Debug)]
pub(super) struct Jitter(u64);

impl Jitter {
    pub(super) fn new(seed: u64) -> Self {
        // Xorshift never leaves zero.
        Self(if seed == 0 { 0x9e37_79b9_7f4a_7c15 } else { seed })
    }

    /// From which it goes on.
    pub(super) fn state(&self) -> u64 {
        self.0
    }

    /// Between 80 and 120 percent of a wait.
    fn spread(&mut self, wait: Duration) -> Duration {
        self.within(200, wait)
    }

    /// Between 90 and 110 percent of a time.
    pub(super) fn vary(&mut self, time: Duration) -> Duration {
        self.within(100, time)
    }

    /// So many thousandths more or less.
    fn within(&mut self, permille: u32, time: Duration) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let more = u32::try_from(self.0 % u64::from(2 * permille + 1)).unwrap_or(permille);
        time.saturating_mul(1000 - permille + more) / 1000
    }
}
