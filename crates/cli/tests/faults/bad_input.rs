//! Commands that can't work, and addresses that can't be had: what is on the screen, and the exit code.

use std::fs::{self, Permissions};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use allcores_testing::address::unused;
use allcores_testing::app::App;
use allcores_testing::runtimes::{Runtime, require};
use allcores_testing::skip;
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::support::{NOBODY, app, as_nobody, bad, bad_python, ended, has, public};

/// What a person sees of an app that ends by itself.
#[track_caller]
fn screen(app: App, code: i32) -> String {
    let app = app.on_screen().workers(2).start().unwrap();
    let text = ended(&app, code);
    assert!(code < 126 || !text.contains("gets a new worker"), "nobody will try again:\n{text}");
    assert!(text.contains("next: "), "nothing says what to do next:\n{text}");
    text
}

fn file(folder: &TempDir, content: &str, mode: u32) -> PathBuf {
    let path = folder.path().join("program");
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    path
}

#[test]
fn a_command_that_is_in_no_folder_of_path_ends_with_127() {
    has(&screen(app(["no-such-server"]), 127), &["no-such-server", "PATH"]);
}

#[test]
fn a_command_whose_file_is_missing_ends_with_127() {
    let text = screen(app(["./no/server", "x"]), 127);
    has(&text, &["can't run ./no/server", "there is no file"]);
}

#[test]
fn a_file_that_is_not_executable_ends_with_126() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "#!/bin/sh\n", 0o644);
    has(&screen(app([&path]), 126), &[path.to_str().unwrap(), "Permission denied", "chmod +x"]);
}

#[test]
fn a_folder_as_command_ends_with_126() {
    let text = screen(app(["/usr/bin/"]), 126);
    has(&text, &["can't run /usr/bin/", "is a folder"]);
}

#[test]
fn a_text_file_without_an_interpreter_ends_with_126() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "echo hi\n", 0o755);
    let text = screen(app([&path]), 126);
    has(&text, &[path.to_str().unwrap(), "#!", "sh "]);
}

#[test]
fn a_script_whose_interpreter_is_missing_ends_with_126() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "#!/no/such/interpreter\n", 0o755);
    has(&screen(app([&path]), 126), &[path.to_str().unwrap(), "interpreter"]);
}

#[test]
fn a_program_that_fails_at_boot_is_a_crash_loop_within_seconds_and_its_last_lines_are_shown() {
    let started = Instant::now();
    let text = screen(app([bad("exits.sh")]), 3);
    let took = started.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    has(&text, &["CRASH LOOP", "| Error: DATABASE_URL is not set", "exit code 3", "gave up", "exits.sh"]);
}

#[test]
fn commands_that_are_no_servers_are_told_so() {
    for command in [&["true"][..], &["echo", "hi"]] {
        let text = screen(app(command), 3);
        has(&text, &["exit code 0", "none ever listened", "stays in the foreground"]);
        assert!(command.len() == 1 || text.contains("| hi"), "{text}");
    }
}

/// Servers by every rung of the ladder that binds an address.
fn servers(address: SocketAddr) -> Vec<(&'static str, App)> {
    let mut servers = vec![
        ("adopted", bad_python("hang.py", address)),
        ("listen", app(["sleep", "1000"]).option(format!("--listen={address}"))),
    ];
    if require(Runtime::Node).is_some() {
        servers.push(("node", crate::support::bad_node("channel.js", address)));
    }
    servers
}

#[test]
fn an_address_that_a_stranger_has_is_refused_at_once_and_the_stranger_named() {
    let address = unused();
    let _stranger = TcpListener::bind(address).unwrap();
    refused_at_once(address);
}

#[test]
fn a_stranger_that_would_share_the_address_is_named_too() {
    let address = unused();
    let stranger = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    stranger.set_reuse_port(true).unwrap();
    stranger.bind(&address.into()).unwrap();
    stranger.listen(1).unwrap();
    refused_at_once(address);
}

#[track_caller]
fn refused_at_once(address: SocketAddr) {
    for (name, server) in servers(address) {
        let started = Instant::now();
        let text = screen(server, 6);
        assert!(started.elapsed() < Duration::from_secs(10), "{name}: {:?}", started.elapsed());
        let pid = format!("process {}", std::process::id());
        let own = std::env::args().next().unwrap();
        has(&text, &["gave up", &address.to_string(), &pid, &own]);
        assert!(!text.contains("CRASH LOOP"), "{name}: {text}");
    }
}

#[test]
fn a_port_that_takes_privilege_is_refused_to_others_and_said_to_be() {
    let lowest = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    if lowest.trim().parse::<u16>().unwrap() <= 80 {
        skip!("every user may have port 80 here");
    }
    let (Some(wrapper), Some(python)) = (as_nobody(), public("python3")) else {
        skip!("no other user can be tried as");
    };
    let SocketAddr::V4(mut address) = unused() else { unreachable!() };
    address.set_port(80);
    let address = SocketAddr::V4(address);
    for server in [
        app([python.into_os_string(), bad("hang.py").into()]).address(address),
        app(["sleep", "1000"]).option(format!("--listen={address}")),
    ] {
        let text = screen(server.wrapper(wrapper.clone()).owner(NOBODY), 6);
        has(&text, &[&address.to_string(), "no permission", "setcap"]);
    }
}

#[test]
fn an_address_of_no_interface_is_refused() {
    let address = "192.0.2.1:8080".parse().unwrap();
    for (_, server) in servers(address) {
        has(&screen(server, 6), &["192.0.2.1:8080", "no network interface"]);
    }
}

#[test]
fn a_runtime_folder_of_somebody_else_is_refused() {
    let Some(wrapper) = as_nobody() else { skip!("no other user can be tried as") };
    let text = screen(app(["true"]).wrapper(wrapper), 7);
    has(&text, &["runtime folder", "ALLCORES_RUNTIME_DIR"]);
}

#[test]
fn a_folder_that_workers_may_not_enter_is_named() {
    if as_nobody().is_none() {
        skip!("workers can't be another user here");
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
    let path = folder.path().to_str().unwrap();
    let app = app(["/bin/sleep", "1000"])
        .option(format!("--cwd={path}"))
        .option("--uid=65534")
        .option("--gid=65534");
    has(&screen(app, 3), &["no worker could be started", path, "Permission denied"]);
}
