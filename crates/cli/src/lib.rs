//! The program `allcores`: reads the command line, carries out the command, and ends with the fitting exit code.
//!
//! A library only so that `fuzz/` reaches what reads the bytes of others. It promises nothing to anybody else.

mod app;
mod args;
mod background;
mod client;
mod command;
mod config;
mod control;
mod doctor;
mod exit_code;
mod failure;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod hub;
mod import;
mod journal;
mod log;
mod metrics;
mod paint;
mod readable;
mod report;
mod runtime_folder;
mod screen;
mod service;
mod settings;
mod sockets;
mod state_folder;
mod table;
mod target;
mod units;
mod verdict;
mod view;
mod whole;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use allcores::primary::Legacy;
use clap::FromArgMatches as _;

/// The program.
#[must_use]
pub fn main() -> ExitCode {
    // In the place of another program nothing was typed for this one.
    let result = match Legacy::take() {
        Some(legacy) => command::resume(legacy),
        None => execute(),
    };
    match result {
        Ok(code) => code.into(),
        Err(failure) => {
            screen::tell(&failure.to_string());
            failure.code().into()
        }
    }
}

/// Does what was typed.
fn execute() -> Result<exit_code::ExitCode, failure::Failure> {
    // Where a shell asks for completions, answers and ends.
    clap_complete::CompleteEnv::with_factory(args::command).var(args::COMPLETE).complete();
    let matches = args::command_line().try_get_matches().unwrap_or_else(|error| end(&error));
    let cli = args::Cli::from_arg_matches(&matches).unwrap_or_else(|error| end(&error));
    command::execute(cli.command, &matches)
}

/// Says what the command line was not, or the help that was asked for, and ends.
fn end(error: &clap::Error) -> ! {
    // A help is made of lines that fit.
    if !error.use_stderr() || !std::io::stderr().is_terminal() {
        error.exit();
    }
    let text = error.render();
    let is_plain = paint::Paint::for_stream(&std::io::stderr()) == paint::Paint::off();
    screen::tell(&if is_plain { text.to_string() } else { text.ansi().to_string() });
    std::process::exit(error.exit_code())
}
