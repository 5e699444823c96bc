//! The control API of a running app: HTTP/JSON on its Unix socket.
//!
//! `routes` says what may be asked, `server` who may ask. Neither knows what a worker is: they command the primary
//! through [`Control`] and pass on what it says.

mod routes;
mod server;

use std::future::Future;

use allcores::primary::{AppSnapshot, Handle, Refusal};

pub(crate) use server::{Server, bind};

/// What the control API needs of a primary; a seam, so that the API can be proven without one.
pub(crate) trait Control: Clone + Send + Sync + 'static {
    /// Drains and stops every worker.
    fn stop(&self);

    /// Kills every worker at once.
    fn stop_now(&self);

    /// Changes the number of workers; done when it is so.
    fn scale(&self, workers: u16) -> impl Future<Output = Result<AppSnapshot, Refusal>> + Send;

    /// Reads the present state.
    fn snapshot(&self) -> impl Future<Output = Result<AppSnapshot, Refusal>> + Send;
}

impl Control for Handle {
    fn stop(&self) {
        self.stop();
    }

    fn stop_now(&self) {
        self.stop_now();
    }

    fn scale(&self, workers: u16) -> impl Future<Output = Result<AppSnapshot, Refusal>> + Send {
        self.scale(workers)
    }

    fn snapshot(&self) -> impl Future<Output = Result<AppSnapshot, Refusal>> + Send {
        self.snapshot()
    }
}

#[cfg(test)]
mod tests;
