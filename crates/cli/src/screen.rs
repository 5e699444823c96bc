//! What fits a terminal's width. Pipes and files have none: what goes to them is never cut or broken.

use std::os::fd::AsFd;

use rustix::termios;

/// How many columns a stream's terminal has.
pub(crate) fn width(stream: &impl AsFd) -> Option<usize> {
    let size = termios::tcgetwinsize(stream).ok()?;
    // A terminal that has not been told its size says zero.
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// Breaks a text between words, so that each line fits beside an indent. What follows the first line is indented.
pub(crate) fn wrap(text: &str, indent: usize, width: Option<usize>) -> String {
    let room = width.map_or(usize::MAX, |width| width.saturating_sub(indent).max(1));
    let (mut wrapped, mut column) = (String::new(), 0);
    for word in text.split(' ') {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > room {
            wrapped.push('\n');
            wrapped.extend(std::iter::repeat_n(' ', indent));
            column = 0;
        } else if column > 0 {
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

#[cfg(test)]
mod tests {
    use super::{cut, wrap};

    #[test]
    fn text_is_broken_between_words_and_indented_from_the_second_line_on() {
        assert_eq!(wrap("one two three four", 2, Some(10)), "one two\n  three\n  four");
        assert_eq!(wrap("one two three four", 2, None), "one two three four");
        assert_eq!(wrap("unbreakable x", 2, Some(6)), "unbreakable\n  x");
    }

    #[test]
    fn what_is_cut_shows_it() {
        assert_eq!((cut("server", 6), cut("server", 4)), ("server".to_owned(), "ser…".to_owned()));
    }
}
