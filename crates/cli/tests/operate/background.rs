//! Apps in the background: started, listed, told things, stopped, forgotten, saved.

use std::fs;
use std::io::{BufRead as _, BufReader, PipeWriter, Write as _, pipe};
use std::net::TcpStream;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use allcores_testing::process::Process;
use allcores_testing::runtimes::{Runtime, fixture, require};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::folder::{Folder, Run};

/// Long enough for anything on a busy machine; no test passes by waiting for it.
const LONG: Duration = Duration::from_secs(30);

const TWO: &str = "
[defaults]
kill-timeout = \"1s\"
workers = 1
env = { HOST = \"$HOST\", PORT = $PORT }

[apps.web]
command = $COMMAND
env = { A = \"one\" }

[apps.api]
command = $COMMAND
env = { HOST = \"$OTHER_HOST\", PORT = $OTHER_PORT }

[apps.web.environments.production]
env = { A = \"production\" }
";

const WEB: &str = "
[apps.web]
command = $COMMAND
workers = 1
kill-timeout = \"1s\"
env = { HOST = \"$HOST\", PORT = $PORT, A = \"one\" }
secret = { KEY = \"key\" }

[apps.web.environments.production]
env = { A = \"production\" }
";

/// A folder with an app `web` that runs in the background.
fn running() -> Folder {
    let folder = Folder::new();
    folder.write("allcores.toml", WEB);
    folder.write("key", "hunter2\n");
    folder.allcores(&["start"]).code(0).has(&["web: 1 worker ready on ", &folder.address.to_string()]);
    folder
}

fn start_command(folder: &Folder, options: &[&str], command: &[&str]) -> Run {
    folder.allcores(&[&["start"], options, &["--"], command].concat())
}

fn pid(status: &Value) -> u64 {
    status["pid"].as_u64().unwrap()
}

fn kill(pid: u64) {
    send(pid, Signal::KILL);
}

fn send(pid: u64, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

/// A field of /proc/PID/stat, from 3 on.
fn stat(pid: u64, field: usize) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, rest) = text.rsplit_once(") ").unwrap();
    rest.split(' ').nth(field - 3).unwrap().to_owned()
}

#[test]
fn an_app_is_started_listed_stopped_started_again_and_deleted() {
    let folder = running();
    assert_eq!(folder.ask("A"), "one");
    folder.allcores(&["ls"]).code(0).has(&["web", "1/1", &folder.address.to_string()]);
    let first = pid(&folder.status("web"));
    folder.allcores(&["stop", "web"]).code(0).has(&["web: stopped"]);
    folder.allcores(&["ls"]).code(0).has(&["web", "stopped"]);
    folder.allcores(&["ls", "web"]).code(0).has(&["web", "stopped"]);
    folder.allcores(&["ls", "web", "none"]).code(5).has(&["ls none", "next:"]);
    let listed: Value = serde_json::from_str(&folder.allcores(&["ls", "--json"]).code(0).out).unwrap();
    assert_eq!(listed, serde_json::json!([{"name": "web", "stopped": true}]));
    for (arguments, tried) in [
        (&["stop", "web"][..], "stop web"),
        (&["status", "web"], "status of web"),
        (&["scale", "web", "2"], "scale web"),
        (&["signal", "USR2", "web"], "signal web"),
        (&["upgrade", "web"], "upgrade web"),
        (&["reload", "web"], "reload web"),
    ] {
        let text = format!("error: {tried}: web is stopped");
        folder.allcores(arguments).code(5).has(&[&text, "next: start it: allcores start web"]);
    }

    // How it would be made again.
    folder.allcores(&["describe", "web"]).code(0).has(&[
        "variables.py",
        "primary    stopped",
        "kill-timeout  1s",
    ]);
    let described: Value =
        serde_json::from_str(&folder.allcores(&["describe", "web", "--json"]).code(0).out).unwrap();
    assert_eq!((&described["stopped"], &described["killed"]), (&true.into(), &false.into()), "{described}");
    assert_eq!((described["config"]["app"].as_str(), &described["pid"]), (Some("web"), &Value::Null));

    // By its name alone, from anywhere.
    fs::rename(folder.path().join("allcores.toml"), folder.path().join("moved.toml")).unwrap();
    folder.allcores(&["start", "web"]).code(10).has(&["allcores.toml"]);
    fs::rename(folder.path().join("moved.toml"), folder.path().join("allcores.toml")).unwrap();
    let again = folder.command(&["start", "web"]).current_dir("/").output().unwrap();
    Run::from(again).code(0).has(&["web: 1 worker ready"]);
    let second = pid(&folder.status("web"));
    assert_ne!(second, first);

    // One that was killed is called so, until what it has left is cleared up.
    kill(second);
    let deadline = Instant::now() + LONG;
    let is_cleared = || {
        let listed: Value = serde_json::from_str(&folder.allcores(&["ls", "--json"]).code(0).out).unwrap();
        listed[0]["killed"] == true && listed[0].get("left").is_none_or(|left| *left == serde_json::json!([]))
    };
    while !is_cleared() {
        assert!(Instant::now() < deadline, "its workers do not go");
    }
    let killed = "its primary was killed, and has left nothing";
    for (arguments, tried) in [
        (&["status", "web"][..], "status of web"),
        (&["scale", "web", "2"], "scale web"),
        (&["reload", "web"], "reload web"),
    ] {
        folder.allcores(arguments).code(5).has(&[&format!("error: {tried}: {killed}"), "allcores start web"]);
    }
    folder.allcores(&["describe", "web"]).code(0).has(&["primary    killed"]);
    folder.allcores(&["stop", "web"]).code(0).has(&["web: it was killed, and had left nothing"]);
    folder.allcores(&["ls"]).code(0).has(&["web", "stopped"]);
    folder.allcores(&["start", "web"]).code(0).has(&["web: 1 worker ready"]);
    folder.allcores(&["delete", "web", "--logs"]).code(0).has(&["web: deleted"]);
    folder.allcores(&["ls"]).code(0).has(&["no app is running"]);
    assert!(!folder.path().join("state/logs/web.log").exists());
    folder.allcores(&["delete", "web"]).code(5);
    let unknown = folder.command(&["start", "web"]).current_dir("/").output().unwrap();
    Run::from(unknown).code(5).has(&["no app of this name was started before", "allcores start -- web"]);
}

#[test]
fn an_app_that_runs_is_led_into_another_environment_by_a_reload() {
    let folder = running();
    let other = ["start", "web", "--env-name", "production"];
    folder.allcores(&other).code(4).has(&[
        "it runs already, without an environment",
        "next: to change it: allcores reload web --env-name production",
    ]);
    folder.allcores(&["reload", "web", "--env-name", "prodution"]).code(8).has(&["no environment prodution"]);
    assert_eq!(folder.ask("A"), "one");
    folder.allcores(&["reload", "web", "--env-name", "production"]).code(0).has(&["generation 2 serves"]);
    assert_eq!(folder.ask("A"), "production");
    folder.allcores(&["describe", "web"]).code(0).has(&["production"]);
    folder.allcores(&other).code(0).has(&["web: runs already"]);
    // So it stays, by whatever it is made anew.
    folder.allcores(&["reload", "web"]).code(0);
    assert_eq!(folder.ask("A"), "production");
    folder.allcores(&["restart", "web", "--hard"]).code(0);
    assert_eq!(folder.ask("A"), "production");

    // A version that is no good takes its environment with it.
    let broken =
        "\n[apps.web.environments.broken]\ncommand = [\"sh\", \"-c\", \"echo no database; exit 1\"]\n";
    folder.write("allcores.toml", &format!("{WEB}{broken}"));
    folder.allcores(&["reload", "web", "--env-name", "broken"]).code(8).has(&[
        "no good",
        "no database",
        "allcores reload web; all of its output: allcores logs web",
    ]);
    folder.allcores(&["reload", "web"]).code(0);
    assert_eq!(folder.ask("A"), "production");
}

#[test]
fn a_command_has_no_environment_to_be_led_into() {
    let folder = Folder::new();
    let server = fixture("operate/variables.py");
    let python = Runtime::Python.program().unwrap();
    let (host, port) = (folder.address.ip().to_string(), folder.address.port().to_string());
    let variables = [format!("--env=HOST={host}"), format!("--env=PORT={port}")];
    let command = [python.to_str().unwrap(), server.to_str().unwrap()];
    let options = ["--name", "web", "-w", "1", &variables[0], &variables[1]];
    start_command(&folder, &options, &command).code(0);
    folder.allcores(&["reload", "web", "--env-name", "x"]).code(8).has(&["a command has no environments"]);
}

#[test]
fn it_is_a_process_of_its_own_with_nothing_inherited() {
    let folder = Folder::new();
    folder.write("allcores.toml", WEB);
    folder.write("key", "");
    let stray = fs::File::open("/dev/zero").unwrap();
    // Kept open over the exec, as careless parents do.
    rustix::io::fcntl_setfd(&stray, rustix::io::FdFlags::empty()).unwrap();
    folder.allcores(&["start"]).code(0);
    let pid = pid(&folder.status("web"));
    assert_eq!(stat(pid, 6), pid.to_string(), "its session");
    assert_eq!(stat(pid, 7), "0", "its terminal");
    let links = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let links: Vec<String> = links
        .filter_map(|link| Some(fs::read_link(link.ok()?.path()).ok()?.to_string_lossy().into_owned()))
        .collect();
    assert!(!links.iter().any(|link| link == "/dev/zero"), "{} {links:?}", stray.as_raw_fd());
    let log = folder.path().join("state/logs/web.log");
    assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600);
    let record = fs::metadata(folder.path().join("state/apps/web.json")).unwrap();
    assert_eq!(record.permissions().mode() & 0o777, 0o600);
}

#[test]
fn several_apps_of_a_file_are_started_and_those_that_run_are_left_alone() {
    let folder = Folder::new();
    let config = folder.write("sub/shop.toml", TWO);
    let config = config.to_str().unwrap();
    folder.allcores(&["start", config, "web", "--env-name", "production"]).code(0);
    assert_eq!(folder.ask("A"), "production");
    let before = pid(&folder.status("web"));
    folder.allcores(&["start", config]).code(0).has(&[
        "web: runs already (pid ",
        "allcores reload web",
        "api: 1 worker ready",
    ]);
    assert_eq!(pid(&folder.status("web")), before);
    folder.allcores(&["start", config, "wed"]).code(5).has(&["no such app in", "shop.toml"]);
    // Those that can be stopped are, though one of the names is wrong.
    folder.allcores(&["stop", "web", "wed", "api"]).code(5).has(&["web: stopped", "api: stopped", "wed"]);
    folder.allcores(&["stop", "all"]).code(5).has(&["stop all: no app is running"]);
}

#[test]
fn an_app_that_ends_before_it_is_ready_is_a_failure_with_its_code_and_its_last_words() {
    let folder = Folder::new();
    for (command, code, parts) in [
        (&["no-such-server"][..], 127, &["no-such-server", "PATH"][..]),
        (&["/etc/passwd"], 126, &["Permission denied"]),
        (&["sh", "-c", "echo Error: no database >&2; exit 7"], 3, &["Error: no database", "exit code 7"]),
    ] {
        let run = start_command(&folder, &["--name", "bad", "--backoff", "1ms"], command).code(code);
        let run = run.has(parts).has(&[
            "start bad: it ended before it was ready",
            "the last lines of its log",
            "next:",
        ]);
        // What the starter ends with is not the program's, and what is given up is not tried again.
        assert!(!run.err.contains("exit status") && !run.err.contains("it is tried again"), "{run:?}");
    }
    // It has never run, so there is nothing to start again.
    folder.allcores(&["ls"]).code(0).has(&["no app is running"]);
}

#[test]
fn an_app_that_takes_longer_than_the_patience_goes_on() {
    let folder = Folder::new();
    let run = start_command(&folder, &["--name", "slow", "--timeout", "300ms"], &["sleep", "1000"]).code(1);
    let run = run.has(&[
        "not ready after 300ms",
        "it goes on trying",
        "allcores status slow",
        "allcores stop slow",
    ]);
    assert!(!run.err.contains("not all workers are ready so far"), "{run:?}");
    assert_eq!(folder.status("slow")["workers"][0]["state"], "online");
    folder.allcores(&["stop", "slow", "--now"]).code(0);
}

#[test]
fn an_app_that_listens_nowhere_is_started_reloaded_and_kept_up_where_that_is_said() {
    let folder = Folder::new();
    folder.write("allcores.toml", "[apps.queue]\ncommand = \"sleep 1000\"\nworkers = 2\nno-listen = true\n");
    let run = folder.allcores(&["start"]).code(0).has(&["queue: 2 workers ready"]);
    assert!(!run.out.contains(" on "), "{run:?}");
    folder.allcores(&["status", "queue"]).code(0).has(&["nowhere"]);
    folder.allcores(&["reload", "queue"]).code(0);
    let killed = folder.status("queue")["workers"][0]["pid"].as_u64().unwrap();
    kill(killed);
    let deadline = Instant::now() + LONG;
    let is_back = |worker: &Value| worker["state"] == "ready" && worker["pid"] != killed;
    while !folder.status("queue")["workers"].as_array().unwrap().iter().all(is_back) {
        assert!(Instant::now() < deadline, "{:#}", folder.status("queue"));
    }
    // One that can't begin is none that is ready.
    folder.allcores(&["reload", "queue", "--", "false"]).code(8);
    let failed = start_command(&folder, &["--name", "bad", "--no-listen"], &["false"]).code(3);
    assert!(!failed.out.contains("ready"), "{failed:?}");
    folder.allcores(&["stop", "queue"]).code(0);
}

#[test]
fn who_waits_for_long_is_told_for_what() {
    let folder = Folder::new();
    let run = start_command(&folder, &["--name", "slow", "--timeout", "4s"], &["sleep", "1000"]).code(1);
    run.has(&["slow: not all workers are ready so far", "waited for 4s at most", "not ready after 4s"]);
    folder.allcores(&["stop", "slow", "--now"]).code(0);
}

#[test]
fn who_is_interrupted_while_waiting_says_that_the_app_goes_on() {
    use std::os::unix::process::ExitStatusExt as _;
    let folder = Folder::new();
    let mut command = folder.command(&["start", "--name", "slow", "--", "sleep", "1000"]);
    let start = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + LONG;
    while folder.allcores(&["status", "slow"]).code != Some(0) {
        assert!(Instant::now() < deadline, "it does not start");
    }
    let pid = pid(&folder.status("slow"));
    let starter = rustix::process::Pid::from_raw(i32::try_from(start.id()).unwrap()).unwrap();
    rustix::process::kill_process(starter, rustix::process::Signal::INT).unwrap();
    let output = start.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.status.signal()), (Some(130), None));
    let said = format!("slow goes on (pid {pid}); to end it: allcores stop slow");
    Run::from(output).has(&[&said]);
    assert!(fs::read_dir(folder.path().join("run")).unwrap().count() == 1, "its socket is left");
    folder.allcores(&["stop", "slow"]).code(0);
    folder.allcores(&["ls"]).code(0).has(&["slow", "stopped"]);
}

#[test]
fn what_a_killed_start_has_left_is_removed_by_the_next() {
    let folder = Folder::new();
    let mut start = folder.command(&["start", "--name", "slow", "--", "sleep", "1000"]).spawn().unwrap();
    let ear = folder.path().join(format!("run/.start-{}-slow", start.id()));
    let deadline = Instant::now() + LONG;
    while folder.allcores(&["status", "slow"]).code != Some(0) {
        assert!(Instant::now() < deadline, "it does not start");
    }
    // While it listens, it is left alone.
    start_command(&folder, &["--name", "other"], &["false"]);
    assert!(ear.exists());
    start.kill().unwrap();
    start.wait().unwrap();
    assert!(ear.exists());
    start_command(&folder, &["--name", "other"], &["false"]);
    assert!(!ear.exists());
    folder.allcores(&["stop", "slow", "--now"]).code(0);
}

#[test]
fn who_interrupts_a_hard_restart_is_told_that_nobody_starts_the_app_again() {
    let folder = Folder::new();
    let stubborn = ["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"];
    start_command(&folder, &["--name", "slow", "--timeout", "300ms"], &stubborn).code(1);
    let mut command = folder.command(&["restart", "--hard", "slow"]);
    let restart = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + LONG;
    while folder.status("slow")["workers"][0]["state"] != "draining" {
        assert!(Instant::now() < deadline, "it does not stop");
    }
    let restarter = rustix::process::Pid::from_raw(i32::try_from(restart.id()).unwrap()).unwrap();
    rustix::process::kill_process(restarter, rustix::process::Signal::INT).unwrap();
    let run = Run::from(restart.wait_with_output().unwrap()).code(130);
    run.has(&["slow was asked to stop, and is not started again: allcores start slow"]);
    folder.allcores(&["stop", "slow", "--now"]);
}

#[test]
fn to_stop_all_in_the_background_leaves_who_runs_in_the_foreground() {
    let folder = running();
    let mut command =
        folder.command(&["run", "--name", "front", "--log-format", "json", "--", "sleep", "1000"]);
    let front = Process::spawn(&mut command).unwrap();
    front.wait_count("forked", 1, LONG).unwrap();
    let run = folder.allcores(&["stop", "all", "--background"]).code(0).has(&["web: stopped"]);
    assert!(!run.out.contains("front"), "{run:?}");
    assert_eq!(folder.status("front")["workers"][0]["state"], "online");
    folder.allcores(&["stop", "all", "--background"]).code(0);
    folder.allcores(&["stop", "all", "--now"]).code(0).has(&["front: stopped"]);
    front.wait(LONG).unwrap();
}

#[test]
fn a_log_that_is_a_pipe_without_a_reader_is_refused_at_once() {
    let folder = Folder::new();
    let path = folder.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
    for command in [
        &["start", "--log-file", "pipe", "--", "sleep", "1000"][..],
        &["run", "--log-file", "pipe", "--", "true"],
    ] {
        folder.allcores(command).code(11).has(&["open the log", "pipe", "nobody reads", "--log-file"]);
    }
}

#[test]
fn what_a_reload_can_not_read_anew_is_refused_and_the_app_can_be_reloaded_and_stopped_all_the_same() {
    let folder = Folder::new();
    let pipe = |name: &str| {
        rustix::fs::mkfifoat(rustix::fs::CWD, folder.path().join(name), rustix::fs::Mode::RWXU).unwrap();
    };
    let config = WEB.replace("command =", "env-file = \"list.env\"\ncommand =");
    let path = folder.write("allcores.toml", &config);
    let list = folder.write("list.env", "A=1\n");
    folder.write("key", "x");
    folder.allcores(&["start"]).code(0);
    let generation = folder.status("web")["generation"].clone();

    fs::remove_file(&list).unwrap();
    pipe("list.env");
    folder.allcores(&["reload", "web"]).code(8).has(&["env-file", "list.env", "it is a pipe"]);

    // Where it hangs, it is as on a disk that does not answer.
    fs::remove_file(&list).unwrap();
    folder.write("list.env", "A=1\n");
    let text = fs::read_to_string(&path).unwrap();
    fs::remove_file(&path).unwrap();
    pipe("allcores.toml");
    folder.allcores(&["reload", "web"]).code(8).has(&["its files have not answered for 10s"]);
    folder.allcores(&["reload", "web"]).code(8).has(&["that was begun before has not ended"]);
    // It opens the pipe to its end.
    fs::write(&path, &text).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, &text).unwrap();
    let deadline = Instant::now() + LONG;
    while folder.allcores(&["reload", "web"]).code != Some(0) {
        assert!(Instant::now() < deadline, "it can't be read again: {}", folder.log("web"));
    }
    assert_ne!(folder.status("web")["generation"], generation);

    fs::remove_file(&path).unwrap();
    pipe("allcores.toml");
    folder.allcores(&["reload", "web"]).code(8);
    folder.allcores(&["stop", "web"]).code(0).has(&["web: stopped"]);
}

#[test]
fn who_is_started_while_it_stops_is_started_when_it_has_gone() {
    let folder = Folder::new();
    let program = "import http.server, os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
address = (os.environ['HOST'], int(os.environ['PORT']))
http.server.ThreadingHTTPServer(address, http.server.SimpleHTTPRequestHandler).serve_forever()
";
    let script = folder.write("stubborn.py", program);
    let python = Runtime::Python.program().unwrap();
    let command = format!("command = {:?}", [python.to_str().unwrap(), script.to_str().unwrap()]);
    let config = WEB.replace("command = $COMMAND", &command).replace("\"1s\"", "\"3s\"");
    folder.write("allcores.toml", &config);
    folder.write("key", "x");
    folder.allcores(&["start"]).code(0);
    let before = folder.status("web")["pid"].clone();
    let stopping = folder.command(&["stop", "web"]).stdout(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + LONG;
    while !folder.allcores(&["ls"]).code(0).out.contains("stopping") {
        assert!(Instant::now() < deadline, "it does not stop: {}", folder.log("web"));
    }
    folder.allcores(&["status", "web"]).code(0).has(&["; stopping"]);
    folder.allcores(&["start", "web"]).code(0).has(&["web is stopping", "web: 1 worker ready"]);
    Run::from(stopping.wait_with_output().unwrap()).code(0).has(&["web: stopped"]);
    assert_ne!(folder.status("web")["pid"], before);
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let folder = running();
    let other = start_command(&folder, &["--name", "web"], &["true"]).code(4);
    other.has(&["already runs an app of this name"]);
    for (arguments, code, part) in [
        (&["start", "--name", "all", "--", "x"][..], 2, "stands for every app"),
        (&["start", "web", "--", "x"], 2, "a name by --name"),
        (&["start", "a/b"], 10, "a/b"),
        (&["start", "x y"], 2, "allcores start -- x y"),
        (&["start", "--env-name", "x", "--", "x"], 2, "no environments"),
        (&["start", "--cwd", "/no/such", "--", "x"], 2, "--cwd /no/such"),
        (&["reload", "web", "--json", "api"], 2, "--json is for one app"),
        (&["reload", "web", "api", "--", "x"], 2, "a command is for one app"),
        (&["scale", "web", "-1"], 2, "it has 1"),
        (&["signal", "NOPE", "web"], 2, "NOPE"),
        (&["signal", "USR2", "web", "--slot", "7"], 1, "no worker runs in slot 7"),
        (&["send", "web", "x"], 1, "no worker there has a channel"),
        (&["describe", "wed"], 5, "wed"),
        (&["events", "wed"], 5, "wed"),
        (&["resurrect"], 1, "no list was saved"),
    ] {
        folder.allcores(arguments).code(code).has(&[part]);
    }
    // Known from before, and in no file.
    let (python, script) = (Runtime::Python.program().unwrap(), fixture("operate/variables.py"));
    let mut command = folder.command(&["start", "--name", "old", "-w", "1", "--"]);
    command.arg(python).arg(script).env("HOST", folder.other.ip().to_string());
    Run::from(command.env("PORT", folder.other.port().to_string()).output().unwrap()).code(0);
    let with_options = folder.allcores(&["start", "old", "-w", "2"]).code(2);
    with_options
        .has(&["start old: it is started as it was before, without other options", "next: start it anew"]);
    folder.allcores(&["stop", "old"]).code(0);
    // Set for all that is started in a shell, and asked for by nobody.
    let again = folder.command(&["start", "old"]).env("ALLCORES_LOG_FORMAT", "json").output().unwrap();
    Run::from(again).code(0).has(&["old: 1 worker ready"]);
    let elsewhere = folder.command(&["start"]).current_dir("/").output().unwrap();
    Run::from(elsewhere).code(2).has(&["no allcores.toml", "allcores start -- node server.js"]);
}

#[test]
fn a_state_folder_that_cannot_be_is_refused() {
    let folder = Folder::new();
    let run = folder.command(&["start", "--", "x"]).env("ALLCORES_STATE_DIR", "/etc/passwd/x").output();
    Run::from(run.unwrap()).code(11).has(&["/etc/passwd/x", "set ALLCORES_STATE_DIR"]);
}

#[test]
fn what_could_not_be_started_again_is_not_stopped_for_it() {
    let folder = running();
    let pid = folder.status("web")["pid"].clone();
    let refused = |code: i32, parts: &[&str]| {
        let said = folder.allcores(&["restart", "web", "--hard"]).code(code);
        said.has(&["restart web --hard: it could not be started again, and runs on"]).has(parts);
        assert_eq!(folder.status("web")["pid"], pid);
        assert_eq!(folder.ask("A"), "one");
    };
    folder.write("allcores.toml", &WEB.replace("workers", "wokers"));
    refused(10, &["allcores.toml:4:1: unknown key `wokers`", "next: "]);
    folder.write("allcores.toml", &WEB.replace("$COMMAND", "\"no-such-program app.js\""));
    refused(10, &["allcores.toml:3:1", "no-such-program is in no folder of PATH"]);
    folder.write("allcores.toml", WEB);
    folder.allcores(&["restart", "web", "--hard"]).code(0).has(&["web: stopped", "web: 1 worker ready"]);
}

#[test]
fn what_is_deleted_while_it_is_restarted_does_not_come_back() {
    let folder = running();
    // It has not ended as long as somebody is being served.
    let mut held = TcpStream::connect(folder.address).unwrap();
    held.write_all(b"GET /A HTTP/1.0\r\n").unwrap();
    let mut events = folder.events("web");
    let mut command = folder.command(&["restart", "web", "--hard"]);
    let restart = Process::spawn(&mut command).unwrap();
    assert!(events.any(|line| line.contains("\"stopping\"")));
    // As `delete` does it, which waits for the end as well.
    fs::remove_file(folder.path().join("state/apps/web.json")).unwrap();
    held.write_all(b"\r\n").unwrap();
    let said = restart.wait_output(LONG).unwrap().join("\n");
    assert_eq!(restart.wait(LONG).unwrap().code(), Some(5), "{said}");
    assert!(said.contains("web: stopped") && said.contains("it was deleted meanwhile"), "{said}");
    folder.allcores(&["status", "web"]).code(5);
    assert!(!folder.path().join("state/apps/web.json").exists());
}

#[test]
fn a_restart_is_rolling_and_a_hard_one_takes_up_everything() {
    let folder = running();
    let (before, worker) = (folder.status("web"), |status: &Value| status["workers"][0]["pid"].clone());
    folder.write(
        "allcores.toml",
        &WEB.replace("A = \"one\"", "A = \"two\"").replace("workers = 1", "policy = \"shared\"\nworkers = 1"),
    );
    folder.allcores(&["restart", "web"]).code(0).has(&["policy changed", "allcores restart --hard"]);
    let rolled = folder.status("web");
    assert_eq!((pid(&rolled), &rolled["policy"]), (pid(&before), &"auto".into()));
    assert_ne!(worker(&rolled), worker(&before));
    assert_eq!(folder.ask("A"), "two");
    // What is shown is what holds, and the log says it, too, as others than a command reload.
    let described = || -> Value {
        serde_json::from_str(&folder.allcores(&["describe", "web", "--json"]).code(0).out).unwrap()
    };
    let before = described();
    assert_eq!(
        (&before["options"]["policy"], &before["waiting"]),
        (&Value::Null, &serde_json::json!(["policy"]))
    );
    folder.allcores(&["describe", "web"]).code(0).has(&["waiting", "policy (changed; for"]);
    assert!(
        folder.log("web").contains("policy changed, and is fixed while the app runs"),
        "{}",
        folder.log("web")
    );
    folder.allcores(&["restart", "all", "--hard"]).code(0).has(&["web: stopped", "web: 1 worker ready"]);
    let hard = folder.status("web");
    assert_ne!(pid(&hard), pid(&before));
    assert_eq!(hard["policy"], "shared");
    let after = described();
    assert_eq!(
        (&after["options"]["policy"][0], &after["waiting"]),
        (&"shared".into(), &serde_json::json!([]))
    );
}

#[test]
fn a_description_says_how_the_app_was_made_and_no_value_of_a_variable() {
    let folder = running();
    let text = folder.allcores(&["describe", "web"]).code(0).out;
    for part in
        ["variables.py", "allcores.toml, app web", "allcores start", "kill-timeout  1s", "A HOST PORT", "KEY"]
    {
        assert!(text.contains(part), "{part}\n{text}");
    }
    folder.allcores(&["reload", "web", "--env", "GIVEN=hunter3"]).code(0);
    let text = folder.allcores(&["describe", "web", "--json"]).code(0).out;
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["variables"], serde_json::json!(["A", "GIVEN", "HOST", "PORT"]));
    assert_eq!(value["secrets"], serde_json::json!(["KEY"]));
    assert_eq!((&value["background"], &value["workers"]), (&true.into(), &1.into()));
    for told in [text, folder.log("web")] {
        assert!(!told.contains("hunter"), "{told}");
    }
    // What was typed is kept, for the next start; what a secret is, is not.
    let record = fs::read_to_string(folder.path().join("state/apps/web.json")).unwrap();
    assert!(record.contains("hunter3") && !record.contains("hunter2"), "{record}");
}

#[test]
fn what_a_reload_was_given_holds_at_the_next_start() {
    let folder = running();
    let script = fs::read_to_string(fixture("operate/variables.py")).unwrap();
    let next = folder.path().join("next.py");
    fs::write(&next, script).unwrap();
    let (python, next) = (Runtime::Python.program().unwrap(), next.to_str().unwrap().to_owned());
    let reload = ["reload", "web", "--env", "A=given", "--", python.to_str().unwrap(), &next];
    folder.allcores(&reload).code(0);
    // What was rolled back is nobody's.
    let bad = ["reload", "web", "--env", "A=bad", "--", "sh", "-c", "exit 7"];
    folder.allcores(&bad).code(8);
    let holds = || {
        assert_eq!(folder.ask("A"), "given");
        let description = folder.allcores(&["describe", "web", "--json"]).code(0).out;
        let description: Value = serde_json::from_str(&description).unwrap();
        assert_eq!(description["command"][1], next.as_str(), "{description}");
        assert_eq!(description["config"]["app"], "web", "{description}");
    };
    holds();
    folder.allcores(&["restart", "web", "--hard"]).code(0);
    holds();
    folder.allcores(&["save"]).code(0);
    folder.allcores(&["stop", "web"]).code(0);
    folder.allcores(&["resurrect"]).code(0);
    holds();
    folder.allcores(&["reload", "web", "--env", "A=again"]).code(0);
    kill(pid(&folder.status("web")));
    let elsewhere = || Run::from(folder.command(&["start", "web"]).current_dir("/").output().unwrap());
    let deadline = Instant::now() + LONG;
    while elsewhere().code(0).out.contains("runs already") {
        assert!(Instant::now() < deadline, "it does not go");
    }
    assert_eq!(folder.ask("A"), "again");
}

#[test]
fn what_was_saved_is_resurrected_as_it_was() {
    let folder = running();
    folder.allcores(&["scale", "web", "+1"]).code(0).has(&["web: 2 workers ready"]);
    let saved = folder.allcores(&["save"]).code(0).has(&["saved 1 app: web"]);
    assert!(saved.out.contains("saved.json"), "{saved:?}");
    folder.allcores(&["resurrect"]).code(0).has(&["web: runs already"]);
    folder.allcores(&["stop", "all"]).code(0).has(&["web: stopped"]);
    folder.allcores(&["save"]).code(1).has(&["no app runs in the background", "--force"]);
    // As after a start of the machine, by whom and from where ever.
    let mut command = folder.command(&["resurrect"]);
    let run = command.current_dir("/").env("PATH", "/nowhere").env_remove("HOME").output().unwrap();
    let run = Run::from(run).code(0).has(&["web: 2 workers ready on ", &folder.address.to_string()]);
    assert!(!run.out.contains("1 worker ready"), "that it began with one is over: {run:?}");
    assert_eq!(folder.status("web")["target"], 2);
    assert_eq!(folder.ask("A"), "one");
    // It stays so, also under the next program, until somebody says otherwise.
    folder.allcores(&["upgrade", "web"]).code(0);
    folder.allcores(&["restart", "web", "--hard"]).code(0).has(&["web: 2 workers ready on "]);
    folder.allcores(&["scale", "web", "3"]).code(0);
    folder.allcores(&["reload", "web"]).code(0);
    folder.allcores(&["restart", "web", "--hard"]).code(0).has(&["web: 3 workers ready on "]);
    folder.allcores(&["scale", "web", "1"]).code(0);
    folder.allcores(&["restart", "web", "--hard"]).code(0).has(&["web: 1 worker ready on "]);
    folder.allcores(&["scale", "web", "2"]).code(0);
    let file = folder.path().join("allcores.toml");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("workers = 1"), "{text}");
    fs::write(&file, text.replace("workers = 1", "workers = 3")).unwrap();
    folder.allcores(&["restart", "web", "--hard"]).code(0).has(&["web: 3 workers ready on "]);
}

#[test]
fn what_runs_in_the_foreground_is_not_taken_for_what_was_in_the_background() {
    let folder = running();
    folder.allcores(&["stop", "web"]).code(0);
    let config = folder.write("other.toml", &WEB.replace("A = \"one\"", "A = \"other\""));
    let mut command = folder.command(&["run", "--config", config.to_str().unwrap(), "--app", "web"]);
    let app = allcores_testing::process::Process::spawn(command.arg("--log-format=json")).unwrap();
    app.wait_count("ready", 1, LONG).unwrap();
    let refused = folder.allcores(&["restart", "web", "--hard"]).code(1);
    refused.has(&["restart web --hard: it was not started in the background"]);
    folder.allcores(&["save"]).code(1).has(&["no app runs in the background"]);
    assert_eq!((folder.ask("A"), pid(&folder.status("web"))), ("other".to_owned(), app.pid().into()));
    // Without it, it is what it was.
    folder.allcores(&["stop", "web"]).code(0);
    folder.allcores(&["restart", "web", "--hard"]).code(0);
    assert_eq!(folder.ask("A"), "one");
    folder.allcores(&["save"]).code(0).has(&["saved 1 app: web"]);
}

#[test]
fn who_deletes_all_stops_nobody_who_runs_in_the_foreground_by_now() {
    let folder = running();
    folder.allcores(&["save"]).code(0);
    folder.allcores(&["stop", "web"]).code(0);
    let config = folder.write("other.toml", &WEB.replace("A = \"one\"", "A = \"other\""));
    let mut command = folder.command(&["run", "--config", config.to_str().unwrap(), "--app", "web"]);
    let app = Process::spawn(command.arg("--log-format=json")).unwrap();
    app.wait_count("ready", 1, LONG).unwrap();
    // Who can't be asked is not stopped either.
    send(app.pid().into(), Signal::STOP);
    let unheard = folder.allcores(&["delete", "all"]);
    send(app.pid().into(), Signal::CONT);
    unheard.code(1).has(&["delete web: it runs and has not answered"]);
    let deleted = folder.allcores(&["delete", "all", "--logs"]).code(0);
    assert_eq!(deleted.out, "web: forgotten; it runs in the foreground, and goes on\n");
    folder.allcores(&["delete", "all"]).code(0).has(&["nothing to delete"]);
    assert_eq!((folder.ask("A"), pid(&folder.status("web"))), ("other".to_owned(), app.pid().into()));
    // By its name, it is meant.
    folder.allcores(&["delete", "web"]).code(0).has(&["web: deleted"]);
    assert_eq!(folder.allcores(&["resurrect"]).code(0).out, "", "it is not saved any more");
}

#[test]
fn an_app_that_could_not_be_begun_leaves_no_lock_from_which_it_would_be_taken_for_killed() {
    let folder = Folder::new();
    folder.write("allcores.toml", "[apps.web]\ncommand = $COMMAND\n");
    // Nothing can be bound there.
    let socket = folder.path().join("run/web/control.sock");
    fs::create_dir_all(&socket).unwrap();
    fs::set_permissions(folder.path().join("run"), fs::Permissions::from_mode(0o700)).unwrap();
    folder.allcores(&["run", "--config", "allcores.toml"]).code(7).has(&["make the control socket"]);
    assert!(socket.exists() && !folder.path().join("run/web/lock").exists());
}

#[test]
fn what_is_forgotten_is_not_resurrected() {
    let folder = Folder::new();
    let config = folder.write("sub/shop.toml", TWO);
    folder.allcores(&["start", config.to_str().unwrap()]).code(0);
    folder.allcores(&["save"]).code(0).has(&["saved 2 apps: api, web"]);
    folder.allcores(&["stop", "all"]).code(0);
    folder.allcores(&["delete", "web"]).code(0).has(&["web: deleted"]);
    let run = folder.allcores(&["resurrect"]).code(0).has(&["api: 1 worker ready"]);
    assert!(!run.out.contains("web"), "{run:?}");
    folder.allcores(&["delete", "all"]).code(0).has(&["api: deleted"]);
    assert_eq!(folder.allcores(&["resurrect"]).code(0).out, "");
}

#[test]
fn events_are_told_from_now_until_the_end() {
    let folder = running();
    let mut command = folder.command(&["events", "web"]);
    let events = allcores_testing::process::Process::spawn(&mut command).unwrap();
    // That it listens is seen by what it tells; until then, there is something new to be told every moment.
    let deadline = Instant::now() + LONG;
    while events.position() == 0 {
        folder.allcores(&["scale", "web", "2"]).code(0);
        folder.allcores(&["scale", "web", "1"]).code(0);
        assert!(Instant::now() < deadline, "{:?}", events.lines());
    }
    folder.allcores(&["stop", "web"]).code(0);
    events.wait_output(LONG).unwrap();
    assert!(events.wait(LONG).unwrap().success());
    let told = events.events();
    assert_eq!(told.last().unwrap().kind(), "stopped");
    assert!(told.iter().all(|event| event.value["app"] == "web"), "{told:?}");
}

/// The writing end of a pipe that nobody reads, as a `| head` that has read enough leaves it.
fn unread() -> PipeWriter {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    writer
}

#[test]
fn events_and_logs_end_when_nobody_reads_them_any_more() {
    let folder = running();
    for arguments in [&["events", "web"][..], &["logs", "web", "-f"]] {
        let run = folder.command(arguments).stdout(unread()).output().unwrap();
        assert_eq!(Run::from(run).code(0).err, "");
    }
    // One that reads a line of what happens later.
    let mut command = folder.command(&["events", "web"]);
    let mut events = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(events.stdout.take().unwrap()).lines();
    let reader = std::thread::spawn(move || lines.next().unwrap().unwrap());
    let deadline = Instant::now() + LONG;
    while !reader.is_finished() {
        folder.allcores(&["scale", "web", "2"]).code(0);
        folder.allcores(&["scale", "web", "1"]).code(0);
        assert!(Instant::now() < deadline, "nothing was told");
    }
    assert!(reader.join().unwrap().contains("\"event\""));
    assert!(events.wait().unwrap().success());
}

#[test]
fn a_reload_that_nobody_reads_of_is_waited_for_and_ends_as_it_does() {
    let folder = running();
    let reload = |options: &[&str]| {
        let mut command = folder.command(&[&["reload", "web"], options].concat());
        Run::from(command.stdout(unread()).output().unwrap())
    };
    for (options, generation) in [(&[][..], 2), (&["--json"], 3)] {
        assert_eq!(reload(options).code(0).err, "");
        assert_eq!(folder.status("web")["generation"], generation);
    }
    reload(&["--", "sh", "-c", "exit 7"]).code(8).has(&["the old version has served all the time"]);
}

/// Runs the server that tells what it was told, in node.
fn node(folder: &Folder) -> bool {
    let Some(node) = require(Runtime::Node) else { return false };
    let script = fixture("operate/messages.js");
    let (host, port) = (folder.address.ip().to_string(), folder.address.port().to_string());
    let mut command =
        folder.command(&["start", "--name", "node", "-w", "2", "--policy", "round-robin", "--"]);
    command.arg(node.program().unwrap()).arg(script).env("HOST", host).env("PORT", port);
    Run::from(command.output().unwrap()).code(0);
    true
}

/// Asks until each slot's answer is as wanted.
#[track_caller]
fn each_answers(folder: &Folder, is_good: impl Fn(&Value) -> bool) {
    let deadline = Instant::now() + LONG;
    let mut good = std::collections::BTreeSet::new();
    while good.len() < 2 {
        let answer: Value = serde_json::from_str(&folder.ask("")).unwrap();
        assert!(Instant::now() < deadline, "{answer}");
        if is_good(&answer) {
            good.insert(answer["slot"].to_string());
        }
    }
}

#[test]
fn workers_are_sent_messages_and_signals_all_or_one() {
    let folder = Folder::new();
    if !node(&folder) {
        return;
    }
    folder.allcores(&["send", "node", "{\"flush\": true}"]).code(0).has(&["node: sent to 2 workers"]);
    folder
        .allcores(&["send", "node", "{bad", "--slot", "1"])
        .code(0)
        .has(&["slot 1", "it is sent as a string"]);
    folder.allcores(&["send", "node", "hello", "--slot", "1"]).code(0).has(&["1 worker: slot 1"]);
    folder.allcores(&["signal", "USR2", "node", "--slot", "0"]).code(0).has(&["SIGUSR2 sent to 1 worker"]);
    each_answers(&folder, |answer| match answer["slot"].as_str() {
        Some("0") => answer["message"]["flush"] == true && answer["signals"] == 1,
        _ => answer["message"] == "hello" && answer["signals"] == 0,
    });
}

#[test]
fn a_shell_completes_the_names_of_apps() {
    let folder = running();
    folder.allcores(&["stop", "web"]).code(0);
    let complete = |words: &[&str]| {
        let mut command = folder.command(&["--"]);
        command
            .args(words)
            .env("ALLCORES_COMPLETE", "bash")
            .env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string());
        Run::from(command.output().unwrap()).code(0).out
    };
    let names = complete(&["allcores", "status", ""]);
    assert!(names.lines().any(|line| line == "web") && names.lines().any(|line| line == "all"), "{names}");
    assert_eq!(complete(&["allcores", "stop", "w"]).trim(), "web");
    assert!(complete(&["allcores", "rest"]).contains("restart"));
    let script = folder.allcores(&["completions", "bash"]).code(0).out;
    assert!(script.contains("ALLCORES_COMPLETE=") && Path::new("/bin/bash").exists(), "{script}");
}
