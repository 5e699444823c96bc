//! `allcores doctor`: what was found, for eyes or as JSON.

use std::fmt::Write as _;
use std::io;

use super::{print, print_json};
use crate::args::DoctorArgs;
use crate::doctor::{self, Grade};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::paint::{Paint, Tone};
use crate::screen;

/// How wide the names of what was looked at are.
const WIDTH: usize = 14;

/// Where what was found begins.
const INDENT: usize = 4 + 2 + WIDTH + 2;

/// Looks, and says what was found.
pub(super) fn execute(args: &DoctorArgs) -> Result<ExitCode, Failure> {
    let findings = doctor::examine(&args.command);
    let is_bad = findings.iter().any(|finding| finding.grade == Grade::Bad);
    if args.json {
        print_json(&findings)?;
    } else {
        let stdout = io::stdout();
        let (paint, width) = (Paint::for_stream(&stdout), screen::width(&stdout));
        let mut text = String::new();
        for finding in &findings {
            let (word, tone) = match finding.grade {
                Grade::Good => ("good", Tone::Good),
                Grade::Less => ("less", Tone::Plain),
                Grade::Bad => ("bad ", Tone::Bad),
            };
            let found = screen::wrap(&finding.found, INDENT, width);
            let _ = writeln!(text, "{}  {:<WIDTH$}  {found}", paint.tone(tone, word), finding.what);
            if let Some(advice) = &finding.advice {
                let advice = screen::wrap(advice, INDENT, width);
                let _ = writeln!(text, "      {:<WIDTH$}  {}", "", paint.tone(Tone::Dim, advice));
            }
        }
        print(text.as_bytes())?;
    }
    Ok(if is_bad { ExitCode::Failure } else { ExitCode::Success })
}
