//! The control API as an OpenAPI document, made of the very table by which requests are routed and of the types that are read and
//! written. There is no second list that could be otherwise.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::view::ErrorView;

/// Makes the schema of a type.
type OfType = fn(&mut SchemaGenerator) -> Schema;

/// What a route is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct About {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) summary: &'static str,
    pub(super) query: Option<Query>,
    pub(super) body: Option<Body>,
    pub(super) answer: Answer,
    /// Another status with an answer of the same shape, and what it says.
    pub(super) or: Option<(u16, &'static str)>,
    /// Further statuses, all of which carry an error.
    pub(super) errors: &'static [u16],
}

/// A flag behind the path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Query {
    pub(super) name: &'static str,
    pub(super) description: &'static str,
}

/// What is sent with a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Body {
    pub(super) schema: OfType,
    pub(super) is_required: bool,
}

/// What a success is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answer {
    Json(u16, OfType),
    /// A JSON value in each line.
    Lines(OfType),
    Metrics,
    Anything,
}

/// Any JSON object.
pub(super) fn object(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({"type": "object"})
}

/// The schema of a type, by its name.
pub(super) fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// Writes the document.
pub(super) fn document(abouts: impl Iterator<Item = About>) -> Value {
    let settings =
        || SchemaSettings::draft2020_12().with(|it| it.definitions_path = "/components/schemas".into());
    let mut read = settings().for_deserialize().into_generator();
    let mut written = settings().for_serialize().into_generator();
    let mut paths = Map::new();
    for about in abouts {
        let operation = operation(about, &mut read, &mut written);
        let path = paths.entry(about.path).or_insert_with(|| json!({}));
        path[about.method] = operation;
    }
    let mut schemas = written.take_definitions(true);
    schemas.extend(read.take_definitions(true));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "The control API of an app that allcores runs",
            "version": "1",
            "description": "On the Unix socket <runtime folder>/NAME/control.sock, for the app's own user and root. docs/reference/control-api.md says more.",
        },
        "paths": paths,
        "components": {"schemas": schemas},
    })
}

fn operation(about: About, read: &mut SchemaGenerator, written: &mut SchemaGenerator) -> Value {
    let (status, success) = match about.answer {
        Answer::Json(status, schema) => (status, json!({"application/json": {"schema": schema(written)}})),
        Answer::Lines(schema) => (200, json!({"application/x-ndjson": {"schema": schema(written)}})),
        Answer::Metrics => (200, json!({"text/plain": {}, "application/openmetrics-text": {}})),
        Answer::Anything => (200, json!({"application/json": {}})),
    };
    let mut responses = Map::new();
    if let Some((status, description)) = about.or {
        responses.insert(status.to_string(), json!({"description": description, "content": &success}));
    }
    responses.insert(status.to_string(), json!({"description": "Done.", "content": success}));
    // Whoever is not the app's user gets 403 whatever is asked.
    for status in about.errors.iter().chain([&403]) {
        let content = json!({"application/json": {"schema": of::<ErrorView>(written)}});
        responses
            .insert(status.to_string(), json!({"description": "Not done, and why.", "content": content}));
    }
    let mut operation = json!({"summary": about.summary, "responses": responses});
    if let Some(Query { name, description }) = about.query {
        operation["parameters"] =
            json!([{"name": name, "in": "query", "description": description, "schema": {"type": "boolean"}}]);
    }
    if let Some(Body { schema, is_required }) = about.body {
        operation["requestBody"] =
            json!({"required": is_required, "content": {"application/json": {"schema": schema(read)}}});
    }
    operation
}
