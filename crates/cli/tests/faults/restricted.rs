//! Machines that forbid something: adoption finds another way, or says that it has none.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use allcores_testing::address::unused;
use allcores_testing::app::App;
use allcores_testing::process::Event;
use allcores_testing::runtimes::{Runtime, fixture, require};
use allcores_testing::skip;

use crate::support::{
    LONG, NOBODY, app, as_nobody, bad, bad_node, bad_python, get, has, public, python, ready, served_by_each,
    stop, wait_since,
};

/// Runs allcores where these system calls are refused.
fn denied(app: App, calls: &str) -> App {
    app.wrapper([python(), bad("deny.py").into(), calls.into()])
}

/// Claims that two adopted workers share the address.
#[track_caller]
fn both_are_adopted(app: App, address: SocketAddr) {
    let app = app.workers(2).start().unwrap();
    ready(&app, 2);
    served_by_each(address, 2);
    let events = app.wait_count("listening", 2, LONG).unwrap();
    assert!(events.iter().all(|event| event.value["rung"] == "adopted" && event.value["policy"] == "lanes"));
    stop(&app);
}

#[test]
fn without_pidfd_getfd_lanes_are_made_from_the_address() {
    let address = unused();
    both_are_adopted(denied(bad_python("hang.py", address), "pidfd_getfd"), address);
}

#[test]
fn without_pidfd_getfd_node_in_a_shell_is_adopted() {
    if require(Runtime::Node).is_none() {
        return;
    }
    let address = unused();
    let script = format!("node {}; exit $?", bad("channel.js").display());
    both_are_adopted(denied(app(["sh", "-c", &script]).address(address), "pidfd_getfd"), address);
}

#[test]
fn without_pidfd_getfd_what_is_watched_before_it_is_bound_is_left_alone_and_that_is_said() {
    let address = unused();
    let script = fixture("python-epoll/server.py");
    let app =
        denied(app([python(), script.into()]).address(address), "pidfd_getfd").workers(1).start().unwrap();
    let notice = app.wait_for(|event| event.kind() == "notice", LONG).unwrap();
    has(
        notice.value["text"].as_str().unwrap(),
        &["epoll", &address.to_string(), "binds by itself", "pidfd_getfd"],
    );
    // Its own bind has gone through; it listens a moment later.
    let deadline = std::time::Instant::now() + LONG;
    while get(address, "/").is_err() {
        assert!(std::time::Instant::now() < deadline, "{:?}", app.lines());
    }
    stop(&app);
}

#[test]
fn without_process_vm_readv_the_address_is_read_otherwise() {
    let address = unused();
    both_are_adopted(denied(bad_python("hang.py", address), "process_vm_readv"), address);
}

#[test]
fn without_both_of_them_it_still_adopts() {
    let address = unused();
    both_are_adopted(denied(bad_python("hang.py", address), "process_vm_readv,pidfd_getfd"), address);
}

/// What Docker's own profile refuses, of what can be tried as any user.
const CONTAINER: &str = "pidfd_getfd,unshare";

/// Asks at a Unix socket; gives the pid in the answer.
fn ask(path: &Path) -> io::Result<String> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(LONG))?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let line = answer.lines().skip_while(|line| !line.is_empty()).find(|line| line.parse::<u32>().is_ok());
    line.map(ToOwned::to_owned).ok_or_else(|| io::Error::other(answer.clone()))
}

/// Claims that three adopted workers share a Unix socket whose file has this mode, that each of them answers and all who ask
/// are answered, and that its file goes with the app. All of it where a container forbids what it does by itself.
#[track_caller]
fn all_have_one_path(mode: u32, describe: impl FnOnce(&Path) -> App) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server.sock");
    let app = denied(describe(&path).env("SOCKET", &path), CONTAINER).workers(3).start().unwrap();
    ready(&app, 3);
    let events = app.wait_count("listening", 3, LONG).unwrap();
    assert!(events.iter().all(|event| event.value["rung"] == "adopted" && event.value["policy"] == "shared"));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
    let mut answered = BTreeSet::new();
    let deadline = std::time::Instant::now() + LONG;
    for count in 1.. {
        answered.insert(ask(&path).unwrap_or_else(|error| panic!("request {count}: {error}")));
        if count >= 300 && answered.len() == 3 {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "of three, only {answered:?} answered");
    }
    stop(&app);
    let left: Vec<_> = folder.path().read_dir().unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, [] as [OsString; 0], "files are left");
}

#[test]
fn in_a_container_python_workers_share_a_path_made_with_their_umask() {
    for (umask, mode) in [("000", 0o777), ("117", 0o660), ("077", 0o700)] {
        all_have_one_path(mode, |_| app([python(), bad("unix.py").into()]).env("UMASK", umask));
    }
}

#[test]
fn in_a_container_node_workers_of_a_shell_share_a_path_made_with_its_umask() {
    if require(Runtime::Node).is_none() {
        return;
    }
    let script = fixture("node-unix/server.js");
    let script = format!("umask 007; node {}; exit $?", script.display());
    all_have_one_path(0o770, |_| app(["sh", "-c", &script]));
}

#[test]
fn in_a_container_gunicorn_workers_share_a_path_that_is_everybodys() {
    let Some(gunicorn) = require(Runtime::Gunicorn) else { return };
    all_have_one_path(0o777, |path| {
        let options =
            ["--no-control-socket".into(), "--bind".into(), format!("unix:{}", path.display()).into()];
        let command = [gunicorn.program().unwrap()].into_iter().chain(options).chain(["app:app".into()]);
        app(command).folder(fixture("gunicorn")).env("PYTHONDONTWRITEBYTECODE", "1")
    });
}

#[test]
fn where_no_filter_can_be_had_it_is_said_and_node_needs_none() {
    if require(Runtime::Node).is_none() {
        return;
    }
    let address = unused();
    let app = denied(bad_node("channel.js", address), "seccomp").workers(2).start().unwrap();
    ready(&app, 2);
    let notices: Vec<Event> = app.events().into_iter().filter(|event| event.kind() == "notice").collect();
    assert_eq!(notices.len(), 1, "{notices:?}");
    has(notices[0].value["text"].as_str().unwrap(), &["adoption is not available", "node's own channel"]);
    get(address, "/").unwrap();
    stop(&app);
}

/// A script of `tests/fixtures/bad` by a python that everybody may execute, all of it as another user.
fn as_another(script: &str, address: SocketAddr) -> Option<App> {
    let (wrapper, python) = (as_nobody()?, public("python3")?);
    let command: [OsString; 2] = [python.into(), bad(script).into()];
    Some(app(command).address(address).wrapper(wrapper).owner(NOBODY))
}

#[test]
fn a_program_that_may_not_be_looked_into_is_left_alone_and_that_is_said() {
    let address = unused();
    let Some(app) = as_another("secret.py", address) else { skip!("no other user can be tried as") };
    let app = app.workers(1).start().unwrap();
    let notice = app.wait_for(|event| event.kind() == "notice", LONG).unwrap();
    has(notice.value["text"].as_str().unwrap(), &["can't be adopted", "forbidden", "binds by itself"]);
    // Its own bind has gone through, whatever we know of it; it listens a moment later.
    let deadline = std::time::Instant::now() + LONG;
    while get(address, "/").is_err() {
        assert!(std::time::Instant::now() < deadline, "{:?}", app.lines());
    }
    assert_eq!(app.status().unwrap()["workers"][0]["state"], "online");
    stop(&app);
}

/// Claims that a worker that may not be looked at once it listens is taken to listen still, and to have a connection that it
/// may have.
fn serves_unseen(app: App, address: SocketAddr) {
    let app = app.workers(2).start().unwrap();
    ready(&app, 2);
    std::thread::scope(|scope| {
        // Both lanes stand still for two seconds.
        let clients = [(); 4].map(|()| scope.spawn(|| get(address, "/slow").unwrap()));
        let served: BTreeSet<String> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        assert!(!served.is_empty());
    });
    let is_slow = |event: &Event| event.value["line"] == "slow";
    let position = app.position();
    std::thread::scope(|scope| {
        let client = scope.spawn(|| get(address, "/slow"));
        wait_since(&app, position, is_slow);
        let reloaded = app.run(["reload", app.name()]).unwrap();
        assert!(reloaded.status.success(), "{reloaded:?}");
        client.join().unwrap().expect("it is served to the end");
    });
    let status = app.status().unwrap();
    assert_eq!(status["listening"], serde_json::json!([address.to_string()]));
    assert!(
        status["workers"].as_array().unwrap().iter().all(|worker| worker["state"] == "ready"),
        "{status}"
    );
    let events = app.events();
    let told = events.iter().filter(|event| event.kind() == "listening").count();
    assert_eq!(told, 4, "each says once that it listens: {events:#?}");
    assert!(events.iter().all(|event| event.kind() != "not_ready"), "{events:#?}");
    stop(&app);
}

#[test]
fn a_worker_that_lets_nobody_look_serves() {
    let address = unused();
    let Some(app) = as_another("hides.py", address) else { skip!("no other user can be tried as") };
    serves_unseen(app, address);
}

#[test]
fn a_worker_that_changes_its_user_serves_where_the_primary_may_not_look_at_others() {
    let Some(setpriv) = public("setpriv").filter(|_| rustix::process::geteuid().is_root()) else {
        skip!("only root can change its user");
    };
    let address = unused();
    let words = ["--inh-caps=-sys_ptrace", "--bounding-set=-sys_ptrace"].map(OsString::from);
    let wrapper = [setpriv.into_os_string()].into_iter().chain(words);
    serves_unseen(bad_python("hides.py", address).wrapper(wrapper), address);
}

#[test]
fn without_privilege_python_is_adopted() {
    let address = unused();
    let Some(app) = as_another("hang.py", address) else { skip!("no other user can be tried as") };
    both_are_adopted(app, address);
}

#[test]
fn without_privilege_node_and_shells_become_workers() {
    let (Some(wrapper), Some(node), Some(python)) = (as_nobody(), public("node"), public("python3")) else {
        skip!("no other user can be tried as");
    };
    let node_script = bad("channel.js").into_os_string();
    let shell = |script: String| ["/bin/sh".into(), "-c".into(), script.into()].to_vec();
    for (command, rung) in [
        (vec![node.clone().into_os_string(), node_script.clone()], "node"),
        (shell(format!("{} {}; exit $?", node.display(), node_script.display())), "adopted"),
        (shell(format!("exec {} {}", python.display(), bad("hang.py").display())), "adopted"),
    ] {
        let address = unused();
        let app =
            app(command).address(address).wrapper(wrapper.clone()).owner(NOBODY).workers(2).start().unwrap();
        ready(&app, 2);
        let listening = app.wait_count("listening", 2, LONG).unwrap();
        assert!(listening.iter().all(|event| event.value["rung"] == rung), "{listening:?}");
        get(address, "/").unwrap();
        stop(&app);
    }
}

#[test]
fn a_program_whose_name_is_cut_inside_a_character_is_adopted() {
    let Some(python) = public("python3") else { skip!("`python3` is not installed") };
    let address = unused();
    let folder = tempfile::tempdir().unwrap();
    // The kernel keeps 15 bytes of it.
    let name = folder.path().join("ä".repeat(8));
    std::os::unix::fs::symlink(python, &name).unwrap();
    both_are_adopted(app([name, bad("hang.py")]).address(address), address);
}

#[test]
fn a_program_that_signals_interrupt_while_it_binds_is_adopted() {
    let address = unused();
    both_are_adopted(bad_python("timer.py", address), address);
}
