//! Aligned columns for terminals and pipes.

use std::fmt::Write as _;

use crate::paint::{Paint, Tone};
use crate::screen;

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

/// Columns and what stands in them.
#[derive(Debug)]
pub(crate) struct Table<const N: usize> {
    columns: [Column; N],
    /// The first has the heads.
    rows: Vec<[Cell; N]>,
    shown: [bool; N],
}

impl<const N: usize> Table<N> {
    /// Makes a table of all its columns.
    pub(crate) fn new(columns: [Column; N], rows: Vec<[Cell; N]>) -> Self {
        let heads = columns.map(|column| match column {
            Column::Left(head) | Column::Right(head) => Cell::new(head, Tone::Dim),
        });
        let rows = std::iter::once(heads).chain(rows).collect();
        Self { columns, rows, shown: [true; N] }
    }

    /// Makes it fit a width: leaves out what can be done without, in this order, and then cuts the first column.
    pub(crate) fn fit(&mut self, width: Option<usize>, expendable: &[usize]) {
        let Some(width) = width else { return };
        for at in expendable {
            if self.width() <= width {
                return;
            }
            self.shown[*at] = false;
        }
        let excess = self.width().saturating_sub(width);
        let room = self.width_of(0).saturating_sub(excess).max(1);
        for row in &mut self.rows {
            row[0].text = screen::cut(&row[0].text, room);
        }
    }

    /// Whether a column is still there.
    pub(crate) fn shows(&self, at: usize) -> bool {
        self.shown[at]
    }

    /// How much of a width the first column and another leave for one more. The first has a third of it, or what it needs.
    pub(crate) fn room(&self, width: usize, other: usize) -> usize {
        let kept = self.width_of(0).min(width / 3) + self.width_of(other) + 2 * GAP.len();
        width.saturating_sub(kept)
    }

    fn width_of(&self, at: usize) -> usize {
        self.rows.iter().map(|row| row[at].text.chars().count()).max().unwrap_or(0)
    }

    fn width(&self) -> usize {
        let widths = (0..N).filter(|at| self.shown[*at]).map(|at| self.width_of(at) + GAP.len());
        widths.sum::<usize>().saturating_sub(GAP.len())
    }

    /// Writes it, each line ended, two spaces between columns and none at the end.
    pub(crate) fn render(&self, paint: Paint) -> String {
        let widths: [usize; N] = std::array::from_fn(|at| self.width_of(at));
        let last = self.shown.iter().rposition(|is_shown| *is_shown);
        let mut text = String::new();
        for row in &self.rows {
            for (at, cell) in row.iter().enumerate().filter(|(at, _)| self.shown[*at]) {
                let is_last = Some(at) == last;
                let padding = " ".repeat(widths[at] - cell.text.chars().count());
                let (before, after) = match self.columns[at] {
                    Column::Left(_) if is_last => ("", ""),
                    Column::Left(_) => ("", padding.as_str()),
                    Column::Right(_) => (padding.as_str(), ""),
                };
                let gap = if is_last { "\n" } else { GAP };
                // Writing to a string can't fail.
                let _ = write!(text, "{before}{}{after}{gap}", paint.tone(cell.tone, &cell.text));
            }
        }
        text
    }
}

/// Between columns.
const GAP: &str = "  ";

#[cfg(test)]
mod tests {
    use super::{Cell, Column, Table};
    use crate::paint::{Paint, Tone};

    fn table(paint: Paint) -> String {
        made().render(paint)
    }

    fn made() -> Table<3> {
        let columns = [Column::Left("NAME"), Column::Right("PID"), Column::Left("NOTE")];
        let rows = [
            [Cell::from("web"), Cell::from(7), Cell::from("x")],
            [Cell::from("longer"), Cell::from(12345), Cell::new("", Tone::Bad)],
        ];
        Table::new(columns, rows.to_vec())
    }

    #[test]
    fn cells_are_aligned_under_their_heads() {
        assert_eq!(table(Paint::off()), "NAME      PID  NOTE\nweb         7  x\nlonger  12345  \n");
    }

    #[test]
    fn what_does_not_fit_is_left_out_in_order_and_then_cut() {
        let fitted = |width| {
            let mut table = made();
            table.fit(Some(width), &[2, 1]);
            table.render(Paint::off())
        };
        assert_eq!(fitted(19), table(Paint::off()));
        assert_eq!(fitted(18), "NAME      PID\nweb         7\nlonger  12345\n");
        assert_eq!(fitted(8), "NAME\nweb\nlonger\n");
        assert_eq!(fitted(4), "NAME\nweb\nlon…\n");
    }

    #[test]
    fn colours_take_no_room() {
        let plain: String =
            table(Paint::on()).replace("\x1b[2m", "").replace("\x1b[1;31m", "").replace("\x1b[0m", "");
        assert_eq!(plain, table(Paint::off()));
    }
}
