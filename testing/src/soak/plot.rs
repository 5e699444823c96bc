//! A picture of a soak: a strip for each measure, as SVG.

use std::fmt::Write as _;

use super::Soaked;
use super::sample::{MEASURES, Measure, Verdict, WARM_UP};

const WIDTH: f64 = 720.0;
/// Of one strip.
const HEIGHT: f64 = 96.0;
/// Where the lines begin, beside what is written.
const LEFT: f64 = 150.0;
/// Around the lines within a strip.
const PAD: f64 = 14.0;

/// Draws what was seen. The grey part is the warm-up; the dashed lines are the two medians that are compared.
pub fn plot(soaked: &Soaked) -> String {
    let end = soaked.samples.last().map_or(1.0, |sample| sample.at.max(1.0));
    let x = |at: f64| LEFT + (WIDTH - LEFT - PAD) * at / end;
    #[expect(clippy::cast_precision_loss, reason = "there are six")]
    let height = HEIGHT * MEASURES.len() as f64 + 30.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (strip, (measure, verdict)) in MEASURES.iter().zip(&soaked.verdicts).enumerate() {
        #[expect(clippy::cast_precision_loss, reason = "there are six")]
        let top = HEIGHT * strip as f64;
        draw(&mut svg, soaked, (measure, verdict), top, &x);
    }
    let _ = write!(
        svg,
        "<text x=\"{LEFT}\" y=\"{}\">{} minutes, {} actions, {} requests, seed {}</text>\n</svg>\n",
        height - 10.0,
        soaked.seconds / 60,
        soaked.actions,
        soaked.answered,
        soaked.seed
    );
    svg
}

fn draw(
    svg: &mut String,
    soaked: &Soaked,
    (measure, verdict): (&Measure, &Verdict),
    top: f64,
    x: &impl Fn(f64) -> f64,
) {
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 of anything")]
    let values: Vec<f64> = soaked.samples.iter().map(|sample| (measure.of)(sample) as f64).collect();
    let most = values.iter().copied().fold(verdict.bound, f64::max).max(1.0);
    let y = |value: f64| top + HEIGHT - PAD - (HEIGHT - 2.0 * PAD) * value / most;
    let (begin, end) = (x(0.0), x(soaked.samples.last().map_or(1.0, |sample| sample.at)));
    let warm = begin + (end - begin) * WARM_UP;
    let color = if verdict.has_grown { "#c0392b" } else { "#2471a3" };
    let points: Vec<String> = soaked
        .samples
        .iter()
        .zip(&values)
        .map(|(sample, value)| format!("{:.1},{:.1}", x(sample.at), y(*value)))
        .collect();
    let third = (end - warm) / 3.0;
    let label = if measure.unit.is_empty() { String::new() } else { format!(" {}", measure.unit) };
    let _ = write!(
        svg,
        "<rect x=\"{begin:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"#eeeeee\"/>\n\
         <path d=\"M{begin:.1} {:.1}H{end:.1}\" stroke=\"#999999\"/>\n\
         <polyline points=\"{}\" fill=\"none\" stroke=\"{color}\"/>\n\
         <path d=\"M{warm:.1} {:.1}h{third:.1}M{:.1} {:.1}h{third:.1}\" stroke=\"black\" stroke-dasharray=\"4 3\"/>\n\
         <text x=\"8\" y=\"{:.1}\">{}</text>\n<text x=\"8\" y=\"{:.1}\" fill=\"#666666\">{:.0} → {:.0}{label}</text>\n",
        top + PAD,
        warm - begin,
        HEIGHT - 2.0 * PAD,
        y(0.0),
        points.join(" "),
        y(verdict.first),
        end - third,
        y(verdict.last),
        top + HEIGHT / 2.0 - 4.0,
        measure.name,
        top + HEIGHT / 2.0 + 14.0,
        verdict.first,
        verdict.last,
    );
}
