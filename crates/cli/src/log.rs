//! Logs of apps: a file for each, with every line's time, slot and stream; put aside when it is large or old.
//!
//! `line` is how a line stands in the file, `file` writes, `aside` names and packs what was put aside, `tail` reads. The engine
//! and the terminal know nothing of it, and it holds up neither.

mod aside;
mod file;
mod line;
mod tail;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::whole;

pub(crate) use aside::{asides, is_odd, log_of};
pub(crate) use file::{LogFile, Meter, check, delete, open};
pub(crate) use line::{Line, Source, write};
pub(crate) use tail::{Filter, Tail};

/// Where an app's log is, and when it is put aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogSettings {
    pub(crate) path: PathBuf,
    /// In bytes.
    pub(crate) max_size: u64,
    /// Counted from the beginning of 1970, so that a day ends at midnight UTC.
    pub(crate) max_age: Option<Duration>,
    /// How many that were put aside are kept.
    pub(crate) keep: usize,
    pub(crate) is_packed: bool,
}

/// What to do about a log that can't be opened.
pub(crate) fn remedy(path: &Path) -> String {
    whole::remedy(path, "name another file: --log-file")
}
