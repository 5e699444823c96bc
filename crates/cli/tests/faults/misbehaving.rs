//! Workers that misuse what they were given: what it costs is that worker, and it is said.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use allcores_testing::address::unused;
use allcores_testing::app::{App, RunningApp};
use allcores_testing::load::Load;
use allcores_testing::process::Event;
use allcores_testing::runtimes::{Runtime, require};
use allcores_testing::{proc, skip};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{
    LONG, app, bad, bad_node, bad_python, command_line, ends, get, get_from, has, nothing_is_left, public,
    ready, stop, wait_since,
};

/// Claims that every one of many requests is answered, by these processes.
#[track_caller]
fn served_by(address: SocketAddr, pids: &[u32]) {
    let bodies: BTreeSet<u32> = (0..30)
        .map(|nth| {
            get(address, "/").unwrap_or_else(|error| panic!("request {nth}: {error}")).parse().unwrap()
        })
        .collect();
    assert!(bodies.iter().all(|pid| pids.contains(pid)), "{bodies:?} of {pids:?}");
}

#[test]
fn a_worker_that_closes_its_channel_is_replaced_and_the_other_goes_on() {
    if require(Runtime::Node).is_none() {
        return;
    }
    let address = unused();
    let app = bad_node("channel.js", address).workers(2).start().unwrap();
    ready(&app, 2);
    let position = app.position();
    get(address, "/disconnect").unwrap();
    let gone = wait_since(&app, position, |event| event.kind() == "exited");
    assert_eq!(gone.value["expected"], false);
    wait_since(&app, position, |event| event.kind() == "ready" && event.slot() == gone.slot());
    let report = Load::new(address).requests(50).run_blocking();
    assert!(report.is_clean(), "{report}");
    stop(&app);
}

#[test]
fn garbage_on_the_channel_costs_that_worker_and_is_said() {
    if require(Runtime::Node).is_none() {
        return;
    }
    let address = unused();
    let app = bad_node("channel.js", address).workers(2).start().unwrap();
    let workers = ready(&app, 2);
    let position = app.position();
    let pid: u32 = get(address, "/garbage").unwrap().parse().unwrap();
    let other = workers.iter().filter_map(Event::worker_pid).find(|other| *other != pid);
    let notice = wait_since(&app, position, |event| event.kind() == "notice");
    has(notice.value["text"].as_str().unwrap(), &["not a message", &pid.to_string()]);
    let gone = wait_since(&app, position, |event| event.kind() == "exited");
    assert_eq!(gone.worker_pid(), Some(pid));
    wait_since(&app, position, |event| event.kind() == "ready" && event.slot() == gone.slot());
    assert!(Path::new(&format!("/proc/{}", other.unwrap())).exists(), "the other worker went too");
    let report = Load::new(address).requests(50).run_blocking();
    assert!(report.is_clean(), "{report}");
    stop(&app);
}

/// The backlogs of the listeners at an address, as the kernel tells.
fn backlogs(address: SocketAddr) -> Vec<u32> {
    let output = Command::new("ss").args(["-Hltn", "src", &address.to_string()]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse().ok()).collect()
}

#[test]
fn a_backlog_that_a_worker_shortens_is_put_back() {
    if public("ss").is_none() {
        skip!("`ss` is not installed");
    }
    let address = unused();
    let app = bad_python("shrink.py", address).workers(2).start().unwrap();
    ready(&app, 2);
    assert_eq!(backlogs(address), [128, 128]);
    get(address, "/shrink").unwrap();
    let deadline = Instant::now() + LONG;
    while backlogs(address) != [128, 128] {
        assert!(Instant::now() < deadline, "{:?}", backlogs(address));
    }
    stop(&app);
}

/// An app of one worker beside the lane of one that is gone, where every other client goes.
fn with_a_parked_lane(app: App, address: SocketAddr) -> RunningApp {
    let app = app.workers(2).start().unwrap();
    ready(&app, 2);
    let scaled = app.run(["scale", app.name(), "1"]).unwrap();
    assert!(scaled.status.success(), "{scaled:?}");
    // Until the program is put back, the kernel sends every other client to the lane that nobody accepts from.
    get(address, "/detach").unwrap();
    app
}

#[test]
fn who_strays_into_a_parked_lane_is_passed_on() {
    let address = unused();
    let app = with_a_parked_lane(bad_python("detach.py", address), address);
    let report = Load::new(address).clients(40).requests(40).run_blocking();
    assert!(report.is_clean() && report.by_body.len() == 1, "{report}");
    let strays = app.status().unwrap()["strays"].as_u64().unwrap();
    eprintln!("{strays} of 40 strayed, and were answered");
    assert!(strays > 0);
    stop(&app);
}

#[test]
fn who_strays_is_seen_with_the_address_that_it_came_to_and_others_with_their_own() {
    let address = unused();
    let app = with_a_parked_lane(bad_python("detach.py", address).env("TELLS_PEER", "1"), address);
    let own = Ipv4Addr::new(127, 0, 0, 9);
    let report = Load::new(address).source(own).clients(40).requests(40).run_blocking();
    assert!(report.is_clean(), "{report}");
    let strays = app.status().unwrap()["strays"].as_u64().unwrap();
    let seen = |ip: &str| report.by_body.get(ip).copied().unwrap_or_default();
    let (passed_on, others) = (seen(&address.ip().to_string()), seen(&own.to_string()));
    // What carries one may stray in its turn.
    assert!(passed_on > 0 && passed_on <= strays, "{strays}: {report}");
    assert!(others > 0 && passed_on + others == 40, "{report}");
    stop(&app);
}

#[test]
fn a_listener_that_a_worker_shuts_down_listens_again() {
    let address = unused();
    let app = bad_python("closes.py", address).workers(2).start().unwrap();
    let pids: Vec<u32> = ready(&app, 2).iter().filter_map(Event::worker_pid).collect();
    for pid in &pids {
        get_from(address, "/shutdown", *pid);
    }
    // Each worker is found again: their lanes are not taken for each other's.
    for pid in &pids {
        get_from(address, "/", *pid);
    }
    served_by(address, &pids);
    stop(&app);
}

#[test]
fn a_worker_that_closes_its_listener_and_lives_on_gets_nothing_more() {
    let address = unused();
    let app = bad_python("closes.py", address).workers(2).start().unwrap();
    let pids: Vec<u32> = ready(&app, 2).iter().filter_map(Event::worker_pid).collect();
    let closed: u32 = get(address, "/close").unwrap().parse().unwrap();
    let load = Load::new(address).clients(4).requests(400).run_blocking();
    assert!(load.is_clean(), "{load}");
    let other: Vec<u32> = pids.into_iter().filter(|pid| *pid != closed).collect();
    served_by(address, &other);
    let status = app.status().unwrap();
    let state = |pid: u32| {
        let workers = status["workers"].as_array().unwrap();
        workers.iter().find(|worker| worker["pid"] == pid).unwrap()["state"].clone()
    };
    assert_eq!((state(closed), state(other[0])), ("online".into(), "ready".into()), "{status}");
    stop(&app);
}

#[test]
fn a_worker_that_never_listens_is_online_and_not_ready() {
    let app = app([bad("never-listens.sh")]).workers(2).start().unwrap();
    app.wait_count("online", 2, LONG).unwrap();
    let status = app.status().unwrap();
    for worker in status["workers"].as_array().unwrap() {
        assert_eq!(
            (&worker["state"], &worker["rung"]),
            (&"online".into(), &serde_json::Value::Null),
            "{status}"
        );
    }
    assert_eq!(status["listening"], serde_json::json!([]));
    assert!(app.events().iter().all(|event| event.kind() != "ready"));
    stop(&app);
}

/// Has workers that bind twice and listen once be killed and reloaded. All of each worker is served by one listener.
fn binds_twice_and_listens_once(app: App, address: SocketAddr, listeners: usize) {
    let app = app.workers(2).start().unwrap();
    ready(&app, 2);
    let all_answer = || {
        let report = Load::new(address).clients(8).requests(200).run_blocking();
        assert!(report.is_clean(), "{report}");
    };
    all_answer();
    for _ in 0..3 {
        let position = app.position();
        let status = app.status().unwrap();
        let pid = i32::try_from(status["workers"][0]["pid"].as_i64().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        wait_since(&app, position, |event| event.kind() == "ready" && event.slot() == Some(0));
        all_answer();
        if public("ss").is_some() {
            assert_eq!(backlogs(address).len(), listeners);
        }
    }
    let reloaded = app.run(["reload", app.name()]).unwrap();
    assert!(reloaded.status.success(), "{reloaded:?}");
    all_answer();
    let listening = app.events().into_iter().filter(|event| event.kind() == "listening");
    let mut workers: Vec<Option<u32>> = listening.map(|event| event.worker_pid()).collect();
    let count = workers.len();
    workers.sort_unstable();
    workers.dedup();
    assert_eq!((workers.len(), count), (7, 7), "a worker was taken to listen twice");
    stop(&app);
}

#[test]
fn what_a_worker_binds_and_never_listens_on_gets_no_connections() {
    let address = unused();
    binds_twice_and_listens_once(bad_python("reserves.py", address), address, 2);
}

#[test]
fn a_worker_may_bind_twice_where_all_share_one_listener() {
    let address = unused();
    let app = bad_python("reserves.py", address).policy("shared");
    binds_twice_and_listens_once(app, address, 1);
}

#[test]
fn a_worker_may_listen_on_what_its_parent_has_bound_and_keeps() {
    let address = unused();
    let app = bad_python("reserves.py", address).env("INHERITS", "1");
    binds_twice_and_listens_once(app, address, 2);
}

#[test]
fn processes_of_a_worker_that_have_sessions_of_their_own_may_listen_on_what_it_has_bound() {
    let address = unused();
    let app = bad_python("reserves.py", address).env("INHERITS", "1").env("SESSIONS", "1").workers(1);
    let app = app.start().unwrap();
    let first = ready(&app, 1)[0].worker_pid().unwrap();
    let position = app.position();
    kill_process(Pid::from_raw(first.cast_signed()).unwrap(), Signal::KILL).unwrap();
    wait_since(&app, position, |event| event.kind() == "ready");
    let scaled = app.run(["scale", app.name(), "2"]).unwrap();
    assert!(scaled.status.success(), "{scaled:?}");
    let report = Load::new(address).clients(8).requests(200).run_blocking();
    assert!(report.is_clean(), "{report}");
    let status = app.status().unwrap();
    let workers = status["workers"].as_array().unwrap().iter().map(|worker| worker["pid"].as_u64().unwrap());
    let served: BTreeSet<u64> =
        report.by_body.keys().filter_map(|pid| proc::parent(pid.parse().unwrap())).map(u64::from).collect();
    assert_eq!(served, workers.collect(), "each worker's processes serve: {report}");
    stop(&app);
}

#[test]
fn a_worker_that_listens_on_a_port_of_the_kernels_choice_is_told_of() {
    let app = bad_python("hang.py", "127.0.0.1:0".parse().unwrap()).workers(1).start().unwrap();
    let notice = app.wait_for(|event| event.kind() == "notice", LONG).unwrap();
    let text = notice.value["text"].as_str().unwrap();
    has(text, &["worker 1 listens on 127.0.0.1:", "did not see it bind", "give it a fixed port"]);
    let address = text.split_whitespace().find_map(|word| word.trim_end_matches(',').parse().ok());
    get(address.expect(text), "/").unwrap();
    assert_eq!(app.status().unwrap()["hint"], text);
    stop(&app);
}

#[test]
fn a_worker_with_two_ports_shares_both() {
    let (address, other) = (unused(), unused());
    let app = bad_python("two-ports.py", address)
        .env("PORT2", other.port().to_string())
        .workers(2)
        .start()
        .unwrap();
    let pids: Vec<u32> = ready(&app, 2).iter().filter_map(Event::worker_pid).collect();
    app.wait_count("listening", 4, LONG).unwrap();
    for pid in pids {
        get_from(address, "/", pid);
        get_from(other, "/", pid);
    }
    let status = app.status().unwrap();
    assert_eq!(status["listening"], serde_json::json!([address.to_string(), other.to_string()]));
    stop(&app);
}

#[test]
fn sockets_that_a_program_makes_for_its_own_children_are_no_addresses_and_no_reload_waits_for_them() {
    let (address, folder) = (unused(), tempfile::tempdir().unwrap());
    let app = bad_python("private.py", address)
        .env("FOLDER", folder.path())
        .env("TMPDIR", folder.path())
        .workers(2)
        .start()
        .unwrap();
    ready(&app, 2);
    assert_eq!(app.status().unwrap()["listening"], serde_json::json!([address.to_string()]));
    let reload = app.run(["reload", app.name(), "--ready-timeout", "20s"]).unwrap();
    assert!(reload.status.success(), "{}", String::from_utf8_lossy(&reload.stderr));
    assert_eq!(app.status().unwrap()["listening"], serde_json::json!([address.to_string()]));
    stop(&app);
}

/// All processes that an app's workers have been and have brought about.
fn descendants(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = text.split_whitespace().filter_map(|pid| pid.parse().ok());
    children.flat_map(|child: u32| [vec![child], descendants(child)].concat()).collect()
}

#[test]
fn descendants_end_with_their_worker_in_whatever_session_they_are() {
    let address = unused();
    let app = bad_python("family.py", address).workers(2).start().unwrap();
    let workers = ready(&app, 2);
    let victim = workers[0].worker_pid().unwrap();
    let family = descendants(victim);
    assert!(family.len() >= 3, "{family:?}");
    let position = app.position();
    kill_process(Pid::from_raw(i32::try_from(victim).unwrap()).unwrap(), Signal::KILL).unwrap();
    wait_since(&app, position, |event| event.kind() == "ready" && event.slot() == workers[0].slot());
    for pid in family {
        assert!(ends(pid), "{pid} outlived its worker: {}", command_line(pid));
    }
    let of_other = descendants(workers[1].worker_pid().unwrap());
    assert!(of_other.len() >= 3, "the other worker's descendants went too: {of_other:?}");
    stop(&app);
}

#[test]
fn a_slow_server_in_a_session_of_its_own_keeps_its_listener() {
    if public("setsid").is_none() {
        skip!("`setsid` is not installed");
    }
    let address = unused();
    let python = crate::support::python();
    let command = ["setsid".into(), "--fork".into(), "--wait".into(), python, bad("slow-accept.py").into()];
    let app = app::<std::ffi::OsString>(command).address(address).env("ACCEPT_MS", "2500");
    let app = app.workers(1).start().unwrap();
    ready(&app, 1);
    // While it does not accept, nobody else seems to have the socket open: that is not a reason to close it.
    get(address, "/").unwrap();
    get(address, "/").unwrap();
    assert_eq!(app.status().unwrap()["listening"], serde_json::json!([address.to_string()]));
    stop(&app);
}

#[test]
fn programs_that_go_to_the_background_are_told_so_and_do_not_leak() {
    for script in ["forks.py", "daemon.py", "nameless.py"] {
        let address = unused();
        let app = bad_python(script, address).workers(2).start().unwrap();
        let notice = app.wait_for(|event| event.kind() == "notice", LONG).unwrap();
        has(notice.value["text"].as_str().unwrap(), &["went to the background", "foreground"]);
        app.wait_for(|event| event.kind() == "crash_loop" || event.kind() == "stopped", LONG).unwrap();
        app.signal(Signal::TERM).unwrap();
        let status = app.wait(LONG).unwrap();
        // Whether one of them listened before its parent's exit was seen is a matter of luck.
        assert!(matches!(status.code(), Some(0 | 3)), "{status}");
        nothing_is_left(&app);
        assert!(
            TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err(),
            "{script} still listens"
        );
    }
}

#[test]
fn programs_whose_helper_ends_a_moment_after_them_have_not_gone_to_the_background() {
    let app = bad_python("lingers.py", unused()).workers(1).start().unwrap();
    app.wait_count("exited", 2, LONG).unwrap();
    assert!(app.events().iter().all(|event| event.kind() != "notice"), "{:#?}", app.lines());
    app.signal(Signal::TERM).unwrap();
    app.wait(LONG).unwrap();
    nothing_is_left(&app);
}

fn worker_of(status: &serde_json::Value, pid: u32) -> serde_json::Value {
    let workers = status["workers"].as_array().unwrap();
    workers
        .iter()
        .find(|worker| worker["pid"] == pid)
        .cloned()
        .unwrap_or_else(|| panic!("no {pid} in {status}"))
}

#[track_caller]
fn hangs_and_is_replaced(path: &'static str) {
    let address = unused();
    let app = bad_python("hang.py", address).workers(2).option("--hang-timeout=1s").start().unwrap();
    ready(&app, 2);
    let position = app.position();
    // Asks until somebody hangs on it; the answer never comes.
    let asker = std::thread::spawn(move || get(address, path));
    // Those that follow go to both, and wait where nothing moves.
    let load = Load::new(address).clients(8).timeout(LONG).spawn();
    let hung = wait_since(&app, position, |event| event.kind() == "hung");
    let pid = hung.worker_pid().unwrap();
    let replacement =
        wait_since(&app, position, |event| event.kind() == "ready" && event.slot() == hung.slot());
    let gone = wait_since(&app, position, |event| event.kind() == "exited");
    assert_eq!((gone.worker_pid(), gone.value["expected"].clone()), (Some(pid), true.into()));
    assert!(replacement.at <= gone.at, "it was killed before its replacement was ready");
    let report = load.stop();
    assert!(report.is_clean(), "{report}");
    assert!(asker.join().unwrap().is_err(), "the request that hung was answered");
    stop(&app);
}

#[test]
fn a_worker_that_computes_for_ever_is_replaced_and_who_waited_is_answered() {
    hangs_and_is_replaced("/hang");
}

#[test]
fn a_worker_that_is_stopped_is_replaced_and_who_waited_is_answered() {
    hangs_and_is_replaced("/stop");
}

#[test]
fn a_hung_worker_is_shown_as_such_until_its_replacement_is_ready() {
    let address = unused();
    let gate = tempfile::tempdir().unwrap();
    let fifo = gate.path().join("gate");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    // The third worker waits for the gate, so that the hung one can be looked at.
    let script = format!(
        "[ $ALLCORES_WORKER_ID -le 2 ] || cat {}; exec {} {}",
        fifo.display(),
        crate::support::python().display(),
        bad("hang.py").display()
    );
    let app = app(["sh", "-c", &script]).address(address);
    let app = app.workers(2).option("--hang-timeout=1s").start().unwrap();
    ready(&app, 2);
    let position = app.position();
    let asker = std::thread::spawn(move || get(address, "/stop"));
    let load = Load::new(address).clients(8).timeout(LONG).spawn();
    let pid = wait_since(&app, position, |event| event.kind() == "hung").worker_pid().unwrap();
    assert_eq!(worker_of(&app.status().unwrap(), pid)["state"], "hung");
    fs::write(&fifo, "open").unwrap();
    wait_since(&app, position, |event| event.kind() == "exited" && event.worker_pid() == Some(pid));
    let report = load.stop();
    assert!(report.is_clean(), "{report}");
    assert!(asker.join().unwrap().is_err());
    stop(&app);
}
