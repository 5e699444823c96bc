//! The deciding half of allcores: given inputs and the time, it says what is to be done.
//!
//! Deliberately knows no tokio, no libc, no clock, no file system and no process: each state machine takes an
//! input and `now`, and returns effects for the engine to perform. That is what makes it provable in microseconds.

pub mod channel;
pub mod exit;
pub mod handoff;
pub mod health;
pub mod notify;
pub mod policy;
pub mod pool;
pub mod selector;
pub mod steering;
pub mod text;
pub mod worker;
