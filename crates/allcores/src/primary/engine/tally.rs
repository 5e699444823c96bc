//! Counting what is under way in tasks of its own.

use std::sync::Arc;

/// Counts things by what each of them holds.
#[derive(Debug, Default)]
pub(super) struct Tally(Arc<()>);

/// Counts for as long as it is held.
pub(super) type One = Arc<()>;

impl Tally {
    /// One more.
    pub(super) fn one(&self) -> One {
        Arc::clone(&self.0)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        Arc::strong_count(&self.0) - 1
    }
}
