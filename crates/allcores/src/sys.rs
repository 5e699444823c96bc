//! The only `unsafe` of the project: system calls that no safe library offers, each behind a safe function.
//!
//! Knows no policy and keeps no state. Linux; what other systems fall back to is in `docs/platforms.md`.

pub(crate) mod epoll;
pub(crate) mod exec;
pub(crate) mod owner;
pub(crate) mod process;
pub(crate) mod scheduling;
pub(crate) mod seccomp;
pub(crate) mod socket;
pub(crate) mod spawn;
mod vfork;
mod watch;

pub(crate) use watch::Watch;
