//! The options by which an app is reloaded without anybody asking for it.

use std::path::PathBuf;
use std::time::Duration;

use croner::Cron;

use super::values;

/// When an app is reloaded by itself. Whatever begins a reload, it goes worker by worker, and a version that is no good is taken
/// back.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Reloading by itself")]
pub(crate) struct TriggerArgs {
    /// Reload when a file below this folder has changed
    ///
    /// Or when this file has. May be given more than once. What `.gitignore` and `.ignore` files name is left out, and hidden files, `node_modules` and `__pycache__`.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) watch: Vec<PathBuf>,

    /// Leave out such files too: *.log, or cache/ for a folder; may be given more than once
    #[arg(hide_short_help = true, long, value_name = "GLOB", value_parser = values::glob)]
    pub(crate) watch_ignore: Vec<String>,

    /// How long nothing may have changed any more before it is reloaded
    #[arg(hide_short_help = true, long, value_name = "DURATION", default_value = "300ms", value_parser = values::duration)]
    pub(crate) watch_delay: Duration,

    /// Reload at these times: "0 4 * * *" is each day at 4
    ///
    /// In this machine's time zone. Minute, hour, day of the month, month and day of the week, as crontab(5) has them; in front of them there may be seconds.
    #[arg(hide_short_help = true, long, value_name = "CRON", value_parser = values::cron)]
    pub(crate) cron_restart: Option<Cron>,
}
