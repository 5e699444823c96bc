//! Run any server on every core behind one port: node:cluster for Rust.
//!
//! A *primary* forks a *worker* process for each core; all listen on the same port; one that dies is replaced, and what
//! waited for it is served by another. The program is both, and [`role`] says which it is this time:
//!
#![cfg_attr(feature = "axum", doc = "```no_run")]
#![cfg_attr(not(feature = "axum"), doc = "```ignore")]
//! use allcores::Role;
//! use axum::{Router, routing::get};
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     match allcores::role()? {
//!         Role::Primary(builder) => {
//!             let cores = std::thread::available_parallelism()?.get();
//!             builder.workers(cores).keep(true).serve().await?;
//!         }
//!         Role::Worker(worker) => {
//!             let app = Router::new().route("/", get(async || "hello\n"));
//!             let listener = worker.listen("0.0.0.0:8080").await?;
//!             axum::serve(listener, app).with_graceful_shutdown(worker.shutdown()).await?;
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//!
//! Started by hand it is a primary with its workers; by `allcores run -- PROGRAM` it is a worker of that program's; with
//! `ALLCORES_ROLE=worker` it is one server, for a debugger.
//!
//! # In a primary
//!
//! [`Builder`] says what workers are: by default this program again, with the same arguments; another one by
//! [`exec`](Builder::exec), a script for [`node`](Builder::node). [`Cluster`] forks them, tells what becomes of them
//! ([`Event`]), and stops them in peace. [`WorkerHandle`] is one of them: [send](WorkerHandle::send) it messages and
//! sockets, [disconnect](WorkerHandle::disconnect) it, [kill](WorkerHandle::kill) it.
//!
//! # In a worker
//!
//! [`Worker`] listens, together with the others, on [TCP](Worker::listen), [Unix sockets](Worker::listen_unix) and
//! [UDP](Worker::bind_udp). A [`Listener`] is used as tokio's own, or given to `axum::serve` with the feature `axum`.
//! [`Worker::shutdown`] completes when it is time to go.
//!
//! # How connections reach workers
//!
//! By a [`Policy`]: from a queue of each worker's own in the kernel (*lanes*), from one that they share, handed over by the
//! primary in turn (*round-robin*), or kept with one worker for each client (*sticky*). For a whole cluster, or
//! [one address](ListenOptions::policy).
//!
//! # Names
//!
//! Those of node:cluster, as Rust writes them. Its own find them too, in the search of this documentation:
//! `setupPrimary`, `exitedAfterDisconnect`. What is the same, better, different and absent, and why, is in the
//! repository's `docs/node-parity.md`.
//!
//! # Platform
//!
//! Linux.

#[cfg(not(target_os = "linux"))]
compile_error!("allcores runs on Linux alone");

mod address;
mod adopt;
mod carry;
mod cgroup;
mod channel;
mod cluster;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod handle;
mod identity;
mod message;
mod ports;
// What the `allcores` program (crates/cli) is made of, and outside of semver: it asks for this very version. What users of the
// library meet of it is exported below.
#[doc(hidden)]
pub mod primary;
mod proc;
mod rendezvous;
mod role;
mod signal;
mod sys;
mod worker;

pub use cluster::{
    AddressType, Builder, Cluster, ClusterSettings, Departure, Event, Events, Fork, ListeningAddress, Reload,
    Stdio, WorkerHandle, WorkerState,
};
pub use error::{Error, ErrorKind};
pub use handle::{Handle, SendHandleError};
pub use message::Message;
pub use primary::{
    AddressSnapshot, AppSnapshot, Health, HealthCheck, HealthSnapshot, LaneSnapshot, LastExit, ReloadFailure,
    ReloadSnapshot, Stream, WorkerSnapshot,
};
pub use role::{Role, role};
pub use signal::Signal;
pub use worker::{ListenOptions, Listener, Messages, UnixListener, Worker};

pub use allcores_core::channel::Serialization;
pub use allcores_core::exit::ExitStatus;
pub use allcores_core::health::HealthSettings;
pub use allcores_core::policy::{Policy, StickyBy, UnknownPolicy};
pub use allcores_core::pool::{Fault, Lack, Reason};
pub use allcores_core::worker::{Rung, Slot, State, WorkerId};
