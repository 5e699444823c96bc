//! How an app was made, and orders to its workers, as they go over the control socket.

use std::collections::BTreeMap;

use allcores::primary::WorkerRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::WorkerRefView;

/// The answer to `GET /v1/describe`. Never has a value of a variable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct DescriptionView {
    pub(crate) name: String,
    pub(crate) pid: u32,
    pub(crate) version: String,
    pub(crate) command: Vec<String>,
    /// The same as one would type it into a shell.
    pub(crate) command_line: String,
    pub(crate) folder: String,
    /// How many workers it was begun with, or a file has asked for since.
    pub(crate) workers: u16,
    /// How many it was scaled to, where that is another number.
    #[serde(default)]
    pub(crate) scaled: Option<u16>,
    pub(crate) config: Option<ConfigView>,
    /// Whether `allcores start` started it.
    pub(crate) background: bool,
    pub(crate) socket: String,
    pub(crate) log: Option<String>,
    /// What was set and is in force, by the names of options.
    pub(crate) options: BTreeMap<String, Vec<String>>,
    /// The options that a reload found changed, and that are fixed until the app is restarted.
    #[serde(default)]
    pub(crate) waiting: Vec<String>,
    /// Names.
    pub(crate) variables: Vec<String>,
    /// Names.
    pub(crate) secrets: Vec<String>,
}

/// The config file of an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ConfigView {
    pub(crate) path: String,
    pub(crate) app: String,
    pub(crate) environment: Option<String>,
}

/// The body of `POST /v1/signal`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignalView {
    pub(crate) signal: String,
    #[serde(default)]
    pub(crate) slot: Option<u16>,
}

/// The body of `POST /v1/send`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MessageView {
    #[schemars(with = "serde_json::Value")]
    pub(crate) message: Box<RawValue>,
    #[serde(default)]
    pub(crate) slot: Option<u16>,
}

/// The answer to both: whom it reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ReachedView {
    pub(crate) workers: Vec<WorkerRefView>,
}

impl From<Vec<WorkerRef>> for ReachedView {
    fn from(workers: Vec<WorkerRef>) -> Self {
        Self { workers: workers.iter().map(WorkerRefView::from).collect() }
    }
}
