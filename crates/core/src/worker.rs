//! What a worker is called, where it stands, and how far it has come.

use std::fmt;

/// Names one worker process for the whole life of its primary; never reused. The first is 1, as in node:cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u32);

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A place 0..N-1 in the pool. A replacement takes the dead worker's slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u16);

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How a program became a worker: the first rung of the ladder that applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rung {
    /// It calls the `allcores` crate.
    Crate,
    /// It is node, and asked for its listener over node:cluster's channel.
    Node,
    /// Its `bind` and `listen` system calls were answered with its lane.
    Adopted,
    /// It took sockets by `LISTEN_FDS`.
    Inherited,
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Crate => "crate",
            Self::Node => "node",
            Self::Adopted => "adopted",
            Self::Inherited => "inherited",
        })
    }
}

/// How far a worker has come. Only what has been seen: nothing here is reached by the passing of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Forked; `exec` not yet known to have happened.
    Starting,
    /// Runs its program.
    Online,
    /// Was seen to listen.
    Listening,
    /// Listens, and every condition for traffic held.
    Ready,
    /// Has connections waiting and has taken none for the hang timeout.
    Hung,
    /// Gets no new connections and finishes those it has.
    Draining,
    /// Gone.
    Exited,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Online => "online",
            Self::Listening => "listening",
            Self::Ready => "ready",
            Self::Hung => "hung",
            Self::Draining => "draining",
            Self::Exited => "exited",
        })
    }
}
