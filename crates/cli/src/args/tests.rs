//! That the command line as a whole is sound.

use clap::{CommandFactory as _, Parser as _};

use super::{Cli, Command, LogFormat, Workers};

fn parsed(line: &str) -> Result<Command, clap::Error> {
    Cli::try_parse_from(line.split(' ')).map(|cli| cli.command)
}

#[test]
fn the_command_line_has_no_contradiction() {
    Cli::command().debug_assert();
}

#[test]
fn every_option_and_argument_has_a_help_text() {
    for command in Cli::command().get_subcommands() {
        assert!(command.get_about().is_some(), "{}", command.get_name());
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
        }
    }
}

#[test]
fn options_after_the_command_belong_to_the_command() {
    for line in ["allcores run -w 3 -- node -w x --help", "allcores run -w 3 node -w x --help"] {
        let Ok(Command::Run(args)) = parsed(line) else { panic!("{line}") };
        assert_eq!(args.workers, Workers::Exactly(3));
        assert_eq!(args.command, ["node", "-w", "x", "--help"]);
    }
}

#[test]
fn a_negative_number_of_workers_is_no_option() {
    let Ok(Command::Run(args)) = parsed("allcores run -w -1 x") else { panic!() };
    assert_eq!(args.workers, Workers::Fewer(1));
    let Ok(Command::Demo(args)) = parsed("allcores demo --workers=-2 --log-format json -vv") else {
        panic!()
    };
    assert_eq!(args.workers, Workers::Fewer(2));
    assert_eq!((args.output.log_format, args.output.verbose), (LogFormat::Json, 2));
}

#[test]
fn what_makes_no_sense_is_refused() {
    for line in [
        "allcores run",
        "allcores run -q -v x",
        "allcores run --policy fastest x",
        "allcores run --max-restarts -1 x",
        "allcores run --log-format xml x",
        "allcores scale web 0",
        "allcores scale web 257",
        "allcores scale web",
        "allcores status ../web",
        "allcores stop web --timeout 5",
        "allcores completions tcsh",
        "allcores frobnicate",
    ] {
        assert_eq!(parsed(line).unwrap_err().exit_code(), 2, "{line}");
    }
}
