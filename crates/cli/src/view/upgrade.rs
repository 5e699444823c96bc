//! An upgrade as it goes over the control socket: what is asked for, and a line for each piece of news.

use std::path::PathBuf;

use allcores::primary::{Upgrade, UpgradeNews};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::args::seconds;

/// The body of `POST /v1/upgrade`; an empty one executes what is now in the file that the primary was started from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct UpgradeView {
    pub(crate) executable: Option<PathBuf>,
    pub(crate) check_seconds: Option<f64>,
}

impl TryFrom<UpgradeView> for Upgrade {
    type Error = String;

    fn try_from(view: UpgradeView) -> Result<Self, String> {
        let mut wish = Self::default();
        if let Some(path) = view.executable {
            if !path.is_absolute() {
                return Err(format!("{}: the whole path is needed, from / on", path.display()));
            }
            wish.executable = Some(path);
        }
        if let Some(number) = view.check_seconds {
            wish.check_patience = seconds(number)?;
        }
        Ok(wish)
    }
}

/// A line of the answer to `POST /v1/upgrade`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum UpgradeNewsView {
    Waiting { reason: String },
    Checking { executable: PathBuf },
    Checked { version: String },
    Refused { reason: String },
}

impl From<UpgradeNews> for UpgradeNewsView {
    fn from(news: UpgradeNews) -> Self {
        match news {
            UpgradeNews::Waiting { reason } => Self::Waiting { reason },
            UpgradeNews::Checking { executable } => Self::Checking { executable },
            UpgradeNews::Checked { version } => Self::Checked { version },
            UpgradeNews::Refused { reason } => Self::Refused { reason },
        }
    }
}
