//! A picture of a soak: a strip for each measure, as SVG.

use super::Soaked;
use super::sample::{MEASURES, Measure, Verdict, WARM_UP};
use crate::svg::{Anchor, Drawing, Stroke};

const WIDTH: f64 = 720.0;
/// Of one strip.
const HEIGHT: f64 = 96.0;
/// Where the lines begin, beside what is written.
const LEFT: f64 = 150.0;
/// Around the lines within a strip.
const PAD: f64 = 14.0;
/// Of what is written below the strips.
const FOOT: f64 = 30.0;

/// Draws what was seen. The grey part is the warm-up; the dashed lines are the two medians that are compared.
pub fn plot(soaked: &Soaked) -> String {
    #[expect(clippy::cast_precision_loss, reason = "there are six")]
    let height = HEIGHT * MEASURES.len() as f64;
    let mut drawing = Drawing::new(WIDTH, height + FOOT);
    let mut top = 0.0;
    for strip in MEASURES.iter().zip(&soaked.verdicts) {
        draw(&mut drawing, soaked, strip, top);
        top += HEIGHT;
    }
    let Soaked { seconds, actions, answered, seed, .. } = soaked;
    let text = format!("{} minutes, {actions} actions, {answered} requests, seed {seed}", seconds / 60);
    drawing.text((LEFT, height + FOOT - 10.0), Anchor::Start, "black", &text);
    drawing.finish()
}

fn draw(drawing: &mut Drawing, soaked: &Soaked, (measure, verdict): (&Measure, &Verdict), top: f64) {
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 of anything")]
    let values: Vec<f64> = soaked.samples.iter().map(|sample| (measure.of)(sample) as f64).collect();
    let most = values.iter().copied().fold(verdict.bound, f64::max).max(1.0);
    let end = soaked.samples.last().map_or(1.0, |sample| sample.at.max(1.0));
    let x = |at: f64| LEFT + (WIDTH - LEFT - PAD) * at / end;
    let y = |value: f64| top + HEIGHT - PAD - (HEIGHT - 2.0 * PAD) * value / most;

    let warm = x(end * WARM_UP);
    drawing.rectangle((x(0.0), top + PAD), (warm - x(0.0), HEIGHT - 2.0 * PAD), "#eeeeee");
    drawing.line([(x(0.0), y(0.0)), (x(end), y(0.0))], Stroke { color: "#999999", is_dashed: false });
    let color = if verdict.has_grown { "#c0392b" } else { "#2471a3" };
    let points = soaked.samples.iter().zip(&values).map(|(sample, value)| (x(sample.at), y(*value)));
    drawing.line(points, Stroke { color, is_dashed: false });
    let third = (x(end) - warm) / 3.0;
    for (begin, value) in [(warm, verdict.first), (x(end) - third, verdict.last)] {
        let stroke = Stroke { color: "black", is_dashed: true };
        drawing.line([(begin, y(value)), (begin + third, y(value))], stroke);
    }

    let unit = if measure.unit.is_empty() { String::new() } else { format!(" {}", measure.unit) };
    let change = format!("{:.0} → {:.0}{unit}", verdict.first, verdict.last);
    drawing.text((8.0, top + HEIGHT / 2.0 - 4.0), Anchor::Start, "black", measure.name);
    drawing.text((8.0, top + HEIGHT / 2.0 + 14.0), Anchor::Start, "#666666", &change);
}
