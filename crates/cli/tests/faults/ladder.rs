//! The ladder: by which rung each command becomes a worker, and what the lowest ones and the odd cases do.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use allcores_testing::address::unused;
use allcores_testing::app::{App, RunningApp};
use allcores_testing::load::Load;
use allcores_testing::process::Event;
use allcores_testing::runtimes::{Runtime, require};

use crate::support::{
    LONG, app, bad, bad_node, bad_python, get, get_from, has, python, ready, served_by_each, stop, wait_since,
};

/// Claims that two workers share the address by this rung.
#[track_caller]
fn by(rung: &str, app: App, address: SocketAddr) {
    let app = app.workers(2).start().unwrap();
    ready(&app, 2);
    let events = app.wait_count("listening", 2, LONG).unwrap();
    assert!(events.iter().all(|event| event.value["rung"] == rung), "not {rung}: {events:?}");
    served_by_each(address, 2);
    stop(&app);
}

fn shell(script: String, address: SocketAddr) -> App {
    app(["sh".to_owned(), "-c".to_owned(), script]).address(address)
}

fn script(file: &str) -> String {
    bad(file).display().to_string()
}

#[test]
fn node_in_a_shell_is_adopted() {
    if require(Runtime::Node).is_none() {
        return;
    }
    let address = unused();
    by("adopted", shell(format!("node {}; exit $?", script("channel.js")), address), address);
}

#[test]
fn what_a_shell_becomes_is_adopted() {
    let address = unused();
    by("adopted", shell(format!("exec {} {}", python().display(), script("hang.py")), address), address);
}

#[test]
fn what_npm_starts_is_adopted() {
    let Some(npm) = require(Runtime::Npm) else { return };
    let address = unused();
    let mut app = app(npm.command(address).unwrap()).folder(npm.cwd());
    for (name, value) in npm.env(address) {
        app = app.env(name, value);
    }
    by("adopted", app, address);
}

#[test]
fn node_asks_by_its_channel() {
    if require(Runtime::Node).is_none() {
        return;
    }
    let address = unused();
    by("node", bad_node("channel.js", address), address);
}

#[test]
fn node_needs_no_adoption() {
    if require(Runtime::Node).is_none() {
        return;
    }
    let address = unused();
    by("node", bad_node("channel.js", address).option("--no-adopt"), address);
}

#[test]
fn without_adoption_it_is_said_who_can_share_a_port() {
    let address = unused();
    let app = bad_python("hang.py", address).option("--no-adopt").workers(2).start().unwrap();
    let notice = app.wait_for(|event| event.kind() == "notice", LONG).unwrap();
    has(notice.value["text"].as_str().unwrap(), &["--no-adopt", "--listen"]);
    // One has the port, the other comes and goes, and its own words are shown.
    let looping = app.wait_for(|event| event.kind() == "crash_loop", LONG).unwrap();
    has(&looping.value["last_output"].to_string(), &["Address already in use"]);
    get(address, "/").unwrap();
    stop(&app);
}

#[test]
fn sockets_are_passed_by_number_with_and_without_adoption() {
    for options in [&[][..], &["--no-adopt"]] {
        let address = unused();
        let mut app =
            app([python(), bad("listen-fds.py").into()]).option(format!("--listen={address}")).workers(2);
        for option in options {
            app = app.option(option);
        }
        let app = app.start().unwrap();
        let output = app.wait_for(|event| event.kind() == "output", LONG).unwrap();
        let name = address.to_string().replace(':', "_");
        assert_eq!(output.value["line"], format!("named {name}"));
        // Both get connections, and by what they accept they are known to serve.
        let deadline = Instant::now() + LONG;
        while app.events().iter().filter(|event| event.kind() == "ready").count() < 2 {
            get(address, "/").unwrap();
            assert!(Instant::now() < deadline, "{:?}", app.lines());
        }
        let events = app.wait_count("listening", 2, LONG).unwrap();
        assert!(events.iter().all(|event| event.value["rung"] == "inherited"), "{events:?}");
        served_by_each(address, 2);
        stop(&app);
    }
}

/// A node app that listens on all of these.
fn listening(arguments: &serde_json::Value) -> App {
    app([OsString::from("node"), bad("listen.js").into()]).env("LISTEN", arguments.to_string()).workers(2)
}

/// The addresses that workers said they have, one for each line.
fn told(app: &RunningApp) -> Vec<serde_json::Value> {
    let lines = app.events().into_iter().filter(|event| event.kind() == "output");
    let addresses =
        lines.filter_map(|event| event.value["line"].as_str()?.strip_prefix("at ").map(str::to_owned));
    addresses.map(|text| serde_json::from_str(&text).unwrap()).collect()
}

#[test]
fn port_0_is_the_same_port_in_all_node_workers() {
    if require(Runtime::Node).is_none() {
        return;
    }
    let app = listening(&serde_json::json!([{"host": "127.0.0.1", "port": 0}])).start().unwrap();
    ready(&app, 2);
    app.wait_count("output", 2, LONG).unwrap();
    let told = told(&app);
    assert_eq!(told[0], told[1]);
    let port = u16::try_from(told[0]["port"].as_u64().unwrap()).unwrap();
    served_by_each(([127, 0, 0, 1], port).into(), 2);
    stop(&app);
}

#[test]
fn port_0_is_another_port_in_each_adopted_worker() {
    let code = "import os, sys; sys.path.insert(0, os.environ['BAD']); import raw\n\
                sock = raw.listener()\n\
                print('at', sock.getsockname()[1], flush=True)\n\
                raw.serve(sock, {})";
    let app = app([python(), "-c".into(), code.into()]).address(([127, 0, 0, 1], 0).into());
    let app = app.env("BAD", bad("")).workers(2).start().unwrap();
    app.wait_count("output", 2, LONG).unwrap();
    let ports = told(&app);
    assert_ne!(ports[0], ports[1]);
    for port in ports {
        let port = u16::try_from(port.as_u64().unwrap()).unwrap();
        get(([127, 0, 0, 1], port).into(), "/").unwrap();
    }
    stop(&app);
}

#[test]
fn a_node_worker_with_two_ports_shares_both() {
    if require(Runtime::Node).is_none() {
        return;
    }
    let (one, other) = (unused(), unused());
    let options =
        |address: SocketAddr| serde_json::json!({"host": address.ip().to_string(), "port": address.port()});
    let app = listening(&serde_json::json!([options(one), options(other)])).start().unwrap();
    ready(&app, 2);
    app.wait_count("listening", 4, LONG).unwrap();
    served_by_each(one, 2);
    served_by_each(other, 2);
    stop(&app);
}

fn get_by_path(path: &Path) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    write!(stream, "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
        .rsplit("\r\n")
        .find(|line| line.trim().parse::<u32>().is_ok())
        .unwrap_or_else(|| panic!("{answer}"))
        .trim()
        .to_owned()
}

#[test]
fn a_long_relative_socket_path_of_node_is_shared_with_the_modes_it_asked_for() {
    if require(Runtime::Node).is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // Longer, as a whole, than the path of a Unix socket can be; and the part that is relative is not.
    let deep = folder.path().join("x".repeat(90));
    fs::create_dir(&deep).unwrap();
    let path = deep.join("relative.sock");
    let short = folder.path().join("short.sock");
    let options = serde_json::json!([
        {"path": "relative.sock", "readableAll": true, "writableAll": true},
        {"path": short.to_str().unwrap()},
    ]);
    let app = listening(&options).folder(&deep).start().unwrap();
    ready(&app, 2);
    app.wait_count("listening", 4, LONG).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o666;
    assert_eq!(mode(&path), 0o666);
    assert_ne!(mode(&short), 0o666);
    let deadline = Instant::now() + LONG;
    let mut seen = BTreeSet::new();
    while seen.len() < 2 {
        seen.insert(get_by_path(&short));
        assert!(Instant::now() < deadline, "{seen:?}");
    }
    stop(&app);
    assert!(!path.exists() && !short.exists(), "the sockets' files were left");
    assert_eq!(fs::read_dir(&deep).unwrap().count(), 0, "something was left beside the socket");
}

#[test]
fn a_descriptor_that_is_not_theirs_is_refused_to_node_workers() {
    if require(Runtime::Node).is_none() {
        return;
    }
    // In node:cluster a worker's `fd` names one of the primary's: 5 is the control socket, or as good.
    for fd in [5, 6, 7, 8, 9] {
        let app = listening(&serde_json::json!([{ "fd": fd }])).option("--max-restarts=1").start().unwrap();
        let text = crate::support::ended(&app, 3);
        has(&text, &["EINVAL"]);
    }
}

#[test]
fn a_descriptor_that_the_primary_was_given_is_shared_by_node_workers() {
    if require(Runtime::Node).is_none() {
        return;
    }
    let address = unused();
    let code = format!(
        "import os, socket, sys\n\
         sock = socket.create_server(('{}', {}))\n\
         os.dup2(sock.fileno(), 40)\n\
         os.execv(sys.argv[1], sys.argv[1:])",
        address.ip(),
        address.port()
    );
    let wrapper = [python(), "-c".into(), code.into()];
    let app = listening(&serde_json::json!([{ "fd": 40 }])).wrapper(wrapper).start().unwrap();
    app.wait_count("output", 2, LONG).unwrap();
    served_by_each(address, 2);
    ready(&app, 2);
    stop(&app);
}

#[test]
fn an_exclusive_listener_of_node_is_adopted() {
    if require(Runtime::Node).is_none() {
        return;
    }
    let address = unused();
    let options =
        serde_json::json!([{"host": address.ip().to_string(), "port": address.port(), "exclusive": true}]);
    by("adopted", listening(&options), address);
}

#[test]
fn a_node_worker_may_close_its_server_and_listen_again() {
    if require(Runtime::Node).is_none() {
        return;
    }
    let address = unused();
    let options = serde_json::json!([{"host": address.ip().to_string(), "port": address.port()}]);
    let app = listening(&options).start().unwrap();
    ready(&app, 2);
    app.wait_count("output", 2, LONG).unwrap();
    let load = Load::new(address).clients(2).spawn();
    for _ in 0..4 {
        let position = app.position();
        get(address, "/again").unwrap();
        wait_since(&app, position, |event| event.kind() == "output");
    }
    let report = load.stop();
    assert!(report.is_clean(), "{report}");
    served_by_each(address, 2);
    assert!(app.events().iter().all(|event| event.kind() != "exited"), "{:?}", app.lines());
    stop(&app);
}

#[test]
fn a_node_worker_that_closes_its_server_for_good_gets_nothing_more() {
    if require(Runtime::Node).is_none() {
        return;
    }
    let address = unused();
    let options = serde_json::json!([{"host": address.ip().to_string(), "port": address.port()}]);
    let app = listening(&options).start().unwrap();
    ready(&app, 2);
    let load = Load::new(address).clients(2).spawn();
    let closed = get(address, "/enough").unwrap();
    let seen = load.ok();
    assert!(load.wait_ok(seen + 200, LONG), "{:?}", app.lines());
    let report = load.stop();
    assert!(report.is_clean(), "{report}");
    for _ in 0..30 {
        assert_ne!(get(address, "/").unwrap(), closed);
    }
    let status = app.status().unwrap();
    let worker = status["workers"]
        .as_array()
        .unwrap()
        .iter()
        .find(|worker| worker["pid"].as_u64() == closed.parse().ok());
    assert_eq!(worker.unwrap()["state"], "online", "{status}");
    stop(&app);
}

#[test]
fn a_last_listener_that_is_closed_for_good_refuses_and_can_come_back() {
    if require(Runtime::Node).is_none() {
        return;
    }
    let address = unused();
    let options = serde_json::json!([{"host": address.ip().to_string(), "port": address.port()}]);
    let app = listening(&options).workers(1).start().unwrap();
    ready(&app, 1);
    get(address, "/enough").unwrap();
    let deadline = Instant::now() + LONG;
    while std::net::TcpStream::connect(address).is_ok() {
        assert!(Instant::now() < deadline, "an address that no worker has is still accepted on");
    }
    assert_eq!(app.status().unwrap()["listening"], serde_json::json!([]));
    stop(&app);
}

#[test]
fn inside_another_allcores_it_says_that_it_cannot_adopt() {
    let address = unused();
    let own = env!("CARGO_BIN_EXE_allcores");
    let inner = [
        own.into(),
        "run".into(),
        "-w=1".into(),
        "--name=inner".into(),
        "--".into(),
        python(),
        bad("hang.py").into(),
    ];
    let folder = tempfile::tempdir().unwrap();
    let variable = format!("--env=ALLCORES_RUNTIME_DIR={}", folder.path().display());
    let app = app::<OsString>(inner).address(address).workers(1).option(variable).start().unwrap();
    let at_address =
        |event: &Event| event.kind() == "listening" && event.value["address"] == address.to_string();
    app.wait_for(at_address, LONG).unwrap();
    // By the outer one's adoption, which reaches through the inner one.
    let pid = get(address, "/").unwrap();
    get_from(address, "/", pid.parse().unwrap());
    let lines = app.wait_for(
        |event| event.kind() == "output" && event.value["line"].to_string().contains("adopt"),
        LONG,
    );
    has(lines.unwrap().value["line"].as_str().unwrap(), &["adoption is not available", "another allcores"]);
    stop(&app);
}
