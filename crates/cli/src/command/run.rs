//! `allcores run`: an app in the foreground.

use anyhow::Context as _;
use clap::ArgMatches;

use crate::app::{self, Begin, Source};
use crate::args::RunArgs;
use crate::background;
use crate::config::Typed;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::service;
use crate::settings::{self, AppName};
use crate::sockets;

/// Runs the app until it has ended.
pub(super) async fn execute(args: &RunArgs, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    run(args, matches).await.inspect_err(|failure| service::not_begun(&failure.with_next_in_a_line()))
}

async fn run(args: &RunArgs, matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let mut told = if args.background {
        // A session of its own: no terminal, and what is typed there, reaches it.
        rustix::process::setsid().context("begin a session of its own")?;
        background::told()?
    } else {
        None
    };
    let mut given = told.as_ref().map(|told| told.record.given().clone()).unwrap_or_default();
    let typed = Typed::of_run(args, matches).given(&given);
    let app = typed.resolve()?;
    let mut settings = settings::of_app(&app)?;
    if args.check {
        settings::check_program(&app)?;
        settings::check_log(&app)?;
        return Ok(ExitCode::Success);
    }
    settings.given = sockets::given()?;
    let name: AppName = settings.name.parse().map_err(anyhow::Error::msg)?;
    let log = settings::log_of(&app.options, &name, args.background)?;
    let (output, metrics) = (app.options.output.clone(), app.options.metrics);
    let said = settings.pool.workers;
    // Where the record tells it, it holds only until something else is said: what was saved beside it is of older programs.
    if let Some(told) = &mut told
        && let Some(workers) = told.workers
        && given.scaled.is_none()
    {
        given.scale(said, workers);
        told.record = told.record.clone().giving(given.clone());
    }
    let scaled = given.workers(said);
    let source = Source::new(typed, given, app, &settings);
    // As after a `scale`: what it is to be says something else.
    settings.pool.workers = scaled;
    let begin = Begin {
        settings,
        output: &output,
        source,
        log,
        metrics,
        is_background: args.background,
        told,
        welcome: None,
    };
    app::run(begin).await
}
