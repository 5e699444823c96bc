//! `allcores run`: an app in the foreground.

use crate::app;
use crate::args::RunArgs;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::settings;

/// Runs the app until it has ended.
pub(super) async fn execute(args: &RunArgs) -> Result<ExitCode, Failure> {
    app::run(settings::of_run(args)?, &args.output, |_, _| {}).await
}
