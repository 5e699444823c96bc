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
    known: BTreeMap<u32, Generation>,
    open_files: Option<(u64, u64)>,
    /// Where programs that are given no channel can come for one.
    rendezvous: Option<String>,
}

/// One of them.
#[derive(Debug)]
struct Generation {
    /// What it began with.
    first: Recipe,
    /// What is started by now, where that was changed since.
    amended: Option<Recipe>,
    /// Another one is to take its place, and it is what it began with, as only that was seen to be good.
    is_challenged: bool,
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

impl Generation {
    fn new(first: Recipe) -> Self {
        Self { first, amended: None, is_challenged: false }
    }

    /// What is to be started.
    fn recipe(&self) -> &Recipe {
        self.amended.as_ref().filter(|_| !self.is_challenged).unwrap_or(&self.first)
    }

    fn launchers(&mut self) -> impl Iterator<Item = &mut Launcher> {
        self.amended.iter_mut().chain([&mut self.first]).map(|recipe| &mut recipe.launcher)
    }
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
        Self { known: BTreeMap::from([(1, Generation::new(first))]), open_files, rendezvous: None }
    }

    /// Begins a generation that runs what `base` runs by now, but for what was asked for.
    pub(super) fn begin(&mut self, generation: u32, base: u32, wish: &Reload) {
        let Some(base) = self.known.get_mut(&base) else { return };
        base.is_challenged = true;
        let latest = base.amended.as_ref().unwrap_or(&base.first);
        let mut asked = latest.asked.clone();
        if wish.command.is_some() {
            asked.command.clone_from(&wish.command);
        }
        asked.env.extend(wish.env.iter().cloned());
        let mut settings = wish.settings.as_deref().unwrap_or(&latest.settings).clone();
        // It is the primary's own, by which what it started is found should it be killed. Nobody reads it anew.
        settings.mark.clone_from(&latest.settings.mark);
        let first = self.recipe(settings, asked);
        self.known.insert(generation, Generation::new(first));
    }

    /// Nothing has come of what was to take the place of a generation.
    pub(super) fn keep(&mut self, generation: u32) {
        if let Some(known) = self.known.get_mut(&generation) {
            known.is_challenged = false;
        }
    }

    /// Has what is started from now on in a generation run this.
    pub(super) fn amend(&mut self, generation: u32, settings: &Settings) {
        let recipe = self.recipe(settings.clone(), Asked::default());
        if let Some(known) = self.known.get_mut(&generation) {
            known.amended = Some(recipe);
        }
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
        let launchers = self.known.values_mut().flat_map(Generation::launchers);
        for launcher in launchers.filter(|launcher| !launcher.has_channel()) {
            launcher.set_rendezvous(name);
        }
    }

    /// How workers of a generation are started.
    pub(super) fn of(&self, generation: u32) -> Option<&Launcher> {
        self.known.get(&generation).map(|known| &known.recipe().launcher)
    }

    /// Whether workers of any generation are offered node:cluster's channel.
    pub(super) fn have_channel(&self) -> bool {
        self.known.values().any(|known| known.recipe().launcher.has_channel())
    }

    /// Forgets those that no slot will need again.
    pub(super) fn retain(&mut self, is_in_use: impl Fn(u32) -> bool) {
        self.known.retain(|generation, _| is_in_use(*generation));
    }
}
