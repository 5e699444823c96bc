//! What the tests and benchmarks share.

pub mod address;
pub mod runtimes;
pub mod skip;
