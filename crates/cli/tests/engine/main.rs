//! The engine with real servers, unmodified: who answers, what is lost, what is left behind.
//!
//! Each test runs the program `allcores` on a server of `tests/fixtures` and looks at it from outside, as its clients
//! and the kernel see it.

mod addresses;
mod app;
mod cgroup;
mod client;
mod handoff;
mod health;
mod load;
mod primary;
mod runtimes;
mod starving;
mod stubborn;
mod tried;
mod triggers;
mod unix;
mod upgrade;

use allcores_testing::proc;
