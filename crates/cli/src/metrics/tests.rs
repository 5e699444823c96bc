//! What is counted, and how it is written.

use std::time::{Duration, SystemTime};

use allcores::primary::{Event, Reason, WorkerRef};
use allcores::{ExitStatus, Slot, WorkerId};

use super::tally::{Exit, Renewal};
use super::{Reading, Tally, plain};
use crate::view;

fn worker(id: u32, slot: u16) -> WorkerRef {
    WorkerRef { id: WorkerId(id), slot: Slot(slot), pid: 7 }
}

fn exited(status: ExitStatus, is_expected: bool, is_oom: bool) -> Event<'static> {
    let (uptime, cpu) = (Duration::from_secs(9), Duration::from_secs(2));
    Event::Exited { worker: worker(1, 0), status, is_oom, is_expected, uptime, cpu }
}

#[test]
fn each_end_of_a_worker_is_counted_once_and_by_how() {
    for (status, is_expected, is_oom, exit) in [
        (ExitStatus::Code(0), true, false, Exit::Drained),
        (ExitStatus::Signal(15), true, false, Exit::Drained),
        (ExitStatus::Signal(9), true, false, Exit::Killed),
        (ExitStatus::Code(0), false, false, Exit::Finished),
        (ExitStatus::Code(3), false, false, Exit::Failed),
        (ExitStatus::Signal(9), false, false, Exit::Signalled),
        (ExitStatus::Signal(9), false, true, Exit::OutOfMemory),
    ] {
        let mut tally = Tally::default();
        tally.observe(&exited(status, is_expected, is_oom), SystemTime::now());
        assert_eq!(tally.slots[&0].exits, [(exit, 1)].into(), "{status}");
    }
}

#[test]
fn cpu_time_of_a_slot_only_grows_and_goes_on_with_the_next_worker() {
    let mut tally = Tally::default();
    let secs = Duration::from_secs;
    let read = |tally: &mut Tally, id, used| {
        tally.cpu(Slot(0), id, secs(used));
        tally.slots[&0].cpu
    };
    tally.observe(&Event::Forked { worker: worker(1, 0) }, SystemTime::now());
    assert_eq!(read(&mut tally, 1, 1), secs(1));
    // A child of it is gone, and its time with it.
    assert_eq!(read(&mut tally, 1, 0), secs(1));
    assert_eq!(read(&mut tally, 1, 1), secs(1));
    // What it has used since the last reading is told with its end.
    tally.observe(&exited(ExitStatus::Code(0), true, false), SystemTime::now());
    assert_eq!(tally.slots[&0].cpu, secs(2));
    // A picture of the app that was made before its end, and read after it.
    assert_eq!(read(&mut tally, 1, 1), secs(2));
    tally.observe(&Event::Forked { worker: worker(2, 0) }, SystemTime::now());
    assert_eq!(read(&mut tally, 2, 5), secs(7));
    let carried: Tally = serde_json::from_value(serde_json::to_value(&tally).unwrap()).unwrap();
    assert_eq!(carried, tally);
}

/// An app to which much has happened.
fn reading() -> Reading {
    let mut tally = Tally::default();
    let (now, slot) = (SystemTime::UNIX_EPOCH + Duration::from_millis(1_500), Slot(1));
    for event in [
        Event::Forked { worker: worker(1, 0) },
        Event::Forked { worker: worker(3, 0) },
        Event::Forked { worker: worker(2, 1) },
        exited(ExitStatus::Code(3), false, false),
        Event::SpawnFailed { slot, reason: "no such file" },
        Event::Renewing { worker: worker(2, 1), reason: Reason::Memory, memory: None },
        Event::Hung { worker: worker(2, 1), stalled: Duration::from_secs(1) },
        Event::Unhealthy { worker: worker(2, 1), reason: "it answered 500" },
        Event::Reloaded { generation: 2, took: Duration::from_millis(250) },
    ] {
        tally.observe(&event, now);
    }
    assert_eq!(tally.slots[&1].renewals, [(Renewal::Memory, 1)].into());
    Reading::new(view::tests::web(), &mut tally, [(3, 5)].into())
}

#[test]
fn a_reading_tells_what_is_and_what_was() {
    let text = plain(&reading().into_open_metrics());
    for line in [
        r#"allcores_build_info{app="web",version="0.1.0"} 1.0"#,
        r#"allcores_workers{app="web",slot="0",state="ready"} 1.0"#,
        r#"allcores_workers{app="web",slot="0",state="hung"} 0.0"#,
        r#"allcores_workers{app="web",slot="1",state="exited"} 1.0"#,
        r#"allcores_worker_start_time_seconds{app="web",slot="0"} 1.5"#,
        r#"allcores_worker_queue_length{app="web",slot="0",address="127.0.0.1:8080"} 3.0"#,
        r#"allcores_worker_connections{app="web",slot="0"} 5.0"#,
        r#"allcores_worker_health_check_failures{app="web",slot="0"} 1.0"#,
        r#"allcores_worker_exits_total{app="web",slot="0",reason="failed"} 1.0"#,
        r#"allcores_worker_exits_total{app="web",slot="1",reason="failed"} 0.0"#,
        r#"allcores_worker_renewals_total{app="web",slot="1",reason="memory"} 1.0"#,
        r#"allcores_worker_cpu_seconds_total{app="web",slot="0"} 3.5"#,
        r#"allcores_reloads_total{app="web",outcome="succeeded"} 1.0"#,
        r#"allcores_last_reload_duration_seconds{app="web"} 0.25"#,
        r#"allcores_pending_connections{app="web",address="127.0.0.1:8080"} 2.0"#,
        r#"allcores_fairness_ratio{app="web"} 1.0"#,
        r#"allcores_log_lines_total{app="web"} 7.0"#,
        "# TYPE allcores_worker_exits_total counter",
        "# TYPE allcores_workers gauge",
    ] {
        assert!(text.lines().any(|written| written == line), "{line} is not in\n{text}");
    }
}

#[test]
fn each_format_is_written_as_its_readers_want_it() {
    let open = reading().into_open_metrics();
    assert!(open.ends_with("# EOF\n") && open.contains("# TYPE allcores_reloads counter\n"), "{open}");
    let text = plain(&open);
    assert!(!text.contains("EOF") && text.contains("# HELP allcores_reloads_total Reloads, by"), "{text}");
    // Every sample belongs to the family that was announced before it.
    let mut family = "";
    for line in text.lines() {
        match line.strip_prefix("# TYPE ") {
            Some(about) => family = about.split(' ').next().unwrap(),
            None if line.starts_with('#') => {}
            None => assert!(line.starts_with(&format!("{family}{{")), "{line} in {family}"),
        }
    }
}

#[test]
fn every_metric_is_in_the_reference() {
    let page = include_str!("../../../../docs/reference/metrics.md");
    let text = plain(&reading().into_open_metrics());
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        assert!(
            page.contains(&format!("| `{name}` | {kind} |")),
            "docs/reference/metrics.md lacks {name}, a {kind}"
        );
    }
}

#[test]
fn the_dashboard_asks_for_metrics_that_there_are() {
    let page = include_str!("../../../../docs/reference/metrics.md");
    let dashboard = include_str!("../../../../examples/grafana/allcores.json");
    let dashboard: serde_json::Value = serde_json::from_str(dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let asked: Vec<&str> = targets.map(|target| target["expr"].as_str().unwrap()).collect();
    assert!(asked.len() > 10, "{asked:?}");
    for expression in asked {
        let words = expression.split(|char: char| !char.is_ascii_lowercase() && char != '_');
        let names: Vec<&str> = words.filter(|word| word.starts_with("allcores_")).collect();
        assert!(!names.is_empty() && expression.contains("app=~\"$app\""), "{expression}");
        for name in names {
            assert!(page.contains(&format!("| `{name}` |")), "{name} of {expression}");
        }
    }
}
