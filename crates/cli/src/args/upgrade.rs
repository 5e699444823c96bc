//! The options of `upgrade`.

use std::path::PathBuf;
use std::time::Duration;

use super::values;
use crate::settings::AppName;

const EXAMPLES: &str = "\
Examples:
  allcores upgrade web                                  to this very program
  allcores upgrade web --executable /opt/allcores-2/bin/allcores";

/// Replace the program of a running primary under its workers
///
/// The new program is asked first whether it can go on from where the primary is; then the primary executes it, in the
/// same process. Workers keep their pids, their sockets and their connections, and notice nothing. A program that can't
/// go on is refused, and nothing has happened. While a reload is under way, or the app is being scaled, an upgrade waits. SIGUSR2 to the primary is an upgrade to what is now in the
/// file that it was started from, or last upgraded to.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct UpgradeArgs {
    /// The app's name, as `allcores ls` shows it
    pub(crate) name: AppName,

    /// What to execute [default: this program]
    #[arg(long, value_name = "FILE")]
    pub(crate) executable: Option<PathBuf>,

    /// How long the new program may take to say that it can go on
    #[arg(hide_short_help = true, long, value_name = "DURATION", default_value = "10s", value_parser = values::positive_duration)]
    pub(crate) check_timeout: Duration,

    /// How long to wait; the upgrade goes on all the same
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = values::positive_duration)]
    pub(crate) timeout: Duration,
}
