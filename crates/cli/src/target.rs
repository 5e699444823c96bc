//! Which apps a command is about: by their names, or all that run.

use std::collections::BTreeSet;
use std::str::FromStr;

use anyhow::anyhow;
use clap_complete::{ArgValueCompleter, CompletionCandidate};

use crate::config::nearest;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::runtime_folder::{AppFolder, Presence, RuntimeFolder};
use crate::settings::AppName;
use crate::state_folder::StateFolder;

/// The word for all.
pub(crate) const ALL: &str = "all";

/// One of the words with which apps are named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Every app that runs.
    All,
    /// The app of this name.
    App(AppName),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == ALL { Ok(Self::All) } else { text.parse().map(Self::App) }
    }
}

/// Which apps are all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum All {
    Running,
    /// Also those whose primary was killed and has left processes.
    RunningOrLeft,
}

/// Finds the apps that are meant, each once: the named ones in their order, whether they run or not, and for `all` all of
/// these. `tried` is what is to be done to them.
///
/// # Errors
///
/// The runtime folder can't be used; or all are meant, and none runs.
pub(crate) fn folders(tried: &str, targets: &[Target], all: All) -> Result<Vec<AppFolder>, Failure> {
    let runtime = RuntimeFolder::from_env()?;
    let mut found: Vec<AppFolder> = Vec::new();
    for target in targets {
        let meant = match target {
            Target::App(name) => vec![runtime.find(name)?],
            Target::All => {
                let is_meant = |folder: &AppFolder| match folder.look() {
                    Presence::Held { .. } => true,
                    Presence::Left(left) => all == All::RunningOrLeft && !left.is_empty(),
                    Presence::Free => false,
                };
                let running: Vec<_> = runtime.apps()?.into_iter().filter(is_meant).collect();
                if running.is_empty() {
                    return Err(Failure::new(
                        ExitCode::NotRunning,
                        anyhow!("{tried} all: no app is running"),
                    )
                    .next("start one: allcores start, or allcores run -- COMMAND"));
                }
                running
            }
        };
        for folder in meant {
            if !found.iter().any(|known| known.name() == folder.name()) {
                found.push(folder);
            }
        }
    }
    Ok(found)
}

/// Completes names of apps, in a shell.
pub(crate) fn completer() -> ArgValueCompleter {
    ArgValueCompleter::new(|begun: &std::ffi::OsStr| {
        let begun = begun.to_string_lossy().into_owned();
        let names = known().into_iter().chain([ALL.to_owned()]);
        names.filter(|name| name.starts_with(&begun)).map(CompletionCandidate::new).collect()
    })
}

/// The end of a sentence that says that there is no such app: which one may have been meant.
pub(crate) fn suggestion(name: &AppName) -> String {
    let known = known();
    let meant = nearest(name.as_str(), known.iter().map(String::as_str));
    meant.map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default()
}

/// The names of apps that run, and of those that were started before. A shell that completes has no use for errors.
fn known() -> BTreeSet<String> {
    let running = RuntimeFolder::from_env().and_then(|runtime| runtime.apps()).unwrap_or_default();
    let known = StateFolder::from_env().and_then(|state| state.names()).unwrap_or_default();
    running
        .iter()
        .map(|folder| folder.name().to_string())
        .chain(known.iter().map(AppName::to_string))
        .collect()
}
