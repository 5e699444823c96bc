//! The page of all options, made of the catalogue: `docs/reference/options.md`.

use std::fmt::Write as _;

use super::catalogue::{Catalogue, Key, Kind};
use super::file::wanted;

const HEAD: &str = "\
# Options of an app

Each is an option of `allcores run` and of `allcores start`, and, without its dashes, a key of a
[config file](config.md). This page is made of the program's own definition, and a test compares them.

";

/// Writes the page.
pub(super) fn page() -> String {
    let mut page = HEAD.to_owned();
    for key in Catalogue::new().keys() {
        let _ = writeln!(page, "## {}\n\n{}\n", key.name(), key.help().trim_end());
        let _ = writeln!(page, "{}\n", facts(key));
    }
    page.trim_end().to_owned() + "\n"
}

fn facts(key: Key<'_>) -> String {
    let option = match key.kind() {
        Some(Kind::Flag | Kind::Tally) => format!("`--{}`", key.name()),
        _ => format!("`--{} {}`", key.name(), key.value_name()),
    };
    let in_file = key.kind().map_or("", wanted);
    let list = match (key.is_list(), key.kind()) {
        (true, Some(Kind::Variables | Kind::Sources)) | (false, _) => "",
        (true, _) => ", or an array of such",
    };
    let choices = match key.choices() {
        choices if choices.is_empty() => String::new(),
        choices => format!(": `{}`", choices.join("`, `")),
    };
    let default = key.default().map(|default| format!(" · default `{}`", default.to_string_lossy()));
    format!("{option} · in a file {in_file}{list}{choices}{}", default.unwrap_or_default())
}
