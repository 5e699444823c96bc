//! What the tests and benchmarks share.

pub mod load;
pub mod stats;
