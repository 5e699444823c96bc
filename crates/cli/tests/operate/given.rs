//! Programs that are given their sockets and never call listen(2): how they come to be ready, and what is said until then.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use allcores_testing::app::App;
use allcores_testing::runtimes::{Runtime, fixture, require};

use crate::folder::{Folder, Run};

const LONG: Duration = Duration::from_secs(30);

/// Starts a program in the background that is given one socket, with these options.
fn start(folder: &Folder, options: &[&str], runtime: Runtime, command: &[&str]) -> Run {
    let listen = format!("--listen={}", folder.address);
    let cwd = format!("--cwd={}", runtime.cwd().display());
    let mut words: Vec<OsString> = ["start", "--name=web", "-w=1", &listen, &cwd].map(Into::into).to_vec();
    words.extend(options.iter().map(Into::into));
    words.extend(["--".into(), runtime.program().unwrap()]);
    words.extend(command.iter().map(Into::into));
    folder.command_of(env!("CARGO_BIN_EXE_allcores").as_ref(), &words).output().unwrap().into()
}

const GUNICORN: [&str; 2] = ["--no-control-socket", "app:app"];

#[test]
fn gunicorn_that_nobody_connects_to_is_not_ready_and_that_says_how_it_would_be() {
    let Some(gunicorn) = require(Runtime::Gunicorn) else { return };
    let folder = Folder::new();
    // Longer than it takes until something is said.
    let run = start(&folder, &["--timeout=15s"], gunicorn, &GUNICORN).code(1);
    let why = "was given its sockets and has not been seen to accept a connection";
    let run = run.has(&["start web: not ready after 15s", why, "--health-http PATH", "--wait-ready"]);
    assert_eq!(run.err.matches(why).count(), 1, "once is enough: {run:#?}");
    assert_eq!(folder.log("web").matches(why).count(), 1);
    let status = folder.status("web");
    assert!(status["hint"].as_str().is_some_and(|hint| hint.contains(why)), "{status}");
    // Who connects shows that it serves, unless it accepts before anybody looks.
    let deadline = Instant::now() + LONG;
    while folder.status("web")["workers"][0]["state"] != "ready" {
        assert!(folder.ask("").parse::<u32>().is_ok());
        assert!(Instant::now() < deadline, "{}", folder.log("web"));
    }
    assert!(folder.status("web")["hint"].is_null());
}

#[test]
fn gunicorn_that_is_given_its_socket_is_ready_when_it_says_so() {
    let Some(gunicorn) = require(Runtime::Gunicorn) else { return };
    let folder = Folder::new();
    start(&folder, &["--wait-ready"], gunicorn, &GUNICORN).code(0).has(&["web: 1 worker ready"]);
    assert!(folder.ask("").parse::<u32>().is_ok());
}

#[test]
fn puma_that_is_given_its_socket_is_ready_when_it_answers() {
    let Some(puma) = require(Runtime::Puma) else { return };
    let folder = Folder::new();
    let command = ["--bind-to-activated-sockets=only", "config.ru"];
    start(&folder, &["--health-http=/"], puma, &command).code(0).has(&["web: 1 worker ready"]);
    assert!(folder.ask("").parse::<u32>().is_ok());
}

#[test]
fn one_that_was_to_say_that_it_is_ready_and_does_not_is_said_to_lack_that() {
    let address = allcores_testing::address::unused();
    let app = App::new([Runtime::Python.program().unwrap(), fixture("operate/takes_sockets.py").into()]);
    let app = app.binary(env!("CARGO_BIN_EXE_allcores")).workers(1).option(format!("--listen={address}"));
    let app = app.option("--wait-ready").option("--ready-timeout=1s").start().unwrap();
    let event = app.wait_for(|event| event.kind() == "not_ready", LONG).unwrap();
    assert_eq!(event.value["lack"], "word");
    assert!(app.stop().unwrap().success());
}
