//! Upgrades in the midst of something else, and something else in the midst of an upgrade: each has its answer.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use allcores_testing::app::RunningApp;
use allcores_testing::process::Event;
use allcores_testing::{address, machine};
use rustix::process::Signal;

use super::{PATIENCE, SERVER, ended, is_line, node_script, program, python, somewhere};
use crate::{app, proc};

/// `allcores upgrade` under way.
struct Upgrading {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Upgrading {
    fn begin(app: &RunningApp, more: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_allcores"))
            .args(["upgrade", app.name(), "--timeout=20s"])
            .args(more)
            .env("ALLCORES_RUNTIME_DIR", app.runtime_folder())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    /// Waits until it says something.
    #[track_caller]
    fn says(&mut self, part: &str) {
        let (mut said, mut line) = (String::new(), String::new());
        while !line.contains(part) {
            said.push_str(&line);
            line.clear();
            assert_ne!(self.out.read_line(&mut line).unwrap(), 0, "it does not say {part:?}: {said}");
        }
    }

    /// Waits for its end.
    fn end(self) -> (Option<i32>, String) {
        let output = self.child.wait_with_output().unwrap();
        let (code, _, err) = ended(output);
        (code, err)
    }
}

/// A program that says that it can go on when it is told to, and is the one under test.
struct Slow {
    folder: tempfile::TempDir,
}

impl Slow {
    fn make() -> Self {
        let slow = Self { folder: tempfile::tempdir().unwrap() };
        let (real, fifo) = (env!("CARGO_BIN_EXE_allcores"), slow.fifo());
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        let waits = format!(
            "[ \"$1\" != upgrade-check ] || {{ echo $$ > \"$0.pid\"; read -r _ < '{}'; }}",
            fifo.display()
        );
        program(&slow.path(), &format!("{waits}\nexec {real} \"$@\""));
        slow
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("allcores-next")
    }

    fn fifo(&self) -> PathBuf {
        self.folder.path().join("go")
    }

    /// Has an app ask it, and waits until it does.
    fn begin(&self, app: &RunningApp) -> Upgrading {
        let mut upgrading = Upgrading::begin(app, &["--executable", self.path().to_str().unwrap()]);
        upgrading.says("asks ");
        upgrading
    }

    /// The process that is asked. It waits for as long as the file is open and nothing is written.
    fn asked(&self) -> (proc::Process, File) {
        // Opening it waits for who reads.
        let fifo = File::options().write(true).open(self.fifo()).unwrap();
        let pid = std::fs::read_to_string(self.folder.path().join("allcores-next.pid")).unwrap();
        (proc::Process::open(pid.trim().parse().unwrap()).expect("it waits"), fifo)
    }

    /// Lets it answer.
    fn go_on(&self) {
        std::fs::write(self.fifo(), "\n").unwrap();
    }
}

fn served(folder: &Path, workers: u16) -> Option<RunningApp> {
    let app = somewhere(node_script(folder, SERVER)?.workers(workers)).start().unwrap();
    app.wait_ready(workers.into()).unwrap();
    Some(app)
}

#[test]
fn one_is_enough_at_a_time_and_the_second_is_refused() {
    let _turn = machine::together();
    let folder = tempfile::tempdir().unwrap();
    let Some(app) = served(folder.path(), 1) else { return };
    let slow = Slow::make();
    let upgrading = slow.begin(&app);
    let (code, out, err) = ended(app.run(["upgrade", app.name()]).unwrap());
    assert_eq!(code, Some(12), "{out}{err}");
    assert!(err.contains("another upgrade is under way"), "{err}");
    app.signal(Signal::USR2).unwrap();
    let reason = |event: &Event| event.value["reason"] == "another upgrade is under way";
    let mut refusals = 0;
    let both = |event: &Event| {
        refusals += usize::from(event.kind() == "upgrade_refused" && reason(event));
        refusals == 2
    };
    app.wait_for(both, PATIENCE).unwrap();
    slow.go_on();
    let (code, err) = upgrading.end();
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(app.status().unwrap()["upgrades"], 1, "the first was not disturbed");
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn what_is_asked_while_the_new_program_is_asked_is_done_and_carried() {
    let _turn = machine::together();
    let folder = tempfile::tempdir().unwrap();
    let Some(app) = served(folder.path(), 1) else { return };
    let slow = Slow::make();
    let upgrading = slow.begin(&app);
    app::scale(&app, 2);
    let (code, out, err) = ended(app.run(["reload", app.name()]).unwrap());
    assert_eq!(code, Some(0), "{out}{err}");
    let before = app::workers(&app.status().unwrap());
    slow.go_on();
    let (code, err) = upgrading.end();
    assert_eq!(code, Some(0), "{err}");
    let status = app.status().unwrap();
    assert_eq!(
        (&status["upgrades"], &status["generation"], &status["target"]),
        (&1.into(), &2.into(), &2.into())
    );
    assert_eq!(app::workers(&status), before);
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn who_asks_something_while_an_upgrade_waits_for_a_long_check_is_heard() {
    let _turn = machine::together();
    let folder = tempfile::tempdir().unwrap();
    let (slow, begun) = (folder.path().join("slow"), folder.path().join("begun"));
    let (wait, mark) = (slow.display(), begun.display());
    let check = format!("--health-exec=while [ -e {wait} ]; do : > {mark}; sleep 0.05; done");
    let Some(app) = node_script(folder.path(), SERVER) else { return };
    let app = somewhere(app).workers(1).option(check).option("--health-timeout=60s");
    let app = app.option("--health-interval=100ms").start().unwrap();
    app.wait_ready(1).unwrap();
    let upgrade = || {
        let _ = std::fs::remove_file(&begun);
        File::create(&slow).unwrap();
        let started = Instant::now();
        while !begun.exists() {
            assert!(started.elapsed() < PATIENCE, "nothing is checked");
            thread::sleep(Duration::from_millis(10));
        }
        let mut upgrading = Upgrading::begin(&app, &[]);
        upgrading.says("waits: a health check is under way");
        upgrading
    };
    let upgrading = upgrade();
    for _ in 0..3 {
        assert_eq!(app.status().unwrap()["upgrades"], 0);
    }
    std::fs::remove_file(&slow).unwrap();
    let (code, err) = upgrading.end();
    assert_eq!(code, Some(0), "{err}");

    let upgrading = upgrade();
    let (code, out, err) = ended(app.run(["stop", app.name()]).unwrap());
    assert_eq!(code, Some(0), "{out}{err}");
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
    let (code, err) = upgrading.end();
    assert_eq!(code, Some(12), "{err}");
}

#[test]
fn a_reload_that_begins_while_the_new_program_is_asked_is_finished_by_the_old_one() {
    let _turn = machine::together();
    let folder = tempfile::tempdir().unwrap();
    let Some(app) = served(folder.path(), 1) else { return };
    let slow = Slow::make();
    let mut upgrading = slow.begin(&app);
    thread::scope(|scope| {
        let reloading = scope.spawn(|| ended(app.run(["reload", app.name(), "--canary", "300ms"]).unwrap()));
        app.wait_for(|event| event.kind() == "watching", PATIENCE).unwrap();
        slow.go_on();
        upgrading.says("waits: a reload is under way");
        let (code, out, err) = reloading.join().unwrap();
        assert_eq!(code, Some(0), "{out}{err}");
    });
    let (code, err) = upgrading.end();
    assert_eq!(code, Some(0), "{err}");
    app.wait_for(|event| event.kind() == "upgraded", PATIENCE).unwrap();
    let order: Vec<String> = app
        .events()
        .iter()
        .map(|event| event.kind().to_owned())
        .filter(|kind| ["upgrading", "reloaded", "upgraded"].contains(&kind.as_str()))
        .collect();
    assert_eq!(order, ["upgrading", "reloaded", "upgraded"]);
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn a_stop_ends_it_and_the_program_that_is_asked() {
    let _turn = machine::together();
    let folder = tempfile::tempdir().unwrap();
    let Some(app) = served(folder.path(), 1) else { return };
    let slow = Slow::make();
    let upgrading = slow.begin(&app);
    let (asked, _held) = slow.asked();
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
    let (code, err) = upgrading.end();
    assert_eq!(code, Some(12), "{err}");
    assert!(err.contains("the app was told to stop"), "{err}");
    assert!(asked.has_ended_within(PATIENCE), "it is left behind");
}

/// Takes one connection at a time, and has it until its client closes it.
const LINGERS: &str = "\
import os, socket
listener = socket.socket()
listener.bind((os.environ['HOST'], int(os.environ['PORT'])))
listener.listen()
while True:
    connection, _ = listener.accept()
    print('has one')
    while connection.recv(1):
        pass
    connection.close()
";

/// Two workers that have a connection each.
fn lingering() -> Option<(RunningApp, Vec<TcpStream>)> {
    let address: SocketAddr = address::unused();
    let app = python(LINGERS)?.workers(2).policy("shared").option("--drain-timeout=60s");
    let app = app.address(address);
    let app = app.start().unwrap();
    app.wait_ready(2).unwrap();
    let clients = (0..2).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut taken = 0;
    let both = |event: &Event| {
        taken += usize::from(is_line(event, "has one"));
        taken == 2
    };
    app.wait_for(both, PATIENCE).unwrap();
    Some((app, clients))
}

#[test]
fn it_waits_for_a_scaling_and_for_who_asked_for_that() {
    let _turn = machine::together();
    let Some((app, clients)) = lingering() else { return };
    thread::scope(|scope| {
        let scaling = scope.spawn(|| ended(app.run(["scale", app.name(), "1"]).unwrap()));
        app.wait_for(|event| event.kind() == "draining", PATIENCE).unwrap();
        let mut upgrading = Upgrading::begin(&app, &[]);
        upgrading.says("waits: the app is being scaled to 1");
        drop(clients);
        let (code, out, err) = scaling.join().unwrap();
        assert_eq!(code, Some(0), "{out}{err}");
        let (code, err) = upgrading.end();
        assert_eq!(code, Some(0), "{err}");
    });
    assert_eq!(app::workers(&app.status().unwrap()).len(), 1);
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn it_waits_for_a_worker_that_a_signal_has_go_and_comes_too_late_while_the_app_stops() {
    let _turn = machine::together();
    let Some((app, clients)) = lingering() else { return };
    app.signal(Signal::TTOU).unwrap();
    app.wait_for(|event| event.kind() == "draining", PATIENCE).unwrap();
    let mut upgrading = Upgrading::begin(&app, &[]);
    upgrading.says("waits: the app is being scaled to 1");
    app.signal(Signal::TERM).unwrap();
    let (code, err) = upgrading.end();
    assert_eq!(code, Some(12), "{err}");
    assert!(err.contains("the app was told to stop"), "{err}");
    let (code, out, err) = ended(app.run(["upgrade", app.name()]).unwrap());
    assert_eq!(code, Some(12), "{out}{err}");
    assert!(err.contains("the app is stopping"), "{err}");
    drop(clients);
    assert_eq!(app.wait(PATIENCE).unwrap().code(), Some(0), "{:#?}", app.lines());
}
