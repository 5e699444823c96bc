//! `allcores check`: whether a config file is good, every app in every environment.

use std::fmt::Write as _;
use std::io;

use crate::app::as_typed;
use crate::args::CheckArgs;
use crate::config::File;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::readable;
use crate::screen;
use crate::settings;

/// Reads the file, and puts together whatever could be asked for.
pub(super) fn execute(args: &CheckArgs) -> Result<ExitCode, Failure> {
    let file = File::read(&args.file)?;
    let environments = file.environments();
    let all = std::iter::once(None).chain(environments.iter().copied().map(Some));
    for (environment, name) in all.flat_map(|environment| file.apps().map(move |name| (environment, name))) {
        let mut app = file.alone(name, environment)?;
        if !args.elsewhere {
            settings::leave_out_credentials(&mut app);
            settings::of_app(&app)?;
            settings::check_log(&app)?;
        }
    }
    let columns = screen::width(&io::stdout());
    let mut text =
        format!("{} is good: {}", args.file.display(), readable::count(file.apps().count(), "app"));
    if !environments.is_empty() {
        let _ = write!(text, ", environments {}", environments.join(", "));
    }
    text.push('\n');
    let width = file.apps().map(|name| name.as_str().len()).max().unwrap_or(0);
    for name in file.apps() {
        let command = as_typed(&file.alone(name, None)?.command);
        let command = screen::wrap(&command, 2 + width + 2, columns);
        let _ = writeln!(text, "  {:<width$}  {command}", name.as_str());
    }
    super::print(text.as_bytes())
}
