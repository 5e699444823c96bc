//! The options of `run` and `demo`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

use super::values::{self, Workers};
use crate::exit_code::ExitCode;
use crate::settings::AppName;

const EXAMPLES: &str = "\
Examples:
  allcores run -- node server.js
  allcores run -w 4 --name web -- python3 -m http.server 8080
  allcores run -w -1 -- npm start                       leaves one core to others
  allcores run --listen :8080 -- ./app                  takes its socket by LISTEN_FDS
  sudo allcores run --uid www-data -- ./server --port 80
  allcores run --log-format json -- ./server | jq    one JSON object per event

Signals:
  TERM, INT   let the workers finish their connections, then stop; a second INT stops now
  QUIT        stop now";

/// Run a command on every core, in the foreground
///
/// Starts the command once for each worker. The programs may all listen on the same address: each gets its share of
/// the connections. A worker that dies is replaced. What the workers write comes out with the worker's slot in front.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "allcores run [OPTIONS] [--] COMMAND [ARGS]...",
    after_help = EXAMPLES,
    after_long_help = format!("{EXAMPLES}\n\n{}", ExitCode::help()),
)]
pub(crate) struct RunArgs {
    /// How many workers: a number, `auto` for one per core that this process may use (its affinity and its cgroup's
    /// quota are respected), or -N for that many fewer
    #[arg(
        short,
        long,
        value_name = "N",
        default_value = "auto",
        allow_negative_numbers = true,
        value_parser = values::workers
    )]
    pub(crate) workers: Workers,

    /// What to call the app [default: derived from the command, or from the folder]
    #[arg(long)]
    pub(crate) name: Option<AppName>,

    /// How connections reach the workers
    #[arg(long, value_enum, default_value_t = PolicyArg::Auto)]
    pub(crate) policy: PolicyArg,

    /// Listen here and pass the socket to the workers by `LISTEN_FDS`; may be given more than once. 8080 and :8080
    /// mean port 8080 of every IPv4 address
    #[arg(long, value_name = "ADDRESS", value_parser = values::listen)]
    pub(crate) listen: Vec<SocketAddr>,

    /// Set a variable in the workers' environment; may be given more than once
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::env_parser())]
    pub(crate) env: Vec<(OsString, OsString)>,

    /// Start the workers in this folder
    #[arg(long, value_name = "FOLDER")]
    pub(crate) cwd: Option<PathBuf>,

    /// Run the workers as this user, a name or a number; its primary group comes with it
    #[arg(long, value_name = "USER")]
    pub(crate) uid: Option<String>,

    /// Run the workers as this group, a name or a number
    #[arg(long, value_name = "GROUP")]
    pub(crate) gid: Option<String>,

    /// A worker that ran for this long has started well, and its next crash is answered at once
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = values::duration)]
    pub(crate) min_uptime: Duration,

    /// More early exits in a row than this are a crash loop
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    pub(crate) max_restarts: u32,

    /// How long to wait after the first early exit; doubles with each one in a row
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = values::duration)]
    pub(crate) backoff: Duration,

    /// How long a worker that was asked to stop may take before it is killed
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = values::duration)]
    pub(crate) kill_timeout: Duration,

    /// How long a draining worker may keep its connections before it is asked to stop
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = values::duration)]
    pub(crate) drain_timeout: Duration,

    /// Replace a worker that has taken none of its waiting connections for this long [default: never]
    #[arg(long, value_name = "DURATION", value_parser = values::positive_duration)]
    pub(crate) hang_timeout: Option<Duration>,

    /// Leave the programs' `bind` and `listen` alone
    #[arg(long)]
    pub(crate) no_adopt: bool,

    #[command(flatten)]
    pub(crate) output: OutputArgs,

    /// The command to run, and its arguments
    #[arg(required = true, trailing_var_arg = true, num_args = 1.., value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// Run a small web server on every core, to see allcores at work
#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// How many workers: a number, `auto` for one per core, or -N for that many fewer
    #[arg(
        short,
        long,
        value_name = "N",
        default_value = "auto",
        allow_negative_numbers = true,
        value_parser = values::workers
    )]
    pub(crate) workers: Workers,

    /// Where the demo listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8086", value_parser = values::listen)]
    pub(crate) listen: SocketAddr,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// What is written, and how; the same for every command that runs an app.
#[derive(Debug, clap::Args)]
pub(crate) struct OutputArgs {
    /// How to write what happens and what the workers write
    #[arg(long, value_enum, default_value_t = LogFormat::Pretty, env = "ALLCORES_LOG_FORMAT")]
    pub(crate) log_format: LogFormat,

    /// Say less: only warnings and errors; twice: only errors
    #[arg(short, long, action = clap::ArgAction::Count, conflicts_with = "verbose")]
    pub(crate) quiet: u8,

    /// Say more: also when workers are forked and become ready
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// How events and workers' lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people: workers' lines with their slot in front, our own on stderr
    Pretty,
    /// For programs: one JSON object per line on stdout
    Json,
    /// Workers write to our own stdout and stderr, untouched
    Raw,
}

/// How connections reach the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PolicyArg {
    /// Lanes for TCP where the kernel has them, one shared listener where that is better
    Auto,
    /// Each worker has its own accept queue
    Lanes,
    /// All workers accept from one listener
    Shared,
}
