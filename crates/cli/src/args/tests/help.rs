//! That the help of every command fits a screen, and that what it shows as an example can be typed.
//!
//! Goes over clap's own tree, so that no command can be forgotten.

use std::fs;
use std::path::Path;

use clap::builder::StyledStr;

use crate::args::help::WIDTH;
use crate::args::{command, command_line};

/// What fits a terminal that nobody has made larger.
const HEIGHT: usize = 24;

/// For the two commands that take all options of an app.
const HEIGHT_OF_MANY: usize = 50;

/// Every command that has a help, the program itself first.
fn commands() -> Vec<clap::Command> {
    let mut program = command_line().term_width(WIDTH);
    program.build();
    let commands: Vec<_> = program.get_subcommands().cloned().collect();
    [program].into_iter().chain(commands).filter(|command| command.get_name() != "help").collect()
}

fn name(command: &clap::Command) -> String {
    command.get_bin_name().unwrap_or(command.get_name()).to_owned()
}

/// The lines under `Examples:`, each without the words that explain it.
fn examples(text: Option<&StyledStr>) -> Vec<String> {
    let text = text.map(ToString::to_string).unwrap_or_default();
    let block = text.lines().skip_while(|line| *line != "Examples:").skip(1);
    block.take_while(|line| line.starts_with("  ")).map(typed).collect()
}

/// A command line up to what explains it, which is set apart by more than one space.
fn typed(line: &str) -> String {
    let line = line.trim();
    line.split_once("  ").map_or(line, |(typed, _)| typed).to_owned()
}

/// The words that `allcores` would be given by a shell, its own name first.
fn words(line: &str) -> Vec<String> {
    let words = shlex::split(line).unwrap_or_else(|| panic!("no shell can read this: {line}"));
    let ours = words.into_iter().skip_while(|word| word != "allcores");
    ours.take_while(|word| !["|", ">", ">>", "&&", "||", "&", "<", "2>"].contains(&word.as_str())).collect()
}

#[test]
fn the_short_help_of_every_command_fits_a_screen() {
    for mut command in commands() {
        let height = if ["run", "start"].contains(&command.get_name()) { HEIGHT_OF_MANY } else { HEIGHT };
        let help = command.render_help().to_string();
        let lines = help.lines().count();
        assert!(lines <= height, "{}: {lines} lines, more than {height}:\n{help}", name(&command));
    }
}

#[test]
fn no_line_of_any_help_is_wider_than_a_terminal_or_broken_to_fit_one() {
    for mut command in commands() {
        let help = [command.render_help(), command.render_long_help()];
        // What stands below the options is made of lines; broken, an example can't be copied.
        let below = [command.get_after_help(), command.get_after_long_help()].into_iter().flatten().cloned();
        for line in help
            .into_iter()
            .chain(below)
            .flat_map(|text| text.to_string().lines().map(ToOwned::to_owned).collect::<Vec<_>>())
        {
            assert!(line.chars().count() <= WIDTH, "{}: {line}", name(&command));
        }
    }
}

#[test]
fn every_command_shows_an_example_and_each_can_be_typed() {
    for command in commands() {
        let short = examples(command.get_after_help());
        // The program itself asks another version for this; nobody types it.
        assert!(!short.is_empty() || command.get_name() == "upgrade-check", "{}", name(&command));
        for line in short.iter().chain(&examples(command.get_after_long_help())) {
            let words = words(line);
            assert!(line.contains(&name(&command)), "{} shows another's example: {line}", name(&command));
            assert_parses(line, &words);
        }
    }
}

#[test]
fn the_short_help_of_the_program_names_every_command_that_is_not_hidden() {
    let help = command_line().render_help().to_string();
    let named: Vec<&str> = help.split_whitespace().collect();
    for command in command().get_subcommands() {
        assert_eq!(named.contains(&command.get_name()), !command.is_hide_set(), "{}", command.get_name());
    }
}

#[test]
fn every_command_line_in_the_guides_can_be_typed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let guides = fs::read_dir(root.join("docs/guide")).unwrap().map(|entry| entry.unwrap().path());
    let mut seen = 0;
    for page in guides.chain([root.join("README.md")]) {
        let text = fs::read_to_string(&page).unwrap();
        for line in code(&text) {
            let words = words(line);
            assert_parses(&format!("{}: {line}", page.display()), &words);
            seen += 1;
        }
    }
    assert!(seen > 20, "only {seen} command lines were found");
}

/// The lines of a page's code blocks that run allcores.
fn code(page: &str) -> impl Iterator<Item = &str> {
    let mut is_fenced = false;
    page.lines().filter_map(move |line| {
        if line.starts_with("```") {
            is_fenced = !is_fenced;
        }
        let code = if is_fenced { Some(line) } else { line.strip_prefix("    ") };
        let code = code.map(|code| code.trim_start_matches("$ "))?;
        let is_command = ["allcores ", "sudo allcores "].iter().any(|start| code.starts_with(start));
        // A line of a Cargo.toml, and what an app tells.
        let is_other = ["allcores = ", "allcores  "].iter().any(|start| code.starts_with(start));
        (is_command && !is_other).then_some(code)
    })
}

#[track_caller]
fn assert_parses(shown: &str, words: &[String]) {
    assert!(words.len() > 1, "{shown}");
    if let Err(error) = command_line().try_get_matches_from(words) {
        let kind = error.kind();
        let is_help = [clap::error::ErrorKind::DisplayHelp, clap::error::ErrorKind::DisplayVersion];
        assert!(is_help.contains(&kind), "{shown}\n{error}");
    }
}
