//! What each generation runs. Old ones are kept for as long as a slot may need another worker of them.

mod saved;

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::super::launch::Launcher;
use crate::primary::{Reload, Settings};

pub(super) use saved::GenerationsSaved;

/// The launch settings of each generation that is in use.
#[derive(Debug)]
pub(super) struct Generations {
    /// What each began with.
    known: BTreeMap<u32, Recipe>,
    /// What is started by now, where that was changed since.
    amended: Option<Amended>,
    /// Another one is to take the place of what there is, which is what it began with, as only that was seen to be good.
    is_challenged: bool,
    open_files: Option<(u64, u64)>,
    /// Where programs that are given no channel can come for one.
    rendezvous: Option<String>,
}

/// Other settings for what is started from now on.
#[derive(Debug)]
struct Amended {
    /// The newest generation by then: it began without them.
    since: u32,
    recipe: Recipe,
}

/// How workers are started.
#[derive(Debug)]
struct Recipe {
    /// Without what reloads asked for.
    settings: Settings,
    asked: Asked,
    launcher: Launcher,
}

/// What reloads asked for, which holds from then on.
#[derive(Clone, Debug, Default)]
struct Asked {
    command: Option<Vec<OsString>>,
    env: Vec<(OsString, OsString)>,
}

impl Asked {
    /// Settings with this over them.
    fn over(&self, settings: &Settings) -> Settings {
        let mut whole = settings.clone();
        if let Some(command) = &self.command {
            whole.command.clone_from(command);
        }
        whole.env.extend(self.env.iter().cloned());
        whole
    }
}

impl Generations {
    /// The first generation.
    pub(super) fn new(settings: &Settings, open_files: Option<(u64, u64)>) -> Self {
        let launcher = Launcher::new(settings, open_files);
        let first = Recipe { settings: settings.clone(), asked: Asked::default(), launcher };
        Self::of_known(BTreeMap::from([(1, first)]), open_files)
    }

    fn of_known(known: BTreeMap<u32, Recipe>, open_files: Option<(u64, u64)>) -> Self {
        Self { known, amended: None, is_challenged: false, open_files, rendezvous: None }
    }

    /// Begins a generation that runs what is started by now, or what `base` runs, but for what was asked for.
    pub(super) fn begin(&mut self, generation: u32, base: u32, wish: &Reload) {
        self.is_challenged = true;
        let amended = self.amended.as_ref().map(|amended| &amended.recipe);
        let Some(latest) = amended.or(self.known.get(&base)) else { return };
        let mut asked = latest.asked.clone();
        if wish.command.is_some() {
            asked.command.clone_from(&wish.command);
        }
        asked.env.extend(wish.env.iter().cloned());
        let mut settings = wish.settings.as_deref().unwrap_or(&latest.settings).clone();
        // It is the primary's own, by which what it started is found should it be killed. Nobody reads it anew.
        settings.mark.clone_from(&latest.settings.mark);
        let first = self.recipe(settings, asked);
        self.known.insert(generation, first);
    }

    /// A generation has taken the place of what there was. What was changed before it began is in it.
    pub(super) fn succeed(&mut self, generation: u32) {
        self.is_challenged = false;
        self.amended.take_if(|amended| amended.since < generation);
    }

    /// Nothing has come of what was to take the place of what there is.
    pub(super) fn keep(&mut self) {
        self.is_challenged = false;
    }

    /// Has what is started from now on, or after the reload that is under way, run this.
    pub(super) fn amend(&mut self, settings: &Settings) {
        let since = self.known.last_key_value().map_or(0, |(generation, _)| *generation);
        let recipe = self.recipe(settings.clone(), Asked::default());
        self.amended = Some(Amended { since, recipe });
    }

    fn recipe(&self, settings: Settings, asked: Asked) -> Recipe {
        let mut launcher = Launcher::new(&asked.over(&settings), self.open_files);
        if let Some(name) = self.rendezvous.as_deref().filter(|_| !launcher.has_channel()) {
            launcher.set_rendezvous(name);
        }
        Recipe { settings, asked, launcher }
    }

    /// Says where programs that are given no channel can come for one.
    pub(super) fn set_rendezvous(&mut self, name: &str) {
        self.rendezvous = Some(name.to_owned());
        let amended = self.amended.iter_mut().map(|amended| &mut amended.recipe);
        let launchers = self.known.values_mut().chain(amended).map(|recipe| &mut recipe.launcher);
        for launcher in launchers.filter(|launcher| !launcher.has_channel()) {
            launcher.set_rendezvous(name);
        }
    }

    /// How workers of a generation are started.
    pub(super) fn of(&self, generation: u32) -> Option<&Launcher> {
        let amended = self.amended.as_ref().filter(|_| !self.is_challenged);
        let first = self.known.get(&generation)?;
        Some(&amended.map_or(first, |amended| &amended.recipe).launcher)
    }

    /// Whether workers of any generation are offered node:cluster's channel.
    pub(super) fn have_channel(&self) -> bool {
        let amended = self.amended.iter().map(|amended| &amended.recipe);
        self.known.values().chain(amended).any(|recipe| recipe.launcher.has_channel())
    }

    /// Forgets those that no slot will need again.
    pub(super) fn retain(&mut self, is_in_use: impl Fn(u32) -> bool) {
        self.known.retain(|generation, _| is_in_use(*generation));
    }
}
