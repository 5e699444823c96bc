//! What is kept of apps in the background, while several commands and the apps themselves want to change it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use allcores_testing::skip;
use rustix::process::{Pid, Signal, geteuid, kill_process};
use serde_json::{Value, json};

use crate::folder::{Folder, Run};

/// Long enough for anything on a busy machine; no test passes by waiting for it.
const LONG: Duration = Duration::from_secs(30);

const WEB: &str = "
[apps.web]
command = $COMMAND
workers = 1
kill-timeout = \"1s\"
env = { HOST = \"$HOST\", PORT = $PORT, A = \"one\" }
";

/// Environments that are no good: one is so after a while, as the test says, the others at once.
const BAD: &str = "
[apps.web.environments.slow]
command = [\"sh\", \"-c\", \"until [ -e $GO ]; do sleep 0.01; done; exit 1\"]

[apps.web.environments.bad]
command = [\"sh\", \"-c\", \"exit 1\"]

[apps.web.environments.other]
env = { A = \"other\" }
";

/// A folder with an app `web` that runs in the background.
fn running() -> Folder {
    let folder = Folder::new();
    folder.write("allcores.toml", WEB);
    folder.allcores(&["start"]).code(0).has(&["web: 1 worker ready on "]);
    folder
}

/// The same, whose workers begin to serve when a file is there, which it is so far.
fn running_as_told() -> (Folder, PathBuf) {
    let folder = Folder::new();
    let go = folder.path().join("go");
    let slow = WEB.replace(
        "command = $COMMAND",
        "command = [\"sh\", \"-c\", \"until [ -e $GO ]; do sleep 0.01; done; exec $WORDS\"]",
    );
    let words = folder.write("words", "$COMMAND");
    let words = fs::read_to_string(words).unwrap().replace(['[', ']', ',', '\''], "");
    let slow = slow.replace("$GO", go.to_str().unwrap()).replace("$WORDS", words.trim());
    folder.write("allcores.toml", &slow);
    fs::write(&go, "").unwrap();
    folder.allcores(&["start"]).code(0);
    (folder, go)
}

/// How many workers an app was scaled to, as it is kept for its next start.
fn kept_workers(folder: &Folder) -> Option<u64> {
    let text: Value = serde_json::from_slice(&fs::read(record(folder, "web")).unwrap()).unwrap();
    text["given"]["scaled"]["to"].as_u64()
}

/// Begins a command.
fn begin(folder: &Folder, arguments: &[&str]) -> Child {
    let mut command = folder.command(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn end(child: Child) -> Run {
    child.wait_with_output().unwrap().into()
}

/// Carries out several commands at once.
fn at_once(folder: &Folder, commands: &[&[&str]]) -> Vec<Run> {
    let children: Vec<Child> = commands.iter().map(|arguments| begin(folder, arguments)).collect();
    children.into_iter().map(end).collect()
}

fn record(folder: &Folder, name: &str) -> PathBuf {
    folder.path().join(format!("state/apps/{name}.json"))
}

fn primary(folder: &Folder, name: &str) -> Pid {
    let pid = folder.status(name)["pid"].as_i64().unwrap();
    Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

/// Waits until something is so, with the test's own patience.
#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
    }
}

/// Puts a pipe that nobody writes to in the place of a file: who reads it waits, as on a disk that does not answer.
fn no_answer(path: &Path) {
    fs::remove_file(path).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
}

#[test]
fn what_reloads_that_are_joined_were_given_holds_at_the_next_start_all_of_it() {
    let folder = running();
    for round in 0..3 {
        let given: Vec<String> = (0..5).map(|number| format!("--env=R{round}K{number}=given")).collect();
        let commands: Vec<[&str; 3]> = given.iter().map(|given| ["reload", "web", given]).collect();
        let commands: Vec<&[&str]> = commands.iter().map(|command| &command[..]).collect();
        for run in at_once(&folder, &commands) {
            run.code(0).has(&["serves"]);
        }
    }
    folder.allcores(&["restart", "web", "--hard"]).code(0);
    for name in (0..3).flat_map(|round| (0..5).map(move |number| format!("R{round}K{number}"))) {
        assert_eq!(folder.ask(&name), "given", "{name}");
    }
}

#[test]
fn a_record_of_a_version_that_wrote_what_reloads_gave_into_the_arguments_is_one() {
    let folder = running();
    folder.allcores(&["stop", "web"]).code(0);
    let path = record(&folder, "web");
    let mut text: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    text["version"] = json!(1);
    let fields = text.as_object_mut().unwrap();
    fields.remove("given");
    fields["arguments"].as_array_mut().unwrap().push(json!("--env=A=before"));
    fs::write(&path, text.to_string()).unwrap();
    folder.allcores(&["restart", "web", "--hard"]).code(0);
    assert_eq!(folder.ask("A"), "before");
    folder.allcores(&["reload", "web", "--env", "B=given"]).code(0);
    folder.allcores(&["restart", "web", "--hard"]).code(0);
    assert_eq!((folder.ask("A"), folder.ask("B")), ("before".to_owned(), "given".to_owned()));
    folder.allcores(&["reload", "web", "--env", "A=after"]).code(0);
    folder.allcores(&["restart", "web", "--hard"]).code(0);
    assert_eq!((folder.ask("A"), folder.ask("B")), ("after".to_owned(), "given".to_owned()));
}

#[test]
fn of_two_who_start_an_app_at_once_both_find_it_running_and_known() {
    let folder = Folder::new();
    folder.write("allcores.toml", WEB);
    for _ in 0..8 {
        for run in at_once(&folder, &[&["start"], &["start"]]) {
            let is_said = run.out.contains("1 worker ready") || run.out.contains("runs already");
            assert!(is_said, "{run:?}");
            run.code(0);
        }
        assert!(record(&folder, "web").exists(), "what runs is not known");
        folder.allcores(&["delete", "web"]).code(0);
    }
}

#[test]
fn an_app_that_is_started_while_it_is_deleted_is_known() {
    let folder = running();
    folder.allcores(&["save"]).code(0);
    // It is stopped, and about to be forgotten: as soon as it has been read what was saved.
    let saved = folder.path().join("state/saved.json");
    no_answer(&saved);
    let lock = folder.path().join("run/web/lock");
    let delete = begin(&folder, &["delete", "web"]);
    until("it does not stop", || !lock.exists());
    let start = begin(&folder, &["start"]);
    until("it has not got its name", || lock.exists());
    fs::write(&saved, "{\"version\": 1, \"apps\": []}").unwrap();
    end(delete).code(0).has(&["web: deleted"]);
    end(start).code(0).has(&["web: 1 worker ready"]);
    folder.allcores(&["stop", "web"]).code(0);
    folder.allcores(&["ls"]).code(0).has(&["web", "stopped"]);
}

#[test]
fn an_app_that_fails_to_start_otherwise_is_known_as_it_was_before() {
    let folder = running();
    folder.allcores(&["stop", "web"]).code(0);
    let before = fs::read(record(&folder, "web")).unwrap();
    folder.write("bad.toml", "[apps.web]\ncommand = [\"sh\", \"-c\", \"exit 7\"]\nbackoff = \"1ms\"\n");
    folder.allcores(&["start", "./bad.toml"]).code(3);
    assert_eq!(fs::read(record(&folder, "web")).unwrap(), before);
    folder.allcores(&["start", "web"]).code(0);
    assert_eq!(folder.ask("A"), "one");
}

#[test]
fn reloads_that_fail_one_after_the_other_leave_the_app_where_it_was() {
    let folder = Folder::new();
    let go = folder.path().join("go");
    folder.write("allcores.toml", &format!("{WEB}{}", BAD.replace("$GO", go.to_str().unwrap())));
    folder.allcores(&["start"]).code(0);
    for next in ["bad", "other"] {
        let _ = fs::remove_file(&go);
        let first = begin(&folder, &["reload", "web", "--env-name", "slow"]);
        let is_reloading = || folder.status("web")["reload"].is_object();
        until("it does not reload", is_reloading);
        let second = begin(&folder, &["reload", "web", "--env-name", next]);
        until("the other one is not asked for", || folder.status("web")["reload"]["queued"] == true);
        fs::write(&go, "").unwrap();
        end(first).code(8);
        let (code, serves) = if next == "bad" { (8, "one") } else { (0, "other") };
        end(second).code(code);
        folder.allcores(&["reload", "web"]).code(0);
        assert_eq!(folder.ask("A"), serves);
        folder.allcores(&["restart", "web", "--hard"]).code(0);
        assert_eq!(folder.ask("A"), serves);
    }
}

#[test]
fn a_reload_is_told_to_be_done_also_where_it_can_not_be_kept_in_mind() {
    let folder = running();
    no_answer(&record(&folder, "web"));
    let reload = ["reload", "web", "--env", "A=two", "--timeout", "25s"];
    let reload = begin(&folder, &reload);
    // What it was given serves, and the last is about to be said.
    until("it does not reload", || folder.status("web")["generation"] == 2);
    // An upgrade that comes by then waits for that.
    let upgrade = begin(&folder, &["upgrade", "web"]);
    end(reload).code(0).has(&["generation 2 serves"]);
    end(upgrade).code(0);
    assert_eq!(folder.ask("A"), "two");
    assert!(folder.log("web").contains("the next start may be without"), "{}", folder.log("web"));
}

#[test]
fn what_is_resurrected_has_its_workers_also_where_nobody_waits_for_them() {
    let (folder, go) = running_as_told();
    folder.allcores(&["scale", "web", "+1"]).code(0);
    folder.allcores(&["save"]).code(0);
    folder.allcores(&["stop", "web"]).code(0);
    fs::remove_file(&go).unwrap();
    folder.allcores(&["resurrect", "--timeout", "300ms"]).code(1).has(&["not ready after 300ms"]);
    assert_eq!(folder.status("web")["target"], 2);
    // It is so, and no wish of its own: what the file says is another thing.
    let described = folder.allcores(&["describe", "web", "--json"]).code(0).out;
    let described: Value = serde_json::from_str(&described).unwrap();
    assert_eq!((&described["workers"], &described["scaled"]), (&json!(1), &json!(2)));
    let words = ["workers    2 (scaled; its settings say 1)"];
    folder.allcores(&["describe", "web"]).code(0).has(&words);
    fs::write(&go, "").unwrap();
    until("it is not ready", || folder.status("web")["workers"].as_array().unwrap().len() == 2);
    folder.allcores(&["stop", "web"]).code(0);
    folder.allcores(&["describe", "web"]).code(0).has(&words);
}

#[test]
fn what_a_file_says_since_is_not_undone_by_what_was_saved() {
    let folder = running();
    folder.allcores(&["scale", "web", "2"]).code(0);
    folder.allcores(&["save"]).code(0);
    folder.allcores(&["stop", "web"]).code(0);
    folder.write("allcores.toml", &WEB.replace("workers = 1", "workers = 3"));
    let saved = folder.path().join("state/saved.json");
    let mut list: Value = serde_json::from_slice(&fs::read(&saved).unwrap()).unwrap();
    folder.allcores(&["resurrect"]).code(0).has(&["web: 3 workers ready on "]);
    folder.allcores(&["stop", "web"]).code(0);
    // A list of a version that kept it nowhere else, and not what the file said then.
    assert_eq!(list["apps"][0]["workers"], 2);
    list["apps"][0]["record"]["version"] = json!(1);
    list["apps"][0]["record"].as_object_mut().unwrap().remove("given").unwrap();
    fs::write(&saved, list.to_string()).unwrap();
    folder.allcores(&["resurrect"]).code(0).has(&["web: 2 workers ready on "]);
}

#[test]
fn a_number_of_workers_is_kept_in_mind_also_where_nobody_waits_for_it() {
    let (folder, go) = running_as_told();
    fs::remove_file(&go).unwrap();
    folder.allcores(&["scale", "web", "2", "--timeout", "2s"]).code(1).has(&["goes on trying"]);
    fs::write(&go, "").unwrap();
    until("it is not kept in mind", || kept_workers(&folder) == Some(2));
    folder.allcores(&["restart", "web", "--hard"]).code(0).has(&["web: 2 workers ready on "]);
}

#[test]
fn one_worker_more_or_fewer_by_a_signal_is_kept_in_mind() {
    let folder = running();
    let signals = [
        (Signal::TTIN, Some(2), "web: 2 workers ready on "),
        (Signal::TTOU, None, "web: 1 worker ready on "),
    ];
    for (signal, kept, ready) in signals {
        kill_process(primary(&folder, "web"), signal).unwrap();
        until("it is not kept in mind", || kept_workers(&folder) == kept);
        folder.allcores(&["restart", "web", "--hard"]).code(0).has(&[ready]);
    }
}

#[test]
fn an_app_that_is_deleted_while_the_list_is_saved_is_not_in_it() {
    let folder = running();
    let api =
        WEB.replace("apps.web", "apps.zoo").replace("$HOST", "$OTHER_HOST").replace("$PORT", "$OTHER_PORT");
    folder.write("zoo.toml", &api);
    folder.allcores(&["start", "./zoo.toml"]).code(0);
    let zoo = primary(&folder, "zoo");
    let connections = || {
        let sockets = fs::read_to_string("/proc/net/unix").unwrap();
        let path = folder.path().join("run/zoo/control.sock");
        sockets.lines().filter(|line| line.ends_with(path.to_str().unwrap())).count()
    };
    let deadline = Instant::now() + LONG;
    loop {
        // It is asked last, and takes its time.
        kill_process(zoo, Signal::STOP).unwrap();
        let before = connections();
        let save = begin(&folder, &["save"]);
        until("it is not asked", || connections() > before);
        folder.allcores(&["delete", "web"]).code(0);
        kill_process(zoo, Signal::CONT).unwrap();
        if end(save).code == Some(0) {
            break;
        }
        // On a busy machine that is longer than is waited for an answer.
        assert!(Instant::now() < deadline, "it is never saved");
        folder.allcores(&["start"]).code(0);
    }
    folder.allcores(&["resurrect"]).code(0).has(&["zoo: runs already"]);
    folder.allcores(&["status", "web"]).code(5);
}

#[test]
fn of_those_who_scale_at_once_each_is_heard() {
    let folder = running();
    let at_once = |words: [&[&str]; 3]| {
        let started = words.map(|words| folder.command(words).stderr(Stdio::piped()).spawn().unwrap());
        for child in started {
            Run::from(child.wait_with_output().unwrap()).code(0);
        }
        folder.status("web")["target"].clone()
    };
    assert_eq!(at_once([&["scale", "web", "+1"]; 3]), 4);
    assert_eq!(at_once([&["scale", "web", "2"]; 3]), 2);
    assert_eq!(at_once([&["scale", "web", "+2"], &["scale", "web", "-1"], &["scale", "web", "+1"]]), 4);
}

/// What a script does that mounts something; `None` where nobody may.
fn where_it_may_mount(folder: &Folder, script: &str) -> Option<Run> {
    let may = geteuid().is_root() && Path::new("/usr/bin/unshare").exists();
    let mut command = may.then(|| folder.command_of("unshare".as_ref(), &["--mount", "sh", "-c", script]))?;
    Some(command.output().unwrap().into())
}

#[test]
fn on_a_full_disk_both_lists_stay_as_they_are() {
    let folder = running();
    folder.allcores(&["save"]).code(0);
    folder.allcores(&["scale", "web", "2"]).code(0);
    folder.allcores(&["save"]).code(0);
    let state = folder.path().join("state");
    let script = format!(
        "cp -a {0} {0}.copy && mount -t tmpfs -o size=256k,mode=700 none {0} && cp -a {0}.copy/. {0} || exit 99
        dd if=/dev/zero of={0}/fill bs=4k 2>/dev/null
        {1} save; code=$?
        cmp {0}/saved.json {0}.copy/saved.json && cmp {0}/saved.json.before {0}.copy/saved.json.before || exit 98
        ls -A {0} | grep -v -e fill -e apps -e logs -e .lock -e '^saved.json$' -e '^saved.json.before$' && exit 97
        exit $code",
        state.display(),
        env!("CARGO_BIN_EXE_allcores"),
    );
    let Some(run) = where_it_may_mount(&folder, &script) else { skip!("no file system can be mounted here") };
    run.code(11).has(&["No space left on device", "make room there"]);
}

#[test]
fn an_app_that_can_not_be_kept_in_mind_is_not_started_and_it_is_said_why() {
    let folder = Folder::new();
    folder.write("allcores.toml", WEB);
    let state = folder.path().join("state");
    fs::create_dir(&state).unwrap();
    // Its log is there, too.
    let script = format!(
        "mount -t tmpfs -o size=64k,mode=700 none {0} || exit 99
        dd if=/dev/zero of={0}/fill bs=4k 2>/dev/null
        {1} start; code=$?
        [ -z \"$(ls -A {0}/apps)\" ] || exit 98
        exit $code",
        state.display(),
        env!("CARGO_BIN_EXE_allcores"),
    );
    let Some(run) = where_it_may_mount(&folder, &script) else { skip!("no file system can be mounted here") };
    let said =
        ["web.json: No space left on device", "next: make room there, or name a folder on another disk"];
    run.code(11).has(&said);
    folder.allcores(&["ls"]).code(0).has(&["no app is running"]);
}

#[test]
fn on_a_full_disk_an_app_comes_back_as_it_was_and_is_deleted_with_the_log_that_fills_it() {
    let folder = Folder::new();
    folder.write("allcores.toml", WEB);
    let state = folder.path().join("state");
    fs::create_dir(&state).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=256k,mode=700 none {0} || exit 99
        {1} start && {1} save || exit 98
        dd if=/dev/zero bs=4k >> {0}/logs/web.log 2>/dev/null
        {1} save && exit 97
        {1} restart web --hard || exit 96
        {1} delete web --logs || exit 95
        {1} ls",
        state.display(),
        env!("CARGO_BIN_EXE_allcores"),
    );
    let Some(run) = where_it_may_mount(&folder, &script) else { skip!("no file system can be mounted here") };
    run.code(0).has(&["web: deleted", "no app is running"]);
}

#[test]
fn a_status_tells_of_a_failed_reload_and_of_a_crash_loop_for_as_long_as_there_is_one() {
    let folder = Folder::new();
    let script = folder.write("serve.sh", "exec $COMMAND");
    let good = fs::read_to_string(&script).unwrap().replace(['[', ']', ',', '\''], "");
    fs::write(&script, &good).unwrap();
    let command =
        format!("command = [\"sh\", \"{}\"]\nbackoff = \"1ms\"\nmax-restarts = 1", script.display());
    folder.write("allcores.toml", &WEB.replace("command = $COMMAND", &command));
    folder.allcores(&["start"]).code(0);
    let before = folder.status("web");
    assert!(before["failed_reload"].is_null() && before["workers"][0]["crash_loop"] == false, "{before}");
    fs::write(&script, "exit 7").unwrap();
    folder.allcores(&["reload", "web"]).code(8);
    folder.allcores(&["status", "web"]).code(0).has(&["reload      the last one failed ", "exit code 7"]);
    // The program of before serves, and the next one that is started is that of the file.
    let worker = folder.status("web")["workers"][0]["pid"].as_i64().unwrap();
    kill_process(Pid::from_raw(i32::try_from(worker).unwrap()).unwrap(), Signal::KILL).unwrap();
    until("it does not wait", || {
        let worker = folder.status("web")["workers"][0].clone();
        worker["crash_loop"] == true && worker["respawn_at"].is_string()
    });
    folder.allcores(&["status", "web"]).code(0).has(&["slot 0: crash loop: ", "it gets a new worker in "]);
    // The next program knows of both.
    folder.allcores(&["upgrade", "web"]).code(0);
    let after = folder.status("web");
    assert!(after["failed_reload"]["reason"].as_str().unwrap().contains("exit code 7"), "{after}");
    assert_eq!(after["workers"][0]["crash_loop"], true, "{after}");
    fs::write(&script, &good).unwrap();
    folder.allcores(&["reload", "web"]).code(0);
    assert!(folder.status("web")["failed_reload"].is_null());
    until("the loop does not end", || folder.status("web")["workers"][0]["crash_loop"] == false);
}
