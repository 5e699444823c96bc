//! The tables: a row for each contender, a column for each metric, with its spread and its ratio to the first contender.

use super::metric::Metric;
use super::record::Series;

/// The rows of a group, under a row of heads. What nobody of the group has been measured by has no column.
pub(super) fn rows(metrics: &[Metric], group: &[&Series]) -> Vec<Vec<String>> {
    let has_values = |metric: &&Metric| group.iter().any(|series| !series.values(metric.name).is_empty());
    let metrics: Vec<Metric> = metrics.iter().filter(has_values).copied().collect();
    let mut rows = vec![vec![String::new()]];
    rows[0].extend(metrics.iter().map(|metric| head(*metric)));
    for series in group {
        let cells = metrics.iter().map(|metric| cell(*metric, series, group[0]));
        rows.push(std::iter::once(series.contender.clone()).chain(cells).collect());
    }
    rows
}

fn head(metric: Metric) -> String {
    let name = metric.name;
    if metric.is_summed() { format!("{name}, all rounds") } else { name.to_owned() }
}

/// A number, the lowest and highest, and the ratio: `4.51 (4.40–4.72) ×1.00`.
fn cell(metric: Metric, series: &Series, reference: &Series) -> String {
    let Some(figure) = series.figure(metric) else { return "–".into() };
    let ratio = reference.figure(metric).map_or(f64::NAN, |reference| figure.value / reference.value);
    let ratio = if ratio.is_finite() { format!(" ×{ratio:.2}") } else { String::new() };
    let spread = if figure.low < figure.high {
        format!(" ({}–{})", number(figure.low), number(figure.high))
    } else {
        String::new()
    };
    number(figure.value) + &spread + &ratio
}

/// Three digits that count, and never an exponent.
pub(super) fn number(value: f64) -> String {
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
    use super::super::record::Role;
    use super::*;

    fn series(contender: &str, p50: &[f64]) -> Series {
        let samples = p50.iter().map(|value| [("p50 ms".to_owned(), *value)].into()).collect();
        Series { contender: contender.into(), role: Role::Ours, group: String::new(), samples }
    }

    #[test]
    fn a_row_shows_median_spread_and_ratio_to_the_first() {
        let group = [&series("a", &[2.0, 4.0, 3.0]), &series("b", &[6.0, 9.5, 4.5]), &series("c", &[])];
        let metrics = [Metric::lower("p50 ms"), Metric::lower("p99 ms")];
        let table = align(&rows(&metrics, &group));
        assert_eq!(table, "    p50 ms\na   3 (2–4) ×1.00\nb   6 (4.50–9.50) ×2.00\nc   –\n");
    }

    #[test]
    fn failures_of_all_rounds_are_added_up() {
        let group = [&series("a", &[0.0, 7.0, 0.0])];
        let table = align(&rows(&[Metric::lower("p50 ms").summed()], &group));
        assert_eq!(table, "    p50 ms, all rounds\na   7 (0–7) ×1.00\n");
    }
}
