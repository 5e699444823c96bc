//! What the tests and benchmarks share.

pub mod address;
pub mod announced;
pub mod app;
pub mod baseline;
pub mod chaos;
pub mod cost;
pub mod extent;
pub mod framework;
pub mod fuzz;
pub mod journal;
pub mod load;
pub mod machine;
pub mod own_process;
pub mod page;
pub mod pm2;
pub mod proc;
pub mod process;
pub mod runtimes;
pub mod siege;
pub mod skip;
pub mod soak;
pub mod stats;
pub mod svg;
pub mod terminal;
