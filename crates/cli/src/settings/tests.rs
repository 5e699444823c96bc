//! That each option reaches the engine's settings as it was meant.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use allcores::Signal;
use allcores::primary::{Health, HealthCheck, Output, Policy, PoolSettings, Settings, Upkeep};
use clap::Parser as _;

use super::{find_program, of_app, of_demo, run_as};
use crate::args::{Cli, Command};
use crate::config::{App, Layer, Places};
use crate::exit_code::ExitCode;
use crate::failure::Failure;

fn settings(options: &[&str]) -> Result<Settings, Failure> {
    let line = ["allcores", "run"].iter().chain(options).chain(&["--", "node", "server.js"]);
    let Command::Run(args) = Cli::try_parse_from(line).unwrap().command else { panic!() };
    let (name, command, options) = (args.name, args.command, args.options);
    of_app(&App { name, command, options, places: Places::default(), layer: Layer::default(), config: None })
}

#[test]
fn without_options_the_engines_own_defaults_hold() {
    let settings = settings(&[]).unwrap();
    let cores = thread::available_parallelism().unwrap().get().min(256);
    let pool = PoolSettings { workers: cores.try_into().unwrap(), ..PoolSettings::default() };
    assert_eq!(format!("{:?}", settings.pool), format!("{pool:?}"));
    assert_eq!(settings.name, "server");
    assert_eq!(settings.command, ["node", "server.js"]);
    assert_eq!((settings.policy, settings.output, settings.adopt), (Policy::Auto, Output::Capture, true));
    assert_eq!((settings.uid, settings.gid, settings.cwd), (None, None, None));
    assert!(settings.listen.is_empty() && settings.env.is_empty());
    assert_eq!(format!("{:?}", settings.upkeep), format!("{:?}", Upkeep::default()));
}

#[test]
fn how_workers_are_looked_after_is_passed_on() {
    let given = settings(&[
        "--wait-ready",
        "--ready-timeout",
        "7s",
        "--health-http",
        "/healthz?full",
        "--health-interval",
        "1s",
        "--health-timeout",
        "500ms",
        "--health-threshold",
        "2",
        "--watchdog",
        "10s",
        "--max-memory",
        "512M",
        "--max-lifetime",
        "1h",
        "--max-requests",
        "1000",
    ])
    .unwrap();
    let pool = &given.pool;
    assert_eq!((pool.wait_ready, pool.ready_timeout), (true, Duration::from_secs(7)));
    assert_eq!(pool.max_lifetime, Some(Duration::from_hours(1)));
    let health = Health::http("/healthz?full").timeout(Duration::from_millis(500));
    let health = health.interval(Duration::from_secs(1)).threshold(2);
    assert_eq!(given.upkeep.health, Some(health));
    let limits = (given.upkeep.watchdog, given.upkeep.max_memory, given.upkeep.max_requests);
    assert_eq!(limits, (Some(Duration::from_secs(10)), Some(512 << 20), Some(1000)));
    let check = |options: &[&str]| settings(options).unwrap().upkeep.health.unwrap().check;
    assert_eq!(check(&["--health-tcp"]), HealthCheck::Tcp);
    assert_eq!(check(&["--health-exec", "a b"]), HealthCheck::Exec { command: "a b".into() });
}

#[test]
fn every_option_is_passed_on() {
    let settings = settings(&[
        "-w",
        "3",
        "--name",
        "web",
        "--policy",
        "shared",
        "--pending",
        "7",
        "--listen",
        ":80",
        "--listen",
        "[::1]:81",
        "--env",
        "A=b",
        "--env",
        "C=",
        "--cwd",
        "/",
        "--ready-timeout",
        "9s",
        "--uid",
        "7777",
        "--gid",
        "8888",
        "--no-adopt",
        "--log-format",
        "raw",
    ])
    .unwrap();
    assert_eq!((settings.name.as_str(), settings.pool.workers), ("web", 3));
    assert_eq!((settings.policy, settings.output, settings.adopt), (Policy::Shared, Output::Inherit, false));
    assert_eq!(settings.pending, 7);
    assert_eq!(settings.listen, ["0.0.0.0:80".parse().unwrap(), "[::1]:81".parse().unwrap()]);
    assert_eq!(settings.env, [("A".into(), "b".into()), ("C".into(), "".into())]);
    assert_eq!((settings.uid, settings.gid), (Some(7777), Some(8888)));
    assert_eq!(settings.cwd, Some(PathBuf::from("/")));
}

#[test]
fn every_limit_is_passed_on() {
    let pool = settings(&[
        "--min-uptime",
        "2s",
        "--max-restarts",
        "7",
        "--backoff",
        "30s",
        "--kill-timeout",
        "4s",
        "--drain-timeout",
        "5s",
        "--hang-timeout",
        "6s",
    ])
    .unwrap()
    .pool;
    let seconds = Duration::from_secs;
    assert_eq!((pool.min_uptime, pool.max_restarts), (seconds(2), 7));
    assert_eq!(
        (pool.kill_timeout, pool.drain_timeout, pool.hang_timeout),
        (seconds(4), seconds(5), Some(seconds(6)))
    );
    assert_eq!(
        (pool.backoff, pool.backoff_max),
        (seconds(30), seconds(30)),
        "the longest wait is at least the first"
    );
}

#[test]
fn workers_are_stopped_by_the_signal_of_their_program() {
    assert_eq!(settings(&[]).unwrap().stop_signal, Signal::TERM);
    assert_eq!(settings(&["--stop-signal", "QUIT"]).unwrap().stop_signal, Signal::QUIT);
}

#[test]
fn a_folder_that_is_none_is_refused() {
    for folder in ["/no/such/folder", "/etc/passwd"] {
        let failure = settings(&["--cwd", folder]).unwrap_err();
        assert_eq!(failure.code(), ExitCode::Usage);
        assert!(failure.to_string().contains(folder), "{failure}");
    }
}

#[test]
fn the_demo_runs_this_program_again() {
    let line = ["allcores", "demo", "-w", "2", "--listen", "8090"];
    let Command::Demo(args) = Cli::try_parse_from(line).unwrap().command else { panic!() };
    let settings = of_demo(&args).unwrap();
    assert_eq!((settings.name.as_str(), settings.pool.workers), ("demo", 2));
    assert_eq!(settings.command[1..], ["demo-worker", "127.0.0.1:8090"]);
}

#[test]
fn a_program_is_found_without_a_path_too() {
    let found = |program: &str, path: Option<&str>| {
        find_program(program.as_ref(), Path::new(""), path.map(AsRef::as_ref))
    };
    assert!(found("sh", None).unwrap().is_absolute());
    assert_eq!(found("sh", Some("/no/such")).unwrap_err(), "sh is in no folder of PATH");
    assert!(found("/no/sh", None).unwrap_err().starts_with("/no/sh: No such file"));
}

#[test]
fn a_file_that_was_given_as_a_command_is_run_by_its_interpreter_or_from_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    for (file, mode) in [("ok.js", 0o644), ("api.py", 0o755), ("server", 0o755), ("notes.txt", 0o644)] {
        let path = folder.path().join(file);
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    for (word, command) in [
        ("ok.js", Some("node ok.js")),
        ("./ok.js", Some("node ./ok.js")),
        ("api.py", Some("python3 api.py")),
        ("server", Some("./server")),
        ("./server", None),
        ("notes.txt", None),
        ("none.js", None),
    ] {
        assert_eq!(run_as(word, folder.path()).as_deref(), command, "{word}");
    }
}
