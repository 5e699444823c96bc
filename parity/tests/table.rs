//! `docs/node-parity.md` says what is tested and what is not: here, that it is right about it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

struct Row {
    line: usize,
    name: String,
    verdict: String,
    tests: Vec<String>,
}

/// Where the page goes on with what node:cluster has a name for.
const NAMES: &str = "## Name by name";

/// The rows about Node's tests.
fn rows() -> Vec<Row> {
    let text = page();
    rows_in(text.split(NAMES).next().unwrap())
}

/// The rows about what Node has a name for, and about what it does wrong.
fn names() -> Vec<Row> {
    let text = page();
    rows_in(text.split(NAMES).nth(1).unwrap())
}

fn page() -> String {
    fs::read_to_string(here().join("../docs/node-parity.md")).unwrap()
}

fn rows_in(text: &str) -> Vec<Row> {
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split(" | ").map(|cell| cell.trim_matches([' ', '|']).to_owned()).collect()
    };
    let heads = ["| Node's test", "| situation", "| node:cluster |", "| what Node does"];
    let is_head = |line: &str| heads.iter().any(|head| line.starts_with(head));
    let lines = text.lines().enumerate();
    let lines = lines.filter(|(_, line)| line.starts_with("| ") && !is_head(line));
    lines
        .map(|(index, line)| {
            let cells = cells(line);
            assert_eq!(cells.len(), 4, "line {}: {line}", index + 1);
            let tests = cells[3].split('`').filter(|name| name.contains("::")).map(str::to_owned).collect();
            Row { line: index + 1, name: cells[0].clone(), verdict: cells[2].clone(), tests }
        })
        .collect()
}

fn here() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The tests that a file makes, by the macro or by hand.
fn tests_in(path: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut tests = BTreeSet::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(call) = line.trim_start().strip_prefix("on_each_node!(") {
            tests.extend(call.split([':', ')']).next().map(|name| name.trim().to_owned()));
        }
        let is_test =
            line.trim_start().starts_with("#[test]") || line.trim_start().starts_with("#[tokio::test");
        if is_test {
            let function = lines.by_ref().find(|line| line.contains("fn "));
            let name = function.and_then(|line| line.split("fn ").nth(1)?.split(['(', '<']).next());
            tests.extend(name.map(str::to_owned));
        }
    }
    tests
}

/// Every test below `tests/GROUP`, as `GROUP::file::test`.
fn tests_of(group: &str) -> BTreeSet<String> {
    let Ok(folder) = fs::read_dir(here().join("tests").join(group)) else { return BTreeSet::new() };
    let files = folder.flatten().map(|entry| entry.path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    files
        .flat_map(|path| {
            let module = path.file_stem().unwrap().to_string_lossy().into_owned();
            tests_in(&path).into_iter().map(move |test| match module.as_str() {
                "main" => format!("{group}::{test}"),
                _ => format!("{group}::{module}::{test}"),
            })
        })
        .map(|test| test.replacen("::::", "::", 1))
        .collect()
}

#[test]
fn every_row_has_an_answer() {
    let rows = rows();
    assert!(rows.len() > 150, "{} rows", rows.len());
    for Row { line, name, verdict, tests } in &rows {
        let (word, why) = verdict.split_once(": ").unwrap_or((verdict, ""));
        let (needs_why, needs_test) = match word {
            "pass" => (false, true),
            "different" => (true, true),
            "not applicable" => (true, false),
            "not done" => (false, false),
            _ => panic!("line {line}, {name}: no answer: {verdict}"),
        };
        assert!(!needs_why || !why.is_empty(), "line {line}, {name}: {word}, and why?");
        assert!(!needs_test || !tests.is_empty(), "line {line}, {name}: {word}, and no test");
    }
}

#[test]
fn every_name_is_compared() {
    let text = page();
    let names = text.split(NAMES).nth(1).unwrap().split("## Better than Node").next().unwrap();
    let rows = rows_in(names);
    assert!(rows.len() > 60, "{} rows", rows.len());
    for Row { line, name, verdict, .. } in rows {
        let (word, why) = verdict.split_once(": ").unwrap_or((&verdict, ""));
        assert!(
            ["same", "better", "different", "absent"].contains(&word),
            "line {line} of it, {name}: {verdict}"
        );
        assert!(word == "same" || !why.is_empty(), "line {line} of it, {name}: {word}, and why?");
    }
}

#[test]
fn no_row_is_there_twice() {
    let mut names = BTreeSet::new();
    for Row { line, name, .. } in rows() {
        assert!(names.insert(name.clone()), "line {line}: {name} again");
    }
}

#[test]
fn every_test_that_is_named_exists() {
    let tests: BTreeSet<_> = tests_of("wire").into_iter().chain(tests_of("api")).collect();
    for row in rows().into_iter().chain(names()) {
        for test in row.tests {
            assert!(tests.contains(&test), "line {}, {}: there is no {test}", row.line, row.name);
        }
    }
}

#[test]
fn every_test_is_named() {
    let named: BTreeSet<_> = rows().into_iter().chain(names()).flat_map(|row| row.tests).collect();
    let tests = tests_of("wire").into_iter().chain(tests_of("api"));
    let missing: Vec<_> = tests.filter(|test| !named.contains(test)).collect();
    assert!(missing.is_empty(), "not in docs/node-parity.md: {missing:?}");
}
