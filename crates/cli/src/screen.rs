//! What fits a terminal's width. Pipes and files have none: what goes to them is never cut or broken.

use std::io::{self, Write as _};
use std::os::fd::AsFd;

use rustix::termios;

/// How long a label may be under which nothing stands: what follows it begins there on every line.
const LABEL: usize = 24;

/// How many columns a stream's terminal has.
pub(crate) fn width(stream: &impl AsFd) -> Option<usize> {
    let size = termios::tcgetwinsize(stream).ok()?;
    // A terminal that has not been told its size says zero.
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// Says something to a person on stderr. Where that is gone, nobody is there to be told.
pub(crate) fn tell(text: &str) {
    let stderr = io::stderr();
    let _ = writeln!(stderr.lock(), "{}", fit(text.trim_end(), width(&stderr)));
}

/// Breaks the lines of a text between words, so that each fits. What goes on below a line begins where its first word
/// does, or, where that is a short label, behind it.
pub(crate) fn fit(text: &str, width: Option<usize>) -> String {
    if width.is_none() {
        return text.to_owned();
    }
    let mut fitted = String::new();
    for line in text.split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        let words = line.trim_start_matches(' ');
        let margin = line.len() - words.len();
        fitted.extend(std::iter::repeat_n(' ', margin));
        fitted.push_str(&fill(words, (margin, margin + label(words).unwrap_or(2)), width));
        fitted.push_str(end);
    }
    fitted
}

/// The columns of what stands before a line's text: `error: `, `web: `, or the slot of a worker's line.
fn label(line: &str) -> Option<usize> {
    let line = plain(line);
    let end = line.find(": ").or_else(|| line.find(" | ").map(|at| at + 1))?;
    let label = &line[..end];
    let is_word = !label.trim_end().contains(' ');
    Some(label.chars().count() + 2).filter(|columns| is_word && *columns <= LABEL)
}

/// Breaks a text between words, so that each line fits beside an indent. What follows the first line is indented.
pub(crate) fn wrap(text: &str, indent: usize, width: Option<usize>) -> String {
    fill(text, (indent, indent), width)
}

/// Breaks a line that begins in the first of these columns, and goes on in the second.
fn fill(text: &str, (start, indent): (usize, usize), width: Option<usize>) -> String {
    let width = width.unwrap_or(usize::MAX);
    // Half of a narrow terminal is for the text, wherever it would begin in a wide one.
    let indent = indent.min(width / 2);
    let (mut wrapped, mut column) = (String::new(), start);
    for (nth, word) in text.split(' ').enumerate() {
        let length = columns(word);
        if nth > 0 && column > indent && column.saturating_add(1 + length) > width {
            wrapped.push('\n');
            wrapped.extend(std::iter::repeat_n(' ', indent));
            column = indent;
        } else if nth > 0 {
            wrapped.push(' ');
            column += 1;
        }
        wrapped.push_str(word);
        column += length;
    }
    wrapped
}

/// Cuts a text that is too long, and shows that it was.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// How many columns a text takes.
fn columns(text: &str) -> usize {
    plain(text).chars().count()
}

/// A text without its colours (ECMA-48's SGR), which take no room.
fn plain(text: &str) -> String {
    let mut pieces = text.split("\x1b[");
    let first = pieces.next().unwrap_or_default().to_owned();
    first + &pieces.map(|piece| piece.split_once('m').map_or(piece, |(_, rest)| rest)).collect::<String>()
}

/// What is said if somebody stops waiting, by Ctrl-C, before what he waits for has come.
pub(crate) struct Parting(Option<String>);

impl Parting {
    pub(crate) fn new(text: String) -> Self {
        Self(Some(text))
    }

    /// It has come.
    pub(crate) fn spare(mut self) {
        self.0 = None;
    }
}

impl Drop for Parting {
    fn drop(&mut self) {
        if let Some(text) = &self.0 {
            tell(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{cut, fit, wrap};

    #[test]
    fn text_is_broken_between_words_and_indented_from_the_second_line_on() {
        assert_eq!(wrap("one two three four", 2, Some(10)), "one two\n  three\n  four");
        assert_eq!(wrap("one two three four", 2, None), "one two three four");
        assert_eq!(wrap("unbreakable x", 2, Some(6)), "unbreakable\n  x");
    }

    #[test]
    fn a_narrow_terminal_leaves_half_of_itself_for_the_text() {
        assert_eq!(wrap("one two three", 30, Some(16)), "one\n        two\n        three");
    }

    #[test]
    fn lines_go_on_below_their_text_and_not_below_their_label() {
        let text = "error: one two three four\n  next: five six seven\nno label: eight nine\n";
        let broken =
            "error: one two\n       three four\n  next: five six\n        seven\nno label: eight\n  nine\n";
        assert_eq!(fit(text, Some(17)), broken);
        assert_eq!(fit("    0 | one two three", Some(16)), "    0 | one two\n        three");
        assert_eq!(fit(text, None), text);
    }

    #[test]
    fn what_is_aligned_stays_so_and_colours_take_no_room() {
        let excerpt = "  3 | wokers = 1\n    | ^^^^^^\n";
        assert_eq!(fit(excerpt, Some(20)), excerpt);
        assert_eq!(
            fit("\x1b[1merror:\x1b[0m one two three", Some(14)),
            "\x1b[1merror:\x1b[0m one two\n       three"
        );
    }

    #[test]
    fn what_is_cut_shows_it() {
        assert_eq!((cut("server", 6), cut("server", 4)), ("server".to_owned(), "ser…".to_owned()));
    }
}
