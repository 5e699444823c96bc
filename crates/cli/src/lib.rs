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

use std::io::Write as _;
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
            // Where stderr is gone, the code has to do.
            let _ = writeln!(std::io::stderr(), "{failure}");
            failure.code().into()
        }
    }
}

/// Does what was typed.
fn execute() -> Result<exit_code::ExitCode, failure::Failure> {
    // Where a shell asks for completions, answers and ends.
    clap_complete::CompleteEnv::with_factory(args::command).complete();
    let matches = args::command_line().get_matches();
    let cli = args::Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    command::execute(cli.command, &matches)
}
