//! Machines that forbid something: adoption finds another way, or says that it has none.

use std::ffi::OsString;
use std::net::SocketAddr;

use allcores_testing::address::unused;
use allcores_testing::app::App;
use allcores_testing::process::Event;
use allcores_testing::runtimes::{Runtime, require};
use allcores_testing::skip;

use crate::support::{
    LONG, NOBODY, app, as_nobody, at, bad, bad_node, bad_python, get, has, public, python, ready,
    served_by_each, stop,
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
    both_are_adopted(denied(at(app(["sh", "-c", &script]), address), "pidfd_getfd"), address);
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
    Some(at(app(command), address).wrapper(wrapper).owner(NOBODY))
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
            at(app(command), address).wrapper(wrapper.clone()).owner(NOBODY).workers(2).start().unwrap();
        ready(&app, 2);
        let listening = app.wait_count("listening", 2, LONG).unwrap();
        assert!(listening.iter().all(|event| event.value["rung"] == rung), "{listening:?}");
        get(address, "/").unwrap();
        stop(&app);
    }
}

#[test]
fn a_program_that_signals_interrupt_while_it_binds_is_adopted() {
    let address = unused();
    both_are_adopted(bad_python("timer.py", address), address);
}
