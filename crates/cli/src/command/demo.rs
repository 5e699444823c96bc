//! `allcores demo`: a small web server on every core, and what to try with it.

use super::reachable;
use crate::app::{self, Begin, Source};
use crate::args::DemoArgs;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::settings;

/// Runs the demo until it is stopped.
pub(super) async fn execute(args: &DemoArgs) -> Result<ExitCode, Failure> {
    let address = reachable(args.listen);
    let settings = settings::of_demo(args)?;
    let source = Source::fixed(&settings);
    let welcome = format!(
        "\
the demo answers on http://{address}/ - open it, or try:
  for i in 1 2 3 4 5 6 7 8; do curl -s http://{address}/; done     which worker answers?
  curl -s http://{address}/crash     one worker dies, another takes its place
  allcores status demo               how the workers are doing
  allcores scale demo 2              more or fewer of them
  Ctrl-C                             stop"
    );
    app::run(Begin {
        settings,
        output: &args.output,
        source,
        log: None,
        metrics: None,
        is_background: false,
        told: None,
        welcome: Some(welcome),
    })
    .await
}
