//! The worker: a process that serves, as seen from inside of it.
//!
//! Asks the primary for listeners and talks to it, over the channel that the primary made; listens by itself where
//! there is none. Knows nothing of what primaries decide.

#[cfg(feature = "axum")]
mod axum;
mod bind;
mod carry;
mod door;
mod inbox;
mod intake;
mod link;
mod listen;
mod listener;
mod messages;
mod options;
mod origin;
mod places;
mod ready;
mod shutdown;

use std::sync::{Arc, OnceLock};

use allcores_core::worker::{Slot, WorkerId};

pub use listener::{Listener, UnixListener};
pub use messages::Messages;
pub use options::ListenOptions;

use crate::Error;
use crate::sys::process::change_variables;
use link::Link;
use origin::Origin;

/// This process, as a worker: what it listens on, and its talk with the primary.
///
/// [`role`](crate::role()) makes it, or [`from_env`](Self::from_env) in a program that is never a primary. Clones are the
/// same worker.
///
/// A worker whose program was started by hand [is alone](Self::is_alone): it has no primary and simply serves. So the
/// same program runs in a cluster, under `allcores run`, and in a debugger.
///
/// The channel to the primary has a small thread of its own, so that the primary is answered while the program is busy.
/// It needs no care, and lasts as long as the process unless it is [closed](Self::disconnect).
///
/// # Examples
///
/// ```no_run
/// # #[cfg(feature = "axum")]
/// # async fn example(app: axum::Router) -> Result<(), Box<dyn std::error::Error>> {
/// let worker = allcores::Worker::from_env()?.unwrap_or_else(allcores::Worker::alone);
/// let listener = worker.listen("127.0.0.1:8080").await?;
/// axum::serve(listener, app).with_graceful_shutdown(worker.shutdown()).await?;
/// # Ok(()) }
/// ```
#[doc(alias = "cluster.worker")]
#[derive(Clone, Debug)]
pub struct Worker {
    link: Arc<Link>,
    kind: Kind,
}

/// How it is bound to a primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Connected,
    Adopted,
    Alone,
}

/// What this process is, once it has been found out, or why that failed: a channel can be taken only once.
static FOUND: OnceLock<Result<Option<Worker>, Error>> = OnceLock::new();

impl Worker {
    /// The worker that this process was started as, or `None` if nobody started it as one.
    ///
    /// It is one if its environment names a channel that it was given (`NODE_CHANNEL_FD` with `NODE_UNIQUE_ID`, by a
    /// [`Cluster`](crate::Cluster), by `allcores run` or by a primary of Node's), or a place where a primary can be met
    /// (`ALLCORES_CHANNEL`), or a slot (`ALLCORES_SLOT`) without either, in which case the primary answers its system
    /// calls; or if `ALLCORES_ROLE=worker` says so. With `ALLCORES_ROLE=primary` it is none.
    ///
    /// Says to the primary that this worker is online. Call it early: only now is the channel marked as not to be
    /// inherited. If there is no other thread yet, the variables that name a channel are taken out of the environment too, as
    /// Node does, so that what this worker starts is not misled; they stay otherwise, since a process with threads can't
    /// change them safely. A program of this crate sees in any case that they are not meant for it, or is told so by the primary as
    /// long as there is one, and as long as it has not left who started it; from the `Command` of node remove `NODE_CHANNEL_FD` and
    /// `NODE_UNIQUE_ID`. What says who this worker is always stays: `ALLCORES_SLOT`, `ALLCORES_WORKER_ID`, `ALLCORES_NAME`,
    /// `NODE_APP_INSTANCE`.
    ///
    /// Calling it again gives the same worker, or the same error.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Settings`](crate::ErrorKind::Settings) for a variable that makes no sense,
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for a channel of a kind that is not spoken, and
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) for one that can't be opened, for want of descriptors perhaps.
    #[doc(alias = "isWorker")]
    pub fn from_env() -> Result<Option<Self>, Error> {
        match FOUND.get_or_init(Self::find) {
            Ok(found) => Ok(found.clone()),
            Err(error) => Err(error.again()),
        }
    }

    fn find() -> Result<Option<Self>, Error> {
        Ok(match origin::find(|name| std::env::var_os(name))? {
            Origin::Primary => None,
            Origin::Alone => Some(Self::alone()),
            Origin::Adopted { id, slot } => {
                Some(Self { link: Link::new(id, slot, None), kind: Kind::Adopted })
            }
            Origin::Connected { socket, serialization, id, slot } => {
                change_variables(&origin::TAKEN);
                let link = carry::start(socket, serialization, id, slot)?;
                Some(Self { link, kind: Kind::Connected })
            }
        })
    }

    /// A worker without a primary: it listens by itself. Its id and slot are 0.
    ///
    /// # Examples
    ///
    /// ```
    /// let worker = allcores::Worker::alone();
    /// assert!(worker.is_alone());
    /// assert!(worker.send("hello").is_err(), "there is nobody to hear it");
    /// ```
    pub fn alone() -> Self {
        Self { link: Link::new(WorkerId(0), Slot(0), None), kind: Kind::Alone }
    }

    /// Names this worker for the whole life of its primary; never reused. The first is 1.
    pub fn id(&self) -> WorkerId {
        self.link.id
    }

    /// Its place among the workers, from 0; a replacement has the place of the one that it replaces.
    ///
    /// A primary of Node's knows no places: there it is `NODE_APP_INSTANCE`, or else one less than the id.
    pub fn slot(&self) -> Slot {
        self.link.slot
    }

    /// Whether there is no primary, and never was.
    pub fn is_alone(&self) -> bool {
        self.kind == Kind::Alone
    }

    /// Whether there is a channel to a primary, and both sides keep it open.
    #[doc(alias = "isConnected")]
    pub fn is_connected(&self) -> bool {
        self.link.is_connected()
    }

    /// Whether this worker has left, or leaves, by [`disconnect`](Self::disconnect), [`kill`](Self::kill) or the wish
    /// of its primary; `Some(false)` if the channel was lost otherwise. `None` while nothing of it has begun.
    #[doc(alias = "exitedAfterDisconnect")]
    pub fn exited_after_disconnect(&self) -> Option<bool> {
        self.link.is_voluntary()
    }

    /// Leaves the primary: closes every listener, tells the primary that this worker goes of its own will, waits for
    /// its acknowledgement and closes the channel.
    ///
    /// What has been accepted is not touched: finish it, and then let `main` return. Best called when that is done,
    /// because a primary gives a worker without a channel little more time. To finish first, await what
    /// [`shutdown`](Self::shutdown) lets finish, and then this.
    ///
    /// Does nothing more when it has been called before, and closes the channel at once if it was the primary that told
    /// this worker to go.
    ///
    /// # Cancel safety
    ///
    /// The worker leaves all the same when the future is dropped, once it has been polled.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// # let worker = allcores::Worker::alone();
    /// worker.disconnect().await;
    /// assert_eq!(worker.exited_after_disconnect(), Some(true));
    /// # }
    /// ```
    pub async fn disconnect(&self) {
        self.link.disconnect();
        self.link.gone().await;
    }

    /// As [`disconnect`](Self::disconnect), for who does not wait: the primary is told that this worker goes of its own
    /// will, and nothing is accepted any more. [`shutdown`](Self::shutdown) completes, and the program is to end.
    ///
    /// Node ends the process here; a library leaves that to its program.
    #[doc(alias = "destroy")]
    pub fn kill(&self) {
        self.link.disconnect();
    }
}

#[cfg(test)]
mod tests;
