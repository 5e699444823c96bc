//! Turns at the machine: a test that puts load on it has it for itself.
//!
//! Counts for the tests of one process, as `cargo test` runs them. `cargo nextest` has a process for each test; there
//! `.config/nextest.toml` says the same by the test's name.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

static MACHINE: RwLock<()> = RwLock::new(());

/// A turn at the machine beside others. Ends when it is dropped.
#[derive(Debug)]
pub struct Together(#[expect(dead_code, reason = "held, not looked at")] RwLockReadGuard<'static, ()>);

/// A turn at the machine with nobody else. Ends when it is dropped.
#[derive(Debug)]
pub struct Alone(#[expect(dead_code, reason = "held, not looked at")] RwLockWriteGuard<'static, ()>);

/// Waits until no test has the machine for itself.
pub fn together() -> Together {
    // A test that failed leaves nothing behind that others could trip over.
    Together(MACHINE.read().unwrap_or_else(PoisonError::into_inner))
}

/// Waits until no other test has a turn.
pub fn alone() -> Alone {
    Alone(MACHINE.write().unwrap_or_else(PoisonError::into_inner))
}
