//! What was typed and what was read, as data: for the primary's next program, which goes on from what was in a file then.

use std::collections::BTreeMap;
use std::ffi::OsString;

use anyhow::bail;
use serde::{Deserialize, Serialize};

use super::catalogue::Catalogue;
use super::layer::{Layer, Origin, Setting, Value};
use super::resolve::Typed;

/// [`Typed`] as data.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TypedSaved {
    name: Option<String>,
    file: Option<OsString>,
    app: Option<String>,
    environment: Option<String>,
    layer: LayerSaved,
}

/// [`Layer`] as data.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LayerSaved {
    settings: BTreeMap<String, SettingSaved>,
    command: Option<Vec<OsString>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct SettingSaved {
    value: ValueSaved,
    origin: OriginSaved,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ValueSaved {
    Off,
    Times(u8),
    Words(Vec<OsString>),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OriginSaved {
    Typed,
    File(usize, usize),
    Implied,
}

impl From<&Typed> for TypedSaved {
    fn from(typed: &Typed) -> Self {
        Self {
            name: typed.name.as_ref().map(ToString::to_string),
            file: typed.file.as_ref().map(Into::into),
            app: typed.app.as_ref().map(ToString::to_string),
            environment: typed.environment.clone(),
            layer: (&typed.layer).into(),
        }
    }
}

impl TryFrom<TypedSaved> for Typed {
    type Error = anyhow::Error;

    fn try_from(saved: TypedSaved) -> anyhow::Result<Self> {
        let name =
            |name: Option<String>| name.map(|name| name.parse()).transpose().map_err(anyhow::Error::msg);
        Ok(Self {
            name: name(saved.name)?,
            file: saved.file.map(Into::into),
            app: name(saved.app)?,
            environment: saved.environment,
            layer: saved.layer.try_into()?,
        })
    }
}

impl From<&Layer> for LayerSaved {
    fn from(layer: &Layer) -> Self {
        let settings = layer.all().map(|(name, setting)| (name.to_owned(), setting.into()));
        Self { settings: settings.collect(), command: layer.command.clone() }
    }
}

impl TryFrom<LayerSaved> for Layer {
    type Error = anyhow::Error;

    fn try_from(saved: LayerSaved) -> anyhow::Result<Self> {
        let (catalogue, mut layer) = (Catalogue::new(), Self::default());
        for (name, setting) in saved.settings {
            if catalogue.find(&name).is_none() {
                bail!("the app was begun with --{name}, which this program does not know");
            }
            layer.set(&name, setting.into());
        }
        layer.command = saved.command;
        Ok(layer)
    }
}

impl From<&Setting> for SettingSaved {
    fn from(setting: &Setting) -> Self {
        let value = match &setting.value {
            Value::Off => ValueSaved::Off,
            Value::Times(count) => ValueSaved::Times(*count),
            Value::Words(words) => ValueSaved::Words(words.clone()),
        };
        let origin = match &setting.origin {
            // Of what a program goes on with, it no longer matters.
            Origin::Typed | Origin::Environment => OriginSaved::Typed,
            Origin::File(at) => OriginSaved::File(at.start, at.end),
            Origin::Implied => OriginSaved::Implied,
        };
        Self { value, origin }
    }
}

impl From<SettingSaved> for Setting {
    fn from(saved: SettingSaved) -> Self {
        let value = match saved.value {
            ValueSaved::Off => Value::Off,
            ValueSaved::Times(count) => Value::Times(count),
            ValueSaved::Words(words) => Value::Words(words),
        };
        let origin = match saved.origin {
            OriginSaved::Typed => Origin::Typed,
            OriginSaved::File(start, end) => Origin::File(start..end),
            OriginSaved::Implied => Origin::Implied,
        };
        Self { value, origin }
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches as _};

    use super::*;
    use crate::args::RunArgs;
    use crate::config::Typed;

    #[test]
    fn what_was_typed_is_the_same_in_the_next_program() {
        let command = RunArgs::augment_args(clap::Command::new("run"));
        let words =
            ["run", "--name=web", "--workers=3", "--env=A=b=c", "-vv", "--no-adopt", "--", "node", "a b"];
        let matches = command.try_get_matches_from(words).unwrap();
        let typed = Typed::of_run(&RunArgs::from_arg_matches(&matches).unwrap(), &matches);
        let text = serde_json::to_string(&TypedSaved::from(&typed)).unwrap();
        let again: TypedSaved = serde_json::from_str(&text).unwrap();
        let again = Typed::try_from(again).unwrap();
        let (before, after) = (typed.resolve().unwrap(), again.resolve().unwrap());
        assert_eq!(format!("{before:?}"), format!("{after:?}"));
        assert_eq!(after.command, ["node", "a b"]);
        assert_eq!(before.layer.differing(&after.layer), Vec::<String>::new());
    }

    #[test]
    fn options_of_the_future_are_no_options() {
        let text = r#"{"settings": {"colour": {"value": {"times": 1}, "origin": "typed"}}, "command": null}"#;
        let saved: LayerSaved = serde_json::from_str(text).unwrap();
        let error = Layer::try_from(saved).unwrap_err().to_string();
        assert!(error.contains("--colour"), "{error}");
    }
}
