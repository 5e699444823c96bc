//! What each generation runs, as data.

use std::collections::BTreeMap;
use std::ffi::OsString;

use serde::{Deserialize, Serialize};

use super::{Asked, Generations, Recipe};
use crate::carry::BytesSaved;
use crate::primary::Settings;
use crate::primary::launch::{Launcher, LauncherSaved};
use crate::primary::upgrade::SettingsSaved;

/// What each generation runs, as data. Where programs can come by themselves is not in it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::primary::engine) struct GenerationsSaved {
    known: Vec<GenerationSaved>,
    #[serde(default)]
    open_files: Option<(u64, u64)>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct GenerationSaved {
    number: u32,
    settings: SettingsSaved,
    #[serde(default)]
    asked_command: Option<Vec<BytesSaved>>,
    #[serde(default)]
    asked_env: Vec<(BytesSaved, BytesSaved)>,
    launcher: LauncherSaved,
}

impl Generations {
    pub(in crate::primary::engine) fn save(&self) -> GenerationsSaved {
        // Nothing is amended: that is for programs of which the primary is a part.
        let known = self.known.iter().map(|(number, recipe)| {
            let Recipe { settings, asked, launcher } = recipe;
            let word = |word: &OsString| word.as_os_str().into();
            let command = asked.command.as_ref().map(|words| words.iter().map(word).collect());
            let env = asked.env.iter().map(|(key, value)| (key.as_os_str().into(), value.as_os_str().into()));
            GenerationSaved {
                number: *number,
                settings: settings.into(),
                asked_command: command,
                asked_env: env.collect(),
                launcher: launcher.save(),
            }
        });
        GenerationsSaved { known: known.collect(), open_files: self.open_files }
    }

    /// Makes them again.
    ///
    /// # Errors
    ///
    /// If one of them runs what can't be run.
    pub(in crate::primary::engine) fn restore(saved: GenerationsSaved) -> Result<Self, String> {
        let open_files = saved.open_files;
        let known = saved.known.into_iter().map(|saved| {
            let settings = Settings::try_from(saved.settings)?;
            let command = saved.asked_command.map(|words| words.into_iter().map(Into::into).collect());
            let env = saved.asked_env.into_iter().map(|(key, value)| (key.into(), value.into()));
            let asked = Asked { command, env: env.collect() };
            let launcher = Launcher::restore(&asked.over(&settings), open_files, saved.launcher);
            Ok((saved.number, Recipe { settings, asked, launcher }))
        });
        let known = known.collect::<Result<BTreeMap<_, _>, String>>()?;
        Ok(Self::of_known(known, open_files))
    }
}

impl GenerationsSaved {
    /// Says what is wrong, if anything is; `current` is the generation that every slot has.
    pub(in crate::primary::engine) fn check(&self, current: u32) -> Result<(), String> {
        if !self.known.iter().any(|generation| generation.number == current) {
            return Err(format!("what generation {current} runs is not known"));
        }
        let known = self.known.iter();
        if known.clone().any(|generation| generation.asked_command.as_ref().is_some_and(Vec::is_empty)) {
            return Err("a reload asked for no command".into());
        }
        known
            .map(|generation| &generation.settings)
            .try_for_each(|it| Settings::try_from(it.clone()).map(drop))
    }
}
