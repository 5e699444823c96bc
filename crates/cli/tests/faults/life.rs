//! The life of an app and its workers: what they are started with, how they are replaced, and how all of it ends.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::thread;
use std::time::{Duration, Instant};

use allcores_testing::address::unused;
use allcores_testing::app::{App, RunningApp};
use allcores_testing::process::Event;
use allcores_testing::runtimes::Runtime;
use allcores_testing::skip;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{
    LONG, NOBODY, all_processes, app, as_nobody, bad, bad_node, bad_python, command_line, ended, ends, get,
    has, nothing_is_left, python, ready, status_line, stop, wait_since,
};

/// An app whose workers answer `/sleep?ms=N` after that time.
fn sleepy(address: std::net::SocketAddr) -> App {
    let command = Runtime::Python.command(address).unwrap();
    app(command).address(address).folder(Runtime::Python.cwd()).workers(2)
}

/// An app whose workers do nothing.
fn idle() -> App {
    app(["/bin/sleep", "86400"]).workers(2)
}

#[track_caller]
fn online(app: &RunningApp, workers: usize) -> Vec<u32> {
    let events = app.wait_count("online", workers, LONG).unwrap_or_else(|error| panic!("{error:#}"));
    events.iter().filter_map(Event::worker_pid).collect()
}

fn kill(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

/// Has a request under way whose answer takes so long, and returns once a worker has it.
fn under_way(address: std::net::SocketAddr, millis: u32) -> std::thread::JoinHandle<std::io::Result<String>> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let std::net::SocketAddr::V4(own) = stream.local_addr().unwrap() else { panic!("{address}") };
    write!(stream, "GET /sleep?ms={millis} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    // Accepted connections have an inode, those that wait have none.
    let deadline = Instant::now() + LONG;
    let is_accepted = || {
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        // The host as the machine has it in memory: others have the same port at hosts of their own.
        let peer = format!("{:08X}:{:04X}", u32::from_ne_bytes(own.ip().octets()), own.port());
        let mut rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        rows.any(|row| row.len() > 9 && row[2] == peer && row[9] != "0")
    };
    while !is_accepted() {
        assert!(Instant::now() < deadline, "no worker took the connection");
    }
    std::thread::spawn(move || {
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })
}

#[test]
fn the_first_signal_lets_requests_finish() {
    for signal in [Signal::TERM, Signal::INT] {
        let address = unused();
        let app = sleepy(address).start().unwrap();
        ready(&app, 2);
        let answer = under_way(address, 1000);
        app.signal(signal).unwrap();
        ended(&app, 0);
        let answer = answer.join().unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1"), "{signal:?}: {answer:?}");
    }
}

#[test]
fn a_second_interrupt_ends_it_now() {
    let address = unused();
    let app = sleepy(address).option("--drain-timeout=1h").start().unwrap();
    ready(&app, 2);
    let answer = under_way(address, 3_600_000);
    app.signal(Signal::INT).unwrap();
    app.wait_count("draining", 2, LONG).unwrap();
    app.signal(Signal::INT).unwrap();
    ended(&app, 0);
    assert!(!answer.join().unwrap().is_ok_and(|answer| answer.starts_with("HTTP/1")));
}

#[test]
fn a_quit_ends_it_now() {
    let address = unused();
    let app = sleepy(address).option("--drain-timeout=1h").start().unwrap();
    ready(&app, 2);
    let answer = under_way(address, 3_600_000);
    app.signal(Signal::QUIT).unwrap();
    ended(&app, 0);
    assert!(!answer.join().unwrap().is_ok_and(|answer| answer.starts_with("HTTP/1")));
}

/// The words of a worker's line that begins with `me`.
fn introduction(event: &Event) -> Option<Vec<String>> {
    let line = event.value["line"].as_str().filter(|_| event.kind() == "output")?;
    line.strip_prefix("me ").map(|rest| rest.split(' ').map(str::to_owned).collect())
}

#[test]
fn a_replacement_takes_the_slot_and_gets_an_id_that_nobody_had() {
    let script =
        "echo me $ALLCORES_SLOT $NODE_APP_INSTANCE $ALLCORES_WORKER_ID $ALLCORES_NAME; exec sleep 86400";
    let app = app(["sh", "-c", script]).workers(3).name("env").start().unwrap();
    let mut known = Vec::new();
    app.wait_for(
        |event| {
            known.extend(introduction(event));
            known.len() == 3
        },
        LONG,
    )
    .unwrap();
    let slots: BTreeSet<&str> = known.iter().map(|words| words[0].as_str()).collect();
    assert_eq!(slots, ["0", "1", "2"].into());
    assert!(known.iter().all(|words| words[0] == words[1] && words[3] == "env"), "{known:?}");
    let victim =
        app.events().into_iter().find(|event| event.kind() == "online" && event.slot() == Some(1)).unwrap();
    let position = app.position();
    kill(victim.worker_pid().unwrap(), Signal::KILL);
    let next = wait_since(&app, position, |event| introduction(event).is_some());
    assert_eq!(introduction(&next).unwrap(), ["1", "1", "4", "env"]);
    stop(&app);
}

#[test]
fn workers_block_and_ignore_no_signal_whatever_allcores_was_started_with() {
    let code = "import os, signal, sys\n\
                signal.signal(signal.SIGPIPE, signal.SIG_IGN)\n\
                signal.signal(signal.SIGHUP, signal.SIG_IGN)\n\
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR1})\n\
                os.execv(sys.argv[1], sys.argv[1:])";
    let app = idle().wrapper([python(), "-c".into(), code.into()]).start().unwrap();
    for pid in online(&app, 2) {
        for set in ["SigBlk", "SigIgn"] {
            assert_eq!(status_line(pid, set), "0000000000000000", "{set}");
        }
    }
    stop(&app);
}

/// How many files a process may have open.
fn limit_of_open_files(pid: u32) -> Option<u64> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

#[test]
fn workers_have_the_limit_of_open_files_that_allcores_was_given() {
    let app = idle().wrapper(["sh", "-c", "ulimit -Sn 123; exec \"$@\"", "sh"]).start().unwrap();
    for pid in online(&app, 2) {
        assert_eq!(limit_of_open_files(pid), Some(123));
    }
    stop(&app);
}

/// While it is started a worker has all of the primary's descriptors, which are several for each worker.
#[test]
fn there_can_be_workers_when_the_primary_has_more_open_than_each_of_them_may() {
    let address = unused();
    let app = bad_python("hang.py", address).workers(16);
    let app = app.wrapper(["sh", "-c", "ulimit -Sn 64; exec \"$@\"", "sh"]).start().unwrap();
    let ready = ready(&app, 16);
    assert!(fs::read_dir(format!("/proc/{}/fd", app.pid())).unwrap().count() > 64);
    for pid in ready.iter().filter_map(Event::worker_pid) {
        assert_eq!(limit_of_open_files(pid), Some(64));
    }
    let events = app.events();
    assert!(events.iter().all(|event| event.kind() != "spawn_failed"), "{:?}", app.lines());
    let is_refused = |event: &Event| event.value["text"].to_string().contains("adoption is not available");
    assert!(!events.iter().any(is_refused), "{:?}", app.lines());
    stop(&app);
}

#[test]
fn workers_have_a_session_of_their_own_and_nothing_to_read() {
    let app = idle().start().unwrap();
    for pid in online(&app, 2) {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        assert_eq!(
            (fields[2], fields[3]),
            (pid.to_string().as_str(), pid.to_string().as_str()),
            "group, session"
        );
        assert_eq!(fs::read_link(format!("/proc/{pid}/fd/0")).unwrap().to_str(), Some("/dev/null"));
        // Files that the loader has open for a moment are its own affair.
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        let links = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok());
        let passed: Vec<_> = links.filter(|link| !link.is_absolute()).collect();
        assert_eq!(passed.len(), 2, "more than the pipes of stdout and stderr: {passed:?}");
    }
    stop(&app);
}

#[test]
fn workers_are_the_user_that_was_asked_for() {
    if as_nobody().is_none() {
        skip!("workers can't be another user here");
    }
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(folder.path(), Some(NOBODY), Some(777)).unwrap();
    let script = format!("touch {}/$ALLCORES_SLOT; echo me; exec sleep 86400", folder.path().display());
    let app =
        app(["/bin/sh", "-c", &script]).option("--uid=65534").option("--gid=777").workers(2).start().unwrap();
    let pids = online(&app, 2);
    app.wait_count("output", 2, LONG).unwrap();
    for (slot, pid) in pids.iter().enumerate() {
        assert_eq!(status_line(*pid, "Uid"), "65534\t65534\t65534\t65534");
        assert_eq!(status_line(*pid, "Gid"), "777\t777\t777\t777");
        assert_eq!(status_line(*pid, "Groups"), "777");
        let file = fs::metadata(folder.path().join(slot.to_string())).unwrap();
        assert_eq!((file.uid(), file.gid()), (NOBODY, 777));
    }
    // Becoming another user takes the death signal away, unless it is set after that.
    app.signal(Signal::KILL).unwrap();
    for pid in pids {
        assert!(ends(pid), "{pid} outlived the primary: {}", command_line(pid));
    }
}

#[test]
fn servers_of_another_user_are_adopted() {
    let Some(python) = as_nobody().and_then(|_| crate::support::public("python3")) else {
        skip!("workers can't be another user here");
    };
    let address = unused();
    let app = app([python.into_os_string(), bad("hang.py").into()]).address(address);
    let app = app.option("--uid=65534").option("--gid=65534").workers(2).start().unwrap();
    for worker in ready(&app, 2) {
        crate::support::get_from(address, "/", worker.worker_pid().unwrap());
    }
    stop(&app);
}

#[test]
fn a_listener_that_its_program_has_bound_to_a_device_stays_so() {
    let code = "import os, socket, time\n\
                listener = socket.socket()\n\
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n\
                listener.setsockopt(socket.SOL_SOCKET, 25, b'lo')\n\
                listener.bind((os.environ['HOST'], int(os.environ['PORT'])))\n\
                listener.listen()\n\
                print(listener.getsockopt(socket.SOL_SOCKET, 25, 16).strip(b'\\0'), flush=True)\n\
                time.sleep(86400)";
    let app = app([python(), "-c".into(), code.into()]).address(unused()).workers(1).start().unwrap();
    wait_since(&app, 0, |event| event.kind() == "output" && event.value["line"] == "b'lo'");
    let is_told = |event: &Event| event.value["text"].to_string().contains("SO_BINDTODEVICE");
    wait_since(&app, 0, |event| event.kind() == "notice" && is_told(event));
    stop(&app);
}

#[test]
fn variables_and_folder_are_as_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap();
    let app = app(["sh", "-c", "echo me \"$GREETING\" \"$(pwd -P)\"; exec sleep 86400"]);
    let app = app
        .option("--env=GREETING=a=b")
        .option(format!("--cwd={}", path.display()))
        .workers(1)
        .start()
        .unwrap();
    let event = app.wait_for(|event| introduction(event).is_some(), LONG).unwrap();
    assert_eq!(introduction(&event).unwrap(), ["a=b", path.to_str().unwrap()]);
    stop(&app);
}

/// Zombies among the children of a process.
fn zombies(parent: u32) -> usize {
    let is_zombie_of = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let Some((_, rest)) = stat.rsplit_once(") ") else { return false };
        let mut fields = rest.split(' ');
        fields.next() == Some("Z") && fields.next() == Some(&parent.to_string())
    };
    all_processes().iter().filter(|pid| is_zombie_of(pid)).count()
}

#[test]
fn as_pid_1_it_reaps_all_orphans_and_takes_none_for_a_worker() {
    let wrapper = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let mut probe = std::process::Command::new(wrapper[0]);
    if !probe.args(&wrapper[1..]).arg("true").output().is_ok_and(|output| output.status.success()) {
        skip!("no process namespace can be made");
    }
    let address = unused();
    let app = bad_python("orphans.py", address).wrapper(wrapper).workers(2).start().unwrap();
    ready(&app, 2);
    app.wait_count("output", 2, LONG).unwrap();
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", app.pid())).unwrap();
    let primary = children.trim().parse().unwrap();
    assert_eq!(status_line(primary, "NSpid").split_whitespace().last(), Some("1"));
    let deadline = Instant::now() + LONG;
    while zombies(primary) > 0 {
        assert!(Instant::now() < deadline, "{} zombies stay", zombies(primary));
    }
    get(address, "/").unwrap();
    assert!(app.events().iter().all(|event| event.kind() != "exited"), "{:?}", app.lines());
    assert_eq!(app.status().unwrap()["pid"], 1);
    let output = app.run(["stop", app.name()]).unwrap();
    assert!(output.status.success(), "{output:?}");
    ended(&app, 0);
}

/// The waits before replacements, in seconds, in their order.
fn delays(app: &RunningApp) -> Vec<f64> {
    let events = app.events();
    let respawns = events.iter().filter(|event| event.kind() == "respawning");
    respawns.filter_map(|event| event.value["delay_seconds"].as_f64()).collect()
}

#[test]
fn waits_grow_with_each_early_exit() {
    let app = app([bad("exits.sh")]).workers(1).start().unwrap();
    ended(&app, 3);
    let delays = delays(&app);
    assert_eq!(delays.first(), Some(&0.0), "one bad exit may be bad luck: {delays:?}");
    assert!(delays.len() == 5 && delays.windows(2).all(|pair| pair[1] > pair[0]), "{delays:?}");
    assert!((0.6..1.0).contains(&delays[4]), "{delays:?}");
}

#[test]
fn a_worker_that_started_well_begins_the_waits_anew() {
    let script = "[ $ALLCORES_WORKER_ID -ge 4 ] && sleep 0.4; [ $ALLCORES_WORKER_ID -le 5 ] || exec sleep 86400; exit 1";
    let app = app(["sh", "-c", script]).workers(1).option("--min-uptime=200ms").start().unwrap();
    app.wait_for(|event| event.kind() == "online" && event.worker_id() == Some(6), LONG).unwrap();
    let delays = delays(&app);
    // Three early exits, then two late ones.
    assert!(delays[0] == 0.0 && delays[1] > 0.0 && delays[2] > delays[1], "{delays:?}");
    assert_eq!(delays[3..], [0.0, 0.0]);
    stop(&app);
}

#[test]
fn a_name_has_one_primary_and_the_second_is_told_which() {
    let app = idle().start().unwrap();
    online(&app, 2);
    let second = app.run(["run", "--name", app.name(), "--", "true"]).unwrap();
    let text = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(4), "{text}");
    has(&text, &[&app.pid().to_string(), "next: ", "--name"]);
    assert_eq!(app.status().unwrap()["pid"], app.pid(), "the first one's socket was taken");
    stop(&app);
}

#[test]
fn what_a_killed_primary_left_is_taken_over() {
    let address = unused();
    let app = bad_python("hang.py", address).workers(2).start().unwrap();
    let pids: Vec<u32> = ready(&app, 2).iter().filter_map(Event::worker_pid).collect();
    app.signal(Signal::KILL).unwrap();
    app.wait(LONG).unwrap();
    for pid in pids {
        assert!(ends(pid), "{pid} outlived the primary");
    }
    assert!(app.runtime_folder().join(app.name()).join("control.sock").exists());
    let next = app.run(["run", "--name", app.name(), "--", "true"]).unwrap();
    assert_eq!(next.status.code(), Some(3), "{}", String::from_utf8_lossy(&next.stderr));
    nothing_is_left(&app);
}

#[test]
fn an_address_that_another_has_is_told_with_its_holder_and_ends_the_app() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let app = bad_python("hang.py", address).workers(2).start().unwrap();
    let event = wait_since(&app, 0, |event| event.kind() == "address_unavailable");
    assert_eq!(event.value["holder"]["pid"], std::process::id());
    let text = ended(&app, 6);
    has(&text, &[&address.to_string(), &std::process::id().to_string()]);
    assert!(!text.contains("respawning"), "{text}");
}

#[test]
fn workers_are_asked_to_stop_by_the_signal_that_their_program_wants() {
    let words = ["sh", "-c", "trap 'exit 7' QUIT; trap '' TERM; echo me; while :; do sleep 0.1; done"];
    let app = app(words).workers(1).option("--stop-signal=QUIT").start().unwrap();
    app.wait_count("output", 1, LONG).unwrap();
    stop(&app);
    let exits = app.wait_count("exited", 1, LONG).unwrap();
    assert_eq!(exits[0].value["code"], 7, "{exits:?}");
}

/// As a WebSocket, a kept connection that the program never ends keeps its channel open: the program's own handler has to
/// have its turn before it is killed.
#[test]
fn a_node_worker_that_is_held_up_by_a_connection_gets_its_signal_before_it_is_killed() {
    let address = unused();
    let app = bad_node("long.js", address).workers(1).option("--drain-timeout=200ms");
    let app = app.option("--stop-signal=INT").option("--kill-timeout=3s").start().unwrap();
    ready(&app, 1);
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    wait_since(&app, 0, |event| event.kind() == "output" && event.value["line"] == "asked");
    stop(&app);
    let exits = app.wait_count("exited", 1, LONG).unwrap();
    assert_eq!(exits[0].value["code"], 7, "{exits:?}: {:#?}", app.lines());
}

/// A server behind a shell, as behind `npm start`: the kernel tells only the shell that the primary is gone.
fn behind_a_shell(address: std::net::SocketAddr) -> App {
    let script = format!("'{}' '{}' & wait", python().to_str().unwrap(), bad("hang.py").display());
    app(["sh", "-c", &script]).address(address).workers(2)
}

/// The process that answers at an address.
fn server_at(address: std::net::SocketAddr) -> u32 {
    get(address, "/").unwrap().parse().unwrap()
}

#[test]
fn what_a_killed_primary_left_is_ended_by_the_next_of_its_name_and_by_no_other() {
    let address = unused();
    let app = behind_a_shell(address).start().unwrap();
    ready(&app, 2);
    let stranger = behind_a_shell(unused()).name(app.name()).start().unwrap();
    let strangers = ready(&stranger, 2);
    app.signal(Signal::KILL).unwrap();
    app.wait(LONG).unwrap();
    let orphan = server_at(address);
    let next = behind_a_shell(address).again(&app).start().unwrap();
    let notice = wait_since(&next, 0, |event| event.kind() == "notice");
    assert!(notice.value["text"].to_string().contains(&orphan.to_string()), "{notice:?}");
    ready(&next, 2);
    assert!(ends(orphan), "{orphan} has survived");
    assert_eq!(stranger.events().iter().filter(|event| event.kind() == "exited").count(), 0);
    assert_eq!(strangers.len(), 2);
    stop(&stranger);
    stop(&next);
}

#[test]
fn what_a_killed_primary_left_is_listed_and_ended_by_stop_and_delete() {
    for words in [&["stop"][..], &["stop", "--now"], &["delete"]] {
        let address = unused();
        let app = behind_a_shell(address).start().unwrap();
        ready(&app, 2);
        app.signal(Signal::KILL).unwrap();
        app.wait(LONG).unwrap();
        let orphan = server_at(address);
        let text = |words: &[&str], code: i32| {
            let run = app.run(words).unwrap();
            let text = String::from_utf8_lossy(&[run.stdout, run.stderr].concat()).into_owned();
            assert_eq!(run.status.code(), Some(code), "{words:?}: {text}");
            text
        };
        has(&text(&["ls"], 0), &[app.name(), "killed", "left ", &orphan.to_string()]);
        let listed: serde_json::Value = serde_json::from_str(&text(&["ls", "--json"], 0)).unwrap();
        let listed = listed.as_array().unwrap().iter().find(|listed| listed["name"] == app.name()).unwrap();
        assert_eq!((&listed["stopped"], &listed["killed"]), (&true.into(), &true.into()));
        assert!(listed["left"].as_array().unwrap().contains(&orphan.into()), "{listed}");
        has(&text(&["status", app.name()], 5), &["was killed", &orphan.to_string(), "allcores stop"]);
        let ended = text(&[words, &[app.name()]].concat(), 0);
        has(&ended, &["it was killed; what it had left is ended: ", &orphan.to_string()]);
        assert!(ends(orphan), "{orphan} has survived");
        nothing_is_left(&app);
        has(&text(&["stop", app.name()], 5), &["no app of this name is running"]);
    }
}

/// How a command about an app ended, and all that it said.
fn said(app: &RunningApp, words: &[&str]) -> (Option<i32>, String) {
    let run = app.run(words).unwrap();
    (run.status.code(), String::from_utf8_lossy(&[run.stdout, run.stderr].concat()).into_owned())
}

#[test]
fn who_is_to_stop_what_another_ends_already_waits_for_that() {
    let address = unused();
    let script =
        format!("trap '' TERM; '{}' '{}' & wait", python().to_str().unwrap(), bad("hang.py").display());
    let app = app(["sh", "-c", &script]).address(address).workers(1).start().unwrap();
    ready(&app, 1);
    app.signal(Signal::KILL).unwrap();
    app.wait(LONG).unwrap();
    let orphan = server_at(address);
    let lock = app.runtime_folder().join(app.name()).join("lock");
    let holder = || fs::read_to_string(&lock).unwrap();
    let killed = holder();
    let (first, second, status) = thread::scope(|scope| {
        let first = scope.spawn(|| said(&app, &["stop", app.name()]));
        let deadline = Instant::now() + LONG;
        while holder() == killed {
            assert!(Instant::now() < deadline, "nobody has taken the name");
        }
        // It has five seconds to go by SIGTERM, which it ignores.
        let status = said(&app, &["status", app.name()]);
        let second = said(&app, &["stop", app.name()]);
        (first.join().unwrap(), second, status)
    });
    assert_eq!(first.0, Some(0), "{first:?}");
    has(&first.1, &["it was killed; what it had left is ended: ", &orphan.to_string()]);
    assert_eq!(second, (Some(0), format!("{}: it has gone meanwhile\n", app.name())));
    assert_eq!(status.0, Some(5), "{status:?}");
    has(&status.1, &["has its name, and does not listen"]);
    assert!(ends(orphan), "{orphan} has survived");
    nothing_is_left(&app);
}

#[test]
fn who_asks_while_a_primary_ends_what_another_has_left_is_told_so_and_stop_waits_for_it() {
    let address = unused();
    let deaf = format!("trap '' TERM; '{}' '{}'", python().to_str().unwrap(), bad("hang.py").display());
    let app = app(["sh", "-c", &deaf]).address(address).workers(1).start().unwrap();
    ready(&app, 1);
    app.signal(Signal::KILL).unwrap();
    app.wait(LONG).unwrap();
    let orphan = server_at(address);
    let next = behind_a_shell(address).again(&app).option("--kill-timeout=4s").start().unwrap();
    wait_since(&next, 0, |event| event.kind() == "notice");
    let (code, text) = said(&next, &["status", next.name()]);
    assert_eq!(code, Some(5), "{text}");
    has(&text, &["has its name, and does not listen", "ends what a killed primary has left"]);
    let stopped = said(&next, &["stop", next.name()]);
    assert_eq!(stopped, (Some(0), format!("{}: stopped\n", next.name())));
    assert!(ends(orphan), "{orphan} has survived");
    next.wait(LONG).unwrap();
    nothing_is_left(&next);
}

#[test]
fn what_a_killed_primary_left_is_still_found_when_the_next_one_has_no_room_to_write() {
    let address = unused();
    let app = behind_a_shell(address).workers(1).start().unwrap();
    ready(&app, 1);
    app.signal(Signal::KILL).unwrap();
    app.wait(LONG).unwrap();
    let orphan = server_at(address);
    // The kernel kills who writes more to a file than it may: here, anything.
    let limited = ["sh", "-c", "ulimit -f 0; exec \"$@\"", "sh"];
    let next = behind_a_shell(address).again(&app).wrapper(limited).start().unwrap();
    assert_eq!(next.wait(LONG).unwrap().signal(), Some(Signal::XFSZ.as_raw()), "{:#?}", next.lines());
    let (code, text) = said(&app, &["stop", app.name()]);
    assert_eq!(code, Some(0), "{text}");
    has(&text, &["it was killed; what it had left is ended: ", &orphan.to_string()]);
    assert!(ends(orphan), "{orphan} has survived");
    nothing_is_left(&app);
}

#[test]
fn a_worker_that_ignores_the_wish_to_stop_is_killed() {
    let app = app(["sh", "-c", "trap '' TERM; echo me; while :; do sleep 86400; done"]);
    let app = app.workers(2).option("--kill-timeout=300ms").start().unwrap();
    app.wait_count("output", 2, LONG).unwrap();
    let started = Instant::now();
    stop(&app);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    let exits = app.wait_count("exited", 2, LONG).unwrap();
    assert!(exits.iter().all(|event| event.value["signal"] == "SIGKILL" && event.value["expected"] == true));
}
