//! An app's options, put together of a file's parts and of what was typed.
//!
//! From the bottom: `[defaults]`, its environment, the app, the app's environment, the command line. It is done again at each
//! reload, from the file as it is then.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::ArgMatches;

use super::catalogue::Catalogue;
use super::complaint::Places;
use super::file::{ENVIRONMENTS, File, Section};
use super::layer::{Layer, Origin, Setting, Value};
use super::nearest::suggestion;
use crate::args::{AppOptions, RunArgs, StartArgs};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::settings::{self, AppName};
use crate::state_folder::Given;
use crate::view::ConfigView;

/// An app as it is to be run.
#[derive(Debug)]
pub(crate) struct App {
    /// As it was called; `None` leaves it to be derived from the command.
    pub(crate) name: Option<AppName>,
    pub(crate) command: Vec<OsString>,
    pub(crate) options: AppOptions,
    /// Where the options were set.
    pub(crate) places: Places,
    /// All that was set.
    pub(crate) layer: Layer,
    /// The file that it is from.
    pub(crate) config: Option<ConfigView>,
}

/// What was typed: enough to make an app of, as often as wanted.
#[derive(Clone, Debug)]
pub(crate) struct Typed {
    pub(super) name: Option<AppName>,
    pub(super) file: Option<PathBuf>,
    pub(super) app: Option<AppName>,
    pub(super) environment: Option<String>,
    pub(super) layer: Layer,
}

impl Typed {
    /// Takes what was typed after `run`.
    pub(crate) fn of_run(args: &RunArgs, matches: &ArgMatches) -> Self {
        let mut layer = Layer::typed(&Catalogue::new(), matches);
        layer.command = (!args.command.is_empty()).then(|| args.command.clone());
        let source = args.source.clone();
        Self {
            name: args.name.clone(),
            file: source.config,
            app: source.app,
            environment: source.env_name,
            layer,
        }
    }

    /// Takes what was typed after `start`, about a command.
    pub(crate) fn of_start(args: &StartArgs, matches: &ArgMatches) -> Self {
        let mut layer = Layer::typed(&Catalogue::new(), matches);
        layer.command = (!args.command.is_empty()).then(|| args.command.clone());
        let environment = args.env_name.clone();
        Self { name: args.name.clone(), file: None, app: None, environment, layer }
    }

    /// The same about an app of a file.
    pub(crate) fn with_file(self, file: &File, app: &AppName) -> Self {
        Self { file: Some(file.path.clone()), app: Some(app.clone()), ..self }
    }

    /// The same with what reloads gave the app lying over it.
    pub(crate) fn given(mut self, given: &Given) -> Self {
        let mut upper = Layer::default();
        upper.command = given.command.as_ref().map(|command| command.iter().map(OsString::from).collect());
        if !given.env.is_empty() {
            let words = given.env.iter().map(|(key, value)| format!("{key}={value}").into());
            upper.set("env", Setting { value: Value::Words(words.collect()), origin: Origin::Typed });
        }
        self.layer.cover(&upper, &Catalogue::new());
        self.environment = given.environment.clone().or(self.environment);
        self
    }

    /// The same in another environment.
    ///
    /// # Errors
    ///
    /// It is from no file.
    pub(crate) fn in_environment(self, name: &str) -> Result<Self, Failure> {
        if self.file.is_none() {
            return Err(no_environments(name));
        }
        Ok(Self { environment: Some(name.to_owned()), ..self })
    }

    /// The app's options that were typed, as words.
    pub(crate) fn options(&self) -> impl Iterator<Item = OsString> {
        let catalogue = Catalogue::new();
        let words: Vec<OsString> = self
            .layer
            .settings()
            .filter_map(|(name, value)| Some(catalogue.find(name)?.as_typed(value)))
            .flatten()
            .collect();
        words.into_iter()
    }

    /// Whether options were typed; variables of the environment are always there.
    pub(crate) fn has_options(&self) -> bool {
        self.layer.all().any(|(_, setting)| setting.origin == Origin::Typed)
    }

    /// Puts the app together, from the file as it is now.
    ///
    /// # Errors
    ///
    /// What [`File::read`] refuses, and an app or an environment that is not in the file.
    pub(crate) fn resolve(&self) -> Result<App, Failure> {
        let Some(path) = &self.file else {
            let options = read(&Catalogue::new(), &self.layer)?;
            let command = self.layer.command.clone().unwrap_or_default();
            let (name, layer) = (self.name.clone(), self.layer.clone());
            return Ok(App { name, command, options, places: Places::default(), layer, config: None });
        };
        let file = File::read(path)?;
        let name = file.pick(self.app.as_ref())?.clone();
        let mut app = file.app(&name, self.environment.as_deref(), &self.layer)?;
        app.name = self.name.clone().or(Some(name));
        Ok(app)
    }
}

impl File {
    /// Whether there is an app of this name.
    pub(crate) fn has(&self, name: &AppName) -> bool {
        self.apps().any(|known| known == name)
    }

    /// Where it is, from everywhere.
    pub(crate) fn absolute(&self) -> PathBuf {
        self.path.file_name().map_or_else(|| self.folder.clone(), |name| self.folder.join(name))
    }

    /// As it was named.
    pub(crate) fn shown(&self) -> String {
        self.path.display().to_string()
    }

    /// Finds the app that is meant: the one of this name, or the only one.
    pub(crate) fn pick(&self, wanted: Option<&AppName>) -> Result<&AppName, Failure> {
        let names = || self.apps().map(AppName::as_str);
        if let Some(wanted) = wanted {
            return self.apps().find(|name| *name == wanted).ok_or_else(|| {
                let text = format!("there is no app {wanted} in it{}", suggestion(wanted.as_str(), names()));
                self.refuse(anyhow!(text)).next("write [apps.NAME] into it, or name one that is there: --app")
            });
        }
        if let [(only, _)] = self.apps.as_slice() {
            return Ok(only);
        }
        let names = names().collect::<Vec<_>>().join(", ");
        Err(self.refuse(anyhow!("there are several apps in it: {names}")).next("say which: --app"))
    }

    /// Puts an app together, for an environment.
    pub(crate) fn alone(&self, name: &AppName, environment: Option<&str>) -> Result<App, Failure> {
        self.app(name, environment, &Layer::default())
    }

    /// The same with what was typed on top.
    fn app(&self, name: &AppName, environment: Option<&str>, typed: &Layer) -> Result<App, Failure> {
        if let Some(wanted) = environment.filter(|wanted| !self.environments().contains(wanted)) {
            let known = self.environments();
            let text = if known.is_empty() {
                format!("there is no environment {wanted} in it, nor any other")
            } else {
                format!("there is no environment {wanted} in it{}", suggestion(wanted, known))
            };
            let next =
                format!("write [apps.{name}.{ENVIRONMENTS}.{wanted}] into it, or leave out --env-name");
            return Err(self.refuse(anyhow!(text)).next(next));
        }
        let Some((_, section)) = self.apps.iter().find(|(known, _)| known == name) else {
            return Err(self.refuse(anyhow!("there is no app {name} in it")));
        };
        let mut layer = Layer::default();
        for part in parts(&self.defaults, environment).chain(parts(section, environment)) {
            layer.cover(part, &self.catalogue);
        }
        layer.cover(typed, &self.catalogue);
        if !layer.is_set("cwd") {
            let value = Value::Words(vec![self.folder.clone().into()]);
            layer.set("cwd", Setting { value, origin: Origin::Implied });
        }
        // The file was read without mistakes, so there is one.
        let command = layer.command.clone().unwrap_or_default();
        let options = read(&self.catalogue, &layer)?;
        let places = Places::of(&layer, &self.path, &self.text);
        let config = ConfigView {
            path: self.absolute().display().to_string(),
            app: name.to_string(),
            environment: environment.map(str::to_owned),
        };
        Ok(App { name: Some(name.clone()), command, options, places, layer, config: Some(config) })
    }

    fn refuse(&self, error: anyhow::Error) -> Failure {
        Failure::new(ExitCode::Config, error.context(format!("the config file {}", self.path.display())))
    }
}

/// Says that what was started from a command is the same everywhere.
pub(crate) fn no_environments(name: &str) -> Failure {
    Failure::usage(anyhow!("--env-name {name}: a command has no environments"))
        .next("write it into allcores.toml, and start the app from there")
}

/// A table's own options, and those of an environment over them.
fn parts<'a>(section: &'a Section, environment: Option<&str>) -> impl Iterator<Item = &'a Layer> {
    let named = section.environments.iter().find(|(name, _)| Some(name.as_str()) == environment);
    std::iter::once(&section.own).chain(named.map(|(_, layer)| layer))
}

fn read(catalogue: &Catalogue, layer: &Layer) -> Result<AppOptions, Failure> {
    catalogue.read(layer).map_err(|error| {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        Failure::usage(anyhow!(first.to_owned()))
    })
}

/// The folder of a file, by the name that the person has for it: where it leads may change.
pub(super) fn folder_of(path: &Path) -> Result<PathBuf, Failure> {
    let failed = |error: io::Error| {
        Failure::from(anyhow::Error::new(error).context(format!("find the folder of {}", path.display())))
    };
    let path = match settings::folder_as_typed() {
        Some(folder) if path.is_relative() => folder.join(path),
        _ => std::path::absolute(path).map_err(failed)?,
    };
    Ok(path.parent().unwrap_or(Path::new("/")).to_path_buf())
}
