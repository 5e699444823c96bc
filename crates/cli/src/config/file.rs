//! A config file as it is read: its parts as layers, and every mistake in it.
//!
//! Knows how TOML is written, and nothing of what the options mean.

use std::ffi::OsString;
use std::fs;
use std::io::Read as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::catalogue::{Catalogue, Key, Kind};
use super::complaint::{self, Mistake};
use super::layer::{Layer, Origin, Setting};
use super::nearest::suggestion;
use super::resolve::folder_of;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::settings::AppName;

mod values;

/// A longer file is no config file.
const MAX_SIZE: u64 = 4 << 20;

/// The keys at the top.
pub(super) const TOP: [&str; 2] = ["defaults", "apps"];

/// What each table of options may have besides options.
pub(super) const COMMAND: &str = "command";
/// The table of a table's environments.
pub(super) const ENVIRONMENTS: &str = "environments";

/// A config file without mistakes.
#[derive(Debug)]
pub(crate) struct File {
    /// As it was named.
    pub(super) path: PathBuf,
    pub(super) folder: PathBuf,
    pub(super) text: String,
    pub(super) defaults: Section,
    pub(super) apps: Vec<(AppName, Section)>,
    pub(super) catalogue: Catalogue,
}

/// The options of one table, and what they are in each environment.
#[derive(Debug, Default)]
pub(super) struct Section {
    pub(super) own: Layer,
    pub(super) environments: Vec<(String, Layer)>,
}

impl File {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// It can't be read, or has mistakes: all of them are told.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let text = read(path)?;
        let folder = folder_of(path)?;
        Self::parse(path, folder, text)
    }

    /// Reads the text of a file.
    pub(crate) fn parse(path: &Path, folder: PathBuf, text: String) -> Result<Self, Failure> {
        let catalogue = Catalogue::new();
        let (document, errors) = DeTable::parse_recoverable(&text);
        let mut reader = Reader { catalogue: &catalogue, folder: &folder, mistakes: Vec::new() };
        let syntax = errors
            .iter()
            .map(|error| Mistake { at: error.span().unwrap_or_default(), text: error.message().to_owned() });
        reader.mistakes.extend(syntax);
        // What follows a mistake of syntax may be taken for something that it is not.
        let (defaults, apps) = if reader.mistakes.is_empty() {
            reader.document(document.get_ref())
        } else {
            (Section::default(), Vec::new())
        };
        let mistakes = reader.mistakes;
        if mistakes.is_empty() {
            Ok(Self { path: path.to_owned(), folder, defaults, apps, text, catalogue })
        } else {
            Err(complaint::failure(path, &text, mistakes))
        }
    }

    /// The apps, in the order of the file.
    pub(crate) fn apps(&self) -> impl Iterator<Item = &AppName> + Clone {
        self.apps.iter().map(|(name, _)| name)
    }

    /// The names of all environments, each once.
    pub(crate) fn environments(&self) -> Vec<&str> {
        let sections = std::iter::once(&self.defaults).chain(self.apps.iter().map(|(_, section)| section));
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in sections.flat_map(|section| &section.environments) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        names
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    let failed = |error: anyhow::Error| {
        Failure::new(ExitCode::Config, error)
            .next("name a file that can be read, or write one: docs/reference/config.md")
    };
    let context = || format!("read the config file {}", path.display());
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(MAX_SIZE + 1).read_to_end(&mut bytes))
        .with_context(context)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(failed(anyhow!("it has more than {MAX_SIZE} bytes").context(context())));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = String::from_utf8_lossy(&error.as_bytes()[..good]).matches('\n').count() + 1;
        Failure::new(ExitCode::Config, anyhow!("line {line} is not UTF-8").context(context()))
            .next("save it as UTF-8: TOML has no other encoding")
    })
}

struct Reader<'a> {
    catalogue: &'a Catalogue,
    folder: &'a Path,
    mistakes: Vec<Mistake>,
}

/// What is around a table of options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Defaults,
    App,
    /// Of defaults or of an app.
    Environment {
        of_app: bool,
    },
}

impl Reader<'_> {
    fn mistake(&mut self, at: Range<usize>, text: impl Into<String>) {
        self.mistakes.push(Mistake { at, text: text.into() });
    }

    fn document(&mut self, document: &DeTable<'_>) -> (Section, Vec<(AppName, Section)>) {
        let (mut defaults, mut apps) = (Section::default(), Vec::new());
        for (key, value) in document {
            match key.get_ref().as_ref() {
                "defaults" => {
                    if let Some(table) = self.table(key, value) {
                        defaults = self.section(table, Place::Defaults);
                    }
                }
                "apps" => {
                    if let Some(table) = self.table(key, value) {
                        apps = self.apps(table);
                    }
                }
                name => {
                    let text = match self.catalogue.find(name) {
                        Some(_) => {
                            format!("`{name}` belongs below [defaults] or below an app: [apps.NAME]")
                        }
                        None => format!("unknown key `{name}`{}", suggestion(name, TOP)),
                    };
                    self.mistake(key.span(), text);
                }
            }
        }
        if apps.is_empty() && self.mistakes.is_empty() {
            self.mistake(
                0..0,
                "there is no app in this file: each has a table [apps.NAME] with its `command`",
            );
        }
        (defaults, apps)
    }

    fn apps(&mut self, table: &DeTable<'_>) -> Vec<(AppName, Section)> {
        let mut apps = Vec::new();
        for (key, value) in table {
            let name = key.get_ref().parse::<AppName>();
            if let Err(reason) = &name {
                self.mistake(key.span(), reason);
            }
            let Some(table) = self.table(key, value) else { continue };
            let section = self.section(table, Place::App);
            if section.own.command.is_none() && !table.keys().any(|key| key.get_ref() == COMMAND) {
                self.mistake(key.span(), format!("the app has no `{COMMAND}`"));
            }
            apps.extend(name.ok().map(|name| (name, section)));
        }
        apps
    }

    /// A value that has to be a table.
    fn table<'t, 'i>(
        &mut self,
        key: &Spanned<impl AsRef<str>>,
        value: &'t Spanned<DeValue<'i>>,
    ) -> Option<&'t DeTable<'i>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            let name = key.get_ref().as_ref();
            let text = format!("`{name}` is a table, and this is {}", values::called(value.get_ref()));
            self.mistake(value.span(), text);
        }
        table
    }

    fn section(&mut self, table: &DeTable<'_>, place: Place) -> Section {
        let mut section = Section::default();
        for (key, value) in table {
            match key.get_ref().as_ref() {
                ENVIRONMENTS if !matches!(place, Place::Environment { .. }) => {
                    let Some(table) = self.table(key, value) else { continue };
                    for (name, value) in table {
                        let Some(table) = self.table(name, value) else { continue };
                        let of_app = place == Place::App;
                        let inner = self.section(table, Place::Environment { of_app });
                        section.environments.push((name.get_ref().to_string(), inner.own));
                    }
                }
                COMMAND if matches!(place, Place::App | Place::Environment { of_app: true }) => {
                    match values::command(value.get_ref()) {
                        Ok(command) => {
                            section.own.command = Some(command);
                            section.own.command_at = Some(key.span());
                        }
                        Err(reason) => self.mistake(value.span(), reason),
                    }
                }
                name => match self.catalogue.find(name) {
                    Some(option) => self.setting(&mut section.own, option, key.span(), value),
                    None => self.unknown(key.span(), name, place),
                },
            }
        }
        self.refuse_contradictions(&section.own);
        section
    }

    fn refuse_contradictions(&mut self, layer: &Layer) {
        let set: Vec<_> = layer.places().collect();
        for (at, (name, place)) in set.iter().enumerate() {
            let other = set[..at].iter().find(|(other, _)| self.catalogue.exclude_each_other(name, other));
            if let Some((other, _)) = other {
                self.mistake(place.clone(), format!("`{name}` can't be given together with `{other}`"));
            }
        }
    }

    fn setting(&mut self, layer: &mut Layer, key: Key<'_>, at: Range<usize>, value: &Spanned<DeValue<'_>>) {
        let read = values::read(key, value, self.folder);
        let good = read.and_then(|value_read| match self.catalogue.check(key, &value_read) {
            Ok(()) => Ok(value_read),
            Err(reason) => Err(vec![(value.span(), format!("`{}`: {reason}", key.name()))]),
        });
        match good {
            Ok(value) => layer.set(key.name(), Setting { value, origin: Origin::File(at) }),
            Err(wrong) => wrong.into_iter().for_each(|(at, text)| self.mistake(at, text)),
        }
    }

    fn unknown(&mut self, at: Range<usize>, name: &str, place: Place) {
        let also = match place {
            Place::Defaults => &[ENVIRONMENTS][..],
            Place::App => &[COMMAND, ENVIRONMENTS],
            Place::Environment { of_app: true } => &[COMMAND],
            Place::Environment { of_app: false } => &[],
        };
        let text = match name {
            "name" => "an app is called as its table is: [apps.NAME]".to_owned(),
            COMMAND => "`command` belongs to an app: [apps.NAME]".to_owned(),
            ENVIRONMENTS => "an environment has none of its own".to_owned(),
            _ => {
                let known = self.catalogue.keys().map(Key::name).chain(also.iter().copied());
                match super::nearest::nearest(name, known) {
                    Some(meant) => format!("unknown key `{name}`; did you mean `{meant}`?"),
                    None => format!("unknown key `{name}`"),
                }
            }
        };
        self.mistake(at, text);
    }
}

/// A kind of value in words, with an example.
pub(super) fn wanted(kind: Kind) -> &'static str {
    match kind {
        Kind::Flag => "true or false",
        Kind::Tally => "a number from 0 to 9",
        Kind::Count => "a whole number",
        Kind::Workers => "a number, or \"auto\"",
        Kind::Size => "a size such as \"512M\"",
        Kind::Account => "a name or a number",
        Kind::Duration => "a duration such as \"500ms\" or \"5s\"",
        Kind::Address => "an address such as \":8080\" or \"127.0.0.1:8080\"",
        Kind::Text | Kind::Choice | Kind::Policy => "a string",
        Kind::Path => "a path, as a string",
        Kind::Variables => "a table of variables such as { KEY = \"value\" }",
        Kind::Sources => {
            "a table of variables and where each is read, such as { KEY = \"file\", OTHER = \"credential:name\" }"
        }
    }
}

/// Words that are run.
pub(super) type Words = Vec<OsString>;
