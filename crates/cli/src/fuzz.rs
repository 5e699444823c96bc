//! What must hold of what reads the bytes of others, whatever comes. Each function says whether the bytes were what they should
//! be, and panics if a claim does not hold.
//!
//! Tests here spoil good ones by chance; `fuzz/` has libFuzzer look for others.

use std::path::Path;

use serde_json::Value;
use toml::de::DeTable;

use crate::config::File;
use crate::exit_code::ExitCode;

pub use crate::control::fuzz::control;

/// Reads the text of a config file, and puts together each app in each environment. A file with mistakes is refused with
/// places that there are.
///
/// # Panics
///
/// If that does not hold.
pub fn config(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let file = match read(text) {
        Ok(file) => file,
        Err(shown) => {
            assert!(places(&shown).count() > 0, "no place in {shown}");
            // What is missing at the end is missed in the line after the last.
            let lines = text.matches('\n').count() + 2;
            assert!(places(&shown).all(|line| (1..=lines).contains(&line)), "a line beyond {lines}: {shown}");
            return false;
        }
    };
    assert!(file.apps().next().is_some());
    let environments = file.environments();
    for environment in std::iter::once(None).chain(environments.iter().copied().map(Some)) {
        for name in file.apps() {
            match file.alone(name, environment) {
                Ok(app) => assert!(app.name.as_ref() == Some(name) && !app.command.is_empty()),
                Err(failure) => assert!(matches!(failure.code(), ExitCode::Config | ExitCode::Usage)),
            }
        }
    }
    true
}

/// Reads an ecosystem file as JSON or YAML, and translates it: to TOML with just the apps that are told of, of which at worst
/// a value is wrong.
///
/// # Panics
///
/// If that does not hold.
pub fn import(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let value = serde_json::from_str::<Value>(text).ok().or_else(|| serde_saphyr::from_str(text).ok());
    let Some(Ok(imported)) = value.map(|value| crate::import::import(&value)) else { return false };
    let document = DeTable::parse(&imported.text)
        .unwrap_or_else(|error| panic!("what was written is no TOML: {error}\n{}", imported.text));
    let apps = document.get_ref().get("apps").and_then(|apps| apps.get_ref().as_table());
    let names: Vec<&str> = apps.into_iter().flatten().map(|(name, _)| name.get_ref().as_ref()).collect();
    assert_eq!(names, imported.apps, "{}", imported.text);
    assert_eq!(document.get_ref().len(), 1, "{}", imported.text);
    for name in &imported.apps {
        assert!(name.parse::<crate::settings::AppName>().is_ok(), "{name:?} is no name");
    }
    assert!(imported.notes.iter().all(|note| !note.text.is_empty()));
    if let Err(shown) = read(&imported.text) {
        assert!(places(&shown).count() > 0, "no place in {shown}");
    }
    true
}

fn read(text: &str) -> Result<File, String> {
    File::parse(Path::new("allcores.toml"), "/srv/app".into(), text.to_owned()).map_err(|failure| {
        assert_eq!(failure.code(), ExitCode::Config, "{failure}");
        failure.to_string()
    })
}

/// The lines of a file that an error names.
fn places(shown: &str) -> impl Iterator<Item = usize> {
    let named =
        shown.lines().filter_map(|line| line.trim_start_matches("error: ").strip_prefix("allcores.toml:"));
    named.filter_map(|place| place.split(':').next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use allcores_testing::extent;
    use allcores_testing::fuzz::{Target, takes_anything};

    fn in_suite(target: &Target, inputs: u32) {
        takes_anything(target, extent::of("INPUTS", inputs));
    }

    #[test]
    fn any_text_is_a_config_file_or_has_mistakes_at_places() {
        in_suite(&Target::new("config", super::config), 1_000);
    }

    #[test]
    fn any_text_is_an_ecosystem_file_that_becomes_a_config_file_or_is_none() {
        in_suite(&Target::new("import", super::import), 3_000);
    }

    #[test]
    fn any_request_is_answered_or_is_none() {
        in_suite(&Target::new("control", super::control), 5_000);
    }
}
