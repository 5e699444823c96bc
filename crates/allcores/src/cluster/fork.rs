//! What one worker gets that others do not.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::error::{Error, ErrorKind};
use crate::primary::Extras;

/// What one worker is to get beside the [settings](super::ClusterSettings): node:cluster's `fork(env)`, and descriptors.
///
/// Where workers are kept, a worker's replacement gets the same: until then the primary has its descriptors open too.
#[derive(Debug, Default)]
#[must_use = "nothing is forked before it is given to `Cluster::fork_with`"]
pub struct Fork(Extras);

/// How many descriptors of its own a worker can get.
const MOST: usize = 128;

impl Fork {
    /// A worker like all others.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a variable to its environment, or replaces one.
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.0.env.push((key.into(), value.into()));
        self
    }

    /// Gives it an open descriptor: the first becomes its number 4, the next 5, and so on. (3 is its channel.)
    pub fn descriptor(mut self, descriptor: impl Into<OwnedFd>) -> Self {
        self.0.descriptors.push(Arc::new(descriptor.into()));
        self
    }
}

impl TryFrom<Fork> for Extras {
    type Error = Error;

    fn try_from(Fork(extras): Fork) -> Result<Self, Error> {
        if extras.descriptors.len() > MOST {
            let text =
                format!("forking a worker with {} descriptors: {MOST} at most", extras.descriptors.len());
            return Err(Error::new(ErrorKind::Settings, text));
        }
        super::settings::check_env(&extras.env)?;
        Ok(extras)
    }
}
