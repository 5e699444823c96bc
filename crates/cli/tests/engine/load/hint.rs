//! The hint: a program that takes one connection at a time is recognized, and told of once.

use std::time::Duration;

use allcores_testing::load::Load;
use allcores_testing::process::Event;
use allcores_testing::runtimes::{Runtime, require};
use allcores_testing::{address, machine};

use crate::app;

const WORKERS: u16 = 4;

/// What a request takes, and how much of the workers' time is asked for.
const SERVICE_MS: u32 = 10;
const LOAD: f64 = 0.7;

/// The most requests that may be needed: the hint is given after some hundreds.
const MOST: u64 = 5000;

/// The notices of a text that names another policy.
fn hints(events: &[Event]) -> Vec<String> {
    let notices = events.iter().filter(|event| event.kind() == "notice");
    let texts = notices.filter_map(|notice| notice.value["text"].as_str());
    texts.filter(|text| text.contains("--policy")).map(str::to_owned).collect()
}

#[test]
fn a_server_that_takes_one_request_at_a_time_is_told_of_in_log_and_status() {
    let Some(python) = require(Runtime::Python) else { return };
    let _turn = machine::alone();
    let address = address::unused();
    let app = app::server(python, address).workers(WORKERS).policy("auto").start().unwrap();
    app.wait_ready(WORKERS.into()).unwrap();
    assert_eq!(app.status().unwrap()["hint"], serde_json::Value::Null);

    let rate = LOAD * f64::from(WORKERS) * 1000.0 / f64::from(SERVICE_MS);
    let load = Load::new(address).path(format!("/sleep?ms={SERVICE_MS}")).rate(rate).requests(MOST).spawn();
    let is_hint = |event: &Event| !hints(std::slice::from_ref(event)).is_empty();
    app.wait_for(is_hint, Duration::from_mins(1)).unwrap();
    let hint = hints(&app.events()).remove(0);
    assert!(hint.contains("one connection at a time") && hint.contains("`--policy shared`"), "{hint}");
    assert_eq!(app.status().unwrap()["hint"], hint.as_str());
    let printed = String::from_utf8(app.run(["status", app.name()]).unwrap().stdout).unwrap();
    assert!(printed.contains(&hint), "{printed}");

    // It is said once, however long it stays true.
    assert!(load.wait_ok(load.ok() + 300, Duration::from_secs(30)), "the app still answers");
    let report = load.stop();
    assert!(report.is_clean(), "{report}");
    assert_eq!(hints(&app.events()), [hint]);
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn a_server_that_takes_many_requests_at_a_time_is_left_in_peace() {
    let Some(go) = require(Runtime::Go) else { return };
    let _turn = machine::alone();
    let address = address::unused();
    let app = app::server(go, address).workers(WORKERS).policy("auto").start().unwrap();
    app.wait_ready(WORKERS.into()).unwrap();
    let report = Load::new(address).rate(300.0).requests(1500).run_blocking();
    assert!(report.is_clean(), "{report}");
    assert_eq!(app.status().unwrap()["hint"], serde_json::Value::Null, "{:?}", hints(&app.events()));
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn one_that_has_more_than_it_can_do_and_takes_many_requests_at_a_time_is_left_in_peace() {
    let Some(uvicorn) = require(Runtime::Uvicorn) else { return };
    let _turn = machine::alone();
    let address = address::unused();
    let app = app::server(uvicorn, address).workers(WORKERS).policy("auto").start().unwrap();
    app.wait_ready(WORKERS.into()).unwrap();
    let report = Load::new(address).clients(64).requests(8000).run_blocking();
    assert!(report.is_clean(), "{report}");
    assert_eq!(app.status().unwrap()["hint"], serde_json::Value::Null, "{:?}", hints(&app.events()));
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}
