//! What was found out when a generation began, as data: what follows from its settings alone is not in it.

use std::ffi::OsString;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Launcher, inspect};
use crate::carry::BytesSaved;
use crate::primary::Settings;

/// What was found out when a generation began, as data.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::primary) struct LauncherSaved {
    folder: FolderSaved,
    #[serde(default)]
    any_inspect_port: Option<u16>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FolderSaved {
    /// The primary's own.
    Own,
    Real(BytesSaved),
    /// There was none; in words.
    Missing(String),
}

impl Launcher {
    pub(in crate::primary) fn save(&self) -> LauncherSaved {
        LauncherSaved {
            folder: match &self.cwd {
                Ok(None) => FolderSaved::Own,
                Ok(Some(folder)) => FolderSaved::Real(folder.as_os_str().into()),
                Err(reason) => FolderSaved::Missing(reason.clone()),
            },
            any_inspect_port: self.inspect.any(),
        }
    }

    /// Starts workers as the one before did, wherever links lead by now.
    pub(in crate::primary) fn restore(
        settings: &Settings,
        open_files: Option<(u64, u64)>,
        saved: LauncherSaved,
    ) -> Self {
        Self {
            cwd: match saved.folder {
                FolderSaved::Own => Ok(None),
                FolderSaved::Real(folder) => Ok(Some(PathBuf::from(OsString::from(folder)))),
                FolderSaved::Missing(reason) => Err(reason),
            },
            inspect: inspect::Ports::with_any(settings.inspect_port, saved.any_inspect_port),
            ..Self::new(settings, open_files)
        }
    }
}
