//! What a primary is to run and how.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use allcores_core::pool::PoolSettings;

/// How connections reach workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Lanes for TCP where the kernel has them, one shared listener where that is better.
    #[default]
    Auto,
    /// Each worker has its own accept queue; the kernel picks one, the primary steers.
    Lanes,
    /// All workers accept from one listener.
    Shared,
}

/// What becomes of the workers' stdout and stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// Read line by line and told as [`Event::Output`](super::Event::Output).
    #[default]
    Capture,
    /// The primary's own descriptors, untouched.
    Inherit,
}

/// What a primary is to run and how, validated.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The app's name.
    pub name: String,
    /// Program and arguments.
    pub command: Vec<OsString>,
    /// Where workers start; the primary's own folder if `None`.
    pub cwd: Option<PathBuf>,
    /// Added to, and overriding, the primary's environment.
    pub env: Vec<(OsString, OsString)>,
    /// The user that workers run as.
    pub uid: Option<u32>,
    /// The group that workers run as.
    pub gid: Option<u32>,
    /// How connections reach workers.
    pub policy: Policy,
    /// Sockets to make now and to pass by `LISTEN_FDS`, in this order.
    pub listen: Vec<SocketAddr>,
    /// Whether `bind` and `listen` of any program are answered.
    pub adopt: bool,
    /// What becomes of the workers' output.
    pub output: Output,
    /// How many workers, and how they are kept.
    pub pool: PoolSettings,
}
