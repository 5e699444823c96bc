//! Calling back tasks that own what the primary's next program is to have.
//!
//! A task that is called back ends where it holds nothing in its hands: what it has read was passed on, or is returned
//! with what it owns. So it can be started again with the same things, here or there.

use tokio::sync::watch;

/// Calls back all tasks that were given its [`Recall`].
#[derive(Debug)]
pub(super) struct Recaller(watch::Sender<bool>);

/// Where a task learns that it is called back.
#[derive(Clone, Debug)]
pub(super) struct Recall(watch::Receiver<bool>);

impl Recaller {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Calls back those that there are, and those that begin from now on.
    pub(super) fn call(&self) {
        self.0.send_replace(true);
    }

    /// Those that begin from now on are to stay.
    pub(super) fn relent(&self) {
        self.0.send_replace(false);
    }

    pub(super) fn recall(&self) -> Recall {
        Recall(self.0.subscribe())
    }
}

impl Recall {
    pub(super) fn is_called(&self) -> bool {
        *self.0.borrow()
    }

    /// Completes when the task is called back.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub(super) async fn called(&mut self) {
        if self.0.wait_for(|is_called| *is_called).await.is_err() {
            // The primary has gone; what is watched ends by itself.
            std::future::pending::<()>().await;
        }
    }
}
