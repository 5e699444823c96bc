//! The commands about apps in the background.

use std::ffi::OsString;
use std::time::Duration;

use allcores::Signal;
use clap::Arg;
use clap::builder::UnknownArgumentValueParser;

use super::Leaving;
use super::app::AppOptions;
use super::values;
use crate::exit_code::ExitCode;
use crate::settings::AppName;
use crate::target::{self, Target};

const START_EXAMPLES: &str = "\
Examples:
  allcores start                                  all apps of ./allcores.toml
  allcores start web api --env-name production    two of them, in production
  allcores start /srv/shop/allcores.toml          all apps of that file
  allcores start -w 4 --name web -- node server.js
  allcores start web                              one that was stopped

Options are those of `allcores run`; FILE APP is its --config FILE --app APP.";

/// Start apps in the background, and wait until they are ready
///
/// Takes the options of `allcores run` besides its own, and FILE APP for its `--config FILE --app APP`. Each app gets a
/// primary of its own, and nothing else stays in the background. Ends when all workers are ready; or with the exit code that
/// `allcores run` would have ended with, and the last lines of the app's log.
#[derive(Debug, clap::Args)]
#[command(
    arg = of_run("config", "FILE"),
    arg = of_run("app", "APP"),
    override_usage = "allcores start [OPTIONS] [FILE] [APP]...\n       allcores start [OPTIONS] -- COMMAND [ARGS]...",
    after_help = START_EXAMPLES,
    after_long_help = format!("{START_EXAMPLES}\n\n{}", ExitCode::help()),
)]
pub(crate) struct StartArgs {
    /// A config file, and which apps of it; or apps that were started before
    ///
    /// A config file is a path, or a name that ends in .toml.
    #[arg(value_name = "FILE|APP", add = target::completer())]
    pub(crate) what: Vec<String>,

    /// What to call the app [default: as its command]
    ///
    /// Without it, the name is derived from the command, or from the folder.
    #[arg(long)]
    pub(crate) name: Option<AppName>,

    /// Which of its environments, for example production
    #[arg(long, value_name = "NAME")]
    pub(crate) env_name: Option<String>,

    /// How long to wait until all workers are ready
    ///
    /// The app goes on all the same.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = values::positive_duration)]
    pub(crate) timeout: Duration,

    #[command(flatten)]
    pub(crate) options: AppOptions,

    /// The command to run, and its arguments
    #[arg(last = true, value_name = "COMMAND", help_heading = None::<&'static str>)]
    pub(crate) command: Vec<OsString>,
}

/// An option of `run` that is typed otherwise here.
fn of_run(name: &'static str, value: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name(value)
        .hide(true)
        .help("What to start is named without it")
        .value_parser(UnknownArgumentValueParser::suggest(
            "name the file and its apps: allcores start FILE APP",
        ))
}

/// Replace the workers of apps, or with --hard the whole apps
///
/// Without --hard it is a reload, and no connection is lost: the app's settings are read again, and each worker goes when
/// its successor is ready. What is fixed while an app runs, such as its policy, takes --hard, in which nobody serves for a
/// moment.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  allcores restart web
  allcores restart all
  allcores restart web --hard         everything anew, with a gap in between")]
pub(crate) struct RestartArgs {
    /// The apps, or `all`
    #[arg(required = true, value_name = "NAME", add = target::completer())]
    pub(crate) names: Vec<Target>,

    /// Stop the whole app, and start it again as it was started
    #[arg(long)]
    pub(crate) hard: bool,

    /// With --hard: how long the app may take to stop, and to be ready
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = values::positive_duration)]
    pub(crate) timeout: Duration,
}

/// Stop apps that were started in the background, and forget them
///
/// `stop` keeps in mind how an app was started, so that `start NAME` starts it again; this does not, nor
/// does `resurrect`. Logs are kept. What runs in the foreground is none of `all`: how it was started in the background
/// before is forgotten, and it goes on.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  allcores delete web
  allcores delete all --logs")]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    pub(crate) leaving: Leaving,

    /// Delete their logs too
    ///
    /// With `all`, also those that apps have left which failed to start, or were deleted before.
    #[arg(long)]
    pub(crate) logs: bool,
}

/// Show how an app was made: command, folder, options, files
///
/// Of variables, only the names are shown. Of an app that was stopped, what `start` would start again.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  allcores describe web
  allcores describe web --json | jq .options")]
pub(crate) struct DescribeArgs {
    /// The app's name, as `allcores ls` shows it
    #[arg(add = target::completer())]
    pub(crate) name: AppName,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Send a signal to the workers of apps
///
/// Each worker gets it with all its processes. For the primary itself there is `kill`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  allcores signal USR2 web
  allcores signal STOP web --slot 2")]
pub(crate) struct SignalArgs {
    /// Which, for example USR1 or SIGUSR1
    pub(crate) signal: Signal,

    /// The apps, or `all`
    #[arg(required = true, value_name = "NAME", add = target::completer())]
    pub(crate) names: Vec<Target>,

    /// Only to the worker in this slot
    #[arg(long)]
    pub(crate) slot: Option<u16>,
}

/// Send a message to the workers of an app
///
/// In node it comes as `process.on('message')`, in Rust as `Worker::messages`. What is not JSON is sent as a string.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  allcores send web '{\"flush\": true}'
  allcores send web flush --slot 0")]
pub(crate) struct SendArgs {
    /// The app's name, as `allcores ls` shows it
    #[arg(add = target::completer())]
    pub(crate) name: AppName,

    /// The message: JSON, or a word
    pub(crate) message: String,

    /// Only to the worker in this slot
    #[arg(long)]
    pub(crate) slot: Option<u16>,
}

/// Print what happens to apps, from now on, as JSON
///
/// One object per line, as of `allcores run --log-format json`. Ends when the apps do.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  allcores events web
  allcores events | jq 'select(.event == \"exited\")'      all apps that run now")]
pub(crate) struct EventsArgs {
    /// The apps, or `all` [default: all]
    #[arg(value_name = "NAME", default_value = "all", hide_default_value = true, add = target::completer())]
    pub(crate) names: Vec<Target>,

    /// What the workers write, too
    #[arg(long)]
    pub(crate) output: bool,
}

/// Keep a list of the apps in the background, for `resurrect`
///
/// Of those that run, with how each was started, its number of workers, and its environment; readable for this user
/// alone.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  allcores save
  allcores save --force               though nothing runs")]
pub(crate) struct SaveArgs {
    /// Keep an empty list, too
    #[arg(long)]
    pub(crate) force: bool,
}

/// Start the apps that were saved and don't run, as they were
///
/// For the time after a restart of the machine. With systemd, a unit for each app is better.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  allcores resurrect
  @reboot allcores resurrect          in a crontab")]
pub(crate) struct ResurrectArgs {
    /// How long each may take until its workers are ready
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = values::positive_duration)]
    pub(crate) timeout: Duration,
}
