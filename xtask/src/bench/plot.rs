//! The picture of a record: for each group and each of the case's main metrics a bar for each contender, its whisker from the
//! lowest to the highest round.

use allcores_testing::svg::{Anchor, Drawing};

use super::case::Case;
use super::metric::{Better, Metric};
use super::record::{Record, Role, Series};
use super::table::number;

/// Of the bars of one metric, with what is written beside them.
const COLUMN: f64 = 330.0;
/// Of one contender.
const ROW: f64 = 18.0;
/// Of a line that is written alone.
const LINE: f64 = 20.0;
const MARGIN: f64 = 12.0;
/// What is kept free behind the longest bar, for its number.
const NUMBER: f64 = 60.0;
const BAR: f64 = 11.0;
const INK: &str = "#222222";

/// Draws the record; `None` where nobody was measured.
pub(super) fn draw(case: &Case, record: &Record) -> Option<String> {
    let metrics: Vec<Metric> = case.metrics.iter().filter(|metric| metric.is_plotted).copied().collect();
    let names = record.results.iter().map(|series| Drawing::text_width(&series.contender));
    let left = MARGIN + names.reduce(f64::max)? + MARGIN;
    let groups = record.groups();
    let width = left + COLUMN * float(metrics.len()) + MARGIN;
    let height: f64 = MARGIN + LINE + groups.iter().map(|group| height(group)).sum::<f64>();

    let mut drawing = Drawing::new(width, height);
    legend(&mut drawing);
    let mut top = MARGIN + LINE;
    for group in &groups {
        let mut y = top;
        if !group[0].group.is_empty() {
            y += LINE;
            drawing.heading((MARGIN, y), &group[0].group);
        }
        y += LINE;
        for (row, series) in group.iter().enumerate() {
            let base = y + ROW * float(row + 1);
            drawing.text((left - MARGIN, base), Anchor::End, INK, &series.contender);
        }
        for (column, metric) in metrics.iter().enumerate() {
            bars(&mut drawing, *metric, group, (left + COLUMN * float(column), y));
        }
        top += self::height(group);
    }
    Some(drawing.finish())
}

fn height(group: &[&Series]) -> f64 {
    let heading = if group[0].group.is_empty() { 0.0 } else { LINE };
    heading + LINE + ROW * float(group.len()) + MARGIN
}

/// Draws the bars of one metric below its name. One that nobody of the group was measured by is left away.
fn bars(drawing: &mut Drawing, metric: Metric, group: &[&Series], (left, top): (f64, f64)) {
    let figures: Vec<_> = group.iter().map(|series| series.figure(metric)).collect();
    let Some(most) = figures.iter().flatten().map(|figure| figure.high.max(figure.value)).reduce(f64::max)
    else {
        return;
    };
    let x = |value: f64| if most > 0.0 { left + (COLUMN - NUMBER) * value.max(0.0) / most } else { left };
    let better = match metric.better {
        Better::Lower => " (less is better)",
        Better::Higher => " (more is better)",
        Better::Neither => "",
    };
    drawing.text((left, top), Anchor::Start, INK, &format!("{}{better}", metric.name));
    for (row, (series, figure)) in group.iter().zip(&figures).enumerate() {
        let base = top + ROW * float(row + 1);
        let middle = base - BAR / 2.0 + 1.0;
        let Some(figure) = figure else { continue };
        let size = ((x(figure.value) - left).max(1.0), BAR);
        drawing.rectangle((left, middle - BAR / 2.0), size, color(series.role));
        // What is added up has no spread of its own.
        let end = if metric.is_summed() || figure.low >= figure.high {
            figure.value
        } else {
            drawing.whisker((x(figure.low), x(figure.high)), middle, INK);
            figure.high
        };
        drawing.text((x(end) + 6.0, base), Anchor::Start, INK, &number(figure.value));
    }
}

fn legend(drawing: &mut Drawing) {
    let mut x = MARGIN;
    let top = MARGIN;
    for (role, text) in [(Role::Ours, "allcores"), (Role::Peer, "peer"), (Role::Limit, "limit")] {
        drawing.rectangle((x, top), (BAR, BAR), color(role));
        drawing.text((x + BAR + 5.0, top + BAR - 1.0), Anchor::Start, INK, text);
        x += BAR + 5.0 + Drawing::text_width(text) + 2.0 * MARGIN;
    }
}

fn color(role: Role) -> &'static str {
    match role {
        Role::Ours => "#2e86c1",
        Role::Peer => "#e59866",
        Role::Limit => "#b2babb",
    }
}

#[expect(clippy::cast_precision_loss, reason = "a picture has far fewer rows than 2^52")]
fn float(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::{CASE, record, series};
    use super::*;

    #[test]
    fn every_contender_of_a_group_has_its_name_and_its_number() {
        let svg = draw(
            &CASE,
            &record(vec![
                series("allcores", Role::Ours, "8 clients", "requests/s", &[10.0, 20.0, 30.0]),
                series("peer", Role::Peer, "8 clients", "requests/s", &[40.0]),
                series("allcores", Role::Ours, "1 client", "requests/s", &[50.0]),
            ]),
        );
        let svg = svg.unwrap();
        for text in
            ["8 clients<", "1 client<", ">allcores<", ">peer<", ">20<", ">40<", ">50<", "more is better"]
        {
            assert!(svg.contains(text), "{text} is missing:\n{svg}");
        }
    }

    #[test]
    fn nobody_has_no_picture() {
        assert_eq!(draw(&CASE, &record(vec![])), None);
    }
}
