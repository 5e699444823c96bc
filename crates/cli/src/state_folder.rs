//! The state folder: what is kept of apps that were started in the background, also while they don't run. How each was
//! started, the saved list, and their logs.
//!
//! How an app was started includes its environment, so the folder is for its owner alone. What is kept is read by
//! whoever wants to, and changed by one at a time.

mod change;
mod record;

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub(crate) use record::{Given, Record, SavedApp, SavedList, Scaled};

use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::log;
use crate::settings::AppName;

/// The environment variable that names the state folder.
pub(crate) const VARIABLE: &str = "ALLCORES_STATE_DIR";

/// The folder of one user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Paths", into = "Paths")]
pub(crate) struct StateFolder {
    path: PathBuf,
    logs: PathBuf,
}

/// [`StateFolder`] as data, which paths are only where they are text.
#[derive(Serialize, Deserialize)]
struct Paths {
    path: OsString,
    logs: OsString,
}

impl From<StateFolder> for Paths {
    fn from(folder: StateFolder) -> Self {
        Self { path: folder.path.into(), logs: folder.logs.into() }
    }
}

impl From<Paths> for StateFolder {
    fn from(paths: Paths) -> Self {
        Self { path: paths.path.into(), logs: paths.logs.into() }
    }
}

impl StateFolder {
    /// Finds the folder that this process is to use, whether it exists or not.
    ///
    /// # Errors
    ///
    /// There is no home to put it in; or as of [`StateFolder::find`].
    pub(crate) fn from_env() -> Result<Self, Failure> {
        let none =
            || anyhow!("find the state folder: HOME is not set, and /etc/passwd has no home for this user");
        Self::find()?.ok_or_else(|| unusable(none()))
    }

    /// The same, for who can do without: `None` if there is no home to put it in, so that nothing was ever kept.
    ///
    /// # Errors
    ///
    /// It is there, and somebody else could have put things in it: what stands in it says which programs are run, and which
    /// logs are deleted.
    pub(crate) fn find() -> Result<Option<Self>, Failure> {
        let uid = rustix::process::geteuid().as_raw();
        // Where HOME is not set, as under systemd and cron it may be, the user's entry in /etc/passwd is looked at.
        let Some(folder) = Self::choose(|name| std::env::var_os(name), std::env::home_dir, uid) else {
            return Ok(None);
        };
        let absolute = |path: &Path| {
            std::path::absolute(path)
                .with_context(|| format!("make {} absolute", path.display()))
                .map_err(unusable)
        };
        let folder = Self { path: absolute(&folder.path)?, logs: absolute(&folder.logs)? };
        if folder.is_there() {
            folder.check()?;
        }
        Ok(Some(folder))
    }

    fn choose(
        variable: impl Fn(&str) -> Option<OsString>,
        home: impl FnOnce() -> Option<PathBuf>,
        uid: u32,
    ) -> Option<Self> {
        let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let of = |path: PathBuf| Self { logs: path.join("logs"), path };
        if let Some(path) = set(VARIABLE) {
            return Some(of(path));
        }
        if uid == 0 {
            return Some(Self { path: "/var/lib/allcores".into(), logs: "/var/log/allcores".into() });
        }
        let state = set("XDG_STATE_HOME").filter(|path| path.is_absolute());
        let home =
            || home().filter(|home| !home.as_os_str().is_empty()).map(|home| home.join(".local/state"));
        state.or_else(home).map(|path| of(path.join("allcores")))
    }

    /// Where it is or would be.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where an app's log is unless it was said otherwise.
    pub(crate) fn log(&self, name: &AppName) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }

    /// The log at an app's usual place, whether the app is known or not; `None` if there is none.
    pub(crate) fn log_left(&self, name: &AppName) -> Option<PathBuf> {
        let log = self.log(name);
        (log.exists() || !log::asides(&log).is_empty()).then_some(log)
    }

    /// The apps that have a log at their usual place, by name, whether they are known or not.
    pub(crate) fn logs_left(&self) -> Result<Vec<AppName>, Failure> {
        let mut names = names(&self.logs, |file| log::log_of(file).strip_suffix(".log"))?;
        names.dedup();
        // What is no regular file is nobody's log any more once nobody writes to it.
        names.retain(|name| self.log_left(name).is_some_and(|log| !log::is_odd(&log)));
        Ok(names)
    }

    /// Whether anything was ever kept.
    pub(crate) fn is_there(&self) -> bool {
        self.path.exists()
    }

    /// Makes the folders where they are missing, and refuses one that others may write to.
    pub(crate) fn prepare(&self) -> Result<(), Failure> {
        for folder in [&self.path, &self.logs, &self.records()] {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.with_context(|| format!("make the state folder {}", folder.display())).map_err(unusable)?;
        }
        self.check()
    }

    fn check(&self) -> Result<(), Failure> {
        let metadata = fs::metadata(&self.path)
            .with_context(|| format!("look at the state folder {}", self.path.display()))
            .map_err(unusable)?;
        let (owner, own) = (metadata.uid(), rustix::process::geteuid().as_raw());
        let check = || {
            ensure!(owner == own, "it belongs to user {owner} and this is user {own}");
            let mode = metadata.mode() & 0o777;
            ensure!(mode & 0o022 == 0, "others may write to it (mode {mode:03o}, not 700)");
            Ok(())
        };
        check().with_context(|| format!("use the state folder {}", self.path.display())).map_err(unusable)
    }

    /// The apps that were started in the background and not deleted, by name.
    pub(crate) fn names(&self) -> Result<Vec<AppName>, Failure> {
        names(&self.records(), |file| file.strip_suffix(".json"))
    }

    /// How an app was started; `None` if that is not known.
    pub(crate) fn record(&self, name: &AppName) -> Result<Option<Record>, Failure> {
        read(&self.record_file(name))
    }

    /// The list that was saved.
    pub(crate) fn saved(&self) -> Result<Option<SavedList>, Failure> {
        read(&self.saved_file())
    }

    fn records(&self) -> PathBuf {
        self.path.join("apps")
    }

    fn record_file(&self, name: &AppName) -> PathBuf {
        self.records().join(format!("{name}.json"))
    }

    fn saved_file(&self) -> PathBuf {
        self.path.join("saved.json")
    }
}

/// The names that the files of a folder have, in their order.
fn names(folder: &Path, name: impl Fn(&str) -> Option<&str>) -> Result<Vec<AppName>, Failure> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("read {}", folder.display())).map_err(unusable)?,
    };
    let name = |entry: fs::DirEntry| name(entry.file_name().to_str()?)?.parse().ok();
    let mut names: Vec<AppName> = entries.filter_map(|entry| name(entry.ok()?)).collect();
    names.sort();
    Ok(names)
}

fn unusable(error: anyhow::Error) -> Failure {
    Failure::new(ExitCode::StateFolder, error).of_folder(VARIABLE)
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Failure> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.with_context(|| format!("read {}", path.display())).map_err(unusable)?,
    };
    let value = serde_json::from_slice(&text).with_context(|| format!("understand {}", path.display()));
    value.map(Some).map_err(|error| unusable(error).next("remove the file, and start the app anew"))
}

#[cfg(test)]
mod tests;
