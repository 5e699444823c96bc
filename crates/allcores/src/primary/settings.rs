//! What a primary is to run and how.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use allcores_core::channel::Serialization;
use allcores_core::policy::Policy;
use allcores_core::pool::PoolSettings;

use super::Upkeep;
use crate::signal::Signal;

/// What becomes of the workers' stdout and stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// Read line by line and told as [`Event::Output`](super::Event::Output).
    #[default]
    Capture,
    /// The primary's own descriptors, untouched.
    Inherit,
    /// It is thrown away.
    Null,
}

/// Whose process the primary runs in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Host {
    /// Its own. It takes in and ends the orphans of its workers, raises the limit of open files and unblocks signals;
    /// only node gets the channel, workers are online when they have been executed, and a command that can't be found
    /// is the end.
    #[default]
    Process,
    /// A program's, of which it is one part. It changes nothing that is the whole process's; every worker gets the
    /// channel and is online when it says so, and a failed fork is an answer.
    Program,
}

/// A socket that somebody else has bound.
#[derive(Clone, Debug)]
pub struct GivenSocket {
    /// Of TCP or UDP, or a Unix stream socket; close-on-exec.
    pub socket: Arc<OwnedFd>,
    /// What it is called, as in `LISTEN_FDNAMES`. If a primary before this one has put it away
    /// ([`was_put_away`](super::was_put_away)), it is the app's own, and closed unless workers listen there again.
    pub name: String,
}

/// What a primary is to run and how, validated.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The app's name.
    pub name: String,
    /// Program and arguments.
    pub command: Vec<OsString>,
    /// Where workers start; the primary's own folder if `None`. Each generation starts where it leads at that time.
    pub cwd: Option<PathBuf>,
    /// What the app's processes are known by when the primary was killed and could not end them: see
    /// [`Leftovers`](super::Leftovers). No other app's may be the same.
    pub mark: Option<String>,
    /// Added to, and overriding, the primary's environment.
    pub env: Vec<(OsString, OsString)>,
    /// The user that workers run as.
    pub uid: Option<u32>,
    /// The group that workers run as.
    pub gid: Option<u32>,
    /// How connections reach workers.
    pub policy: Policy,
    /// How many accepted connections of one address may wait for workers, where they are handed over; beyond it the
    /// kernel's own queue fills.
    pub pending: usize,
    /// Sockets to make now and to pass by `LISTEN_FDS`, in this order.
    pub listen: Vec<SocketAddr>,
    /// Sockets that this process was given, such as by systemd. Programs that bind their addresses get lanes of them.
    pub given: Vec<GivenSocket>,
    /// Whether those are passed on by `LISTEN_FDS`, too, under their names.
    pub pass_given: bool,
    /// Whether `bind` and `listen` of any program are answered.
    pub adopt: bool,
    /// What becomes of the workers' output.
    pub output: Output,
    /// What tells a worker to stop that has no channel, or does not go when it is told so over its channel.
    pub stop_signal: Signal,
    /// Whose process this is.
    pub host: Host,
    /// How messages are written on the channel.
    pub serialization: Serialization,
    /// Where node workers with an inspector begin to count; `None` for what their arguments say.
    pub inspect_port: Option<u16>,
    /// How many workers, and how they are kept. That they wait for health checks follows from `upkeep`.
    pub pool: PoolSettings,
    /// How they are looked after.
    pub upkeep: Upkeep,
}
