//! The keys of a config file, read off the definition of the command line.
//!
//! A key is called as its option is, without the dashes. What kind of value it takes is told by the word that the help shows
//! for it (DURATION, COUNT, …), and whether a value is good by the option's own reader.

use std::error::Error as _;
use std::ffi::{OsStr, OsString};

use clap::{Arg, ArgAction, Args as _, FromArgMatches as _};

use super::layer::{Layer, Value};
use super::nearest::nearest;
use crate::args::AppOptions;

/// All options of an app.
#[derive(Clone, Debug)]
pub(crate) struct Catalogue {
    command: clap::Command,
}

/// One option.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key<'a> {
    arg: &'a Arg,
}

/// What kind of value an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Is on or off.
    Flag,
    /// May be given several times, and is counted.
    Tally,
    /// A whole number.
    Count,
    /// A number, or a word.
    Workers,
    /// Bytes: a number, or with a unit.
    Size,
    /// A name or a number.
    Account,
    /// With a unit.
    Duration,
    /// An address.
    Address,
    /// A word or a line.
    Text,
    /// One of a few words.
    Choice,
    /// One of a few words, or one that begins with `sticky:`.
    Policy,
    /// A path, in a file relative to the folder of the file.
    Path,
    /// Variables, by their names.
    Variables,
    /// Where variables are to be read, by their names; paths as above.
    Sources,
}

impl Catalogue {
    /// Reads them off.
    pub(crate) fn new() -> Self {
        let mut command = AppOptions::augment_args(clap::Command::new("app").no_binary_name(true));
        command.build();
        Self { command }
    }

    /// All keys, in the order of the help.
    pub(crate) fn keys(&self) -> impl Iterator<Item = Key<'_>> {
        self.command.get_arguments().filter(|arg| arg.get_id() != "help").map(|arg| Key { arg })
    }

    /// The key of this name.
    pub(crate) fn find(&self, name: &str) -> Option<Key<'_>> {
        self.keys().find(|key| key.name() == name)
    }

    /// Whether two options can't be given together.
    pub(super) fn exclude_each_other(&self, one: &str, other: &str) -> bool {
        let (Some(one), Some(other)) = (self.find(one), self.find(other)) else { return false };
        let refuses =
            |arg: &Arg, id| self.command.get_arg_conflicts_with(arg).iter().any(|arg| arg.get_id() == id);
        let is_in_one_group = self.command.get_groups().any(|group| {
            let has = |key: Key<'_>| group.get_args().any(|id| id == key.arg.get_id());
            !group.clone().is_multiple() && has(one) && has(other)
        });
        one.name() != other.name()
            && (is_in_one_group
                || refuses(one.arg, other.arg.get_id())
                || refuses(other.arg, one.arg.get_id()))
    }

    /// Says what is wrong with a value of an option, if anything is.
    pub(super) fn check(&self, key: Key<'_>, value: &Value) -> Result<(), String> {
        let words = key.as_typed(value);
        match self.command.clone().try_get_matches_from(words) {
            Ok(_) => Ok(()),
            Err(error) => Err(explain(&error)),
        }
    }

    /// Reads options that were put together; each by itself is good.
    pub(super) fn read(&self, layer: &Layer) -> Result<AppOptions, clap::Error> {
        let words = layer.settings().filter_map(|(name, value)| Some(self.find(name)?.as_typed(value)));
        let matches = self.command.clone().try_get_matches_from(words.flatten())?;
        AppOptions::from_arg_matches(&matches)
    }
}

impl<'a> Key<'a> {
    /// As the file has it: the long name of the option.
    pub(crate) fn name(self) -> &'a str {
        self.arg.get_long().unwrap_or_else(|| self.arg.get_id().as_str())
    }

    /// What identifies it on the command line.
    pub(super) fn id(self) -> &'a str {
        self.arg.get_id().as_str()
    }

    /// Whether there may be several values.
    pub(crate) fn is_list(self) -> bool {
        matches!(self.arg.get_action(), ArgAction::Append)
    }

    /// All that the help says about it.
    pub(crate) fn help(self) -> String {
        let help = self.arg.get_long_help().or_else(|| self.arg.get_help());
        help.map(ToString::to_string).unwrap_or_default()
    }

    /// What it is without being given.
    pub(crate) fn default(self) -> Option<&'a OsStr> {
        let takes_value = !matches!(self.arg.get_action(), ArgAction::SetTrue | ArgAction::Count);
        self.arg.get_default_values().first().filter(|_| takes_value).map(AsRef::as_ref)
    }

    /// The words that it takes, where they are few.
    pub(crate) fn choices(self) -> Vec<String> {
        self.arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect()
    }

    /// What the help calls its value.
    pub(crate) fn value_name(self) -> &'a str {
        self.arg.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str())
    }

    /// What kind of value it takes; `None` for one whose word is not known here, which a test finds.
    pub(crate) fn kind(self) -> Option<Kind> {
        match self.arg.get_action() {
            ArgAction::SetTrue => return Some(Kind::Flag),
            ArgAction::Count => return Some(Kind::Tally),
            _ => {}
        }
        Some(match self.value_name() {
            "N" => Kind::Workers,
            "COUNT" => Kind::Count,
            "SIZE" => Kind::Size,
            "DURATION" => Kind::Duration,
            "ADDRESS" => Kind::Address,
            "USER" | "GROUP" => Kind::Account,
            "COMMAND" | "PATH" | "SIGNAL" | "LIMIT=VALUE" | "GLOB" | "CRON" => Kind::Text,
            "FOLDER" | "FILE" => Kind::Path,
            "KEY=VALUE" => Kind::Variables,
            "KEY=SOURCE" => Kind::Sources,
            "POLICY" => Kind::Policy,
            _ if !self.choices().is_empty() => Kind::Choice,
            _ => return None,
        })
    }

    /// A value as one would type it on the command line.
    pub(super) fn as_typed(self, value: &Value) -> Vec<OsString> {
        let option = format!("--{}", self.name());
        let with = |value: &OsString| {
            let mut word = OsString::from(&option);
            word.push("=");
            word.push(value);
            word
        };
        match value {
            Value::Off => Vec::new(),
            Value::Times(count) => vec![OsString::from(&option); usize::from(*count)],
            Value::Words(words) => words.iter().map(with).collect(),
        }
    }
}

/// What clap finds wrong with a single value, in our words.
fn explain(error: &clap::Error) -> String {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    if let Some(source) = error.source() {
        return source.to_string();
    }
    let given = match error.get(ContextKind::InvalidValue) {
        Some(ContextValue::String(value)) => value.as_str(),
        _ => "",
    };
    match (error.kind(), error.get(ContextKind::ValidValue)) {
        (ErrorKind::InvalidValue, Some(ContextValue::Strings(known))) => {
            let all = known.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
            match nearest(given, known.iter().map(String::as_str)) {
                Some(meant) => format!("one of {all}; did you mean `{meant}`?"),
                None => format!("one of {all}"),
            }
        }
        _ => error.kind().to_string(),
    }
}
