//! What workers are made of, in node:cluster's terms: `cluster.settings`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use allcores_core::channel::Serialization;

use crate::error::{Error, ErrorKind};
use crate::primary::{Output, Settings};

/// Where workers' standard streams lead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stdio {
    /// To where the primary's own lead.
    #[default]
    Inherit,
    /// Output comes line by line as [`Event::Output`](super::Event::Output); there is nothing to read. Node's `silent`.
    Piped,
    /// Nowhere.
    Null,
}

/// What workers are made of: node:cluster's `cluster.settings`.
///
/// Given to [`Cluster::setup`](super::Cluster::setup), only what is named changes; [`Cluster::settings`](super::Cluster::settings)
/// gives all that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "settings change nothing before they are given to `Cluster::setup`"]
pub struct ClusterSettings {
    /// The program. By default the primary's own.
    pub exec: Option<OsString>,
    /// Arguments in front of the script and of `args`: for node, its own options.
    #[doc(alias = "execArgv")]
    pub exec_args: Option<Vec<OsString>>,
    /// A script for `exec` to run, between `exec_args` and `args`.
    pub script: Option<OsString>,
    /// Arguments. By default the primary's own, where the program is.
    pub args: Option<Vec<OsString>>,
    /// Where workers start. By default where the primary is.
    pub cwd: Option<PathBuf>,
    /// Added to, and overriding, the primary's environment. What is given later is added to what was given before.
    pub env: Vec<(OsString, OsString)>,
    /// The user that workers run as.
    pub uid: Option<u32>,
    /// The group that workers run as.
    pub gid: Option<u32>,
    /// Where standard streams lead.
    #[doc(alias = "silent")]
    pub stdio: Option<Stdio>,
    /// How messages are written on the channel.
    pub serialization: Option<Serialization>,
    /// The inspector's port in the first worker; others count on from it. By default one more than what `--inspect`
    /// says, or 9230. Node workers with an inspector alone.
    #[doc(alias = "inspectPort")]
    pub inspect_port: Option<u16>,
}

impl ClusterSettings {
    /// Names nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Has workers execute this program, with no arguments unless [`args`](Self::args) gives some.
    pub fn exec(mut self, program: impl Into<OsString>) -> Self {
        self.exec = Some(program.into());
        self.script = None;
        self
    }

    /// Has workers run this script with node: `exec("node")` with the script in front of the arguments.
    pub fn node(mut self, script: impl Into<OsString>) -> Self {
        self = self.exec("node");
        self.script = Some(script.into());
        self
    }

    /// Gives arguments that go in front of the script and of [`args`](Self::args).
    #[doc(alias = "execArgv")]
    pub fn exec_args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.exec_args = Some(args.into_iter().map(Into::into).collect());
        self
    }

    /// Gives the arguments, verbatim and all of them.
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args = Some(args.into_iter().map(Into::into).collect());
        self
    }

    /// Has workers start in this folder.
    pub fn cwd(mut self, folder: impl Into<PathBuf>) -> Self {
        self.cwd = Some(folder.into());
        self
    }

    /// Adds a variable to workers' environment, or replaces one.
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        add_variable(&mut self.env, (key.into(), value.into()));
        self
    }

    /// Has workers run as this user.
    pub fn uid(mut self, uid: u32) -> Self {
        self.uid = Some(uid);
        self
    }

    /// Has workers run as this group.
    pub fn gid(mut self, gid: u32) -> Self {
        self.gid = Some(gid);
        self
    }

    /// Says where workers' standard streams lead.
    pub fn stdio(mut self, stdio: Stdio) -> Self {
        self.stdio = Some(stdio);
        self
    }

    /// `true` is [`Stdio::Piped`], `false` is [`Stdio::Inherit`].
    pub fn silent(self, is_silent: bool) -> Self {
        self.stdio(if is_silent { Stdio::Piped } else { Stdio::Inherit })
    }

    /// Says how messages are written on the channel.
    pub fn serialization(mut self, serialization: Serialization) -> Self {
        self.serialization = Some(serialization);
        self
    }

    /// Sets the inspector's port in the first worker.
    pub fn inspect_port(mut self, port: u16) -> Self {
        self.inspect_port = Some(port);
        self
    }

    /// What `later` names, and the rest as it is here.
    pub(super) fn changed_by(&self, later: Self) -> Self {
        let is_other_program = later.exec.is_some();
        let mut env = self.env.clone();
        later.env.into_iter().for_each(|variable| add_variable(&mut env, variable));
        // A script and arguments belong to a program.
        let (script, args) =
            if is_other_program { (None, None) } else { (self.script.clone(), self.args.clone()) };
        Self {
            exec: later.exec.or_else(|| self.exec.clone()),
            exec_args: later.exec_args.or_else(|| self.exec_args.clone()),
            script: later.script.or(script),
            args: later.args.or(args),
            cwd: later.cwd.or_else(|| self.cwd.clone()),
            env,
            uid: later.uid.or(self.uid),
            gid: later.gid.or(self.gid),
            stdio: later.stdio.or(self.stdio),
            serialization: later.serialization.or(self.serialization),
            inspect_port: later.inspect_port.or(self.inspect_port),
        }
    }
}

/// A program that changes what it was told of the settings names again what is in force.
fn add_variable(env: &mut Vec<(OsString, OsString)>, variable: (OsString, OsString)) {
    env.retain(|(key, _)| *key != variable.0);
    env.push(variable);
}

/// The settings in force, and what the engine made of them.
#[derive(Debug)]
pub(super) struct Plan {
    settings: ClusterSettings,
    engine: Settings,
}

impl Plan {
    /// `engine`: all that these settings say nothing about.
    pub(super) fn new(settings: ClusterSettings, engine: Settings) -> Result<Self, Error> {
        let mut plan = Self { settings: ClusterSettings::default(), engine };
        plan.change(settings)?;
        Ok(plan)
    }

    /// Everything that is known, defaults too.
    pub(super) fn settings(&self) -> ClusterSettings {
        self.settings.clone()
    }

    pub(super) fn engine(&self) -> &Settings {
        &self.engine
    }

    /// Changes what is named; returns what the engine is to go by.
    pub(super) fn change(&mut self, later: ClusterSettings) -> Result<Settings, Error> {
        let settings = with_defaults(self.settings.changed_by(later))?;
        check_env(&settings.env)?;
        if settings.serialization == Some(Serialization::Advanced) {
            let what = "setting up a cluster with `advanced` serialization: messages of this crate are JSON";
            return Err(Error::new(ErrorKind::Unsupported, what));
        }
        let command = [
            settings.exec.clone().into_iter().collect(),
            settings.exec_args.clone().unwrap_or_default(),
            settings.script.clone().into_iter().collect(),
            settings.args.clone().unwrap_or_default(),
        ]
        .concat();
        self.engine = Settings {
            command,
            cwd: settings.cwd.clone(),
            env: settings.env.clone(),
            uid: settings.uid,
            gid: settings.gid,
            output: match settings.stdio.unwrap_or_default() {
                Stdio::Inherit => Output::Inherit,
                Stdio::Piped => Output::Capture,
                Stdio::Null => Output::Null,
            },
            serialization: settings.serialization.unwrap_or_default(),
            inspect_port: settings.inspect_port,
            ..self.engine.clone()
        };
        self.settings = settings;
        Ok(self.engine.clone())
    }
}

fn with_defaults(mut settings: ClusterSettings) -> Result<ClusterSettings, Error> {
    if settings.exec.is_none() {
        let own = std::env::current_exe();
        let own =
            own.map_err(|error| Error::io("finding the program that runs, to fork workers of it", error))?;
        settings.exec = Some(own.into());
        settings.args.get_or_insert_with(|| std::env::args_os().skip(1).collect());
    }
    settings.exec_args.get_or_insert_default();
    settings.args.get_or_insert_default();
    settings.stdio.get_or_insert_default();
    settings.serialization.get_or_insert_default();
    Ok(settings)
}

/// What execve(2) could not tell from something else.
pub(super) fn check_env(env: &[(OsString, OsString)]) -> Result<(), Error> {
    let is_name =
        |key: &OsString| !key.is_empty() && !key.as_bytes().iter().any(|byte| [b'=', 0].contains(byte));
    match env.iter().find(|(key, value)| !is_name(key) || value.as_bytes().contains(&0)) {
        Some((key, _)) => {
            let what = format!(
                "setting the variable `{}`: neither names nor values can have NUL, nor names `=`",
                key.display()
            );
            Err(Error::new(ErrorKind::Settings, what))
        }
        None => Ok(()),
    }
}
