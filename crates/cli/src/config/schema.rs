//! The JSON schema of config files (draft 7, which editors speak), made of the catalogue.

use serde_json::{Map, Value, json};

use super::catalogue::{Catalogue, Key, Kind};
use super::file::{COMMAND, ENVIRONMENTS};
use crate::args::MAX_WORKERS;
use crate::settings::MAX_NAME;

/// Makes the schema.
pub(crate) fn schema() -> Value {
    let catalogue = Catalogue::new();
    let options: Map<String, Value> =
        catalogue.keys().map(|key| (key.name().to_owned(), property(key))).collect();
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "allcores.toml",
        "description": "Apps that allcores runs. A key is an option of `allcores run` without its dashes.",
        "type": "object",
        "additionalProperties": false,
        "required": ["apps"],
        "properties": {
            "defaults": table(&options, false, "What holds for every app that doesn't say otherwise.", Some(json!({
                "type": "object",
                "description": "What holds besides in an environment: --env-name NAME.",
                "additionalProperties": table(&options, false, "An environment.", None),
            }))),
            "apps": {
                "type": "object",
                "description": "The apps, by their names.",
                "minProperties": 1,
                "propertyNames": {"pattern": "^[A-Za-z0-9_][A-Za-z0-9._-]*$", "maxLength": MAX_NAME},
                "additionalProperties": table(&options, true, "An app.", Some(json!({
                    "type": "object",
                    "description": "What is otherwise in an environment: --env-name NAME.",
                    "additionalProperties": table(&options, true, "An environment.", None),
                }))),
            },
        },
    })
}

fn table(
    options: &Map<String, Value>,
    has_command: bool,
    description: &str,
    environments: Option<Value>,
) -> Value {
    let mut properties = options.clone();
    if has_command {
        properties.insert(COMMAND.into(), command());
    }
    properties.extend(environments.map(|environments| (ENVIRONMENTS.to_owned(), environments)));
    json!({
        "type": "object",
        "description": description,
        "additionalProperties": false,
        "properties": properties,
    })
}

fn command() -> Value {
    json!({
        "description": "The command to run, and its arguments: as words, or in one line, which no shell sees.",
        "anyOf": [
            {"type": "array", "items": {"type": ["string", "integer"]}, "minItems": 1},
            {"type": "string", "minLength": 1},
        ],
    })
}

fn property(key: Key<'_>) -> Value {
    let one = key.kind().map_or(json!({}), |kind| value(key, kind));
    let is_table = matches!(key.kind(), Some(Kind::Variables | Kind::Sources));
    let off = json!({"const": false});
    let mut property = match key.kind() {
        Some(Kind::Flag) => json!({"type": "boolean"}),
        _ if key.is_list() && !is_table => {
            json!({"anyOf": [one.clone(), {"type": "array", "items": one}, off]})
        }
        _ => json!({"anyOf": [one, off]}),
    };
    property["description"] = key.help().into();
    if let Some(default) = key.default().and_then(|default| default.to_str()) {
        property["default"] = default.parse::<u64>().map_or_else(|_| default.into(), Value::from);
    }
    property
}

fn value(key: Key<'_>, kind: Kind) -> Value {
    let string = |pattern: &str| json!({"type": "string", "pattern": pattern});
    match kind {
        Kind::Flag => json!({"type": "boolean"}),
        Kind::Tally => json!({"type": "integer", "minimum": 0, "maximum": 9}),
        Kind::Count => json!({"type": "integer", "minimum": 0}),
        Kind::Workers => json!({"anyOf": [
            {"const": "auto"},
            {"type": "integer", "maximum": MAX_WORKERS, "not": {"const": 0}},
        ]}),
        Kind::Size => json!({"anyOf": [
            {"type": "integer", "minimum": 1},
            string("^[0-9]+ *([KkMmGgTt]([Ii]?[Bb])?|[Bb])?$"),
        ]}),
        Kind::Duration => string("^ *([0-9]+ *[a-zA-Zµ]+ *)+$"),
        Kind::Account | Kind::Address => json!({"type": ["string", "integer"]}),
        Kind::Text | Kind::Path => json!({"type": "string"}),
        Kind::Choice => json!({"enum": key.choices()}),
        Kind::Policy => json!({"anyOf": [
            {"enum": key.choices()},
            string("^sticky:(cookie|header|query)=.+$"),
        ]}),
        Kind::Variables => json!({
            "type": "object",
            "propertyNames": {"pattern": "^[^=]+$"},
            "additionalProperties": {"type": ["string", "integer", "boolean"]},
        }),
        Kind::Sources => json!({
            "type": "object",
            "propertyNames": {"pattern": "^[^=]+$"},
            "additionalProperties": {"type": "string", "minLength": 1},
        }),
    }
}
