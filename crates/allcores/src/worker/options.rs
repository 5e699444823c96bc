//! How a worker wants to listen, beyond the address.

use crate::Policy;

/// How to listen, beyond the address; for [`Worker::listen_with`](crate::Worker::listen_with) and its like.
///
/// # Examples
///
/// ```no_run
/// use allcores::{ListenOptions, Policy, StickyBy};
///
/// # async fn example(worker: allcores::Worker) -> Result<(), allcores::Error> {
/// // A server of long-polling: each session goes to one worker.
/// let sticky = ListenOptions::new().policy(Policy::Sticky(StickyBy::Cookie("io".into())));
/// let listener = worker.listen_with("0.0.0.0:8080", sticky).await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenOptions {
    pub(super) policy: Option<Policy>,
    pub(super) backlog: Option<u32>,
    pub(super) is_only_v6: bool,
    pub(super) is_readable_by_all: bool,
    pub(super) is_writable_by_all: bool,
}

impl ListenOptions {
    /// The cluster's policy, and the defaults of [`Worker::listen`](crate::Worker::listen).
    pub fn new() -> Self {
        Self::default()
    }

    /// How connections to this address reach the workers, whatever the cluster's own policy is.
    ///
    /// All workers should say the same of one address: the first to ask decides. Nobody is asked where the worker is
    /// [alone](crate::Worker::is_alone), adopted, or of a primary that is Node's.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// How many connections may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
    ///
    /// Unless it is given, the primary chooses; a worker that is alone has 1024.
    #[must_use]
    pub fn backlog(mut self, connections: u32) -> Self {
        self.backlog = Some(connections);
        self
    }

    /// Whether a listener at `[::]` leaves IPv4 to others. Otherwise it takes both.
    #[must_use]
    #[doc(alias = "ipv6Only")]
    pub fn ipv6_only(mut self, is_only_v6: bool) -> Self {
        self.is_only_v6 = is_only_v6;
        self
    }

    /// Whether every user may read from the file of a Unix socket.
    #[must_use]
    #[doc(alias = "readableAll")]
    pub fn readable_by_all(mut self, is_readable: bool) -> Self {
        self.is_readable_by_all = is_readable;
        self
    }

    /// Whether every user may write to the file of a Unix socket, which is what connecting needs.
    #[must_use]
    #[doc(alias = "writableAll")]
    pub fn writable_by_all(mut self, is_writable: bool) -> Self {
        self.is_writable_by_all = is_writable;
        self
    }
}
