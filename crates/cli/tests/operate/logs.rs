//! Logs: whole, in order, put aside under load, and no burden to the app when they can't be written.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use allcores_testing::extent;
use allcores_testing::process::Process;
use allcores_testing::runtimes::{Runtime, fixture};
use allcores_testing::skip;
use serde_json::Value;

use crate::folder::{Folder, Run};

const LONG: Duration = Duration::from_secs(30);

/// Starts an app in the background whose workers write so many lines as they are asked for.
fn start(folder: &Folder, options: &[&str]) {
    start_by(folder, "web", &[], options);
}

fn start_by(folder: &Folder, name: &str, wrapper: &[&str], options: &[&str]) {
    let python = Runtime::Python.program().expect("python3 is there: every fixture needs it");
    let mut words: Vec<std::ffi::OsString> = wrapper.iter().map(Into::into).collect();
    words.push(env!("CARGO_BIN_EXE_allcores").into());
    words.extend(["start", "--name", name, "--kill-timeout", "1s"].map(Into::into));
    words.extend(options.iter().map(Into::into));
    words.extend(["--".into(), python, fixture("operate/writes.py").into()]);
    let (host, port) = (folder.address.ip().to_string(), folder.address.port().to_string());
    let mut command = folder.command_of(&words[0], &words[1..]);
    command.env("HOST", host).env("PORT", port);
    Run::from(command.output().unwrap()).code(0);
}

/// Has workers write so many lines; returns how many those were in all.
fn write(folder: &Folder, requests: u32, lines: u32) -> u32 {
    for _ in 0..requests {
        assert_eq!(folder.ask(&lines.to_string()), "ok");
    }
    requests * lines
}

/// Waits until the log has so many lines of workers, and gives them.
#[track_caller]
fn written(folder: &Folder, count: u32) -> Vec<Value> {
    let deadline = Instant::now() + LONG;
    // Asked first, because it costs less than to read a log that grows.
    while folder.status("web")["output"]["written"].as_u64().unwrap() < u64::from(count) {
        assert!(Instant::now() < deadline, "{count} lines; {}", folder.log("web"));
    }
    loop {
        let text = folder.allcores(&["logs", "web", "--out", "--json", "-n", "10000000"]).code(0).out;
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        if lines.len() as u64 >= u64::from(count) {
            return lines;
        }
        assert!(Instant::now() < deadline, "{} of {count} lines; {}", lines.len(), folder.log("web"));
    }
}

/// Claims that each slot's lines are all there, in their order.
#[track_caller]
fn in_order(lines: &[Value]) {
    let mut next = BTreeMap::<String, u64>::new();
    for line in lines {
        let text = line["line"].as_str().unwrap();
        let mut words = text.split(' ');
        let (slot, number) = (words.next().unwrap(), words.next().unwrap().parse::<u64>().unwrap());
        assert_eq!(slot, line["worker"]["slot"].to_string());
        let expected = next.entry(slot.to_owned()).or_default();
        assert_eq!(number, *expected, "{line}");
        *expected += 1;
    }
}

fn asides(folder: &Folder) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder.path().join("state/logs")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.file_name().unwrap() != "web.log").collect()
}

#[test]
fn no_line_is_lost_or_out_of_order_while_the_log_is_put_aside_under_load() {
    let folder = Folder::new();
    start(&folder, &["-w", "2", "--log-size", "50K", "--log-keep", "1000"]);
    let count = write(&folder, extent::of("LINES", 20_000) / 1_000, 1_000);
    let lines = written(&folder, count);
    assert_eq!(lines.len() as u64, u64::from(count));
    in_order(&lines);
    let asides = asides(&folder);
    assert!(asides.len() > 20 && asides.iter().any(|path| path.extension().unwrap() == "gz"), "{asides:?}");
    let output = folder.status("web")["output"].clone();
    assert_eq!(output["dropped"], 0);
    folder.allcores(&["delete", "web", "--logs"]).code(0);
    assert!(self::asides(&folder).is_empty());
}

#[test]
fn whatever_bytes_a_worker_writes_come_out_again() {
    let folder = Folder::new();
    start(&folder, &["-w", "1"]);
    folder.ask("odd");
    // What has no end yet is written when it goes.
    folder.allcores(&["stop", "web"]).code(0);
    let raw = folder.command(&["logs", "web", "--raw"]).output().unwrap().stdout;
    let expected = [&b"\xff\x00 odd\r\n"[..], &vec![b'x'; 200_000], b"\nno end"].concat();
    assert!(raw == expected, "{} bytes: {:?}", raw.len(), String::from_utf8_lossy(&raw[..50.min(raw.len())]));
    let json = folder.allcores(&["logs", "web", "--json", "--out"]).code(0).out;
    let lines: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["line"], &lines[0]["partial"]), (&"\u{fffd}\0 odd\r".into(), &false.into()));
    let last = lines.last().unwrap();
    assert_eq!((&last["line"], &last["partial"]), (&"no end".into(), &true.into()));
}

#[test]
fn lines_are_chosen_by_number_slot_and_time_also_when_the_app_is_stopped() {
    let folder = Folder::new();
    start(&folder, &["-w", "2"]);
    let count = write(&folder, 20, 10);
    written(&folder, count);
    folder.allcores(&["stop", "web"]).code(0);
    let shown = |options: &[&str]| {
        let text = folder.allcores(&[&["logs", "web"], options].concat()).code(0).out;
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(shown(&[]).len(), 20);
    assert_eq!(shown(&["-n", "3"]).len(), 3);
    assert!(shown(&["-n", "3"]).last().unwrap().ends_with("allcores  stopped"));
    let all = shown(&["--since", "1h"]);
    assert!(all.len() > 200 && all.iter().any(|line| line.contains("listening on")), "{all:?}");
    let slot = shown(&["-n", "1000", "--slot", "1"]);
    assert!(!slot.is_empty() && slot.iter().all(|line| line.starts_with("1 | 1 ")), "{slot:?}");
    assert!(shown(&["--since", "2100-01-01T00:00:00Z"]).is_empty());
    assert!(shown(&["--err"]).is_empty());
    assert_eq!(shown(&["--out", "--err", "-n", "1000"]), shown(&["--out", "-n", "1000"]));
    let timed = shown(&["-n", "1", "--time"]);
    assert!(timed[0].starts_with("20") && timed[0].as_bytes()[23] == b'Z', "{timed:?}");
    folder.allcores(&["logs", "wed"]).code(5).has(&["wed"]);
    // What there is comes all the same, and what there is not is told.
    let some = folder.allcores(&["logs", "web", "wed", "-n", "3"]).code(5);
    assert_eq!(some.out.lines().count(), 3, "{some:?}");
    some.has(&["logs of wed: no app of this name is running"]);
    let both = folder.allcores(&["logs", "wed", "all", "-n", "3"]).code(5).has(&["logs of wed"]);
    assert_eq!(both.out.lines().count(), 3, "{both:?}");
    folder.allcores(&["logs", "web", "--since", "yesterday"]).code(2).has(&["10m"]);
}

#[test]
fn the_log_of_an_app_that_is_not_known_is_shown_and_deleted() {
    let folder = Folder::new();
    let command =
        ["start", "--name", "bad", "--backoff", "1ms", "--", "sh", "-c", "echo no database; exit 7"];
    folder.allcores(&command).code(3);
    folder.allcores(&["ls"]).code(0).has(&["no app is running"]);
    folder.allcores(&["logs", "bad", "--out"]).code(0).has(&["0 | no database"]);
    folder.allcores(&["delete", "bad"]).code(5);
    folder.allcores(&["delete", "bad", "--logs"]).code(0).has(&["bad: its log is deleted"]);
    assert_eq!(folder.log("bad"), "");
    folder.allcores(&["logs", "bad"]).code(5).has(&["bad"]);
    folder.allcores(&["delete", "bad", "--logs"]).code(5).has(&["bad"]);

    start(&folder, &["-w", "1"]);
    folder.allcores(&["delete", "web"]).code(0).has(&["web: deleted"]);
    folder.allcores(&["logs", "web"]).code(0).has(&["allcores  stopped"]);
    // Of a packer that was ended with its process.
    let draft = folder.path().join("state/logs/web.log.20260102T030405678Z.gz.part");
    fs::write(&draft, "half").unwrap();
    folder.allcores(&["delete", "web", "--logs"]).code(0).has(&["web: its log is deleted"]);
    assert!(asides(&folder).is_empty() && folder.log("web").is_empty() && !draft.exists());
}

#[test]
fn logs_of_apps_that_are_not_known_are_among_all() {
    let folder = Folder::new();
    let command =
        ["start", "--name", "bad", "--backoff", "1ms", "--", "sh", "-c", "echo no database; exit 7"];
    folder.allcores(&command).code(3);
    folder.allcores(&["logs", "--out"]).code(0).has(&["0 | no database"]);
    start(&folder, &["-w", "1"]);
    folder.allcores(&["delete", "web"]).code(0);
    // What is packed is all that is left of it.
    let logs = folder.path().join("state/logs");
    fs::rename(logs.join("web.log"), logs.join("web.log.20260102T030405678Z")).unwrap();
    let shown = folder.allcores(&["logs", "all"]).code(0).has(&["allcores  stopped", "0 | no database"]);
    assert!(shown.out.lines().all(|line| line.starts_with("bad ") || line.starts_with("web ")), "{shown:?}");

    // Who runs in the foreground is none of `all`, and goes on.
    fs::write(logs.join("front.log"), "").unwrap();
    let config = folder.write(
        "allcores.toml",
        "[apps.front]\ncommand = $COMMAND\nworkers = 1\nenv = { HOST = \"$HOST\", PORT = $PORT }\n",
    );
    let mut command = folder.command(&["run", "--config", config.to_str().unwrap()]);
    let mut front = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + LONG;
    while folder.allcores(&["status", "front"]).code != Some(0) {
        assert!(Instant::now() < deadline, "it does not run");
    }
    let deleted = folder.allcores(&["delete", "all", "--logs"]).code(0);
    assert_eq!(deleted.out, "bad: its log is deleted\nweb: its log is deleted\n");
    assert!(front.try_wait().unwrap().is_none());
    let left: Vec<_> = fs::read_dir(logs).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["front.log"]);
    folder.allcores(&["stop", "front"]).code(0);
    assert!(front.wait().unwrap().success());
    folder.allcores(&["delete", "all", "--logs"]).code(0).has(&["front: its log is deleted"]);
    folder.allcores(&["delete", "all", "--logs"]).code(0).has(&["nothing to delete"]);
    folder.allcores(&["logs"]).code(5);
}

#[test]
fn a_log_that_another_app_writes_to_is_not_deleted() {
    let folder = Folder::new();
    let log = folder.path().join("shared.log");
    let options = ["-w", "1", "--log-file", log.to_str().unwrap()];
    start(&folder, &options);
    folder.allcores(&["stop", "web"]).code(0);
    start_by(&folder, "new", &[], &options);
    let refused = folder.allcores(&["delete", "web", "--logs"]);
    refused.code(1).has(&["shared.log: another app writes to it", "web is stopped and forgotten"]);
    folder.allcores(&["ls", "web"]).code(5);
    let shown = folder.allcores(&["logs", "new"]).code(0).out;
    assert_eq!(shown.matches("listening on").count(), 2, "{shown}");
    // Its own goes, as it has let go of it by the time that it is stopped.
    folder.allcores(&["delete", "new", "--logs"]).code(0);
    assert!(!log.exists());
}

#[test]
fn a_log_that_is_removed_while_it_is_written_is_begun_anew() {
    let folder = Folder::new();
    start(&folder, &["-w", "1"]);
    let count = write(&folder, 1, 10);
    written(&folder, count);
    fs::remove_file(folder.path().join("state/logs/web.log")).unwrap();
    write(&folder, 1, 7);
    assert_eq!(written(&folder, 7).len(), 7);
}

#[test]
fn a_log_is_followed_over_putting_aside() {
    let folder = Folder::new();
    start(&folder, &["-w", "1", "--log-size", "20K", "--log-keep", "1000"]);
    let mut command = folder.command(&["logs", "web", "-f", "--out", "--json"]);
    let follower = Process::spawn(&mut command).unwrap();
    let first = write(&folder, 1, 1);
    follower.wait_count("output", 1, LONG).unwrap();
    let count = first + write(&folder, 10, 500);
    let lines = follower.wait_count("output", count.try_into().unwrap(), LONG).unwrap();
    in_order(&lines.iter().map(|event| event.value.clone()).collect::<Vec<_>>());
    assert!(asides(&folder).len() > 5);
    assert!(follower.events().iter().all(|event| event.value["app"] == "web"));
    drop(follower.signal(rustix::process::Signal::TERM));
    follower.wait(LONG).unwrap();
}

#[test]
fn a_log_is_followed_though_others_have_used_up_all_watches() {
    let none = "echo 0 > /proc/sys/user/max_inotify_instances";
    if !Command::new("unshare").args(["-Ur", "sh", "-c", none]).status().is_ok_and(|status| status.success())
    {
        skip!("a user namespace: it can't be had here");
    }
    let folder = Folder::new();
    start(&folder, &["-w", "1"]);
    let script = format!("{none} && exec \"$0\" logs web -f --out --json");
    let words = ["-Ur", "sh", "-c", &script, env!("CARGO_BIN_EXE_allcores")];
    let follower = Process::spawn(&mut folder.command_of("unshare".as_ref(), &words)).unwrap();
    for count in [1, 2] {
        write(&folder, 1, 1);
        follower.wait_count("output", count, LONG).unwrap();
    }
    drop(follower.signal(rustix::process::Signal::TERM));
    follower.wait(LONG).unwrap();
}

#[test]
fn what_a_primary_itself_writes_goes_to_the_log_that_there_is() {
    let folder = Folder::new();
    start(&folder, &["-w", "1", "--log-size", "20K"]);
    let count = write(&folder, 1, 1_000);
    written(&folder, count);
    assert!(!asides(&folder).is_empty());
    let log = folder.path().join("state/logs/web.log");
    let pid = folder.status("web")["pid"].as_u64().unwrap();
    let streams = || [1, 2].map(|fd| fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap());
    let deadline = Instant::now() + LONG;
    while streams() != [log.clone(), log.clone()] {
        assert!(Instant::now() < deadline, "{:?}", streams());
        std::thread::yield_now();
    }
    // Nor does that keep the next program from the log.
    folder.allcores(&["upgrade", "web"]).code(0);
    assert_eq!(folder.status("web")["output"]["reason"], Value::Null);
    written(&folder, count + write(&folder, 1, 10));
}

#[test]
fn a_log_that_was_moved_away_is_begun_anew_on_usr1() {
    let folder = Folder::new();
    start(&folder, &["-w", "1"]);
    let count = write(&folder, 1, 10);
    written(&folder, count);
    let log = folder.path().join("state/logs/web.log");
    fs::rename(&log, folder.path().join("moved")).unwrap();
    let pid = i32::try_from(folder.status("web")["pid"].as_u64().unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::USR1).unwrap();
    let deadline = Instant::now() + LONG;
    while !log.exists() {
        assert!(Instant::now() < deadline, "the log was not begun anew");
        std::thread::yield_now();
    }
    write(&folder, 1, 7);
    assert_eq!(written(&folder, 7).len(), 7);
    assert!(fs::read_to_string(folder.path().join("moved")).unwrap().contains(" out 0 9 "));
}

#[test]
fn a_full_disk_stops_nothing_and_what_is_lost_is_counted_and_said() {
    if !rustix::process::geteuid().is_root() || !Path::new("/usr/bin/unshare").exists() {
        skip!("no file system can be mounted here");
    }
    let folder = Folder::new();
    let disk = folder.path().join("disk");
    fs::create_dir(&disk).unwrap();
    // Seen by the app alone, and gone with it.
    let mount = format!("mount -t tmpfs -o size=256k none {} && exec \"$@\"", disk.display());
    let log = disk.join("web.log");
    start_by(
        &folder,
        "web",
        &["unshare", "--mount", "sh", "-c", &mount, "sh"],
        &["-w", "2", "--log-file", log.to_str().unwrap(), "--log-size", "1G"],
    );
    // Five times what the disk holds.
    let count = write(&folder, 20, 1_000);
    let output = || folder.status("web")["output"].clone();
    let number = |value: &Value| value.as_u64().unwrap();
    let deadline = Instant::now() + LONG;
    while number(&output()["written"]) + number(&output()["dropped"]) < u64::from(count) {
        assert!(Instant::now() < deadline, "{}", output());
    }
    assert!(number(&output()["dropped"]) > 10_000, "{}", output());
    folder.allcores(&["status", "web"]).code(0).has(&["lines of the workers' output lost"]);
    folder.allcores(&["reload", "web"]).code(0);
    folder.allcores(&["scale", "web", "1"]).code(0);
    assert_eq!(folder.ask("1"), "ok");
    // Seen from where the disk is: what the log has is whole, and says what is missing as soon as there is room.
    let pid = folder.status("web")["pid"].as_u64().unwrap();
    let inside = PathBuf::from(format!("/proc/{pid}/root")).join(log.strip_prefix("/").unwrap());
    let full = fs::read_to_string(&inside).unwrap();
    // Which worker was asked first is not known, nor whether the other was while there was room.
    let has_first = [0, 1].iter().any(|slot| full.contains(&format!(" out {slot} 0 some text")));
    assert!(full.len() > 200_000 && has_first, "{} bytes", full.len());
    fs::OpenOptions::new().write(true).open(&inside).unwrap().set_len(0).unwrap();
    let deadline = Instant::now() + LONG;
    loop {
        folder.ask("1");
        let text = fs::read_to_string(&inside).unwrap();
        if text.contains("lines dropped: No space left on device") {
            break;
        }
        assert!(Instant::now() < deadline, "{text}");
    }
    folder.allcores(&["stop", "web"]).code(0);
}

#[test]
fn an_app_in_the_foreground_has_a_log_if_it_is_given_one() {
    let folder = Folder::new();
    let config = folder.write(
        "allcores.toml",
        "[apps.web]\ncommand = $COMMAND\nworkers = 1\nenv = { HOST = \"$HOST\", PORT = $PORT }\nlog-file = \"x.log\"\n",
    );
    let app = Folder::app(&config).start().unwrap();
    app.wait_ready(1).unwrap();
    let shown = app.run(["logs", app.name()]).unwrap();
    Run::from(shown).code(0).has(&["0 | starting", "listening on"]);
    assert!(fs::read_to_string(folder.path().join("x.log")).unwrap().contains(" 0:1 out starting\n"));
    // Two that write to one file would put it aside under each other's hands.
    let other = folder.command(&["run", "--config", "allcores.toml", "--name", "other"]).output().unwrap();
    Run::from(other).code(11).has(&["x.log: another app writes to it", "--log-file"]);
    assert!(app.stop().unwrap().success());
}

#[test]
fn a_log_that_leads_to_a_device_or_elsewhere_is_never_replaced() {
    let folder = Folder::new();
    let log = folder.path().join("null");
    std::os::unix::fs::symlink("/dev/null", &log).unwrap();
    start(&folder, &["-w", "1", "--log-file", log.to_str().unwrap(), "--log-size", "1K"]);
    let count = write(&folder, 2, 100);
    let deadline = Instant::now() + LONG;
    while folder.status("web")["output"]["written"].as_u64().unwrap() < u64::from(count) {
        assert!(Instant::now() < deadline, "{}", folder.status("web"));
    }
    folder
        .allcores(&["logs", "web"])
        .code(1)
        .has(&["null is no regular file", "allcores events web --output"]);
    folder.allcores(&["delete", "web", "--logs"]).code(0);
    assert_eq!(fs::read_link(&log).unwrap(), Path::new("/dev/null"));
    assert!(!fs::metadata("/dev/null").unwrap().is_file());

    let (link, there) = (folder.path().join("link.log"), folder.path().join("there"));
    fs::create_dir(&there).unwrap();
    std::os::unix::fs::symlink("there/real.log", &link).unwrap();
    start(&folder, &["-w", "1", "--log-file", link.to_str().unwrap(), "--log-size", "1K", "--log-plain"]);
    let count = write(&folder, 1, 100);
    in_order(&written(&folder, count));
    assert!(link.is_symlink() && fs::read_dir(&there).unwrap().count() > 1);
    folder.allcores(&["delete", "web", "--logs"]).code(0);
    assert!(link.is_symlink() && fs::read_dir(&there).unwrap().count() == 0);
}

#[test]
fn the_log_of_an_app_that_gives_no_answer_is_shown_too() {
    let folder = Folder::new();
    start(&folder, &["-w", "1"]);
    let count = write(&folder, 1, 10);
    written(&folder, count);
    let pid = folder.status("web")["pid"].as_u64().unwrap();
    let primary = allcores_testing::proc::Process::open(pid.try_into().unwrap()).unwrap();
    assert!(primary.hold_still());
    let shown = folder.allcores(&["logs", "web", "--out"]);
    primary.signal(rustix::process::Signal::CONT);
    shown.code(0).has(&["0 | 0 9 some text"]);
}

#[test]
fn an_app_without_a_log_says_so() {
    let folder = Folder::new();
    let config = folder.write(
        "allcores.toml",
        "[apps.web]\ncommand = $COMMAND\nworkers = 1\nenv = { HOST = \"$HOST\", PORT = $PORT }\n",
    );
    let app = Folder::app(&config).start().unwrap();
    app.wait_ready(1).unwrap();
    let shown = app.run(["logs", app.name()]).unwrap();
    Run::from(shown).code(1).has(&["it has none", "allcores events", "--output"]);
    assert!(app.stop().unwrap().success());
}
