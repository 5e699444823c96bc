//! Run any server on every core behind one port.
//!
//! The engine behind the `allcores` program. `primary` keeps a pool of workers; each worker is a process that
//! runs an unmodified server.

mod address;
mod adopt;
mod channel;
mod ports;
pub mod primary;
mod proc;
mod relay;
mod sys;

pub use allcores_core::exit::ExitStatus;
pub use allcores_core::pool::PoolSettings;
pub use allcores_core::worker::{Rung, Slot, State, WorkerId};
