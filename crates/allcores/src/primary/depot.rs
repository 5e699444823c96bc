//! Where listeners are put away, so that they outlast the primary.

use std::fmt::Debug;
use std::os::fd::BorrowedFd;

/// What the names of put away listeners begin with.
const PREFIX: &str = "allcores_";

/// Where an app's listeners are put away: who connects while there is no primary waits in them for the next one. A service
/// manager's descriptor store is one (`FDSTORE=1` of sd_notify(3)).
///
/// One of each TCP address that has a port of its own is put away: the only one, or the first of the lanes. It is given up
/// when no worker listens there any more, and stays when the app ends. The next primary finds it among
/// [`Settings::given`](super::Settings::given).
pub trait Depot: Debug + Send + Sync {
    /// Keeps a copy of a listener under this name, in which there is no `:`.
    fn put(&self, name: &str, listener: BorrowedFd<'_>);

    /// Closes what is kept under this name.
    fn discard(&self, name: &str);
}

/// Whether a socket of this name was put away by a primary.
pub fn was_put_away(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// What the listener of an address is called there.
pub(crate) fn name_of(address: std::net::SocketAddr) -> String {
    format!("{PREFIX}{}", address.to_string().replace(':', "_"))
}
