//! `docs/benchmarks.md` and its pictures, made of the records that are stored beside it, and of nothing else.

use std::fmt::Write as _;
use std::path::Path;

use super::case::Case;
use super::losses::{Loss, losses};
use super::record::{Given, Record, Role, Series};
use super::table::{self, number};
use super::{cases, plot};

/// Where records and pictures are, as seen from the root of the workspace.
pub(super) const FOLDER: &str = "docs/benchmarks";

/// The page.
pub(super) const PAGE: &str = "docs/benchmarks.md";

const HEAD: &str = "\
# Benchmarks

Made by `cargo xtask bench` of the records in `docs/benchmarks`, each of which has every sample; no figure here was \
written by hand. `cargo xtask bench` alone measures everything anew, and `cargo xtask bench --quick` looks in minutes whether the \
directions are as expected.

Contenders take turns: each is started anew for each round, warmed up, measured and stopped. Clients, workers and managers share \
one machine, so that what a client costs is felt by all contenders alike. A cell has the median of the rounds, the lowest and \
highest in brackets, and the ratio to the first row; what is headed *all rounds* is a sum. A *limit* is no peer: nobody \
manages workers there, or it is a theory; its ratio tells how far from it the first row is. Compare within a table only. With *autogroup* (`kernel.sched_autogroup_enabled`), as \
in a terminal, each session has a share of the cores of its own, and each worker of allcores is a session; services and containers have \
no such shares, so these were measured without.
";

/// A file of the repository, and what it is to hold.
pub(super) struct Page {
    /// As seen from the root of the workspace.
    pub(super) path: String,
    pub(super) text: String,
}

/// Makes all pages of the records below the root of a workspace.
pub(super) fn pages(root: &Path) -> anyhow::Result<Vec<Page>> {
    let folder = root.join(FOLDER);
    let mut text = HEAD.to_owned();
    let mut pages = Vec::new();
    for case in cases::ALL {
        let record = Record::read(&folder, case)?;
        text += &section(case, record.as_ref());
        let picture = record.and_then(|record| plot::draw(case, &record));
        pages.extend(picture.map(|text| Page { path: format!("{FOLDER}/{}.svg", case.name), text }));
    }
    pages.push(Page { path: PAGE.into(), text });
    Ok(pages)
}

/// What the page says of a case.
fn section(case: &Case, record: Option<&Record>) -> String {
    let Case { name, about, remarks, .. } = case;
    let options = record.map_or_else(String::new, |record| record.given.options());
    let mut text = format!("\n## {name}: {about}\n\n    cargo xtask bench {name}{options}\n");
    match record {
        Some(record) => measured(&mut text, case, record),
        None => text += "\nNo result is stored yet.\n",
    }
    if !remarks.is_empty() {
        add(&mut text, format_args!("\n{remarks}\n"));
    }
    text
}

fn measured(text: &mut String, case: &Case, record: &Record) {
    let Record { title, given, machine, results, left_out, .. } = record;
    let Given { rounds, seconds, .. } = given;
    let noun = if *rounds == 1 { "round" } else { "rounds" };
    add(text, format_args!("\n{}: {rounds} {noun} of {seconds} s. {machine}.\n", capital(title)));
    if !results.is_empty() {
        let name = case.name;
        add(text, format_args!("\n![{name}: medians and spread](benchmarks/{name}.svg)\n"));
    }
    for group in record.groups() {
        if !group[0].group.is_empty() {
            add(text, format_args!("\n### {name}: {}\n", group[0].group, name = case.name));
        }
        add(text, format_args!("\n{}", table(case, &group)));
    }
    for left_out in left_out {
        add(text, format_args!("\nNot measured: {}: {}.\n", left_out.contender, left_out.why));
    }
    lost(text, case, record);
}

/// The table of a group, in Markdown. Limits are marked.
fn table(case: &Case, group: &[&Series]) -> String {
    let mut rows = table::rows(case.metrics, group);
    for (row, series) in rows.iter_mut().skip(1).zip(group) {
        if series.role == Role::Limit {
            row[0] = format!("*limit:* {}", row[0]);
        }
    }
    let line = |row: &Vec<String>| format!("| {} |\n", row.join(" | "));
    let rule = format!("|{}\n", "---|".repeat(rows[0].len()));
    let (head, body) = rows.split_at(1);
    head.iter().map(line).chain([rule]).chain(body.iter().map(line)).collect()
}

fn lost(text: &mut String, case: &Case, record: &Record) {
    if !record.results.iter().any(|series| series.role == Role::Peer) {
        *text += "\nNo peer is measured in this case.\n";
        return;
    }
    let losses = losses(case, record);
    let (beyond, within): (Vec<_>, Vec<_>) = losses.iter().partition(|loss| loss.is_beyond_spread);
    for (head, losses) in [
        ("**Where we lose** to the best peer, by more than the rounds differ:", beyond),
        ("Worse than the best peer's, but within what the rounds differ by:", within),
    ] {
        if losses.is_empty() {
            continue;
        }
        add(text, format_args!("\n{head}\n\n"));
        for loss in losses {
            add(text, format_args!("* {}\n", told(loss)));
        }
    }
    if losses.is_empty() {
        *text += "\nNothing of ours is worse than the best peer's here.\n";
    }
}

fn told(loss: &Loss<'_>) -> String {
    let Loss { group, metric, contender, own, peer, best, .. } = loss;
    let place = if group.is_empty() { String::new() } else { format!("{group}: ") };
    let ratio = own.value / best.value;
    let ratio = if ratio.is_finite() { format!(" (×{ratio:.2})") } else { String::new() };
    let (own, best) = (number(own.value), number(best.value));
    format!("{place}{contender}: {} {own}, {peer} {best}{ratio}", metric.name)
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn add(text: &mut String, words: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = text.write_fmt(words);
}

#[cfg(test)]
mod tests {
    use allcores_testing::page::current;
    use allcores_testing::runtimes::workspace;

    use super::super::record::LeftOut;
    use super::super::record::tests::{CASE, record, series};
    use super::*;

    #[test]
    fn the_published_benchmarks_are_current() {
        for page in pages(&workspace()).unwrap() {
            current(&page.path, &page.text);
        }
    }

    #[test]
    fn without_records_the_page_has_no_figures() {
        let root = tempfile::tempdir().unwrap();
        let pages = pages(root.path()).unwrap();
        assert_eq!(pages.len(), 1, "there is nothing to be drawn");
        assert!(!pages[0].text.contains('×') && !pages[0].text.contains(".svg"), "{}", pages[0].text);
        for case in cases::ALL {
            assert!(pages[0].text.contains(&format!("## {}:", case.name)), "{}", case.name);
        }
    }

    #[test]
    fn a_stored_record_has_its_picture_and_its_table() {
        let root = tempfile::tempdir().unwrap();
        let case = cases::ALL[0];
        let samples = series("allcores auto", Role::Ours, "", case.metrics[0].name, &[1234.0]);
        let record = Record { case: case.name.into(), ..record(vec![samples]) };
        record.write(&root.path().join(FOLDER)).unwrap();
        let pages = pages(root.path()).unwrap();
        let paths: Vec<_> = pages.iter().map(|page| page.path.clone()).collect();
        assert_eq!(paths, [format!("{FOLDER}/{}.svg", case.name), PAGE.into()]);
        assert!(pages[1].text.contains("| allcores auto | 1234 ×1.00 |"), "{}", pages[1].text);
        assert!(pages[0].text.contains(">1234<"), "{}", pages[0].text);
    }

    #[test]
    fn a_section_tells_where_we_lose_and_who_is_missing() {
        let mut record = record(vec![
            series("allcores auto", Role::Ours, "8 clients", "requests/s", &[50.0, 55.0, 60.0]),
            series("peer", Role::Peer, "8 clients", "requests/s", &[100.0, 110.0, 120.0]),
            series("nothing between", Role::Limit, "8 clients", "requests/s", &[200.0]),
        ]);
        record.left_out = vec![LeftOut { contender: "absent".into(), why: "it can't be had".into() }];
        let text = section(&CASE, Some(&record));
        for part in [
            "    cargo xtask bench made-up --rounds 4 --seconds 1\n",
            "### made-up: 8 clients\n",
            "| allcores auto | 55 (50–60) ×1.00 |\n",
            "| *limit:* nothing between | 200 ×3.64 |\n",
            "Not measured: absent: it can't be had.\n",
            "**Where we lose** to the best peer, by more than the rounds differ:\n\n\
             * 8 clients: allcores auto: requests/s 55, peer 110 (×0.50)\n",
            "Nothing of this was measured.\n",
        ] {
            assert!(text.contains(part), "{part} is missing:\n{text}");
        }
    }
}
