//! `allcores save` and `allcores resurrect`: the list of apps that are to run after the machine has been started again.

use anyhow::anyhow;

use super::start::{Outcome, start_each};
use super::{ANSWER_PATIENCE, ask, say};
use crate::args::{ResurrectArgs, SaveArgs};
use crate::client::Client;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::readable;
use crate::runtime_folder::{AppFolder, RuntimeFolder};
use crate::state_folder::{SavedApp, SavedList, StateFolder};

/// Saves how the apps in the background were started.
pub(super) async fn save(args: &SaveArgs) -> Result<ExitCode, Failure> {
    let (state, runtime) = (StateFolder::from_env()?, RuntimeFolder::from_env()?);
    let mut running = Vec::new();
    for folder in runtime.apps()?.into_iter().filter(AppFolder::is_running) {
        // What runs in the foreground is somebody else's to start again, also where it was in the background before.
        if state.record(folder.name())?.is_some() && super::is_background(&folder, "save").await? {
            let workers = workers(&folder).await?;
            running.push((folder, workers));
        }
    }
    let (text, path) = state.change(|change| {
        let mut apps = Vec::new();
        for (folder, workers) in running {
            // By now, it may be another: apps were asked, and what was deleted meanwhile is not to come back.
            apps.extend(state.record(folder.name())?.map(|record| SavedApp { record, workers }));
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
        Ok((text, change.save(&SavedList::new(apps))?))
    })?;
    say(&format!("saved {text} ({})\n", path.display()))
}

/// How many workers an app has been scaled to.
async fn workers(folder: &AppFolder) -> Result<Option<u16>, Failure> {
    let client = Client::new(folder);
    let asked = async { Ok((client.status().await?, client.describe().await?)) };
    let (status, description) = ask(folder, "save", ANSWER_PATIENCE, asked).await?;
    Ok(Some(status.target).filter(|count| *count != description.workers))
}

/// Starts what was saved and does not run.
pub(super) async fn resurrect(args: &ResurrectArgs) -> Result<ExitCode, Failure> {
    let state = StateFolder::from_env()?;
    let Some(list) = state.saved()? else {
        return Err(Failure::from(anyhow!("resurrect: no list was saved")).next("save one: allcores save"));
    };
    let apps = list.apps.into_iter().map(|app| (app.record, app.workers)).collect();
    let Outcome { running, failed } = start_each(apps, &state, args.timeout).await?;
    for folder in running {
        say(&format!("{}: runs already\n", folder.name()))?;
    }
    Failure::of_all(failed)
}
