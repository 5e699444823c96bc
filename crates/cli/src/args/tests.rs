//! That the command line as a whole is sound.

mod help;

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
        assert_eq!(args.options.workers, Workers::Exactly(3));
        assert_eq!(args.command, ["node", "-w", "x", "--help"]);
    }
}

#[test]
fn a_negative_number_of_workers_is_no_option() {
    let Ok(Command::Run(args)) = parsed("allcores run -w -1 x") else { panic!() };
    assert_eq!(args.options.workers, Workers::Fewer(1));
    let Ok(Command::Demo(args)) = parsed("allcores demo --workers=-2 --log-format json -vv") else {
        panic!()
    };
    assert_eq!(args.workers, Workers::Fewer(2));
    assert_eq!((args.output.log_format, args.output.verbose), (LogFormat::Json, 2));
}

#[test]
fn a_port_alone_is_of_the_loopback_where_not_everybody_is_meant() {
    for (typed, address) in
        [("8087", "127.0.0.1:8087"), (":8087", "127.0.0.1:8087"), ("0.0.0.0:8087", "0.0.0.0:8087")]
    {
        let Ok(Command::Demo(args)) = parsed(&format!("allcores demo --listen {typed}")) else {
            panic!("{typed}")
        };
        assert_eq!(args.listen.to_string(), address);
        let Ok(Command::Run(args)) = parsed(&format!("allcores run --metrics {typed} x")) else {
            panic!("{typed}")
        };
        assert_eq!(args.options.metrics.map(|address| address.to_string()).as_deref(), Some(address));
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    for line in [
        "allcores run",
        "allcores run --app web -- x",
        "allcores run --env-name production -- x",
        "allcores run --secret A -- x",
        "allcores run -q -v x",
        "allcores run --policy fastest x",
        "allcores run --policy sticky:cookie= x",
        "allcores run --pending 0 x",
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

#[test]
fn a_limit_is_a_file_of_a_cgroup_and_a_value() {
    let Ok(Command::Run(args)) = parsed("allcores run --cgroup memory.max=512M --cgroup io.max=8:0=1 x")
    else {
        panic!()
    };
    let pair = |file: &str, value: &str| (file.to_owned(), value.to_owned());
    assert_eq!(args.options.upkeep.cgroup, [pair("memory.max", "512M"), pair("io.max", "8:0=1")]);
    for bad in ["memory.max", "memory=1", "../x.y=1", ".x=1", "=1"] {
        let error = parsed(&format!("allcores run --cgroup {bad} x")).unwrap_err().to_string();
        assert!(error.contains("memory.max"), "{error}");
    }
}

#[test]
fn what_reloads_an_app_by_itself_is_checked_when_it_is_typed() {
    let typed = |words: [&str; 2]| Cli::try_parse_from(["allcores", "run", words[0], words[1], "x"]);
    assert!(
        typed(["--cron-restart", "*/5 2-4 * * MON-FRI"]).is_ok()
            && typed(["--watch-ignore", "a/**/*.js"]).is_ok()
    );
    for (words, part) in [
        (["--cron-restart", "61 * * * *"], "minute 61: 0 to 59"),
        (["--cron-restart", "0 0 24 * * *"], "hour 24: 0 to 23"),
        (["--cron-restart", "0 4 * FOO *"], "month FOO: 1 to 12, or JAN to DEC"),
        (["--cron-restart", "*/5 2-4 * * 9"], "day of the week 9: 0 to 7"),
        (["--cron-restart", "often"], "minute, hour, day of the month"),
        (["--watch-ignore", "a["], "a["),
    ] {
        let error = typed(words).unwrap_err().to_string();
        assert!(error.contains(words[0]) && error.contains(part), "{error}");
    }
}
