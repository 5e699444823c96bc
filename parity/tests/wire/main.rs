//! What Node's tests pin of cluster and its channel, with real node 20, 22, 24 and 26 as workers of a Rust primary.
//!
//! Each test says whose claim it repeats; `docs/node-parity.md` has them all in one table.

mod disconnect;
mod gaps;
mod handles;
mod inspector;
mod ipc;
mod life;
mod listening;
mod other_primary;
mod round_robin;
mod settings;
mod udp;
