//! Aligned columns for terminals and pipes.

use std::fmt::Write as _;

use crate::paint::{Paint, Tone};

/// A column's head, and the side its cells lean to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Column {
    /// For words.
    Left(&'static str),
    /// For numbers.
    Right(&'static str),
}

/// One cell.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// Makes a cell in a tone.
    pub(crate) fn new(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone }
    }
}

impl<T: ToString> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.to_string(), tone: Tone::Plain }
    }
}

/// Writes a table, each line ended, two spaces between columns and none at the end.
pub(crate) fn render<const N: usize>(columns: [Column; N], rows: &[[Cell; N]], paint: Paint) -> String {
    let heads = columns.map(|column| match column {
        Column::Left(head) | Column::Right(head) => Cell::new(head, Tone::Dim),
    });
    let widths: [usize; N] = std::array::from_fn(|at| {
        std::iter::once(&heads).chain(rows).map(|row| row[at].text.chars().count()).max().unwrap_or(0)
    });
    let mut text = String::new();
    for row in std::iter::once(&heads).chain(rows) {
        for (at, cell) in row.iter().enumerate() {
            let is_last = at + 1 == N;
            let padding = " ".repeat(widths[at] - cell.text.chars().count());
            let (before, after) = match columns[at] {
                Column::Left(_) if is_last => ("", ""),
                Column::Left(_) => ("", padding.as_str()),
                Column::Right(_) => (padding.as_str(), ""),
            };
            let gap = if is_last { "\n" } else { "  " };
            // Writing to a string can't fail.
            let _ = write!(text, "{before}{}{after}{gap}", paint.tone(cell.tone, &cell.text));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Cell, Column, render};
    use crate::paint::{Paint, Tone};

    fn table(paint: Paint) -> String {
        let columns = [Column::Left("NAME"), Column::Right("PID"), Column::Left("NOTE")];
        let rows = [
            [Cell::from("web"), Cell::from(7), Cell::from("x")],
            [Cell::from("longer"), Cell::from(12345), Cell::new("", Tone::Bad)],
        ];
        render(columns, &rows, paint)
    }

    #[test]
    fn cells_are_aligned_under_their_heads() {
        assert_eq!(table(Paint::off()), "NAME      PID  NOTE\nweb         7  x\nlonger  12345  \n");
    }

    #[test]
    fn colours_take_no_room() {
        let plain: String =
            table(Paint::on()).replace("\x1b[2m", "").replace("\x1b[1;31m", "").replace("\x1b[0m", "");
        assert_eq!(plain, table(Paint::off()));
    }
}
