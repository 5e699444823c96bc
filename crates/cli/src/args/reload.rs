//! The options of `reload`.

use std::ffi::OsString;
use std::time::Duration;

use super::MAX_WORKERS;
use super::values;
use crate::target::{self, Target};

const EXAMPLES: &str = "\
Examples:
  allcores reload web                                what is there now: a new build, a changed symlink
  allcores reload web --canary 30s                   watch the first new worker before going on
  allcores reload web --env RELEASE=42 --surge 2
  allcores reload web -- node server-v2.js
  allcores reload web --prove                        with requests of its own, counting those that fail

SIGHUP to the primary is a reload without options.";

/// Replace the workers of apps by new ones without losing a connection, and wait until it is done
///
/// One slot after another gets a new worker. Only when that is ready, the old one gets no more connections; it finishes
/// those it has, and is stopped. If a new worker ends or is not ready in time, what was replaced is put back; the old
/// version has served all the time. A reload that is asked for while another one is under way follows it.
#[derive(Debug, clap::Args)]
#[command(override_usage = "allcores reload [OPTIONS] NAME... [-- COMMAND...]", after_help = EXAMPLES)]
pub(crate) struct ReloadArgs {
    /// The apps, one after another, or `all`
    #[arg(required = true, value_name = "NAME", add = target::completer())]
    pub(crate) names: Vec<Target>,

    /// How many workers may be replaced at a time
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_WORKERS)))]
    pub(crate) surge: u16,

    /// Watch the first new worker for this long, beside the old one, before anything is taken away
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub(crate) canary: Option<Duration>,

    /// How long a new worker may take to be ready [default: the app's own --ready-timeout]
    #[arg(long, value_name = "DURATION", value_parser = values::positive_duration)]
    pub(crate) ready_timeout: Option<Duration>,

    /// How long to wait for the whole; the reload goes on all the same [default: as long as it takes]
    #[arg(long, value_name = "DURATION", value_parser = values::positive_duration)]
    pub(crate) timeout: Option<Duration>,

    /// Set a variable in the workers' environment, from now on; may be given more than once
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::env_parser())]
    pub(crate) env: Vec<(OsString, OsString)>,

    /// The new version may listen elsewhere than the old one does
    #[arg(long)]
    pub(crate) may_move: bool,

    /// Send requests to the app all the while, and fail if one of them fails
    #[arg(long)]
    pub(crate) prove: bool,

    /// What those requests ask for
    #[arg(long, value_name = "PATH", default_value = "/", requires = "prove")]
    pub(crate) prove_path: String,

    /// Print what happens as JSON, one object per line
    #[arg(long)]
    pub(crate) json: bool,

    /// Run this from now on, and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}
