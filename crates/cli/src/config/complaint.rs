//! Mistakes in a config file, shown with their lines; and where each option of an app was set, for those that turn out wrong
//! only on this machine.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::anyhow;

use super::file::COMMAND;
use super::layer::Layer;
use crate::exit_code::ExitCode;
use crate::failure::Failure;

/// Longer lines are shown in part, so that the marks stay under what they mark.
const SHOWN: usize = 64;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    /// From and to these bytes of the file.
    pub(super) at: Range<usize>,
    pub(super) text: String,
}

/// Shows all mistakes of a file, in the order of its lines.
pub(super) fn failure(path: &Path, text: &str, mut mistakes: Vec<Mistake>) -> Failure {
    mistakes.sort_by_key(|mistake| mistake.at.start);
    let mut shown = String::new();
    if mistakes.len() > 1 {
        let _ = writeln!(shown, "{} has {} mistakes", path.display(), mistakes.len());
    }
    for mistake in &mistakes {
        let (line, column) = position(text, mistake.at.start);
        let _ = writeln!(shown, "{}:{line}:{column}: {}", path.display(), mistake.text);
        shown.push_str(&excerpt(text, &mistake.at));
    }
    Failure::new(ExitCode::Config, anyhow!(shown.trim_end().to_owned()))
        .next("`allcores run --help` says what each key means: a key is an option without its dashes")
}

/// Line and column, both from 1, of a byte.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|char| *char != '\n').count() + 1;
    (line, column)
}

/// The line, and marks under what is wrong in it.
fn excerpt(text: &str, at: &Range<usize>) -> String {
    let (number, column) = position(text, at.start);
    let line = text.lines().nth(number - 1).unwrap_or_default();
    let start = column - 1;
    let marked = text.get(at.clone()).and_then(|marked| marked.lines().next()).unwrap_or_default();
    let width = marked.chars().count().clamp(1, SHOWN);
    // A window into a long line, with the mark in it.
    let skipped = if start + width > SHOWN { start.saturating_sub(SHOWN / 4) } else { 0 };
    let shown: String = line.chars().skip(skipped).take(SHOWN).collect();
    let blank = |char| if char == '\t' { '\t' } else { ' ' };
    let indent: String = line.chars().skip(skipped).take(start - skipped).map(blank).collect();
    let gutter = number.to_string();
    let (left, right) = (if skipped > 0 { "…" } else { "" }, if shown.len() < line.len() { "…" } else { "" });
    format!(
        "  {gutter} | {left}{shown}{right}\n  {0} | {1}{indent}{2}\n",
        " ".repeat(gutter.len()),
        " ".repeat(left.chars().count()),
        "^".repeat(width)
    )
}

/// Where the options of an app were set.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    file: Option<PathBuf>,
    /// Line and column.
    in_file: BTreeMap<String, (usize, usize)>,
}

impl Places {
    /// Finds them in a file.
    pub(super) fn of(layer: &Layer, path: &Path, text: &str) -> Self {
        let command = layer.command_at.clone().map(|at| (COMMAND, at));
        let in_file = layer.places().chain(command);
        let in_file = in_file.map(|(name, at)| (name.to_owned(), position(text, at.start)));
        Self { file: Some(path.to_owned()), in_file: in_file.collect() }
    }

    /// Says that what an option was set to can't be had here.
    pub(crate) fn refuse(&self, option: &str, value: &str, why: impl Into<anyhow::Error>) -> Failure {
        let why = why.into();
        match (&self.file, self.in_file.get(option)) {
            (Some(file), Some((line, column))) => Failure::new(
                ExitCode::Config,
                why.context(format!("{}:{line}:{column}: {option} = {value:?}", file.display())),
            ),
            _ => Failure::usage(why.context(format!("--{option} {value}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Mistake, excerpt, failure, position};

    const TEXT: &str = "a = 1\n\tbé = \"x\" # y\nc = 3";

    #[test]
    fn a_place_is_told_by_line_and_column_in_characters() {
        assert_eq!(position(TEXT, 0), (1, 1));
        let at = TEXT.find('x').unwrap();
        assert_eq!(position(TEXT, at), (2, 8));
        assert_eq!(position(TEXT, TEXT.len()), (3, 6));
    }

    #[test]
    fn the_mark_stands_under_what_is_meant() {
        let at = TEXT.find("\"x\"").unwrap();
        assert_eq!(excerpt(TEXT, &(at..at + 3)), "  2 | \tbé = \"x\" # y\n    | \t     ^^^\n");
        assert_eq!(excerpt(TEXT, &(TEXT.len()..TEXT.len())), "  3 | c = 3\n    |      ^\n");
    }

    #[test]
    fn a_long_line_is_shown_around_the_mark() {
        let text = format!("x = [{}]", "123456789, ".repeat(40));
        let shown = excerpt(&text, &(300..309));
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[0].starts_with("  1 | …") && lines[0].ends_with('…'), "{shown}");
        let mark = lines[1].find('^').unwrap();
        let marked: String = lines[0].chars().skip(mark).take(9).collect();
        assert_eq!(marked, text[300..309], "{shown}");
    }

    #[test]
    fn mistakes_are_told_in_the_order_of_the_lines() {
        let mistake = |at, text: &str| Mistake { at: at..at + 1, text: text.into() };
        let mistakes = vec![mistake(TEXT.len() - 1, "second"), mistake(0, "first")];
        let shown = failure("x.toml".as_ref(), TEXT, mistakes).to_string();
        let lines: Vec<&str> = shown.lines().filter(|line| line.contains("x.toml")).collect();
        assert_eq!(lines, ["error: x.toml has 2 mistakes", "x.toml:1:1: first", "x.toml:3:5: second"]);
    }
}
