//! The text of a config file, one app after another.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// An app's table, and those of its environments.
#[derive(Debug)]
pub(super) struct Table {
    name: String,
    keys: String,
    environments: String,
}

impl Table {
    pub(super) fn new(name: &str) -> Self {
        Self { name: key(name), keys: String::new(), environments: String::new() }
    }

    /// A value as it is.
    pub(super) fn raw(&mut self, name: &str, value: &str) {
        let _ = writeln!(self.keys, "{name} = {value}");
    }

    pub(super) fn text(&mut self, name: &str, value: &str) {
        self.raw(name, &quoted(value));
    }

    pub(super) fn words(&mut self, name: &str, words: impl IntoIterator<Item = String>) {
        let words: Vec<String> = words.into_iter().map(|word| quoted(&word)).collect();
        self.raw(name, &format!("[{}]", words.join(", ")));
    }

    /// Variables, of all environments or of one.
    pub(super) fn variables(&mut self, environment: Option<&str>, variables: &BTreeMap<String, String>) {
        let pairs: Vec<String> =
            variables.iter().map(|(name, value)| format!("{} = {}", key(name), quoted(value))).collect();
        let line = format!("env = {{ {} }}\n", pairs.join(", "));
        match environment {
            None if variables.is_empty() => {}
            None => self.keys.push_str(&line),
            Some(environment) => {
                let _ = write!(
                    self.environments,
                    "\n[apps.{}.environments.{}]\n{line}",
                    self.name,
                    key(environment)
                );
            }
        }
    }

    pub(super) fn finish(&self) -> String {
        format!("[apps.{}]\n{}{}\n", self.name, self.keys, self.environments)
    }

    /// The same as a comment, and why.
    pub(super) fn commented(&self, reason: &str) -> String {
        let table = self.finish();
        let lines = [reason].into_iter().chain(table.lines().filter(|line| !line.is_empty()));
        lines.map(|line| format!("# {line}\n")).chain(["\n".to_owned()]).collect()
    }
}

/// A key, in quotes where it needs them.
fn key(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !name.is_empty() && name.chars().all(is_bare) { name.to_owned() } else { quoted(name) }
}

/// A string of TOML, whose escapes are those of JSON, and which wants one more character escaped.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007F")
}
