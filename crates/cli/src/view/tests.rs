//! The JSON of a status, and a sample of it for other tests.

use std::time::{Duration, SystemTime};

use allcores::primary::{AppSnapshot, samples};
use serde_json::json;

use crate::report::Account;

use super::{ConfigView, DescriptionView, FailedReloadView, StatusView, time};

/// The time of everything in the sample: 2026-01-02T03:04:05.678Z.
fn then() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_767_323_045_678)
}

/// An app with one worker that serves and one that waits for its backoff.
pub(crate) fn snapshot() -> AppSnapshot {
    samples::snapshot(then())
}

/// How an app was made.
pub(crate) fn description() -> DescriptionView {
    let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    DescriptionView {
        name: "web".into(),
        pid: 4242,
        version: "0.1.0".into(),
        command: list(&["node", "server.js"]),
        command_line: "node server.js".into(),
        folder: "/srv".into(),
        workers: 2,
        scaled: Some(3),
        config: Some(ConfigView {
            path: "/srv/allcores.toml".into(),
            app: "web".into(),
            environment: Some("production".into()),
        }),
        background: true,
        socket: "/run/allcores/web/control.sock".into(),
        log: Some("/var/log/allcores/web.log".into()),
        options: [("listen", list(&[":80", ":81"])), ("kill-timeout", list(&["5s"]))]
            .map(|(name, values)| (name.to_owned(), values))
            .into(),
        waiting: list(&["policy"]),
        variables: list(&["NODE_ENV", "PORT"]),
        secrets: list(&["DB_PASSWORD"]),
    }
}

/// [`snapshot`] as it goes over the wire.
pub(crate) fn web() -> StatusView {
    StatusView::of(
        snapshot(),
        &Account { log: Some("/var/log/web.log".into()), written: 7, dropped: 0, reason: None },
        Some(FailedReloadView { at: time(then()), reason: "too slow".into() }),
    )
}

/// Claims that the page has each of these fields in the table under this line.
#[track_caller]
pub(crate) fn explained<'a>(heading: &str, fields: impl IntoIterator<Item = &'a String>) {
    let page = include_str!("../../../../docs/reference/control-api.md");
    let (_, table) = page.split_once(&format!("\n{heading}\n\n")).expect("there is such a line");
    let (table, _) = table.split_once("\n\n").unwrap();
    let lacking: Vec<_> = fields.into_iter().filter(|name| !table.contains(&format!("`{name}`"))).collect();
    assert!(lacking.is_empty(), "{heading} {lacking:?}");
}

#[test]
fn the_json_of_a_status_is_stable() {
    let expected = json!({
        "name": "web", "pid": 4242, "version": "0.1.0", "upgrades": 2, "generation": 1, "policy": "auto", "hint": "use shared",
        "reload": {"generation": 2, "done": 1, "rolling_back": false, "queued": true},
        "failed_reload": {"at": "2026-01-02T03:04:05.678Z", "reason": "too slow"},
        "listening": ["127.0.0.1:8080"],
        "addresses": [{"address": "127.0.0.1:8080", "policy": "round-robin", "pending": 2}],
        "target": 2, "stopping": false, "strays": 0, "health": null,
        "output": {"log": "/var/log/web.log", "written": 7, "dropped": 0, "reason": null},
        "since": "2026-01-02T03:04:05.678Z",
        "workers": [
            {
                "id": 3, "slot": 0, "generation": 2, "pid": 4243, "state": "ready", "rung": "adopted",
                "since": "2026-01-02T03:04:05.678Z", "restarts": 1, "crash_loop": false, "respawn_at": null,
                "lanes": [{"address": "127.0.0.1:8080", "depth": 3}], "rss_bytes": 50_541_568, "cpu_seconds": 1.5,
                "health": {"failures": 1, "reason": "it answered 500"}, "said_status": "warm",
                "last_exit": {"code": null, "signal": "SIGKILL", "oom": true, "at": "2026-01-02T03:04:05.678Z"},
            },
            {
                "id": 2, "slot": 1, "generation": 1, "pid": null, "state": "exited", "rung": null,
                "since": "2026-01-02T03:04:05.678Z", "restarts": 0, "crash_loop": true,
                "respawn_at": "2026-01-02T03:04:05.678Z", "lanes": [], "rss_bytes": null,
                "cpu_seconds": null, "health": null, "said_status": null, "last_exit": null,
            },
        ],
    });
    assert_eq!(serde_json::to_value(web()).unwrap(), expected);
    assert_eq!(serde_json::from_value::<StatusView>(expected).unwrap(), web());
}

#[test]
fn a_time_that_has_too_many_digits_is_the_last_that_has_not() {
    let after = |seconds| time(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    assert_eq!(after(253_402_300_799), "9999-12-31T23:59:59.000Z");
    assert_eq!(after(253_402_300_800), "9999-12-31T23:59:59.999Z");
    // As the next worker of a slot after a backoff of 100,000 years.
    assert_eq!(after(100_000 * 31_557_600), "9999-12-31T23:59:59.999Z");
}
