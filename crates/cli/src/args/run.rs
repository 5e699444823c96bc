//! The commands that run an app in the foreground: `run` and `demo`.

use std::ffi::OsString;
use std::net::SocketAddr;

use super::app::{AppOptions, OutputArgs};
use super::config::SourceArgs;
use super::values::{self, Workers};
use crate::exit_code::ExitCode;
use crate::settings::AppName;

const FEW_EXAMPLES: &str = "\
Examples:
  allcores run -- node server.js
  allcores run -w 4 --name web -- python3 -m http.server 8080
  allcores run --health-http /healthz -- ./server    replaces what is not well
  allcores run --config allcores.toml --app web      as that file says";

const EXAMPLES: &str = "\
Examples:
  allcores run -- node server.js
  allcores run -w 4 --name web -- python3 -m http.server 8080
  allcores run -w -1 -- npm start                    leaves one core to others
  allcores run --listen :8080 -- ./app               a program of LISTEN_FDS
  sudo allcores run --uid www-data -- ./server --port 80
  allcores run --health-http /healthz -- ./server    replaces what is not well
  allcores run --log-format json -- ./server | jq    one JSON object per event
  allcores run --config allcores.toml --app web      as that file says";

const SIGNALS: &str = "\
Signals:
  TERM, INT   let the workers finish their connections, then stop;
              a second INT stops now
  QUIT        stop now
  HUP         reload: replace the workers without losing a connection
  USR1        open the log anew
  USR2        upgrade: go on as what is now in the file that was started
  TTIN, TTOU  one worker more, one worker less";

/// Run a command on every core, in the foreground
///
/// Starts the command once for each worker. The programs may all listen on the same address: each gets its share of
/// the connections. A worker that dies is replaced. What the workers write comes out with the worker's slot in front.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "allcores run [OPTIONS] [--] COMMAND [ARGS]...\n       allcores run [OPTIONS] --config FILE [--app APP]",
    after_help = FEW_EXAMPLES,
    after_long_help = format!("{EXAMPLES}\n\n{SIGNALS}\n\n{}", ExitCode::help()),
)]
pub(crate) struct RunArgs {
    /// What to call the app [default: as its command]
    ///
    /// Without it, the name is derived from the command, or from the folder.
    #[arg(long)]
    pub(crate) name: Option<AppName>,

    /// Be in the background; what `allcores start` runs
    #[arg(long, hide = true)]
    pub(crate) background: bool,

    /// See whether the app could be started, and do not; what `allcores restart --hard` runs
    #[arg(long, hide = true, requires = "background")]
    pub(crate) check: bool,

    #[command(flatten)]
    pub(crate) options: AppOptions,

    #[command(flatten)]
    pub(crate) source: SourceArgs,

    /// The command to run, and its arguments
    #[arg(required_unless_present = "config", trailing_var_arg = true, num_args = 1.., value_name = "COMMAND", help_heading = None::<&'static str>, hide_short_help = true)]
    pub(crate) command: Vec<OsString>,
}

/// Run a small web server on every core, to see allcores at work
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  allcores demo
  allcores demo -w 2 --listen 8087")]
pub(crate) struct DemoArgs {
    /// How many workers: a number, `auto`, or -N for that many fewer
    #[arg(
        short,
        long,
        value_name = "N",
        default_value = "auto",
        allow_negative_numbers = true,
        value_parser = values::workers
    )]
    pub(crate) workers: Workers,

    /// Where the demo listens; a port alone is one of 127.0.0.1
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8086", value_parser = values::local)]
    pub(crate) listen: SocketAddr,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}
