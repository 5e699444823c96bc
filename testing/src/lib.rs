//! What the tests and benchmarks share.

pub mod app;
pub mod baseline;
pub mod load;
pub mod process;
pub mod stats;
