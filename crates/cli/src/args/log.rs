//! The options of logs, and the command that shows them.

use std::path::PathBuf;
use std::time::Duration;

use super::values::{self, Moment};
use crate::target::{self, Target};

/// Where an app's log is, and when it is put aside.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct LogArgs {
    /// Write a log here, too
    ///
    /// An app in the background has one in the state folder by default. A line for each that a worker writes and for each event, with its time, slot and stream. SIGUSR1 has it opened anew, for
    /// those who move it away by themselves.
    #[arg(id = "log-file", long = "log-file", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,

    /// Put the log aside when it is this large
    #[arg(hide_short_help = true, id = "log-size", long = "log-size", value_name = "SIZE", default_value = "64M", value_parser = values::size)]
    pub(crate) size: u64,

    /// Put the log aside this often: 24h is at midnight UTC [default: never]
    #[arg(hide_short_help = true, id = "log-age", long = "log-age", value_name = "DURATION", value_parser = values::positive_duration)]
    pub(crate) age: Option<Duration>,

    /// How many that were put aside are kept
    #[arg(
        hide_short_help = true,
        id = "log-keep",
        long = "log-keep",
        value_name = "COUNT",
        default_value_t = 10
    )]
    pub(crate) keep: u32,

    /// Don't compress what was put aside
    #[arg(hide_short_help = true, id = "log-plain", long = "log-plain")]
    pub(crate) plain: bool,
}

/// Show what apps have written, and what happened to them
///
/// From their logs, also of apps that don't run. Lines of workers carry their slot.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  allcores logs web -f
  allcores logs web --slot 2 --since 10m
  allcores logs web -n 1000 --json | jq")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag that stands for itself")]
pub(crate) struct LogsArgs {
    /// The apps, or `all` [default: all]
    #[arg(value_name = "NAME", default_value = "all", hide_default_value = true, add = target::completer())]
    pub(crate) names: Vec<Target>,

    /// Go on with what is written from now on
    #[arg(short, long)]
    pub(crate) follow: bool,

    /// How many lines of each [default: 20; with --since all]
    #[arg(short = 'n', long, value_name = "COUNT")]
    pub(crate) lines: Option<usize>,

    /// Only from then on: 10m, or 2026-01-02T03:04:05Z
    ///
    /// A duration is counted back from now.
    #[arg(long, value_name = "TIME", value_parser = values::moment)]
    pub(crate) since: Option<Moment>,

    /// Only what workers in this slot have written
    #[arg(long)]
    pub(crate) slot: Option<u16>,

    /// Only what workers have written to stdout
    #[arg(long)]
    pub(crate) out: bool,

    /// Only what workers have written to stderr
    #[arg(long)]
    pub(crate) err: bool,

    /// With the time of each line
    #[arg(short, long, conflicts_with_all = ["json", "raw"])]
    pub(crate) time: bool,

    /// One JSON object per line
    #[arg(long, conflicts_with = "raw")]
    pub(crate) json: bool,

    /// Only the very bytes that workers have written
    #[arg(long)]
    pub(crate) raw: bool,
}
