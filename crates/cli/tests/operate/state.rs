//! What is kept of apps in the background, while several commands want to change it.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use allcores_testing::skip;
use rustix::process::{Pid, Signal, geteuid, kill_process};

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

/// A folder with an app `web` that runs in the background.
fn running() -> Folder {
    let folder = Folder::new();
    folder.write("allcores.toml", WEB);
    folder.allcores(&["start"]).code(0).has(&["web: 1 worker ready on "]);
    folder
}

/// Begins a command.
fn begin(folder: &Folder, arguments: &[&str]) -> Child {
    let mut command = folder.command(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn end(child: Child) -> Run {
    child.wait_with_output().unwrap().into()
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
fn on_a_full_disk_both_lists_stay_as_they_are() {
    if !geteuid().is_root() || !Path::new("/usr/bin/unshare").exists() {
        skip!("no file system can be mounted here");
    }
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
    let mut command = folder.command_of("unshare".as_ref(), &["--mount", "sh", "-c", &script]);
    Run::from(command.output().unwrap()).code(11).has(&["No space left on device", "make room there"]);
}
