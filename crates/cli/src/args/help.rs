//! How the program's own help is laid out: one screen for `-h`, everything for `--help`.
//!
//! What is said about each command and option stands with it. Here is only which commands come first.

use std::fmt::Write as _;

use clap::Command;

/// How wide a help text may be: a terminal of 80 columns is one that everybody has.
pub(super) const WIDTH: usize = 80;

/// The commands of a first day. The others are only named in the short help.
const COMMON: [&str; 7] = ["run", "start", "ls", "status", "logs", "reload", "stop"];

const TEMPLATE: &str = "{about}\n\n{usage-heading} {usage}{after-help}";

const EXAMPLES: &str = "\
Examples:
  allcores demo                       see it at work
  allcores run -- node server.js      a worker on each core, in the foreground
  allcores start -- node server.js    the same in the background";

const MORE: &str = "allcores --help lists all commands; allcores COMMAND -h tells about one.";

const OPTIONS: &str = "\
Options:
  -h, --help     Print help
  -V, --version  Print version";

/// Gives the program's help its layout.
pub(super) fn laid_out(command: Command) -> Command {
    let common: Vec<&Command> = COMMON.iter().filter_map(|name| command.find_subcommand(name)).collect();
    let is_other = |command: &&Command| !command.is_hide_set() && !COMMON.contains(&command.get_name());
    let others: Vec<&Command> = command.get_subcommands().filter(is_other).collect();
    let names = words(others.iter().map(|command| command.get_name()));
    let short = format!("Commands:\n{}\nOthers:\n{names}\n{EXAMPLES}\n\n{MORE}", list(&common));
    let long = format!(
        "Commands:\n{}\nOthers:\n{}\n{OPTIONS}\n\n{EXAMPLES}\n\n{MORE}",
        list(&common),
        list(&others)
    );
    command.help_template(TEMPLATE).after_help(short).after_long_help(long)
}

/// A line for each.
fn list(commands: &[&Command]) -> String {
    let mut text = String::new();
    for command in commands {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        // Writing to a string can't fail.
        let _ = writeln!(text, "  {:<12} {about}", command.get_name());
    }
    text
}

/// As many in a line as fit.
fn words<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let mut text = String::new();
    let mut column = 0;
    for word in words {
        if column == 0 || column + 1 + word.len() > WIDTH {
            text.push_str(if column == 0 { "  " } else { "\n  " });
            column = 2 + word.len();
        } else {
            text.push(' ');
            column += 1 + word.len();
        }
        text.push_str(word);
    }
    text + "\n"
}
