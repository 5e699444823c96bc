//! How an app was started: enough to start it again as it was.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::settings::AppName;

/// What the files say of their own shape. One that is newer than this program is not read.
const VERSION: u32 = 1;

/// How an app was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    version: Version,
    name: AppName,
    /// What stands behind `allcores run`.
    arguments: Vec<Word>,
    folder: Word,
    log: Word,
    environment: BTreeMap<String, Word>,
    /// Those whose names are not text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    odd_environment: Vec<(Word, Word)>,
}

/// The apps that are to be started again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedList {
    version: Version,
    pub(crate) apps: Vec<SavedApp>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedApp {
    pub(crate) record: Record,
    /// How many workers it had, where that was another number than it was started with.
    pub(crate) workers: Option<u16>,
}

impl Record {
    /// What stands behind `allcores run`, the folder, the log, and the environment of all.
    pub(crate) fn new(
        name: AppName,
        arguments: Vec<OsString>,
        folder: PathBuf,
        log: PathBuf,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        let (mut text, mut odd) = (BTreeMap::new(), Vec::new());
        for (key, value) in environment {
            match key.into_string() {
                Ok(key) => drop(text.insert(key, Word(value))),
                Err(key) => odd.push((Word(key), Word(value))),
            }
        }
        Self {
            version: Version,
            name,
            arguments: arguments.into_iter().map(Word).collect(),
            folder: Word(folder.into()),
            log: Word(log.into()),
            environment: text,
            odd_environment: odd,
        }
    }

    /// The same with what a reload was given: the command instead, and each variable over what it was set to.
    pub(crate) fn with(mut self, command: Option<Vec<OsString>>, env: &[(OsString, OsString)]) -> Self {
        let options = self.arguments.iter().position(|word| word.0 == "--").unwrap_or(self.arguments.len());
        let mut behind = self.arguments.split_off(options);
        for (key, value) in env {
            let mut word = OsString::from("--env=");
            word.push(key);
            word.push("=");
            let set = word.clone();
            self.arguments.retain(|word| !word.0.as_bytes().starts_with(set.as_bytes()));
            word.push(value);
            self.arguments.push(Word(word));
        }
        if let Some(command) = command {
            behind = [OsString::from("--")].into_iter().chain(command).map(Word).collect();
        }
        self.arguments.append(&mut behind);
        self
    }

    /// The same app in another environment of its config file; `None` if it is from none.
    pub(crate) fn in_environment(&self, name: &str) -> Option<Self> {
        let is = |at: usize, word: &str| self.arguments.get(at).is_some_and(|known| known.0 == word);
        // Options of the app stand behind it, each in one word; a command has a `--` before it.
        let end = self.arguments.iter().position(|word| word.0 == "--").unwrap_or(self.arguments.len());
        let app = (0..end).find(|at| is(*at, "--app"))?;
        let mut same = self.clone();
        let old = if is(app + 2, "--env-name") { app + 2..app + 4 } else { app + 2..app + 2 };
        same.arguments.splice(old, ["--env-name", name].map(|word| Word(word.into())));
        Some(same)
    }

    pub(crate) fn name(&self) -> &AppName {
        &self.name
    }

    pub(crate) fn arguments(&self) -> impl Iterator<Item = &OsString> {
        self.arguments.iter().map(|word| &word.0)
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.0.clone().into()
    }

    /// Where its log is.
    pub(crate) fn log(&self) -> PathBuf {
        self.log.0.clone().into()
    }

    pub(crate) fn environment(&self) -> impl Iterator<Item = (OsString, OsString)> {
        let text = self.environment.iter().map(|(key, value)| (key.into(), value.0.clone()));
        text.chain(self.odd_environment.iter().map(|(key, value)| (key.0.clone(), value.0.clone())))
    }
}

impl SavedList {
    pub(crate) fn new(apps: Vec<SavedApp>) -> Self {
        Self { version: Version, apps }
    }
}

/// A word of whatever bytes: as text where it is some.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "WordShape", into = "WordShape")]
struct Word(OsString);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum WordShape {
    Text(String),
    Bytes(Vec<u8>),
}

impl From<Word> for WordShape {
    fn from(word: Word) -> Self {
        word.0.into_string().map_or_else(|word| Self::Bytes(word.as_bytes().to_vec()), Self::Text)
    }
}

impl From<WordShape> for Word {
    fn from(shape: WordShape) -> Self {
        Self(match shape {
            WordShape::Text(text) => text.into(),
            WordShape::Bytes(bytes) => OsString::from_vec(bytes),
        })
    }
}

/// [`VERSION`], on paper.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
struct Version;

impl From<Version> for u32 {
    fn from(_: Version) -> Self {
        VERSION
    }
}

impl TryFrom<u32> for Version {
    type Error = String;

    fn try_from(version: u32) -> Result<Self, String> {
        match version {
            VERSION => Ok(Self),
            _ => Err(format!("it has version {version}, and this allcores knows version {VERSION}")),
        }
    }
}
