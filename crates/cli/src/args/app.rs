//! The options of an app: what `run` takes on its command line, and each table of a config file as keys.
//!
//! This is their only list. `config::catalogue` reads it off the command line's own definition, and so do the schema and the
//! reference.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use allcores::{Policy, Signal};
use clap::ValueEnum;

use super::log::LogArgs;
use super::triggers::TriggerArgs;
use super::upkeep::UpkeepArgs;
use super::values::{self, SecretSource, Workers};

/// The default of `--pending`.
pub(crate) const PENDING: usize = 1024;

/// How an app is run.
///
/// The first paragraph about an option is all that `-h` shows of it. Options that few need are in `--help` alone.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = None::<&'static str>)]
pub(crate) struct AppOptions {
    /// How many workers: a number, `auto`, or -N for that many fewer
    ///
    /// `auto` is one for each core that this process may use; its affinity and its cgroup's quota are respected.
    #[arg(
        short,
        long,
        value_name = "N",
        default_value = "auto",
        allow_negative_numbers = true,
        value_parser = values::workers
    )]
    pub(crate) workers: Workers,

    /// How connections reach the workers [default: auto]
    ///
    /// Where NODE_CLUSTER_SCHED_POLICY is `rr` or `none`, as node knows it, the default is that.
    /// `sticky` goes by the client's IP address; `sticky:cookie=NAME`, `sticky:header=NAME` and `sticky:query=NAME` by
    /// that field of the first request of a connection, and by the address where it is missing.
    #[arg(long, value_name = "POLICY", value_parser = values::policy_parser())]
    pub(crate) policy: Option<Policy>,

    /// How many accepted connections of one address may wait to be handed to workers, with round-robin and sticky;
    /// more wait in the kernel's own queue
    #[arg(long, hide_short_help = true, value_name = "COUNT", default_value_t = PENDING, value_parser = values::pending)]
    pub(crate) pending: usize,

    /// Listen here and pass the socket to the workers by `LISTEN_FDS`
    ///
    /// May be given more than once. 8080 and :8080 mean port 8080 of every IPv4 address.
    #[arg(long, value_name = "ADDRESS", value_parser = values::listen)]
    pub(crate) listen: Vec<SocketAddr>,

    /// Pass the sockets that systemd has passed to us on to the workers, by `LISTEN_FDS`; else programs that bind their
    /// addresses get them
    #[arg(long, hide_short_help = true)]
    pub(crate) pass_sockets: bool,

    /// Set a variable of the workers; may be given more than once
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::env_parser())]
    pub(crate) env: Vec<(OsString, OsString)>,

    /// Set the variables that a file lists, a KEY=VALUE in each line; may be given more than once. --env wins over it
    #[arg(long, hide_short_help = true, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,

    /// Set a variable to what a file contains, or, for credential:NAME, a credential that systemd has passed; may be given
    /// more than once. It is read again at each reload, and shown nowhere
    #[arg(long, hide_short_help = true, value_name = "KEY=SOURCE", value_parser = values::secret_parser())]
    pub(crate) secret: Vec<(OsString, SecretSource)>,

    /// Start the workers in this folder
    #[arg(long, value_name = "FOLDER")]
    pub(crate) cwd: Option<PathBuf>,

    /// Run the workers as this user: a name or a number
    ///
    /// Its primary group comes with it.
    #[arg(long, value_name = "USER")]
    pub(crate) uid: Option<String>,

    /// Run the workers as this group, a name or a number
    #[arg(long, hide_short_help = true, value_name = "GROUP")]
    pub(crate) gid: Option<String>,

    /// A worker that ran for this long has started well, and its next crash is answered at once
    ///
    /// One that fails before it was ready, within --ready-timeout, has not.
    #[arg(long, hide_short_help = true, value_name = "DURATION", default_value = "1s", value_parser = values::duration)]
    pub(crate) min_uptime: Duration,

    /// More early exits in a row than this are a crash loop
    #[arg(long, hide_short_help = true, value_name = "COUNT", default_value_t = 5)]
    pub(crate) max_restarts: u32,

    /// How long to wait after the first early exit; doubles with each one in a row
    #[arg(long, hide_short_help = true, value_name = "DURATION", default_value = "100ms", value_parser = values::duration)]
    pub(crate) backoff: Duration,

    /// The signal by which workers are asked to stop: TERM, INT, QUIT, HUP, USR1, USR2, WINCH or KILL
    ///
    /// Node programs, and those built with the crate, are asked over their channel first, and get it when they have closed
    /// that and do not go, or when half of --kill-timeout has passed.
    #[arg(long, hide_short_help = true, value_name = "SIGNAL", default_value = "TERM", value_parser = values::stop_signal)]
    pub(crate) stop_signal: Signal,

    /// How long a worker that was asked to stop may take until it is killed
    ///
    /// Half a second before, at most a quarter of this time, its connections are ended as if its clients had nothing more to
    /// ask: so that it is not killed in the middle of an answer.
    #[arg(hide_short_help = true, long, value_name = "DURATION", default_value = "5s", value_parser = values::duration)]
    pub(crate) kill_timeout: Duration,

    /// How long a worker may finish its connections before it is asked to stop
    #[arg(hide_short_help = true, long, value_name = "DURATION", default_value = "10s", value_parser = values::duration)]
    pub(crate) drain_timeout: Duration,

    /// Replace a worker that has taken none of its waiting connections for this long [default: never]
    #[arg(long, hide_short_help = true, value_name = "DURATION", value_parser = values::positive_duration)]
    pub(crate) hang_timeout: Option<Duration>,

    /// Leave the programs' `bind` and `listen` alone
    #[arg(long, hide_short_help = true)]
    pub(crate) no_adopt: bool,

    /// Take a worker for ready when it has run for --min-uptime, though it listens nowhere
    ///
    /// For programs that take their work from elsewhere, as from a queue. One that listens before is ready then.
    #[arg(long, hide_short_help = true)]
    pub(crate) no_listen: bool,

    /// Serve `/metrics` for Prometheus, `/ready` and `/live` here
    ///
    /// 9145 means port 9145 of this machine's own loopback. Whoever can connect may read.
    #[arg(long, value_name = "ADDRESS", value_parser = values::local)]
    pub(crate) metrics: Option<SocketAddr>,

    #[command(flatten)]
    pub(crate) upkeep: UpkeepArgs,

    #[command(flatten)]
    pub(crate) triggers: TriggerArgs,

    #[command(flatten)]
    pub(crate) output: OutputArgs,

    #[command(flatten)]
    pub(crate) log: LogArgs,
}

/// What is written, and how; the same for every command that runs an app.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// How to write events and what the workers write
    #[arg(
        long,
        value_name = "FORMAT",
        value_enum,
        default_value_t = LogFormat::Pretty,
        env = "ALLCORES_LOG_FORMAT",
        hide_env_values = true
    )]
    pub(crate) log_format: LogFormat,

    /// Say less: warnings and errors; twice: only errors
    #[arg(short, long, action = clap::ArgAction::Count, conflicts_with = "verbose")]
    pub(crate) quiet: u8,

    /// Say more: also when workers are forked and ready
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// How events and workers' lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people: workers' lines with their slot in front, our own on stderr; in systemd's journal as entries with fields
    Pretty,
    /// For programs: one JSON object per line on stdout
    Json,
    /// Workers write to our own stdout and stderr, untouched
    Raw,
}
