//! `allcores restart`: one app after another, rolling, or stopped and started again.

use anyhow::anyhow;

use super::reload::{self, Wish};
use super::start::{Outcome, start_each};
use super::stop;
use crate::args::RestartArgs;
use crate::background;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::runtime_folder::AppFolder;
use crate::screen::Parting;
use crate::settings::AppName;
use crate::state_folder::StateFolder;
use crate::target::{self, All};

/// Restarts the apps, each when the one before it is done.
pub(super) async fn execute(args: &RestartArgs) -> Result<ExitCode, Failure> {
    let mut failures = Vec::new();
    for folder in target::folders("restart", &args.names, All::Running)? {
        let done = match args.hard {
            true => hard(&folder, args).await,
            // A reload by another name; who typed that one is not told of the other.
            false if !folder.is_running() => Err(super::not_running(&folder, "restart")),
            false => reload::roll(&folder, &Wish::default()).await,
        };
        failures.extend(done.err());
    }
    Failure::of_all(failures)
}

/// Stops an app and starts it as it was started. One that could not be started again is not stopped.
async fn hard(folder: &AppFolder, args: &RestartArgs) -> Result<(), Failure> {
    let (name, state) = (folder.name(), StateFolder::from_env()?);
    let (record, is_running) = (state.record(name)?, folder.is_running());
    // What is known of it may be of before: by now somebody runs another in the foreground.
    if is_running && (record.is_none() || !super::is_background(folder, "restart").await?) {
        return Err(Failure::from(anyhow!("restart {name} --hard: it was not started in the background")).next(
            "stop and start it where it runs; or have its workers replaced: allcores restart, without --hard",
        ));
    }
    let Some(mut record) = record else { return Err(super::not_running(folder, "restart")) };
    if is_running {
        background::check(&record, &state).await?;
        let parting = Parting::new(format!(
            "{name} was asked to stop, and is not started again: allcores start {name}"
        ));
        stop::stop(folder, false, args.timeout).await?;
        parting.spare();
        // By now it may have been deleted, or a reload has given it something.
        record = state.record(name)?.ok_or_else(|| deleted(name))?;
    }
    let Outcome { running, mut failed } = start_each(vec![(record, None)], &state, args.timeout).await?;
    failed.extend(running.iter().map(|folder| folder.in_use("restart", folder.holder())));
    Failure::of_all(failed).map(drop)
}

fn deleted(name: &AppName) -> Failure {
    let text = format!("restart {name} --hard: it was deleted meanwhile, and is not started again");
    Failure::new(ExitCode::NotRunning, anyhow!(text))
        .next("start it anew, from its file or with its command: allcores start")
}
