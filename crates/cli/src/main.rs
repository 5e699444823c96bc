//! The program `allcores`: reads the command line, carries out the command, and ends with the fitting exit code.

mod app;
mod args;
mod client;
mod command;
mod control;
mod exit_code;
mod failure;
mod paint;
mod readable;
mod report;
mod runtime_folder;
mod settings;
mod table;
mod verdict;
mod view;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    match command::execute(cli.command) {
        Ok(code) => code.into(),
        Err(failure) => {
            // Where stderr is gone, the code has to do.
            let _ = writeln!(std::io::stderr(), "{failure}");
            failure.code().into()
        }
    }
}
