//! Counts lines that could not be written, until that can be said in their place.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::readable;

/// How many lines were dropped one after another, and why, the last time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dropped {
    pub(crate) lines: u64,
    why: Cow<'static, str>,
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\u{2026} {} dropped: {}", readable::count(self.lines, "line"), self.why)
    }
}

/// What is lost on its way to one place.
#[derive(Debug, Default)]
pub(crate) struct Loss {
    all: Arc<AtomicU64>,
    untold: Option<Dropped>,
}

impl Loss {
    /// One that is counted together with others.
    pub(super) fn among(all: &Arc<AtomicU64>) -> Self {
        Self { all: Arc::clone(all), untold: None }
    }

    /// How many lines were lost until now, with those that are counted together with them.
    pub(crate) fn all(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.all)
    }

    /// Counts lines; says whether they are the first since it was told.
    pub(crate) fn lose(&mut self, lines: u64, why: impl Into<Cow<'static, str>>) -> bool {
        self.all.fetch_add(lines, Ordering::Relaxed);
        let before = self.untold.take();
        let is_first = before.is_none();
        let lines = before.map_or(0, |before| before.lines) + lines;
        self.untold = Some(Dropped { lines, why: why.into() });
        is_first
    }

    /// What has not been told.
    pub(crate) fn untold(&self) -> Option<&Dropped> {
        self.untold.as_ref()
    }

    /// It is told.
    pub(crate) fn told(&mut self) -> Option<Dropped> {
        self.untold.take()
    }
}
