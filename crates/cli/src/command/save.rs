//! `allcores save` and `allcores resurrect`: the list of apps that are to run after the machine has been started again.

use std::time::Duration;

use anyhow::anyhow;
use tokio::time::timeout;

use super::{ANSWER_PATIENCE, explain, print, start, unresponsive};
use crate::args::{ResurrectArgs, SaveArgs};
use crate::client::Client;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::readable;
use crate::runtime_folder::{AppFolder, RuntimeFolder};
use crate::state_folder::{Record, SavedApp, SavedList, StateFolder};

/// Saves how the apps in the background were started.
pub(super) async fn save(args: &SaveArgs) -> Result<ExitCode, Failure> {
    let (state, runtime) = (StateFolder::from_env()?, RuntimeFolder::from_env()?);
    state.prepare()?;
    let mut apps = Vec::new();
    for folder in runtime.apps()?.into_iter().filter(AppFolder::is_running) {
        // What runs in the foreground is somebody else's to start again.
        if let Some(record) = state.record(folder.name())? {
            apps.push(SavedApp { workers: workers(&folder).await?, record });
        }
    }
    if apps.is_empty() && !args.force {
        return Err(Failure::from(anyhow!("save: no app runs in the background"))
            .next("start some: allcores start; or save the empty list: allcores save --force"));
    }
    let names: Vec<&str> = apps.iter().map(|app| app.record.name().as_str()).collect();
    let text = match names.as_slice() {
        [] => "nothing".to_owned(),
        names => format!("{}: {}", readable::count(names.len(), "app"), names.join(", ")),
    };
    let path = state.save(&SavedList::new(apps))?;
    print(format!("saved {text} ({})\n", path.display()).as_bytes())
}

/// How many workers an app has been scaled to.
async fn workers(folder: &AppFolder) -> Result<Option<u16>, Failure> {
    let client = Client::new(folder);
    let asked = async { Ok((client.status().await?, client.describe().await?)) };
    match timeout(ANSWER_PATIENCE, asked).await {
        Ok(Ok((status, description))) => {
            Ok(Some(status.target).filter(|count| *count != description.workers))
        }
        Ok(Err(error)) => Err(explain(folder, "save", error)),
        Err(_) => Err(unresponsive(folder, "save", ANSWER_PATIENCE)),
    }
}

/// Starts what was saved and does not run.
pub(super) async fn resurrect(args: &ResurrectArgs) -> Result<ExitCode, Failure> {
    let (state, runtime) = (StateFolder::from_env()?, RuntimeFolder::from_env()?);
    let Some(list) = state.saved()? else {
        return Err(Failure::from(anyhow!("resurrect: no list was saved")).next("save one: allcores save"));
    };
    let (mut starting, mut scaling): (Vec<Record>, Vec<_>) = (Vec::new(), Vec::new());
    for app in list.apps {
        let folder = runtime.find(app.record.name())?;
        if folder.is_running() {
            print(format!("{}: runs already\n", folder.name()).as_bytes())?;
        } else {
            scaling.extend(app.workers.map(|workers| (folder, workers)));
            starting.push(app.record);
        }
    }
    let mut failures = start::start_all(starting, &state, args.timeout).await?;
    for (folder, workers) in scaling.iter().filter(|(folder, _)| folder.is_running()) {
        failures.extend(scale(folder, *workers, args.timeout).await.err());
    }
    Failure::of_all(failures)
}

async fn scale(folder: &AppFolder, workers: u16, patience: Duration) -> Result<(), Failure> {
    match timeout(patience, Client::new(folder).scale(workers)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(explain(folder, "scale", error)),
        Err(_) => Err(unresponsive(folder, "scale", patience)),
    }
}
