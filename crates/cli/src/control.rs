//! The control API of a running app: HTTP/JSON on its Unix socket.
//!
//! `routes` says what may be asked, `server` who may ask, `room` how many at a time. Neither knows what a worker is: they command the primary
//! through [`Control`] and pass on what it says.

mod document;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod room;
mod routes;
mod server;

use std::future::Future;

use allcores::primary::{Refusal, Reload, ReloadProgress, Upgrade, UpgradeProgress, WorkerRef};
use allcores::{Signal, Slot};

pub(crate) use server::{Lobby, Server, bind, serve_monitoring};

use crate::args::Change;
use crate::hub::Subscription;
use crate::view::{DescriptionView, StatusView};

/// What the control API needs of a primary; a seam, so that the API can be proven without one.
pub(crate) trait Control: Clone + Send + Sync + 'static {
    /// As long as it lives, the primary does not become another program.
    type Hold: Send + 'static;

    /// Somebody has asked for something, or is about to.
    fn hold(&self) -> Self::Hold;

    /// Drains and stops every worker.
    fn stop(&self);

    /// Kills every worker at once.
    fn stop_now(&self);

    /// Changes the number of workers; done when it is so.
    fn scale(&self, change: Change) -> impl Future<Output = Result<StatusView, Refusal>> + Send;

    /// Replaces every worker, after what the app is to be was read anew, from now on in this environment of its file, and
    /// tells how it goes on.
    fn reload(
        &self,
        wish: Reload,
        environment: Option<String>,
    ) -> impl Future<Output = Result<Reloading, Refusal>> + Send;

    /// Tells how the app was made.
    fn describe(&self) -> DescriptionView;

    /// Sends a signal to workers; tells which.
    fn signal(
        &self,
        slot: Option<Slot>,
        signal: Signal,
    ) -> impl Future<Output = Result<Vec<WorkerRef>, Refusal>> + Send;

    /// Sends a message, one line of JSON, to workers; tells which.
    fn send(
        &self,
        slot: Option<Slot>,
        message: String,
    ) -> impl Future<Output = Result<Vec<WorkerRef>, Refusal>> + Send;

    /// Begins to tell what happens; `None` if too many are told already.
    fn subscribe(&self, has_output: bool) -> Option<Subscription>;

    /// Reads what monitoring is to know, as OpenMetrics.
    fn metrics(&self) -> impl Future<Output = Result<String, Refusal>> + Send;

    /// Somebody was turned away who is neither the app's user nor root.
    fn turned_away(&self, user: Option<u32>);

    /// Becomes another program, and tells how it goes on until then.
    fn upgrade(&self, wish: Upgrade) -> UpgradeProgress;

    /// Reads the present state.
    fn status(&self) -> impl Future<Output = Result<StatusView, Refusal>> + Send;
}

/// A reload that has been asked for.
pub(crate) struct Reloading {
    /// What it will not do, in words.
    pub(crate) notices: Vec<String>,
    pub(crate) news: ReloadProgress,
}

#[cfg(test)]
mod tests;
