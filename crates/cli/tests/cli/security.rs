//! The page on security: what it claims is held by tests, and here is seen that they are there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn page() -> String {
    fs::read_to_string(root().join("docs/security.md")).unwrap()
}

/// Whether a file has a test of this name.
fn has_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let is_it = |line: &str| {
        let rest = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        rest.and_then(|rest| rest.strip_prefix(name)).is_some_and(|rest| rest.starts_with('('))
    };
    let is_marked = |at: usize| {
        let attributes = lines[..at].iter().rev().take_while(|line| line.starts_with("#["));
        attributes.into_iter().any(|line| line.starts_with("#[test") || line.starts_with("#[tokio::test"))
    };
    // In a block of proptest's, where each is one that has its own attribute too.
    lines.iter().enumerate().any(|(at, line)| is_it(line) && is_marked(at))
}

/// What stands in backquotes and looks like the place of a test.
fn places(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split('`').skip(1).step_by(2).filter_map(|quoted| quoted.split_once(".rs::"))
}

#[test]
fn every_test_that_the_page_names_is_there() {
    let page = page();
    let named: BTreeSet<_> = places(&page).collect();
    assert!(named.len() > 50, "{}", named.len());
    for (file, name) in named {
        let path = root().join("crates").join(format!("{file}.rs"));
        let source = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(has_test(&source, name), "{file}.rs has no test {name}");
    }
}

#[test]
fn every_line_of_its_tables_of_claims_names_a_test() {
    let page = page();
    let mut is_of_claims = false;
    let mut lines = 0;
    for line in page.lines() {
        match line.strip_prefix("| ") {
            None if line.starts_with("|---") => {}
            None => is_of_claims = false,
            Some(head) if head.ends_with("| test |") => is_of_claims = true,
            Some(_) if is_of_claims => {
                lines += 1;
                assert_eq!(places(line).count(), 1, "{line}");
            }
            Some(_) => {}
        }
    }
    assert!(lines > 50, "{lines}");
}

#[test]
fn what_is_no_test_is_not_taken_for_one() {
    let source =
        "#[test]\n#[cfg(unix)]\nfn one() {}\n\nfn two() {}\n\n    #[tokio::test]\n    async fn three() {}\n";
    assert!(has_test(source, "one") && has_test(source, "three"));
    assert!(!has_test(source, "two") && !has_test(source, "thre") && !has_test(source, "on"));
}
