//! What a person typed: the commands and options, as clap reads them.
//!
//! Nothing here looks at the machine. `settings` turns it into what is meant.

mod app;
mod background;
mod config;
mod doctor;
mod help;
mod log;
mod reload;
mod run;
mod startup;
mod triggers;
mod upgrade;
mod upkeep;
mod values;

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args as _, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

pub(crate) use app::{AppOptions, LogFormat, OutputArgs, PENDING};
pub(crate) use background::{
    DeleteArgs, DescribeArgs, EventsArgs, RestartArgs, ResurrectArgs, SaveArgs, SendArgs, SignalArgs,
    StartArgs,
};
pub(crate) use config::{CheckArgs, ImportArgs, SchemaArgs};
pub(crate) use doctor::DoctorArgs;
pub(crate) use log::{LogArgs, LogsArgs};
pub(crate) use reload::ReloadArgs;
pub(crate) use run::{DemoArgs, RunArgs};
pub(crate) use startup::StartupArgs;
pub(crate) use triggers::TriggerArgs;
pub(crate) use upgrade::UpgradeArgs;
pub(crate) use upkeep::UpkeepArgs;
pub(crate) use values::{Change, MAX_WORKERS, SecretSource, Workers, seconds};

use crate::settings::AppName;
use crate::target::{self, Target};

/// The variable by which a shell asks for completions. clap's own, `COMPLETE`, may be anybody's.
pub(crate) const COMPLETE: &str = "ALLCORES_COMPLETE";

/// Run any server on every core behind one port
///
/// allcores starts one worker process of your server for each core. All of them share one port, connections are
/// spread over them, and a worker that dies is replaced. The server needs no change.
#[derive(Debug, Parser)]
#[command(name = "allcores", version, arg_required_else_help = true, max_term_width = help::WIDTH)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The command line as it is typed, with the help as it is shown.
pub(crate) fn command_line() -> clap::Command {
    help::laid_out(command())
}

/// The command line as clap knows it.
pub(crate) fn command() -> clap::Command {
    let options = AppOptions::augment_args(clap::Command::new("app"));
    let is_option = |arg: &clap::Arg| options.get_arguments().any(|option| option.get_id() == arg.get_id());
    // `start` takes them all; its own help is about what is its own.
    Cli::command().mut_subcommand("start", |start| {
        start.mut_args(|arg| if is_option(&arg) { arg.hide(true) } else { arg })
    })
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(Box<RunArgs>),
    Start(Box<StartArgs>),
    Ls(LsArgs),
    Status(StatusArgs),
    Describe(DescribeArgs),
    Reload(Box<ReloadArgs>),
    Restart(RestartArgs),
    Scale(ScaleArgs),
    Upgrade(UpgradeArgs),
    Stop(StopArgs),
    Delete(DeleteArgs),
    Signal(SignalArgs),
    Send(SendArgs),
    Events(EventsArgs),
    Logs(LogsArgs),
    Save(SaveArgs),
    Resurrect(ResurrectArgs),
    Startup(StartupArgs),
    Check(CheckArgs),
    Schema(SchemaArgs),
    Import(ImportArgs),
    Demo(DemoArgs),
    Doctor(DoctorArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
    DemoWorker(DemoWorkerArgs),
    /// Say whether this program can go on with what a primary leaves on stdin
    #[command(hide = true)]
    UpgradeCheck,
}

/// List the apps: those that run, and those that were stopped
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  allcores ls
  allcores ls web api
  allcores ls --json | jq -r '.[].name'")]
pub(crate) struct LsArgs {
    /// Of these apps only
    #[arg(value_name = "NAME", add = target::completer())]
    pub(crate) names: Vec<Target>,

    /// Print JSON: the status of each app that runs, the name of each other
    #[arg(long)]
    pub(crate) json: bool,
}

/// Show one app and its workers
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  allcores status web
  allcores status web --json | jq '.workers[].pid'")]
pub(crate) struct StatusArgs {
    /// The app's name, as `allcores ls` shows it
    #[arg(add = target::completer())]
    pub(crate) name: AppName,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Stop apps and wait until they have gone
///
/// Their workers finish the connections that they have. An app that was started in the background can be started
/// again by its name; `delete` has it forgotten.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  allcores stop web
  allcores stop all --now
  allcores stop all --background    not those in terminals or under systemd")]
pub(crate) struct StopArgs {
    #[command(flatten)]
    pub(crate) leaving: Leaving,

    /// Kill the workers instead of letting them finish their connections
    #[arg(long)]
    pub(crate) now: bool,

    /// Of these, only apps that run in the background
    #[arg(long)]
    pub(crate) background: bool,
}

/// Which apps are to go.
#[derive(Debug, clap::Args)]
pub(crate) struct Leaving {
    /// The apps, or `all`
    #[arg(required = true, value_name = "NAME", add = target::completer())]
    pub(crate) names: Vec<Target>,

    /// How long to wait for each to go
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = values::duration)]
    pub(crate) timeout: Duration,
}

/// Change an app's number of workers and wait until it is done
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  allcores scale web 4
  allcores scale web +2
  allcores scale web -1")]
pub(crate) struct ScaleArgs {
    /// The app's name, as `allcores ls` shows it
    #[arg(add = target::completer())]
    pub(crate) name: AppName,

    /// How many workers it should have; or +N or -N, so many more or fewer
    #[arg(value_name = "N", allow_negative_numbers = true, value_parser = values::change)]
    pub(crate) workers: Change,

    /// How long to wait for it
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = values::duration)]
    pub(crate) timeout: Duration,
}

/// Print a completion script for a shell
///
/// It completes commands, options and the names of apps. bash looks for it in
/// ~/.local/share/bash-completion/completions/allcores.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  allcores completions bash > allcores.bash
  allcores completions fish > ~/.config/fish/completions/allcores.fish")]
pub(crate) struct CompletionsArgs {
    /// Which shell
    pub(crate) shell: Shell,
}

/// Print a manual page in roff
#[derive(Debug, clap::Args)]
#[command(
    hide = true,
    after_help = "\
Examples:
  allcores man
  allcores man run | man -l -"
)]
pub(crate) struct ManArgs {
    /// The command to describe [default: allcores itself]
    pub(crate) command: Option<String>,
}

/// Serve the demo page; what `allcores demo` runs as its workers
#[derive(Debug, clap::Args)]
#[command(
    hide = true,
    after_help = "\
Examples:
  allcores demo-worker 127.0.0.1:8086"
)]
pub(crate) struct DemoWorkerArgs {
    /// Where to listen
    pub(crate) address: SocketAddr,
}

#[cfg(test)]
mod tests;
