//! Programs without a channel that accept no more connections than they can serve: what waits for a worker that is kept
//! busy is served by one that has time.

use std::io::Read;
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

use allcores_testing::app::{App, Event, RunningApp};
use allcores_testing::load::Load;
use allcores_testing::runtimes::{Runtime, require};
use allcores_testing::{address, machine};
use rustix::process::Signal;
use serde_json::Value;

use crate::app::workers;
use crate::client::{Client, HERE};
use crate::upgrade::upgrade;
use crate::{app, proc};

/// How long an answer may take: seconds to be seen to starve, and more on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// An app of workers that serve one connection each, for as long as its client likes.
fn of_two(python: Runtime, address: SocketAddr) -> App {
    let app = app::script(python, "python-one/server.py").workers(2);
    app.address(address)
}

/// A client that was passed on, because it waited for a worker whose client stays, who is returned too.
fn passed_on(app: &RunningApp, address: SocketAddr) -> (Client, Client) {
    app.wait_ready(2).unwrap();
    let (mut held, mut waiting) = (Vec::new(), Vec::new());
    while held.len() < 2 {
        let mut client = Client::connect(address, PATIENCE);
        client.send("/peer");
        let is_served = client.is_answered(Duration::from_millis(500));
        if is_served { held.push(client) } else { waiting.push(client) }
    }
    for client in &mut held {
        assert_eq!(client.read(), HERE, "a worker that has time is reached");
    }
    let depths = || {
        let status = app.status().unwrap();
        let depth = |worker: &Value| worker["lanes"][0]["depth"].as_u64().unwrap();
        status["workers"].as_array().unwrap().iter().map(depth).collect::<Vec<_>>()
    };
    while depths().contains(&0) {
        assert!(waiting.len() < 100, "clients wait in both lanes: {:?}", depths());
        let mut client = Client::connect(address, PATIENCE);
        client.send("/peer");
        waiting.push(client);
    }
    // Its worker goes on with those in its own lane, one after the other, and then with one that it is given.
    drop(held.pop());
    let deadline = Instant::now() + 2 * PATIENCE;
    while Instant::now() < deadline {
        let Some(at) = waiting.iter().position(|client| client.is_answered(Duration::from_millis(1))) else {
            continue;
        };
        let mut client = waiting.remove(at);
        if client.read() != HERE {
            return (client, held.remove(0));
        }
    }
    panic!("nobody was passed on: {:?} {:#?}", depths(), app.lines());
}

fn strays(app: &RunningApp) -> u64 {
    app.status().unwrap()["strays"].as_u64().unwrap()
}

#[test]
fn who_starves_at_a_busy_worker_is_served_by_one_that_has_time() {
    let Some(python) = require(Runtime::Python) else { return };
    let _turn = machine::together();
    let address = address::unused();
    let app = of_two(python, address).start().unwrap();
    let (mut passed, mut stays) = passed_on(&app, address);
    assert_eq!(passed.ask("/peer"), address.ip().to_string());
    assert_ne!(passed.ask("/"), stays.ask("/"), "it was given to the other");
    assert!(strays(&app) > 0);
    let is_said =
        |event: &Event| event.value["text"].as_str().is_some_and(|text| text.contains("they are passed on"));
    assert_eq!(app.events().into_iter().filter(is_said).count(), 1, "{:#?}", app.lines());
    // Whoever ends first is seen by the other.
    drop(stays);
    passed.stream().shutdown(Shutdown::Write).unwrap();
    assert_eq!(passed.rest().read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn who_was_passed_on_lives_through_upgrades() {
    let Some(python) = require(Runtime::Python) else { return };
    let _turn = machine::together();
    let address = address::unused();
    let app = of_two(python, address).start().unwrap();
    let (mut passed, _stays) = passed_on(&app, address);
    let server = passed.ask("/");
    for _ in 0..3 {
        // One that is being answered meanwhile, and one that comes afterwards.
        passed.send("/?ms=300");
        upgrade(&app);
        assert_eq!(passed.read(), server);
        assert_eq!(passed.ask("/"), server);
    }
}

#[test]
fn who_was_passed_on_has_its_answer_before_the_app_ends() {
    let Some(python) = require(Runtime::Python) else { return };
    let _turn = machine::together();
    let address = address::unused();
    let app = of_two(python, address).start().unwrap();
    let (mut passed, stays) = passed_on(&app, address);
    drop(stays);
    passed.send("/?ms=1000");
    app.signal(Signal::TERM).unwrap();
    app.wait_for(|event| event.kind() == "stopping", PATIENCE).unwrap();
    assert!(!passed.read().is_empty());
    drop(passed);
    assert_eq!(app.wait(PATIENCE).unwrap().code(), Some(0), "{:#?}", app.lines());
}

/// What waits for it is taken from it, and it is known all the same that it takes nothing.
#[test]
fn one_that_takes_nothing_is_replaced_though_others_serve_what_waits() {
    let Some(python) = require(Runtime::Python) else { return };
    let _turn = machine::alone();
    let address = address::unused();
    let app = of_two(python, address).option("--hang-timeout=6s").start().unwrap();
    app.wait_ready(2).unwrap();
    let stopped = workers(&app.status().unwrap())[&0];
    proc::stop_group(stopped);
    let load = Load::new(address).clients(2).rate(20.0).spawn();
    let is_replaced = |event: &Event| event.kind() == "exited" && event.worker_pid() == Some(stopped);
    app.wait_for(is_replaced, 2 * PATIENCE).unwrap();
    assert!(strays(&app) > 0, "others were given what waited");
    assert!(load.wait_ok(load.ok() + 100, PATIENCE), "{:#?}", app.lines());
    let hung = app.events().iter().filter(|event| event.kind() == "hung").count();
    assert_eq!(hung, 1, "who takes its place is judged by what it does itself: {:#?}", app.lines());
    let report = load.stop();
    assert!(report.is_clean(), "{report}");
}
