//! Who is not the app's own user, or no process of a worker: other users of the machine, and workers of another user than
//! the primary's. What they can't have made, joined or commanded.

use std::fs;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{SocketAddr as UnixAddress, UnixStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use allcores_testing::address::unused;
use allcores_testing::app::{App, RunningApp};
use allcores_testing::load::Load;
use allcores_testing::process::Event;
use allcores_testing::skip;

use crate::support::{
    LONG, NOBODY, app, as_nobody, bad, bad_python, get, public, ready, served_by_each, status_line, stop,
};

/// An app whose primary is root and whose workers are nobody.
fn as_workers(command: [&Path; 2], address: SocketAddr) -> App {
    app(command).address(address).option("--uid=65534").option("--gid=65534").workers(1)
}

/// A variable that a process was started with.
fn variable(pid: u32, name: &str) -> Vec<u8> {
    let environ = fs::read(format!("/proc/{pid}/environ")).unwrap();
    let mut entries = environ.split(|byte| *byte == 0);
    entries.find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")).unwrap().to_vec()
}

fn says(app: &RunningApp, line: &str) {
    let is_it = |event: &Event| event.kind() == "output" && event.value["line"] == line;
    app.wait_for(is_it, LONG).unwrap_or_else(|error| panic!("{error:#}"));
}

#[test]
fn who_is_no_process_of_a_worker_gets_no_channel() {
    let address = unused();
    let app = bad_python("hang.py", address).workers(1).start().unwrap();
    let worker = ready(&app, 1)[0].worker_pid().unwrap();
    let name = UnixAddress::from_abstract_name(variable(worker, "ALLCORES_CHANNEL")).unwrap();
    for _ in 0..3 {
        let mut stream = UnixStream::connect_addr(&name).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        // Hung up on, and not greeted.
        let end = stream.read(&mut [0; 64]);
        let is_over = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionReset;
        assert!(matches!(&end, Ok(0)) || end.as_ref().is_err_and(is_over), "{end:?}");
    }
    assert_eq!(get(address, "/").unwrap(), worker.to_string());
    stop(&app);
}

#[test]
fn what_a_worker_has_started_is_told_that_it_is_none_and_who_is_beside_it_is_not() {
    let app = bad_python("meets.py", unused()).workers(1).start().unwrap();
    says(&app, r#"worker hears {"cmd":"NODE_ALLCORES""#);
    says(&app, r#"started hears {"cmd":"NODE_ALLCORES","worker":false}"#);
    says(&app, "beside hears nothing");
    stop(&app);
}

#[test]
fn another_user_can_not_listen_beside_the_workers() {
    let (Some(wrapper), Some(python)) = (as_nobody(), public("python3")) else {
        skip!("no other user can be tried as");
    };
    let address = unused();
    let app = bad_python("hang.py", address).workers(2).start().unwrap();
    ready(&app, 2);
    let mut stranger = Command::new(&wrapper[0]);
    stranger.args(&wrapper[1..]).arg(python).arg(bad("shares.py"));
    stranger.env("HOST", address.ip().to_string()).env("PORT", address.port().to_string());
    let output = stranger.output().unwrap();
    assert_eq!(output.status.code(), Some(rustix::io::Errno::ADDRINUSE.raw_os_error()), "{output:?}");
    served_by_each(address, 2);
    stop(&app);
}

#[test]
fn a_worker_of_another_user_can_not_command_its_app() {
    let (Some(_), Some(python)) = (as_nobody(), public("python3")) else {
        skip!("workers can't be another user here");
    };
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let runtime = folder.path().join("run");
    let app = as_workers([&python, &bad("commands.py")], unused())
        .wrapper(["env".into(), format!("ALLCORES_RUNTIME_DIR={}", runtime.display())])
        .name("watched")
        .env("SOCKET", runtime.join("watched/control.sock"));
    let app = app.start().unwrap();
    says(&app, &format!("came to {}", rustix::io::Errno::ACCESS.raw_os_error()));
    app.signal(rustix::process::Signal::TERM).unwrap();
    assert_eq!(app.wait(LONG).unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn a_node_worker_of_another_user_has_no_socket_made_where_it_could_make_none() {
    let (Some(_), Some(node)) = (as_nobody(), public("node")) else {
        skip!("workers can't be another user here, or there is no node for all users");
    };
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = folder.path().join("socket");
    let listening = |path: &Path| {
        let listen = serde_json::json!([{ "path": path }]).to_string();
        as_workers([&node, &bad("listen.js")], unused()).env("LISTEN", listen)
    };
    let app = listening(&path).start().unwrap();
    let refused = app.wait_for(|event| event.kind() == "address_unavailable", LONG).unwrap();
    assert!(
        refused.value["reason"].as_str().unwrap().contains("no permission to make a file there"),
        "{:#}",
        refused.value
    );
    app.wait(LONG).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    // Where it may make one itself, it is its own.
    std::os::unix::fs::chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let app = listening(&path).start().unwrap();
    ready(&app, 1);
    let made = fs::metadata(&path).unwrap();
    assert_eq!((made.uid(), made.gid()), (NOBODY, NOBODY));
    UnixStream::connect(&path).unwrap();
    stop(&app);
}

#[test]
fn without_privilege_no_worker_gains_any_by_what_it_executes() {
    let (Some(wrapper), Some(python)) = (as_nobody(), public("python3")) else {
        skip!("no other user can be tried as");
    };
    let address = unused();
    let app = app([python, bad("hang.py")]).address(address).wrapper(wrapper).owner(NOBODY).workers(1);
    let app = app.start().unwrap();
    let worker = ready(&app, 1)[0].worker_pid().unwrap();
    assert_eq!(status_line(worker, "NoNewPrivs"), "1");
    stop(&app);
}

/// How many threads a primary may have, whatever its workers do: those of its runtime, and one for each look that may be under way.
const FEW_THREADS: usize = 24;

/// The most threads that a process is seen to have until this is over.
fn most_threads<T>(pid: u32, until: impl FnOnce() -> T) -> (usize, T) {
    let is_over = AtomicBool::new(false);
    let look = || {
        let mut most = 0;
        while !is_over.load(Ordering::Relaxed) {
            most = most.max(fs::read_dir(format!("/proc/{pid}/task")).unwrap().count());
            thread::sleep(Duration::from_millis(1));
        }
        most
    };
    thread::scope(|scope| {
        let looking = scope.spawn(look);
        let over = until();
        is_over.store(true, Ordering::Relaxed);
        (looking.join().unwrap(), over)
    })
}

/// Starts one that does so without end beside one that serves.
fn binds_without_end(start: impl FnOnce(App) -> App) {
    let (address, others) = (unused(), [(); 4].map(|()| unused()));
    let app = bad_python("binds.py", address).env("OTHER_PORT", others[0].port().to_string());
    let app = start(app).workers(2).start().unwrap();
    let good = app.wait_for(|event| event.kind() == "ready" && event.slot() == Some(1), LONG).unwrap();
    says(&app, "begun");
    let load = || Load::new(address).clients(4).requests(300).run_blocking();
    let (most, report) = most_threads(app.pid(), load);
    let served: Vec<_> = report.by_body.keys().map(String::as_str).collect();
    assert!(report.is_clean() && served == [good.worker_pid().unwrap().to_string()], "{report}");
    assert_eq!(app.status().unwrap()["workers"][1]["state"], "ready");
    assert!(most <= FEW_THREADS, "the primary had {most} threads");
    stop(&app);
}

#[test]
fn one_that_binds_without_end_costs_others_nothing() {
    binds_without_end(|app| app);
}

#[test]
fn one_that_listens_without_end_costs_others_nothing() {
    binds_without_end(|app| app.env("LISTENS", "1"));
}

#[test]
fn one_that_listens_on_hundreds_of_ports_costs_its_primary_few_threads() {
    const PORTS: usize = 300;
    let address = unused();
    let ports: Vec<String> = (0..PORTS).map(|_| unused().port().to_string()).collect();
    let app = bad_python("many-ports.py", address).env("PORTS", ports.join(","));
    let app = app.workers(2).start().unwrap();
    let all =
        || app.wait_count("listening", 2 * (PORTS + 1), LONG).unwrap_or_else(|error| panic!("{error:#}"));
    let (most, _) = most_threads(app.pid(), all);
    assert!(most <= FEW_THREADS, "the primary had {most} threads");
    stop(&app);
}
