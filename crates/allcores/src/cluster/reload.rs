//! Replacing all workers, slot by slot, as `allcores reload` does.

use std::time::Duration;

use super::{Cluster, Shared};
use crate::error::{Error, ErrorKind};
use crate::primary::{self, ReloadNews, ReloadOutcome, ReloadProgress};

/// How [`Cluster::reload`] goes about it.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use allcores::Reload;
///
/// let carefully = Reload::new().canary(Duration::from_secs(30));
/// let quickly = Reload::new().surge(4);
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a reload is begun by `Cluster::reload`"]
pub struct Reload {
    wish: primary::Reload,
}

impl Reload {
    /// One slot after another.
    pub fn new() -> Self {
        Self::default()
    }

    /// So many slots at a time.
    pub fn surge(mut self, slots: u16) -> Self {
        self.wish.surge = Some(slots);
        self
    }

    /// The first new worker must stay ready for so long, beside the old one, before anything is taken away.
    pub fn canary(mut self, time: Duration) -> Self {
        self.wish.canary = Some(time);
        self
    }

    /// How long a new worker may take to be ready; by default the cluster's own
    /// [`ready_timeout`](super::Builder::ready_timeout).
    pub fn ready_timeout(mut self, timeout: Duration) -> Self {
        self.wish.ready_timeout = Some(timeout);
        self
    }

    /// New workers may listen elsewhere than the old ones do. By default one is ready only when it listens wherever the worker
    /// before it does.
    pub fn may_move(mut self, is_allowed: bool) -> Self {
        self.wish.may_move = is_allowed;
        self
    }
}

impl Cluster {
    /// Replaces every worker by one that is made by the present [settings](Cluster::settings), and completes when that is done.
    ///
    /// Slot by slot: a new worker first, and when that is ready the old one gets no more connections, finishes those that it has,
    /// and goes. If a new one is no good, whatever was replaced is put back, made as it was before
    /// [`setup`](Cluster::setup) changed anything; what is forked later on follows the settings all the same. How far it is
    /// tell [`Event::Replaced`](super::Event::Replaced) and others. Who asks while a reload is under way gets another one after
    /// it.
    ///
    /// # Cancel safety
    ///
    /// Once polled, it goes on whether or not anybody waits for it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ReloadFailed`]: new workers were no good, and the old ones serve. [`ErrorKind::Unreached`] if all workers are
    /// [disconnected](Cluster::disconnect) meanwhile, [`ErrorKind::Stopped`] if the cluster stops.
    /// [`ErrorKind::Settings`] for a cluster that does not [keep](super::Builder::keep) its workers: none is replaced there.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(cluster: allcores::Cluster) -> Result<(), allcores::Error> {
    /// use allcores::{ClusterSettings, Reload};
    ///
    /// cluster.setup(ClusterSettings::new().env("RELEASE", "42"))?;
    /// cluster.reload(Reload::new()).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn reload(&self, reload: Reload) -> Result<(), Error> {
        if !self.shared.keeps() {
            let why = "its workers are not kept alive, so none is replaced: `Builder::keep(true)`";
            return Err(Error::new(ErrorKind::Settings, TRIED).because(why));
        }
        outcome(self.shared.commands.reload(reload.wish)).await
    }
}

const TRIED: &str = "reloading the workers of a cluster";

/// How a reload ended.
async fn outcome(mut progress: ReloadProgress) -> Result<(), Error> {
    while let Some(news) = progress.next().await {
        match news {
            ReloadNews::Ended(ReloadOutcome::Reloaded { .. }) => return Ok(()),
            ReloadNews::Ended(ReloadOutcome::Failed { failure, .. }) => {
                let why = format!(
                    "the new worker {} (slot {}) was no good: {}; the old ones serve",
                    failure.id, failure.slot, failure.reason
                );
                return Err(Error::new(ErrorKind::ReloadFailed, TRIED).because(why));
            }
            ReloadNews::Ended(ReloadOutcome::Disconnected) => {
                return Err(Error::new(ErrorKind::Unreached, TRIED).because("they were all disconnected"));
            }
            ReloadNews::Ended(ReloadOutcome::Stopped) => break,
            _ => {}
        }
    }
    Err(Error::new(ErrorKind::Stopped, TRIED).because("the cluster stops"))
}

impl Shared {
    /// Whether workers that go are replaced.
    fn keeps(&self) -> bool {
        self.plan().engine().pool.keep
    }
}
