//! What the tests and benchmarks share.

pub mod address;
pub mod app;
pub mod baseline;
pub mod load;
pub mod machine;
pub mod process;
pub mod runtimes;
pub mod skip;
pub mod stats;
