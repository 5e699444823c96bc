//! The table that is printed: a median for each contender and metric, its spread, and its ratio to the first contender.

use allcores_testing::stats::median;

use super::Series;

/// Renders the table. Ratios are to the first contender of the same group.
pub(super) fn render(results: &[Series]) -> String {
    let names = results.first().and_then(|series| series.metrics.first());
    let names: Vec<_> = names.into_iter().flatten().map(|(name, _)| *name).collect();
    let mut rows = vec![vec![String::new()]];
    rows[0].extend(names.iter().map(|name| (*name).to_owned()));
    for series in results {
        let reference = results.iter().find(|other| other.group == series.group).unwrap_or(series);
        let cells = names.iter().map(|name| cell(&series.values(name), &reference.values(name)));
        rows.push(std::iter::once(series.contender.clone()).chain(cells).collect());
    }
    align(&rows)
}

/// A median, the lowest and highest, and the ratio: `4.51 (4.40–4.72) ×1.00`.
fn cell(values: &[f64], reference: &[f64]) -> String {
    if values.is_empty() {
        return "–".into();
    }
    let middle = median(values);
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let ratio = middle / median(reference);
    let ratio = if ratio.is_finite() { format!(" ×{ratio:.2}") } else { String::new() };
    format!("{} ({}–{}){ratio}", number(middle), number(low), number(high))
}

/// Three digits that count, and never an exponent.
fn number(value: f64) -> String {
    match value.abs() {
        magnitude if magnitude >= 100.0 || value.fract().abs() < f64::EPSILON => format!("{value:.0}"),
        magnitude if magnitude >= 10.0 => format!("{value:.1}"),
        magnitude if magnitude >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

pub(super) fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell: &String| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", cells.join("   ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::super::contender::Contender;
    use super::*;

    fn series(contender: &str, p50: &[f64]) -> Series {
        let mut series = Series::new(&Contender::allcores(contender, "auto"));
        for value in p50 {
            series.push(vec![("p50 ms", *value)]);
        }
        series
    }

    #[test]
    fn a_row_shows_median_spread_and_ratio_to_the_first() {
        let table = render(&[series("a", &[2.0, 4.0, 3.0]), series("b", &[6.0, 9.5, 4.5]), series("c", &[])]);
        assert_eq!(table, "    p50 ms\na   3 (2–4) ×1.00\nb   6 (4.50–9.50) ×2.00\nc   –\n");
    }
}
