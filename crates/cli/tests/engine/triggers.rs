//! Reloads that nobody asks for: files that change, and times.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use allcores_testing::app::{App, RunningApp};
use allcores_testing::runtimes::{Runtime, fixture, require};
use allcores_testing::{address, machine};
use rustix::process::Signal;

use crate::app;
use crate::upgrade::{upgrade, upgrade_after};

const PATIENCE: Duration = Duration::from_secs(30);

/// An app of two workers whose server is a file in this folder.
fn app_in(folder: &tempfile::TempDir, node: Runtime) -> App {
    fs::copy(fixture("node-http/server.js"), folder.path().join("server.js")).unwrap();
    let address = address::unused();
    let app = app::command([node.program().unwrap(), "server.js".into()]).folder(folder.path()).workers(2);
    app.address(address)
}

fn count(app: &RunningApp, kind: &str) -> usize {
    app.events().iter().filter(|event| event.kind() == kind).count()
}

#[test]
fn a_file_that_changes_reloads_the_app_and_a_bad_one_is_taken_back() {
    let Some(node) = require(Runtime::Node) else { return };
    let _turn = machine::together();
    let folder = tempfile::tempdir().unwrap();
    let app = app_in(&folder, node).option(format!("--watch={}", folder.path().display()));
    let app = app.option("--watch-ignore=*.log").option("--watch-delay=100ms").start().unwrap();
    app.wait_ready(2).unwrap();
    // An ignored file before each that counts: it would be told first.
    for (nth, file) in (1..).zip(["new.js", "made/here.js"]) {
        fs::write(folder.path().join("x.log"), nth.to_string()).unwrap();
        let path = folder.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "").unwrap();
        app.wait_count("reloaded", nth, PATIENCE).unwrap();
        let said = app.lines().join("\n");
        assert!(said.contains(&format!("{file} has changed: reloading")), "{said}");
        assert!(!said.contains("x.log"), "{said}");
    }
    // In a folder that was not there at first.
    fs::write(folder.path().join("made/here.js"), "changed").unwrap();
    app.wait_count("reloaded", 3, PATIENCE).unwrap();

    let workers = app::workers(&app.status().unwrap());
    fs::write(folder.path().join("server.js"), "throw new Error('half written')").unwrap();
    app.wait_count("reload_failed", 1, PATIENCE).unwrap();
    assert_eq!(app::workers(&app.status().unwrap()), workers, "those before serve on");
    assert_eq!((count(&app, "reloading"), count(&app, "reloaded")), (4, 3), "{:#?}", app.lines());
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn an_ignored_file_that_is_written_all_the_time_holds_no_reload_up() {
    let Some(node) = require(Runtime::Node) else { return };
    let _turn = machine::together();
    let folder = tempfile::tempdir().unwrap();
    let app = app_in(&folder, node).option(format!("--watch={}", folder.path().display()));
    let app = app.option("--watch-ignore=*.log").option("--watch-delay=200ms").start().unwrap();
    app.wait_ready(2).unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for nth in 0.. {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                fs::write(folder.path().join("x.log"), format!("{nth}")).unwrap();
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        fs::write(folder.path().join("new.js"), "").unwrap();
        let reloaded = app.wait_count("reloaded", 1, PATIENCE);
        is_over.store(true, Ordering::Relaxed);
        reloaded.unwrap();
    });
    let said = app.lines().join("\n");
    assert!(said.contains("new.js has changed: reloading") && !said.contains("x.log"), "{said}");
    assert_eq!(count(&app, "reloading"), 1, "{said}");
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn an_app_is_reloaded_at_its_times() {
    let Some(node) = require(Runtime::Node) else { return };
    let _turn = machine::together();
    let folder = tempfile::tempdir().unwrap();
    let app = app_in(&folder, node).option("--cron-restart=* * * * * *").start().unwrap();
    app.wait_count("reloaded", 2, PATIENCE).unwrap();
    let said = app.lines().join("\n");
    assert!(said.contains("it is 20") && said.contains(": reloading"), "{said}");
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn a_folder_that_goes_while_the_app_runs_does_not_keep_it_from_being_reloaded() {
    let Some(node) = require(Runtime::Node) else { return };
    let _turn = machine::together();
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("src");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("a.js"), "").unwrap();
    let app = app_in(&folder, node).option(format!("--watch={}", source.display()));
    let app = app.option("--watch-delay=100ms").start().unwrap();
    app.wait_ready(2).unwrap();
    // What was in it is gone, which is a change like any other.
    fs::remove_dir_all(&source).unwrap();
    app.wait_count("reloaded", 1, PATIENCE).unwrap();
    app.run(["reload", app.name()]).unwrap();
    app.wait_count("reloaded", 2, PATIENCE).unwrap();
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn a_folder_that_is_made_anew_again_and_again_is_watched_on() {
    let Some(node) = require(Runtime::Node) else { return };
    let _turn = machine::together();
    let folder = tempfile::tempdir().unwrap();
    let (built, next) = (folder.path().join("built"), folder.path().join("next"));
    let make = |folder: &Path, text: &str| {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join("a.js"), text).unwrap();
    };
    make(&built, "0");
    let app = app_in(&folder, node).option(format!("--watch={}", built.display()));
    let app = app.option("--watch-delay=100ms").start().unwrap();
    app.wait_ready(2).unwrap();
    let mut reloads = 0;
    let mut is_reloaded = || {
        reloads += 1;
        app.wait_count("reloaded", reloads, PATIENCE).unwrap();
    };
    // As a bundler does it, twice, and what is written into it later.
    for text in ["one", "twenty"] {
        fs::remove_dir_all(&built).unwrap();
        make(&built, text);
        is_reloaded();
    }
    fs::write(built.join("a.js"), "three hundred").unwrap();
    is_reloaded();
    // As who builds beside it does.
    make(&next, "four");
    fs::rename(&built, folder.path().join("before")).unwrap();
    fs::rename(&next, &built).unwrap();
    is_reloaded();
    fs::write(built.join("a.js"), "fifty").unwrap();
    is_reloaded();
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn a_file_that_changes_before_an_upgrade_or_in_the_midst_of_it_is_not_missed() {
    let Some(node) = require(Runtime::Node) else { return };
    let _turn = machine::together();
    let folder = tempfile::tempdir().unwrap();
    let app = app_in(&folder, node).option(format!("--watch={}", folder.path().display()));
    // The upgrade is over by then.
    let app = app.option("--watch-delay=2s").start().unwrap();
    app.wait_ready(2).unwrap();
    let file = folder.path().join("new.js");
    fs::write(&file, "").unwrap();
    upgrade(&app);
    app.wait_count("reloaded", 1, PATIENCE).unwrap();
    upgrade_after(&app, &format!("echo >> {}", file.display()));
    app.wait_count("reloaded", 2, PATIENCE).unwrap();
    // Without a change there is nothing to reload for.
    upgrade(&app);
    app.run(["reload", app.name()]).unwrap();
    app.wait_count("reloaded", 3, PATIENCE).unwrap();
    assert_eq!(count(&app, "reloading"), 3, "{:#?}", app.lines());
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn no_thread_takes_a_signal_that_the_next_program_would_not_learn_of() {
    let Some(node) = require(Runtime::Node) else { return };
    let folder = tempfile::tempdir().unwrap();
    let app = app_in(&folder, node).option(format!("--watch={}", folder.path().display()));
    let app = app.option("--cron-restart=0 0 1 1 *").start().unwrap();
    app.wait_ready(2).unwrap();
    let mut threads = Vec::new();
    for thread in fs::read_dir(format!("/proc/{}/task", app.pid())).unwrap() {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        let line = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim();
        let blocked = u64::from_str_radix(line("SigBlk:"), 16).unwrap();
        if line("Pid:") != app.pid().to_string() {
            let takes = |signal: &Signal| blocked & (1 << (signal.as_raw() - 1)) == 0;
            let heard = [Signal::TERM, Signal::INT, Signal::HUP, Signal::USR2].into_iter().find(takes);
            assert_eq!(heard, None, "by the thread {}", line("Name:"));
            threads.push(line("Name:").to_owned());
        }
    }
    assert!(threads.iter().any(|name| name == "watch"), "{threads:?}");
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}
