//! Unix sockets under load: programs remove the path when they start and when they go, and clients find it all the same.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use allcores_testing::app::{App, RunningApp};
use allcores_testing::runtimes::{Runtime, fixture, require};
use allcores_testing::{extent, machine};
use rustix::process::Signal;

use super::CLIENTS;
use crate::upgrade::upgrade;
use crate::{app, proc};

const WORKERS: u16 = 2;

/// How many answers there are before, between and after what is done.
const ANSWERS: u64 = 200;

/// How long a client that got no answer waits before it asks again, as clients do.
const PAUSE: Duration = Duration::from_millis(1);

/// Clients that ask at a Unix socket, each on a new connection as soon as it has its answer.
struct Clients {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    answered: AtomicU64,
    /// By what was being done and what it came to.
    failed: Mutex<BTreeMap<String, u64>>,
}

impl Clients {
    fn start(path: &Path) -> Self {
        let shared = Arc::new(Shared::default());
        let client = |_| {
            let (path, shared) = (path.to_owned(), Arc::clone(&shared));
            std::thread::spawn(move || {
                while !shared.is_over.load(Ordering::Relaxed) {
                    match ask(&path) {
                        Ok(()) => drop(shared.answered.fetch_add(1, Ordering::Relaxed)),
                        Err((doing, error)) => {
                            let mut failed = shared.failed.lock().unwrap_or_else(PoisonError::into_inner);
                            *failed.entry(format!("{doing}: {error}")).or_default() += 1;
                            drop(failed);
                            std::thread::sleep(PAUSE);
                        }
                    }
                }
            })
        };
        let threads = (0..CLIENTS).map(client).collect();
        Self { shared, threads }
    }

    fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Waits until there are so many more answers.
    #[track_caller]
    fn let_pass(&self, answers: u64) {
        let (wanted, deadline) = (self.answered() + answers, Instant::now() + Duration::from_secs(30));
        while self.answered() < wanted {
            assert!(Instant::now() < deadline, "the app still answers: {:?}", self.take_failed());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What has failed since the last time.
    fn take_failed(&self) -> BTreeMap<String, u64> {
        std::mem::take(&mut self.shared.failed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Claims that nothing has failed since the last time.
    #[track_caller]
    fn nothing_failed(&self, meanwhile: &str) {
        self.let_pass(ANSWERS);
        assert_eq!(self.take_failed(), BTreeMap::new(), "{meanwhile}");
    }

    fn stop(mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

fn ask(path: &Path) -> Result<(), (&'static str, io::Error)> {
    let doing = |what| move |error| (what, error);
    let mut stream = UnixStream::connect(path).map_err(doing("connect"))?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).map_err(doing("connect"))?;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .map_err(doing("ask"))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(doing("answer"))?;
    let is_good = answer.contains(" 200 OK\r\n") && answer.ends_with('\n');
    if is_good { Ok(()) } else { Err(("answer", io::Error::other(format!("{answer:?}")))) }
}

fn reload(app: &RunningApp) {
    let output = app.run(["reload", app.name()]).unwrap();
    assert!(output.status.success(), "{output:?}\n{:#?}", app.lines());
}

fn python(path: &Path) -> Option<App> {
    let python = require(Runtime::Python)?;
    Some(app::script(python, "python-unix/server.py").env("SOCKET", path).env("REMOVES", "1"))
}

fn gunicorn(path: &Path) -> Option<App> {
    let gunicorn = require(Runtime::Gunicorn)?;
    let options = ["--no-control-socket".into(), "--bind".into(), format!("unix:{}", path.display()).into()];
    let command = [gunicorn.program().unwrap()].into_iter().chain(options).chain(["app:app".into()]);
    Some(app::command(command).folder(fixture("gunicorn")).env("PYTHONDONTWRITEBYTECODE", "1"))
}

/// A folder with the path, and the app that serves there, with clients.
fn start(describe: fn(&Path) -> Option<App>) -> Option<(tempfile::TempDir, PathBuf, RunningApp, Clients)> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server.sock");
    let app = describe(&path)?.workers(WORKERS).start().unwrap();
    app.wait_ready(WORKERS.into()).unwrap();
    let clients = Clients::start(&path);
    clients.let_pass(ANSWERS);
    clients.take_failed();
    Some((folder, path, app, clients))
}

/// The workers of an app's first start can't be kept from removing the path. Tells how many did not find it.
fn first_reload(clients: &Clients, app: &RunningApp) {
    let before = clients.answered();
    reload(app);
    clients.let_pass(ANSWERS);
    let failed = clients.take_failed();
    let count: u64 = failed.values().sum();
    eprintln!("first reload: {} answered, {count} failed {failed:?}", clients.answered() - before);
    assert!(failed.keys().all(|what| what.starts_with("connect: No such file")), "{failed:?}");
}

/// From the second generation on every client finds the path, whatever workers do. `ALLCORES_TEST_FIRSTS` asks for more first
/// starts than one.
fn is_always_there(describe: fn(&Path) -> Option<App>) {
    let _turn = machine::alone();
    for _ in 1..extent::of("FIRSTS", 1) {
        let Some((_folder, _, app, clients)) = start(describe) else { return };
        first_reload(&clients, &app);
        clients.stop();
        app.stop().unwrap();
    }
    let Some((_folder, path, app, clients)) = start(describe) else { return };
    first_reload(&clients, &app);
    for _ in 0..extent::of("RELOADS", 1) {
        reload(&app);
        clients.nothing_failed("a reload");
    }
    for workers in [1, 3, 2] {
        app::scale(&app, workers);
        clients.nothing_failed(&format!("now there are {workers} workers"));
    }
    for nth in 1..=2 {
        let victim = *app::workers(&app.status().unwrap()).values().next().unwrap();
        let ready = app.events().iter().filter(|event| event.kind() == "ready").count();
        proc::Process::open(victim).unwrap().signal(Signal::KILL);
        app.wait_count("ready", ready + 1, Duration::from_secs(30)).unwrap();
        clients.let_pass(ANSWERS);
        // What it had accepted goes with it: it takes one at a time.
        let failed = clients.take_failed();
        let is_accepted = failed.keys().all(|what| !what.starts_with("connect"));
        assert!(is_accepted && failed.values().sum::<u64>() <= 1, "kill {nth}: {failed:?}");
    }
    upgrade(&app);
    reload(&app);
    clients.nothing_failed("a reload after an upgrade");
    eprintln!("{} answered", clients.answered());
    clients.stop();
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
    assert!(!path.exists());
}

#[test]
fn clients_find_the_path_of_python_workers_who_remove_it() {
    is_always_there(python);
}

#[test]
fn clients_find_the_path_of_gunicorn_workers_who_remove_it() {
    is_always_there(gunicorn);
}
