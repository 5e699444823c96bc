//! What a person typed: the commands and options, as clap reads them.
//!
//! Nothing here looks at the machine. `settings` turns it into what is meant.

mod run;
mod values;

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

pub(crate) use run::{DemoArgs, LogFormat, OutputArgs, PolicyArg, RunArgs};
pub(crate) use values::{MAX_WORKERS, Workers};

use crate::settings::AppName;

/// Run any server on every core behind one port.
///
/// allcores starts one worker process of your server for each core. All of them share one port, connections are
/// spread over them, and a worker that dies is replaced. The server needs no change.
#[derive(Debug, Parser)]
#[command(name = "allcores", version, arg_required_else_help = true, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  allcores run -- node server.js      a worker on each core, in the foreground
  allcores demo                       see it at work
  allcores status web                 how the app `web` is doing";

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(Box<RunArgs>),
    Demo(DemoArgs),
    Ls(LsArgs),
    Status(StatusArgs),
    Stop(StopArgs),
    Scale(ScaleArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
    DemoWorker(DemoWorkerArgs),
}

/// List the running apps
#[derive(Debug, clap::Args)]
pub(crate) struct LsArgs {
    /// Print JSON: an array with the status of each app
    #[arg(long)]
    pub(crate) json: bool,
}

/// Show one app and its workers
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    /// The app's name, as `allcores ls` shows it
    pub(crate) name: AppName,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Stop an app and wait until it has gone
#[derive(Debug, clap::Args)]
pub(crate) struct StopArgs {
    /// The app's name, as `allcores ls` shows it
    pub(crate) name: AppName,

    /// Kill the workers instead of letting them finish their connections
    #[arg(long)]
    pub(crate) now: bool,

    /// How long to wait for it to go
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = values::duration)]
    pub(crate) timeout: Duration,
}

/// Change an app's number of workers and wait until it is done
#[derive(Debug, clap::Args)]
pub(crate) struct ScaleArgs {
    /// The app's name, as `allcores ls` shows it
    pub(crate) name: AppName,

    /// How many workers it should have
    #[arg(value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_WORKERS)))]
    pub(crate) workers: u16,

    /// How long to wait for it
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = values::duration)]
    pub(crate) timeout: Duration,
}

/// Print a completion script for a shell
///
/// For example: allcores completions bash > ~/.local/share/bash-completion/completions/allcores
#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArgs {
    /// Which shell
    pub(crate) shell: Shell,
}

/// Print a manual page in roff
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(crate) struct ManArgs {
    /// The command to describe; the page of `allcores` itself without it
    pub(crate) command: Option<String>,
}

/// Serve the demo page; what `allcores demo` runs as its workers
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(crate) struct DemoWorkerArgs {
    /// Where to listen
    pub(crate) address: SocketAddr,
}

#[cfg(test)]
mod tests;
