//! What an app is to be, and what it is: where that stands, what reloads and scaling have given it on top, and what of it a
//! reload takes up.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::sync::{Mutex, MutexGuard, PoisonError};

use allcores::primary::{ReloadOutcome, Settings};
use serde::{Deserialize, Serialize};

use crate::args::AppOptions;
use crate::config::{App, Layer, LayerSaved, Shown, Typed, TypedSaved, no_environments};
use crate::failure::Failure;
use crate::settings;
use crate::state_folder::{Given, Scaled};
use crate::view::ConfigView;

/// What a reload takes up. The rest is fixed for the life of the primary.
const TAKEN_UP: [&str; 7] = ["cwd", "env", "env-file", "gid", "secret", "uid", "workers"];

/// Where it stands what the app is to be, and what it is.
pub(crate) struct Source {
    /// `None` for what is never another.
    typed: Option<Typed>,
    /// What the primary was begun with.
    begun: Layer,
    now: Mutex<Now>,
}

/// What the workers run that serve now.
struct Now {
    command: Vec<OsString>,
    layer: Layer,
    config: Option<ConfigView>,
    /// How many of them the source asks for.
    workers: u16,
    /// What reloads and scaling gave them, on top of the source.
    given: Given,
    /// Variables that reloads gave them under a program that kept no values.
    given_before: BTreeSet<String>,
    /// The environments of its file that reloads will bring which have not ended, in the order in which they were asked for.
    wanted: VecDeque<Option<String>>,
}

/// [`Source`] as data.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SourceSaved {
    typed: Option<TypedSaved>,
    begun: LayerSaved,
    command: Vec<OsString>,
    layer: LayerSaved,
    config: Option<ConfigView>,
    workers: u16,
    given_command: Option<Vec<OsString>>,
    given_variables: BTreeSet<String>,
    #[serde(default)]
    given_environment: Option<String>,
    #[serde(default)]
    given_scaled: Option<Scaled>,
    /// With their values.
    #[serde(default)]
    given_env: BTreeMap<String, String>,
}

/// What was read anew.
pub(super) struct Fresh {
    pub(super) app: App,
    pub(super) settings: Settings,
    pub(super) notices: Vec<String>,
}

/// What a reload is to bring.
pub(super) struct Next {
    /// With the number of workers that it asks for.
    pub(super) fresh: Option<(App, u16)>,
    pub(super) given: Given,
}

/// What has come of it.
pub(super) struct Settled {
    /// It has given the app something.
    pub(super) is_given: bool,
    /// The source asks for another number of workers than before.
    pub(super) workers: Option<u16>,
}

/// What there is to be said of an app that runs.
pub(super) struct Described {
    pub(super) command: Vec<String>,
    pub(super) workers: u16,
    /// How many it was scaled to, where that is in force.
    pub(super) scaled: Option<u16>,
    pub(super) config: Option<ConfigView>,
    pub(super) options: BTreeMap<String, Vec<String>>,
    /// The options that the next primary will have.
    pub(super) waiting: Vec<String>,
    pub(super) variables: Vec<String>,
    pub(super) secrets: Vec<String>,
}

impl Source {
    /// What was typed, what reloads gave it before, and what was made of both for the beginning.
    pub(crate) fn new(typed: Typed, given: Given, begun: App, settings: &Settings) -> Self {
        let layer = begun.layer.clone();
        let now = Now {
            command: begun.command,
            layer: begun.layer,
            config: begun.config,
            workers: settings.pool.workers,
            given,
            given_before: BTreeSet::new(),
            wanted: VecDeque::new(),
        };
        Self { typed: Some(typed), now: Mutex::new(now), begun: layer }
    }

    /// Settings that stand nowhere else.
    pub(crate) fn fixed(settings: &Settings) -> Self {
        let now = Now {
            command: settings.command.clone(),
            layer: Layer::default(),
            config: None,
            workers: settings.pool.workers,
            given: Given::default(),
            given_before: BTreeSet::new(),
            wanted: VecDeque::new(),
        };
        Self { typed: None, begun: Layer::default(), now: Mutex::new(now) }
    }

    /// The same in the primary's next program.
    ///
    /// # Errors
    ///
    /// If it is about options that this program does not know.
    pub(super) fn restore(saved: SourceSaved) -> anyhow::Result<Self> {
        let words = |command: Vec<OsString>| command.iter().map(text).collect();
        let given = Given {
            command: saved.given_command.map(words),
            env: saved.given_env,
            environment: saved.given_environment,
            scaled: saved.given_scaled,
        };
        let now = Now {
            command: saved.command,
            layer: saved.layer.try_into()?,
            config: saved.config,
            workers: saved.workers,
            given,
            given_before: saved.given_variables,
            wanted: VecDeque::new(),
        };
        let typed = saved.typed.map(TryInto::try_into).transpose()?;
        Ok(Self { typed, begun: saved.begun.try_into()?, now: Mutex::new(now) })
    }

    pub(super) fn save(&self) -> SourceSaved {
        let now = self.now();
        SourceSaved {
            typed: self.typed.as_ref().map(Into::into),
            begun: (&self.begun).into(),
            command: now.command.clone(),
            layer: (&now.layer).into(),
            config: now.config.clone(),
            workers: now.workers,
            given_command: now
                .given
                .command
                .clone()
                .map(|command| command.into_iter().map(Into::into).collect()),
            given_variables: now.variables(),
            given_environment: now.given.environment.clone(),
            given_scaled: now.given.scaled,
            given_env: now.given.env.clone(),
        }
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The options that the app was begun with.
    pub(super) fn options(&self) -> Option<AppOptions> {
        self.begun.options().ok()
    }

    /// What reloads and scaling gave it.
    pub(super) fn given(&self) -> Given {
        self.now().given.clone()
    }

    /// The environment that what is asked for now is read in, if it asks for no other: a reload that follows one is of the
    /// same.
    pub(super) fn environment(&self) -> Option<String> {
        let now = self.now();
        now.wanted.back().unwrap_or(&now.given.environment).clone()
    }

    /// A reload is under way that brings this environment. [`settle`](Self::settle) follows, in the same order.
    pub(super) fn wants(&self, environment: Option<String>) {
        self.now().wanted.push_back(environment);
    }

    /// A reload has ended: what it was to bring is there, or is forgotten.
    pub(super) fn settle(&self, next: Next, outcome: &ReloadOutcome) -> Settled {
        let mut now = self.now();
        now.wanted.pop_front();
        let mut settled = Settled { is_given: false, workers: None };
        if !matches!(outcome, ReloadOutcome::Reloaded { .. }) {
            return settled;
        }
        let Next { fresh, given } = next;
        let before = now.given.clone();
        if let Some((app, workers)) = fresh {
            (now.command, now.layer, now.config) = (app.command, app.layer, app.config);
            // One that was asked for otherwise meanwhile stays, as long as the source says what it said.
            if std::mem::replace(&mut now.workers, workers) != workers {
                now.given.scaled = None;
                settled.workers = Some(workers);
            }
        }
        now.given.join(given);
        settled.is_given = now.given != before;
        settled
    }

    /// There are so many workers by scaling. Says whether that has given the app something.
    pub(super) fn scaled(&self, workers: u16) -> bool {
        let mut now = self.now();
        let (before, said) = (now.given.scaled, now.workers);
        now.given.scale(said, workers);
        now.given.scaled != before
    }

    pub(super) fn describe(&self) -> Described {
        let now = self.now();
        let in_force = self.begun.taking_up(&now.layer, &TAKEN_UP);
        let Shown { options, mut variables, secrets } = in_force.shown();
        variables.extend(now.variables());
        variables.sort_unstable();
        variables.dedup();
        Described {
            command: match &now.given.command {
                Some(command) => command.clone(),
                None => now.command.iter().map(text).collect(),
            },
            workers: now.workers,
            scaled: now.given.scaled_from(now.workers),
            config: now.config.clone(),
            options,
            waiting: self.waiting(&now.layer).into_iter().map(str::to_owned).collect(),
            variables,
            secrets,
        }
    }

    /// Which options are not what the primary was begun with, and wait for the next.
    fn waiting<'a>(&'a self, layer: &'a Layer) -> Vec<&'a str> {
        let mut changed = layer.differing(&self.begun);
        changed.retain(|name| !TAKEN_UP.contains(name));
        changed
    }

    /// Reads it anew, in an environment of its file if one is given.
    pub(super) fn read(&self, environment: Option<String>) -> Result<Option<Fresh>, Failure> {
        let Some(typed) = &self.typed else {
            return environment.map_or(Ok(None), |name| Err(no_environments(&name)));
        };
        let app = match environment {
            Some(name) => typed.clone().in_environment(&name)?.resolve()?,
            None => typed.resolve()?,
        };
        let settings = settings::of_running(&app)?;
        let changed = self.waiting(&app.layer);
        let mut notices = Vec::new();
        if !changed.is_empty() {
            let (them, are) = if changed.len() == 1 { ("it", "is") } else { ("them", "are") };
            notices.push(format!(
                "{} changed, and {are} fixed while the app runs: `allcores restart --hard` takes {them} up",
                changed.join(", ")
            ));
        }
        Ok(Some(Fresh { app, settings, notices }))
    }
}

impl Now {
    /// The variables that reloads gave, by name.
    fn variables(&self) -> BTreeSet<String> {
        self.given_before.iter().chain(self.given.env.keys()).cloned().collect()
    }
}

/// A word of a command, or of a variable: what came as text.
pub(super) fn text(word: &OsString) -> String {
    word.to_string_lossy().into_owned()
}
