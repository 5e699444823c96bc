//! How an app was started: enough to start it again as it was.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::settings::AppName;

/// What the files say of their own shape. One that is newer than this program is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
struct Version(u32);

impl Version {
    /// What reloads gave stands among the arguments, if anywhere.
    const FIRST: Self = Self(1);
    /// It stands by itself: who knows only the first would start the app without it.
    const GIVING: Self = Self(2);
}

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
    #[serde(default)]
    given: Given,
}

/// A number of workers that an app was scaled to. It holds for as long as where it stands what the app is to be says what it
/// said then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Scaled {
    /// What it said.
    from: u16,
    to: u16,
}

/// What reloads and scaling gave an app. It lies over what was typed, and the later over the earlier.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Given {
    pub(crate) command: Option<Vec<String>>,
    pub(crate) env: BTreeMap<String, String>,
    /// Of its config file.
    pub(crate) environment: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) scaled: Option<Scaled>,
}

impl Given {
    /// How many workers there are to be, where it is said that so many are.
    pub(crate) fn workers(&self, said: u16) -> u16 {
        self.scaled_from(said).unwrap_or(said)
    }

    /// The same, where that is another number.
    pub(crate) fn scaled_from(&self, said: u16) -> Option<u16> {
        self.scaled.filter(|scaled| scaled.from == said).map(|scaled| scaled.to)
    }

    /// Another number of workers than is said, or the same.
    pub(crate) fn scale(&mut self, said: u16, workers: u16) {
        self.scaled = (workers != said).then_some(Scaled { from: said, to: workers });
    }

    /// Lays what a later reload gave over it.
    pub(crate) fn join(&mut self, later: Self) {
        self.command = later.command.or(self.command.take());
        self.env.extend(later.env);
        self.environment = later.environment.or(self.environment.take());
        self.scaled = later.scaled.or(self.scaled.take());
    }
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
            version: Version::FIRST,
            name,
            arguments: arguments.into_iter().map(Word).collect(),
            folder: Word(folder.into()),
            log: Word(log.into()),
            environment: text,
            odd_environment: odd,
            given: Given::default(),
        }
    }

    /// The same with what reloads gave the app.
    pub(crate) fn giving(self, given: Given) -> Self {
        let version = if given == Given::default() { Version::FIRST } else { Version::GIVING };
        Self { version, given, ..self }
    }

    /// What reloads gave the app: it lies over the arguments.
    pub(crate) fn given(&self) -> &Given {
        &self.given
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
        Self { version: Version::FIRST, apps }
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

impl From<Version> for u32 {
    fn from(version: Version) -> Self {
        version.0
    }
}

impl TryFrom<u32> for Version {
    type Error = String;

    fn try_from(version: u32) -> Result<Self, String> {
        let Self(last) = Self::GIVING;
        if (1..=last).contains(&version) {
            return Ok(Self(version));
        }
        Err(format!("it has version {version}, and this allcores knows versions up to {last}"))
    }
}
