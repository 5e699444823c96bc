//! The published document against what is answered: each operation that there is, by a request of its own.

use allcores_testing::page::current;
use serde_json::{Value, json};

use super::{Fake, started};
use crate::control::routes;
use crate::view::tests::explained;

/// A body for each operation that wants one.
fn body_for(path: &str) -> &'static [u8] {
    match path {
        "/v1/scale" => br#"{"workers": 2}"#,
        "/v1/signal" => br#"{"signal": "USR2"}"#,
        "/v1/send" => br#"{"message": 1}"#,
        _ => b"",
    }
}

#[test]
fn the_published_document_is_current() {
    let document = routes::document::<Fake>();
    current("docs/reference/openapi.json", &(serde_json::to_string_pretty(&document).unwrap() + "\n"));
}

#[test]
fn every_field_is_explained() {
    let document = routes::document::<Fake>();
    let views = [("StatusView", "The status:"), ("WorkerView", "A worker:")];
    for (view, heading) in views.into_iter().chain([("DescriptionView", "How an app was made:")]) {
        explained(heading, document["components"]["schemas"][view]["properties"].as_object().unwrap().keys());
    }
}

#[tokio::test]
async fn every_operation_answers_as_the_document_says() {
    let running = started();
    let (status, served) = running.raw("GET /v1/openapi.json", b"").await;
    let document: Value = serde_json::from_str(&served).unwrap();
    assert_eq!((status, &document), (200, &routes::document::<Fake>()));
    let mut operations = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            operations += 1;
            if path == "/v1/events" {
                // It has no end before the app's; `events_are_told_from_now_until_the_end` reads it.
                continue;
            }
            let head = format!("{} {path}", method.to_uppercase());
            let (status, body) = running.raw(&head, body_for(path)).await;
            let response = &operation["responses"][status.to_string()];
            assert!(response.is_object() && status < 300, "{head}: {status} {body}");
            let content = response["content"].as_object().unwrap();
            let lines = content.get("application/x-ndjson").map(|content| (content, body.lines()));
            if let Some((content, lines)) = lines {
                for line in lines.filter(|line| line.starts_with('{')) {
                    conforms(&document, &content["schema"], &serde_json::from_str(line).unwrap());
                }
            } else if let Some(content) =
                content.get("application/json").filter(|content| content["schema"].is_object())
            {
                conforms(&document, &content["schema"], &serde_json::from_str(&body).unwrap());
            }
            if operation["requestBody"]["required"] == true {
                let (status, body) = running.raw(&head, b"").await;
                let refused =
                    &operation["responses"][status.to_string()]["content"]["application/json"]["schema"];
                assert_eq!(status, 400, "{head} without a body");
                conforms(&document, refused, &serde_json::from_str(&body).unwrap());
            }
        }
    }
    assert!(operations >= 13, "{operations}");
}

#[test]
fn what_does_not_conform_is_noticed() {
    let document = routes::document::<Fake>();
    let schema = json!({"$ref": "#/components/schemas/ReadyView"});
    assert!(mismatch(&document, &schema, &json!({"ready": 1, "target": 2})).is_none());
    for wrong in [
        json!({"ready": 1}),
        json!({"ready": "1", "target": 2}),
        json!({"ready": 1, "target": 2, "x": 3}),
        json!(7),
    ] {
        assert!(mismatch(&document, &schema, &wrong).is_some(), "{wrong}");
    }
}

#[track_caller]
fn conforms(document: &Value, schema: &Value, value: &Value) {
    if let Some(why) = mismatch(document, schema, value) {
        panic!("{why}: {value} by {schema}");
    }
}

/// Why a value is not what a schema asks for: so much of JSON schema as the document uses.
fn mismatch(document: &Value, schema: &Value, value: &Value) -> Option<String> {
    if schema == &json!(true) {
        return None;
    }
    let own = |schema: &Value| mismatch(document, schema, value);
    if let Some(path) = schema["$ref"].as_str() {
        let target =
            document.pointer(path.trim_start_matches('#')).unwrap_or_else(|| panic!("{path} is not there"));
        // What a variant has besides its content stands beside it.
        let is_alone = schema.as_object().unwrap().len() == 1;
        if is_alone && let Some(why) = own(target) {
            return Some(why);
        }
    }
    for choice in ["anyOf", "oneOf"] {
        if let Some(choices) = schema[choice].as_array()
            && choices.iter().all(|schema| own(schema).is_some())
        {
            return Some(format!("none of {choice}"));
        }
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        return Some("not in the enumeration".into());
    }
    if !schema["const"].is_null() && schema["const"] != *value {
        return Some("not the constant".into());
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(word) => vec![word],
        Value::Array(words) => words.iter().filter_map(Value::as_str).collect(),
        _ => vec![],
    };
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if !types.is_empty()
        && !types.iter().any(|word| *word == kind || (*word == "number" && kind == "integer"))
    {
        return Some(format!("{kind} is none of {types:?}"));
    }
    if let (Some(items), true) = (value.as_array(), schema["items"].is_object()) {
        return items.iter().find_map(|item| mismatch(document, &schema["items"], item));
    }
    let (Some(fields), Some(properties)) = (value.as_object(), schema["properties"].as_object()) else {
        return None;
    };
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let missing = required.into_iter().find(|name| !fields.contains_key(*name));
    if let Some(name) = missing {
        return Some(format!("{name} is missing"));
    }
    let is_open = schema.get("$ref").is_some();
    fields.iter().find_map(|(name, field)| match properties.get(name) {
        Some(schema) => mismatch(document, schema, field).map(|why| format!("{name}: {why}")),
        None => (!is_open).then(|| format!("{name} is not in the document")),
    })
}
