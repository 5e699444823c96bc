//! Drawings, as SVG: on white whatever they stand on, so that they can be read on a dark page, too.
//!
//! Knows shapes and words, and nothing of what they mean.

use std::fmt::Write as _;

/// About how wide a letter is. Of a proportional font no more can be said; this is on the safe side.
const LETTER: f64 = 6.6;

/// How far the end of a whisker reaches to either side.
const WHISKER: f64 = 3.0;

/// A drawing to which shapes are added, each over those before it.
#[derive(Clone, Debug)]
pub struct Drawing {
    width: f64,
    height: f64,
    shapes: String,
}

/// Where a text is, as seen from its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// It begins there.
    Start,
    /// It ends there.
    End,
}

/// How a line is drawn.
#[derive(Clone, Copy, Debug)]
pub struct Stroke<'a> {
    /// As CSS has it.
    pub color: &'a str,
    /// Whether it is broken.
    pub is_dashed: bool,
}

impl Drawing {
    /// Begins a drawing of this size.
    pub fn new(width: f64, height: f64) -> Self {
        Self { width, height, shapes: String::new() }
    }

    /// About how wide a text is.
    pub fn text_width(text: &str) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "no text here has 2^52 letters")]
        let letters = text.chars().count() as f64;
        letters * LETTER
    }

    /// Adds a rectangle.
    pub fn rectangle(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), color: &str) {
        self.add(&format!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{color}\"/>"
        ));
    }

    /// Adds a line through these points.
    pub fn line(&mut self, points: impl IntoIterator<Item = (f64, f64)>, stroke: Stroke<'_>) {
        let points: Vec<_> = points.into_iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let dashes = if stroke.is_dashed { " stroke-dasharray=\"4 3\"" } else { "" };
        self.add(&format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\"{dashes}/>",
            points.join(" "),
            stroke.color
        ));
    }

    /// Adds a whisker: a line from left to right, with ends that can be seen.
    pub fn whisker(&mut self, (from, to): (f64, f64), y: f64, color: &str) {
        let stroke = Stroke { color, is_dashed: false };
        self.line([(from, y), (to, y)], stroke);
        for x in [from, to] {
            self.line([(x, y - WHISKER), (x, y + WHISKER)], stroke);
        }
    }

    /// Adds a text, which stands on this point.
    pub fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, color: &str, text: &str) {
        self.word((x, y), anchor, color, "", text);
    }

    /// Adds a text that stands out.
    pub fn heading(&mut self, (x, y): (f64, f64), text: &str) {
        self.word((x, y), Anchor::Start, "black", " font-weight=\"bold\"", text);
    }

    /// Gives it as a file.
    pub fn finish(self) -> String {
        let Self { width, height, shapes } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{shapes}</svg>\n"
        )
    }

    fn word(&mut self, (x, y): (f64, f64), anchor: Anchor, color: &str, weight: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::End => " text-anchor=\"end\"",
        };
        let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        self.add(&format!("<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{color}\"{anchor}{weight}>{text}</text>"));
    }

    fn add(&mut self, shape: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.shapes, "{shape}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_no_markup() {
        let mut drawing = Drawing::new(10.0, 20.0);
        drawing.text((1.0, 2.0), Anchor::End, "black", "a < b & c");
        let svg = drawing.finish();
        assert!(svg.starts_with("<svg ") && svg.contains("viewBox=\"0 0 10 20\""), "{svg}");
        assert!(svg.contains("text-anchor=\"end\">a &lt; b &amp; c</text>"), "{svg}");
    }
}
