//! Config files: what is said about them, and what becomes of apps that are run from them.

use std::os::unix::fs::symlink;
use std::time::Duration;

use allcores_testing::app::RunningApp;

use crate::folder::{Folder, Run};

const WEB: &str = "
[defaults]
kill-timeout = \"1s\"

[apps.web]
command = $COMMAND
workers = 1
env = { HOST = \"$HOST\", PORT = $PORT, A = \"one\", B = \"two\" }
env-file = \"web.env\"
secret = { KEY = \"key\" }

[apps.web.environments.production]
env = { A = \"production\" }
";

fn web(folder: &Folder) -> RunningApp {
    let config = folder.write("allcores.toml", WEB);
    folder.write("web.env", "LISTED=yes # hunter1\n");
    folder.write("key", "hunter2\n");
    let app = Folder::app(&config).start().unwrap();
    app.wait_ready(1).unwrap();
    app
}

fn reload(app: &RunningApp) -> Run {
    app.run(["reload", app.name()]).unwrap().into()
}

#[test]
fn a_good_file_is_told_to_be_good_and_by_which_apps() {
    let folder = Folder::new();
    folder.write("allcores.toml", WEB);
    folder.write("web.env", "");
    folder.write("key", "");
    folder.allcores(&["check"]).code(0).has(&["allcores.toml is good: 1 app", "production", "  web  "]);
    std::fs::remove_file(folder.path().join("key")).unwrap();
    folder.allcores(&["check"]).code(10).has(&["allcores.toml:10:1: secret", "No such file", "next:"]);
    folder.allcores(&["check", "--elsewhere"]).code(0);
}

#[test]
fn mistakes_are_shown_with_their_lines() {
    let folder = Folder::new();
    folder.write("x.toml", "[apps.web]\ncommand = \"x\"\nwokers = 2\nkill-timeout = 5\n");
    let shown = folder.allcores(&["check", "x.toml"]).code(10);
    let expected = "\
error: x.toml has 2 mistakes
x.toml:3:1: unknown key `wokers`; did you mean `workers`?
  3 | wokers = 2
    | ^^^^^^
x.toml:4:16: `kill-timeout` takes a duration such as \"500ms\" or \"5s\", and this is an integer
  4 | kill-timeout = 5
    |                ^
  next: `allcores run --help` says what each key means: a key is an option without its dashes
";
    assert_eq!((shown.out.as_str(), shown.err.as_str()), ("", expected));
    folder.allcores(&["run", "--config", "x.toml"]).code(10).has(&["x.toml:3:1"]);
    folder.allcores(&["check", "y.toml"]).code(10).has(&["y.toml: No such file", "next:"]);
}

#[test]
fn all_that_start_would_refuse_is_shown_at_once() {
    let folder = Folder::new();
    folder.write(
        "allcores.toml",
        "[defaults]\nlog-file = \"nowhere/all.log\"\nmetrics = 9145\n\
         [apps.web]\ncommand = $COMMAND\nenv-file = \"no.env\"\nsecret = { KEY = \"no-key\" }\nwatch = \"no-folder\"\n\
         [apps.api]\ncommand = \"no-such-program app.js\"\ncwd = \"no-such-cwd\"\n\
         [apps.api.environments.production]\nuid = \"no-such-user\"\n",
    );
    let shown = folder.allcores(&["check"]).code(10).has(&[
        "allcores.toml:2:1: log-file",
        "No such file",
        "allcores.toml:3:1: metrics = \"127.0.0.1:9145\": no two apps",
        "allcores.toml:6:1: env-file",
        "allcores.toml:7:1: secret",
        "allcores.toml:8:1: watch",
        "allcores.toml:10:1: command = \"no-such-program\": no-such-program is in no folder of PATH",
        "allcores.toml:11:1: cwd",
        "allcores.toml:13:1: uid",
    ]);
    // What is wrong in every environment is said once.
    assert_eq!(shown.err.matches("allcores.toml:6:1: ").count(), 1, "{}", shown.err);
    folder
        .allcores(&["check", "--elsewhere"])
        .code(10)
        .has(&["no two apps can have the same `log-file`: web"]);
}

#[test]
fn an_app_or_an_environment_that_is_not_there_is_refused() {
    let folder = Folder::new();
    folder.write("allcores.toml", "[apps.web]\ncommand = \"x\"\n[apps.api]\ncommand = \"y\"\n");
    let run =
        |arguments: &[&str]| folder.allcores(&[&["run", "--config", "allcores.toml"], arguments].concat());
    run(&[]).code(10).has(&["several apps", "web, api", "--app"]);
    run(&["--app", "ap"]).code(10).has(&["no app ap", "did you mean `api`?"]);
    run(&["--app", "api", "--env-name", "x"]).code(10).has(&["no environment x", "--env-name"]);
    folder.allcores(&["run"]).code(2).has(&["COMMAND"]);
}

#[test]
fn the_schema_is_printed() {
    let schema = Folder::new().allcores(&["schema"]).code(0).out;
    let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
    assert_eq!(schema["title"], "allcores.toml");
}

#[test]
fn workers_get_what_the_file_says() {
    let folder = Folder::new();
    let app = web(&folder);
    let asked = ["A", "LISTED", "KEY", ""].map(|name| folder.ask(name));
    let own = folder.path().to_str().unwrap();
    assert_eq!(asked, ["one", "yes", "hunter2", own]);
    assert!(app.stop().unwrap().success());
}

#[test]
fn an_environment_lies_over_the_rest() {
    let folder = Folder::new();
    let config = folder.write("allcores.toml", WEB);
    folder.write("web.env", "");
    folder.write("key", "");
    let app = Folder::app(&config).option("--env-name=production").option("--env=B=typed").start().unwrap();
    app.wait_ready(1).unwrap();
    assert_eq!(["A", "B", "ALLCORES_NAME"].map(|name| folder.ask(name)), ["production", "typed", app.name()]);
    assert!(app.stop().unwrap().success());
}

#[test]
fn a_reload_takes_up_what_the_file_says_by_then() {
    let folder = Folder::new();
    let app = web(&folder);
    let begun = app.position();
    let mark = folder.ask("ALLCORES_RUN");
    let changed = WEB.replace("workers = 1", "workers = 2").replace("B = \"two\"", "C = \"three\"");
    folder.write("allcores.toml", &(changed + "\n[apps.api]\ncommand = \"x\"\n"));
    folder.write("web.env", "LISTED=later\n");
    folder.write("key", "hunter3\n");
    // There are two apps by now, and which is meant does not follow any more.
    reload(&app).code(8).has(&["several apps"]);
    folder.write(
        "allcores.toml",
        &WEB.replace("workers = 1", "workers = 2").replace("B = \"two\"", "C = \"three\""),
    );
    reload(&app).code(0);
    app.wait_count("ready", 3, Duration::from_secs(30)).unwrap();
    let asked = ["A", "B", "C", "LISTED", "KEY"].map(|name| folder.ask(name));
    assert_eq!(asked, ["one", "", "three", "later", "hunter3"]);
    assert!(
        !mark.is_empty() && folder.ask("ALLCORES_RUN") == mark,
        "by which the next start would know the worker"
    );
    assert!(app.events()[begun..].iter().any(|event| event.kind() == "reloaded"));
    assert_eq!(app.status().unwrap()["target"], 2, "the number of workers follows the file");
    assert!(app.stop().unwrap().success());
}

#[test]
fn what_a_reload_was_given_stays_on_top_of_the_file() {
    let folder = Folder::new();
    let app = web(&folder);
    let given = app.run(["reload", app.name(), "--env", "A=given"]).unwrap();
    Run::from(given).code(0);
    folder.write("allcores.toml", &WEB.replace("A = \"one\"", "A = \"edited\""));
    reload(&app).code(0);
    assert_eq!(folder.ask("A"), "given");
    assert!(app.stop().unwrap().success());
}

#[test]
fn a_file_that_is_wrong_by_then_changes_nothing() {
    let folder = Folder::new();
    let app = web(&folder);
    folder.write("allcores.toml", &WEB.replace("workers = 1", "wokers = 1 # hunter4"));
    let refused = reload(&app).code(8).has(&[
        "allcores.toml:7:1: unknown key `wokers`",
        "next: put it right, and again: allcores reload ",
        "(nothing has changed)",
    ]);
    assert!(!refused.err.contains("hunter4"), "no more of the file than that: {}", refused.err);
    // The same by a signal, which nobody waits for.
    app.hang_up().unwrap();
    app.wait_for(|event| event.kind() == "notice", Duration::from_secs(30)).unwrap();
    let events = app.events();
    let notice = events.iter().find(|event| event.kind() == "notice").unwrap();
    assert!(notice.value["text"].as_str().unwrap().contains("not reloaded"), "{notice:?}");
    assert_eq!(folder.ask("A"), "one");
    assert!(app.stop().unwrap().success());
}

#[test]
fn what_a_reload_cannot_take_up_is_said() {
    let folder = Folder::new();
    let app = web(&folder);
    folder.write("allcores.toml", &WEB.replace("workers = 1", "policy = \"shared\"\npending = 7"));
    reload(&app).code(0).has(&["pending, policy changed", "fixed while the app runs"]);
    assert_eq!(app.status().unwrap()["policy"], "auto");
    assert!(app.stop().unwrap().success());
}

#[test]
fn a_version_that_is_no_good_leaves_the_old_settings() {
    let folder = Folder::new();
    let app = web(&folder);
    folder.write("allcores.toml", &WEB.replace("A = \"one\"", "FAIL = \"no database\""));
    let failed = reload(&app).code(8).has(&["Error: no database", "has served all the time"]);
    assert!(!failed.err.contains("allcores logs"), "there is no log: {}", failed.err);
    assert_eq!(folder.ask("A"), "one");
    assert!(app.stop().unwrap().success());
}

#[test]
fn a_file_behind_a_link_that_moves_is_read_where_the_link_leads() {
    let folder = Folder::new();
    for release in ["1", "2"] {
        folder.write(&format!("{release}/allcores.toml"), &WEB.replace("\"one\"", &format!("\"{release}\"")));
        folder.write(&format!("{release}/web.env"), "");
        folder.write(&format!("{release}/key"), "");
    }
    let current = folder.path().join("current");
    symlink(folder.path().join("1"), &current).unwrap();
    let app = Folder::app(&current.join("allcores.toml")).start().unwrap();
    app.wait_ready(1).unwrap();
    assert_eq!(folder.ask("A"), "1");
    std::fs::remove_file(&current).unwrap();
    symlink(folder.path().join("2"), &current).unwrap();
    reload(&app).code(0);
    assert_eq!(
        [folder.ask("A"), folder.ask("")],
        ["2".into(), folder.path().join("2").display().to_string()]
    );
    assert!(app.stop().unwrap().success());
}

#[test]
fn secrets_are_told_to_nobody() {
    let folder = Folder::new();
    let app = web(&folder);
    reload(&app).code(0);
    let status = app.run(["status", app.name(), "--json"]).unwrap();
    let told = [app.lines().join("\n"), String::from_utf8(status.stdout).unwrap()].join("\n");
    let process = std::fs::read(format!("/proc/{}/cmdline", app.pid())).unwrap();
    let environ = std::fs::read(format!("/proc/{}/environ", app.pid())).unwrap();
    let told = told + &String::from_utf8_lossy(&process) + &String::from_utf8_lossy(&environ);
    assert!(!told.contains("hunter"), "{told}");
    assert_eq!(folder.ask("KEY"), "hunter2");
    assert!(app.stop().unwrap().success());
}
