//! Text of others, to be shown.

/// What may be shown on a terminal and in a log of lines, whoever chose it: no character in it does anything but stand there.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn what_moves_a_cursor_or_ends_a_line_is_replaced() {
        assert_eq!(
            printable("web \u{1b}[2J\r\n\u{9b}x\u{7f} é"),
            "web \u{fffd}[2J\u{fffd}\u{fffd}\u{fffd}x\u{fffd} é"
        );
    }
}
