//! What monitoring reads of an app: counters that only grow, and how it is right now, in Prometheus' words.
//!
//! `tally` counts events, `exposition` writes, `server` answers on an address of its own. What is true at this moment is asked of
//! the primary for each reading, and nothing is counted twice.

mod exposition;
mod server;
mod tally;

pub(crate) use exposition::{OPEN_METRICS, PLAIN_TEXT, Reading, plain};
pub(crate) use server::MetricsServer;
pub(crate) use tally::Tally;

#[cfg(test)]
mod tests;
