//! The options of `reload`.

use std::ffi::OsString;
use std::time::Duration;

use super::MAX_WORKERS;
use super::values;
use crate::target::{self, Target};

const EXAMPLES: &str = "\
Examples:
  allcores reload web                         a new build, a changed symlink
  allcores reload web --canary 30s --prove    with care, and failures counted
  allcores reload web --env RELEASE=42 -- node server-v2.js
  allcores reload web --env-name production";

/// Replace the workers of apps without losing a connection
///
/// One slot after another gets a new worker. Only when that is ready, the old one gets no more connections; it finishes
/// those it has, and is stopped. If a new worker is not ready in time, or fails before the last old one has gone, what was
/// replaced is put back. A reload that is asked for while another one is under way follows it. SIGHUP to the primary is a
/// reload without options.
#[derive(Debug, clap::Args)]
#[command(override_usage = "allcores reload [OPTIONS] NAME... [-- COMMAND...]", after_help = EXAMPLES)]
pub(crate) struct ReloadArgs {
    /// The apps, one after another, or `all`
    #[arg(required = true, value_name = "NAME", add = target::completer())]
    pub(crate) names: Vec<Target>,

    /// How many workers are replaced at a time
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_WORKERS)))]
    pub(crate) surge: u16,

    /// Watch the first new worker so long before going on
    ///
    /// It serves beside the old one, and nothing is taken away before.
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub(crate) canary: Option<Duration>,

    /// How long a new worker may take to be ready
    ///
    /// Without it, the app's own --ready-timeout.
    #[arg(hide_short_help = true, long, value_name = "DURATION", value_parser = values::positive_duration)]
    pub(crate) ready_timeout: Option<Duration>,

    /// How long to wait [default: as long as it takes]
    ///
    /// The reload goes on all the same.
    #[arg(long, value_name = "DURATION", value_parser = values::positive_duration)]
    pub(crate) timeout: Option<Duration>,

    /// Set a variable of the workers, from now on
    ///
    /// May be given more than once.
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::env_parser())]
    pub(crate) env: Vec<(OsString, OsString)>,

    /// Take the apps from this environment of their files, from now on
    ///
    /// What of it is fixed while an app runs is said, and takes `restart --hard`.
    #[arg(long, value_name = "NAME")]
    pub(crate) env_name: Option<String>,

    /// The new version may listen elsewhere than the old one does
    #[arg(hide_short_help = true, long)]
    pub(crate) may_move: bool,

    /// Send requests all the while, and fail if one fails
    #[arg(long)]
    pub(crate) prove: bool,

    /// What those requests ask for
    #[arg(hide_short_help = true, long, value_name = "PATH", default_value = "/", requires = "prove")]
    pub(crate) prove_path: String,

    /// Print what happens as JSON lines
    #[arg(long)]
    pub(crate) json: bool,

    /// Run this from now on, and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}
