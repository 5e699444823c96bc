//! What one part of a config file, or the command line, says about an app; and how one such part lies over another.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::ops::Range;

use clap::ArgMatches;
use clap::parser::ValueSource;

use super::catalogue::{Catalogue, Kind};
use crate::args::AppOptions;

/// Options that were set, by their names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layer {
    settings: BTreeMap<String, Setting>,
    /// What is to be run.
    pub(super) command: Option<Vec<OsString>>,
    /// Where in the file that stands.
    pub(super) command_at: Option<Range<usize>>,
}

/// What is set, without the value of any variable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) options: BTreeMap<String, Vec<String>>,
    pub(crate) variables: Vec<String>,
    pub(crate) secrets: Vec<String>,
}

/// One option that was set.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// What an option was set to, as it would be typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// What it is without being set, whatever lies below.
    Off,
    /// A flag, given so often.
    Times(u8),
    /// Values, in their order.
    Words(Vec<OsString>),
}

/// Where an option was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// On the command line.
    Typed,
    /// By a variable of the environment.
    Environment,
    /// In the file, from and to these bytes.
    File(Range<usize>),
    /// Nowhere; it follows from where the file is.
    Implied,
}

impl Layer {
    /// What it comes to.
    ///
    /// # Errors
    ///
    /// If options contradict each other.
    pub(crate) fn options(&self) -> Result<AppOptions, clap::Error> {
        Catalogue::new().read(self)
    }

    /// What was typed, of all that there is.
    pub(super) fn typed(catalogue: &Catalogue, matches: &ArgMatches) -> Self {
        let mut layer = Self::default();
        for key in catalogue.keys() {
            let origin = match matches.value_source(key.id()) {
                Some(ValueSource::CommandLine) => Origin::Typed,
                Some(ValueSource::EnvVariable) => Origin::Environment,
                _ => continue,
            };
            let value = match key.kind() {
                Some(Kind::Flag) => Value::Times(1),
                Some(Kind::Tally) => Value::Times(matches.get_count(key.id())),
                _ => {
                    let words = matches.get_raw(key.id()).into_iter().flatten();
                    Value::Words(words.map(ToOwned::to_owned).collect())
                }
            };
            layer.set(key.name(), Setting { value, origin });
        }
        layer
    }

    /// Sets an option.
    pub(super) fn set(&mut self, name: &str, setting: Setting) {
        self.settings.insert(name.to_owned(), setting);
    }

    /// Whether an option is set to something.
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// What is set, by name.
    pub(super) fn settings(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.settings.iter().map(|(name, setting)| (name.as_str(), &setting.value))
    }

    /// The same with where it was set.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &Setting)> {
        self.settings.iter().map(|(name, setting)| (name.as_str(), setting))
    }

    /// Where in the file those were set that are something.
    pub(super) fn places(&self) -> impl Iterator<Item = (&str, Range<usize>)> {
        let set = self.settings.iter().filter(|(_, setting)| setting.value != Value::Off);
        set.filter_map(|(name, setting)| match &setting.origin {
            Origin::File(at) => Some((name.as_str(), at.clone())),
            Origin::Typed | Origin::Environment | Origin::Implied => None,
        })
    }

    /// What is set, for people to see.
    pub(crate) fn shown(&self) -> Shown {
        let catalogue = Catalogue::new();
        let mut shown = Shown::default();
        let set = self.settings.iter().filter(|(_, setting)| setting.origin != Origin::Implied);
        for (name, Setting { value, .. }) in set {
            let words: Vec<String> = match value {
                Value::Off => continue,
                Value::Times(count) => vec![count.to_string()],
                Value::Words(words) => words.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
            };
            let names = |words: Vec<String>| {
                words
                    .into_iter()
                    .filter_map(|word| Some(word.split_once('=')?.0.to_owned()))
                    .collect::<Vec<_>>()
            };
            match catalogue.find(name).and_then(super::catalogue::Key::kind) {
                Some(Kind::Variables) => shown.variables = names(words),
                Some(Kind::Sources) => shown.secrets = names(words),
                Some(Kind::Flag) => drop(shown.options.insert(name.clone(), vec!["yes".to_owned()])),
                _ => drop(shown.options.insert(name.clone(), words)),
            }
        }
        shown
    }

    /// What holds where another was read since, of which only these options are taken up.
    pub(crate) fn taking_up(&self, later: &Self, names: &[&str]) -> Self {
        let is_taken_up = |name: &String| names.contains(&name.as_str());
        let kept = self.settings.iter().filter(|(name, _)| !is_taken_up(name));
        let taken = later.settings.iter().filter(|(name, _)| is_taken_up(name));
        let settings = kept.chain(taken).map(|(name, setting)| (name.clone(), setting.clone()));
        Self {
            settings: settings.collect(),
            command: later.command.clone(),
            command_at: later.command_at.clone(),
        }
    }

    /// Which options are not set to the same in another.
    pub(crate) fn differing<'a>(&'a self, other: &'a Self) -> Vec<&'a str> {
        let names: BTreeSet<&str> =
            self.settings.keys().chain(other.settings.keys()).map(String::as_str).collect();
        let is_other = |name: &&str| self.value(name) != other.value(name);
        names.into_iter().filter(is_other).collect()
    }

    fn value(&self, name: &str) -> Option<&Value> {
        self.settings.get(name).map(|setting| &setting.value).filter(|value| **value != Value::Off)
    }

    /// Lays another over this one. Variables are added to those below; everything else is replaced, and so is what can't be
    /// given together with it.
    pub(super) fn cover(&mut self, upper: &Self, catalogue: &Catalogue) {
        for (name, setting) in &upper.settings {
            if setting.value != Value::Off {
                self.settings.retain(|other, _| !catalogue.exclude_each_other(name, other));
            }
            let is_added = catalogue
                .find(name)
                .is_some_and(|key| matches!(key.kind(), Some(Kind::Variables | Kind::Sources)));
            let mut setting = setting.clone();
            if let (Value::Words(words), true) = (&mut setting.value, is_added)
                && let Some(Setting { value: Value::Words(below), .. }) = self.settings.get(name)
            {
                words.splice(0..0, below.iter().cloned());
            }
            self.settings.insert(name.clone(), setting);
        }
        if let Some(command) = &upper.command {
            self.command = Some(command.clone());
            self.command_at.clone_from(&upper.command_at);
        }
    }
}
