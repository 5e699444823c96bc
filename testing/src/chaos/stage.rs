//! The app that things are done to, its clients, and what is known of both.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::Signal;

use super::Outcome;
use super::model::Losses;
use super::plan::{Action, Fault, Harm, MOST, Pick};
use crate::app::{App, RunningApp};
use crate::load::{Load, Running};
use crate::proc;
use crate::process::Event;
use crate::runtimes::{Runtime, fixture};

/// How many clients each of the two loads has.
const CLIENTS: usize = 4;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// With how many workers the app begins, and ends.
pub(crate) const WORKERS: u16 = 3;

/// How long the queue of a worker may stand still.
const HANG: &str = "--hang-timeout=2s";

/// How much memory a worker may have. Node begins with 50 MB.
const MEMORY: &str = "--max-memory=180M";

/// By how many of these requests, each for so many KiB, a worker has more than that.
const LEAKS: usize = 24;
const LEAK: &str = "/leak?kib=8192";

/// Descriptors that the primary may have more in the end: a question for its status may be open.
const SLACK: usize = 2;

/// Heap and stacks that the primary may have more in the end, in KiB: what the allocator keeps for the next burst.
const GROWTH_KIB: u64 = 4096;

/// The app, not yet started.
pub(crate) fn app(binary: &Path, policy: &str, address: SocketAddr) -> anyhow::Result<App> {
    let app = App::new([Runtime::Node.program()?, fixture("health/server.js").into()])
        .binary(binary)
        .policy(policy)
        .workers(WORKERS)
        .address(address);
    let options =
        ["--min-uptime=100ms", "--backoff=10ms", HANG, MEMORY, "--drain-timeout=2s", "--kill-timeout=3s"];
    let health = ["--health-http=/health", "--health-interval=1s", "--health-timeout=10s"];
    Ok(options.into_iter().chain(health).fold(app, App::option))
}

/// The app, its clients, and what is known of both.
pub(crate) struct Stage {
    pub(crate) app: RunningApp,
    address: SocketAddr,
    /// Of the requests of each of the two loads, per second; as many as they can, if `None`.
    rate: Option<f64>,
    loads: Option<[Running; 2]>,
    losses: Losses,
    answered: u64,
    faults: Vec<String>,
    /// Processes that were stopped, and will be killed for it.
    hung: Vec<u32>,
    /// The primary's, when it had had its largest number of workers.
    /// What the primary had open before: how many of each kind.
    descriptors: BTreeMap<String, usize>,
}

impl Stage {
    /// Starts the app and takes it to its largest once, so that what is kept from then on is there.
    pub(crate) fn open(app: App, address: SocketAddr, rate: Option<f64>) -> anyhow::Result<Self> {
        let app = app.start()?;
        app.wait_ready(WORKERS.into())?;
        let losses = Losses::default();
        let mut stage = Self {
            app,
            address,
            rate,
            loads: None,
            losses,
            answered: 0,
            faults: Vec::new(),
            hung: Vec::new(),
            descriptors: BTreeMap::new(),
        };
        for workers in [MOST, WORKERS] {
            stage.scale(workers)?;
        }
        stage.reload(&[], &[Some(0)])?;
        stage.descriptors = kinds_of_descriptors(stage.app.pid());
        Ok(stage)
    }

    /// Begins the loads, and notes what the primary has.
    pub(crate) fn begin(&mut self) -> anyhow::Result<Outcome> {
        let memory_kib = (proc::own_kib(self.app.pid()), 0);
        self.begin_loads()?;
        let descriptors = (self.descriptors.values().sum(), 0);
        Ok(Outcome { descriptors, memory_kib, ..Outcome::default() })
    }

    fn begin_loads(&mut self) -> anyhow::Result<()> {
        let load = || {
            let load = Load::new(self.address).clients(CLIENTS).timeout(Duration::from_secs(30));
            self.rate.into_iter().fold(load, Load::rate)
        };
        let loads = [load().spawn(), load().keep_alive().spawn()];
        for load in &loads {
            ensure!(load.wait_ok(1, PATIENCE), "the app does not answer");
        }
        self.loads = Some(loads);
        Ok(())
    }

    pub(crate) fn end_loads(&mut self) {
        let Some([single, kept]) = self.loads.take() else { return };
        for (name, load, is_kept) in [("single", single, false), ("kept", kept, true)] {
            let report = load.stop();
            self.answered += report.ok;
            self.losses.judge(name, &report, is_kept);
        }
    }

    pub(crate) fn perform(&mut self, action: Action) -> anyhow::Result<()> {
        match action {
            Action::Reload => self.reload(&[], &[Some(0)]),
            Action::ReloadAmid(harm, pick, after) => self.reload_amid(harm, pick, after),
            Action::Bad(fault) => self.reload(&bad(fault), &[Some(8)]),
            Action::Scale(workers) => self.scale(workers),
            Action::Harm(harm, pick) => self.harm(harm, pick),
            Action::Leak => self.leak(),
            Action::Upgrade => self.upgrade(&[], Some(0)),
            Action::BadUpgrade => self.upgrade(&["--executable", "/bin/false"], Some(12)),
            Action::Relieve => {
                self.end_loads();
                self.begin_loads()
            }
            Action::Pass(time) => {
                std::thread::sleep(time);
                Ok(())
            }
        }
    }

    /// Runs `allcores reload`, which is to end with one of these codes.
    fn reload(&mut self, words: &[String], codes: &[Option<i32>]) -> anyhow::Result<()> {
        let name = self.app.name().to_owned();
        let words = ["reload", &name].into_iter().chain(words.iter().map(String::as_str));
        let output = self.app.run(words)?;
        if !codes.contains(&output.status.code()) {
            let text = String::from_utf8_lossy(&output.stderr);
            self.faults.push(format!("a reload ended with {}, and not {codes:?}: {text}", output.status));
        }
        Ok(())
    }

    fn reload_amid(&mut self, harm: Harm, pick: Pick, after: Duration) -> anyhow::Result<()> {
        let name = self.app.name().to_owned();
        let (output, harmed) = std::thread::scope(|scope| {
            let app = &self.app;
            let reload = scope.spawn(move || app.run(["reload", &name, "--ready-timeout", "20s"]));
            std::thread::sleep(after);
            let harmed = hurt(harm, pick, &serving(&self.app, &self.hung));
            (reload.join().expect("it does not panic"), harmed)
        });
        let output = output?;
        // If it was the new one that was harmed, the reload is to be taken back.
        if ![Some(0), Some(8)].contains(&output.status.code()) {
            let text = String::from_utf8_lossy(&output.stderr);
            self.faults.push(format!("a reload in which {harm} ended with {}: {text}", output.status));
        }
        self.note_harm(harm, harmed)
    }

    /// Runs `allcores upgrade`, which is to end with this code, and of which nobody is to notice anything.
    fn upgrade(&mut self, words: &[&str], code: Option<i32>) -> anyhow::Result<()> {
        let before = self.picture()?;
        let name = self.app.name();
        let output = self.app.run(["upgrade", name].into_iter().chain(words.iter().copied()))?;
        if output.status.code() != code {
            let text = String::from_utf8_lossy(&output.stderr);
            self.faults.push(format!("an upgrade ended with {}, and not {code:?}: {text}", output.status));
        }
        let after = self.picture()?;
        if before != after {
            self.faults
                .push(format!("primary and workers were {before:?}, and are {after:?} after an upgrade"));
        }
        Ok(())
    }

    /// The primary's pid, and those of its workers.
    fn picture(&self) -> anyhow::Result<(Option<u64>, Vec<Option<u64>>)> {
        let status = self.app.status()?;
        let workers = status["workers"].as_array().context("workers are a list")?;
        Ok((status["pid"].as_u64(), workers.iter().map(|worker| worker["pid"].as_u64()).collect()))
    }

    fn scale(&mut self, workers: u16) -> anyhow::Result<()> {
        let output = self.app.run(["scale", self.app.name(), &workers.to_string()])?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            self.faults.push(format!("scaling to {workers} ended with {}: {text}", output.status));
        }
        Ok(())
    }

    fn harm(&mut self, harm: Harm, pick: Pick) -> anyhow::Result<()> {
        let harmed = hurt(harm, pick, &serving(&self.app, &self.hung));
        self.note_harm(harm, harmed)
    }

    /// A worker was harmed that had accepted the connections of these clients. It is gone in the end.
    fn note_harm(&mut self, harm: Harm, harmed: Option<(u32, Vec<SocketAddr>)>) -> anyhow::Result<()> {
        let Some((pid, clients)) = harmed else { return Ok(()) };
        self.losses.doom(clients);
        self.hung.extend((harm == Harm::Hang).then_some(pid));
        let has_gone = |event: &Event| event.kind() == "exited" && event.worker_pid() == Some(pid);
        self.app.wait_for(has_gone, PATIENCE)?;
        self.settle()
    }

    /// Has one worker keep more than it may: it gets a successor, and nothing is lost.
    fn leak(&mut self) -> anyhow::Result<()> {
        let position = self.app.position();
        let load = Load::new(self.address).keep_alive().path(LEAK).requests(LEAKS as u64);
        let report = load.timeout(Duration::from_secs(30)).run_blocking();
        self.answered += report.ok;
        self.losses.judge("leaking", &report, true);
        let is_renewed = |event: &Event| event.kind() == "renewing" && event.value["reason"] == "memory";
        self.app.wait_for_since(position, is_renewed, PATIENCE)?;
        self.settle()
    }

    /// Waits until there are as many workers as there should be, all of them ready, and nobody else.
    pub(crate) fn settle(&self) -> anyhow::Result<()> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            let status = self.app.status()?;
            let workers = status["workers"].as_array().context("workers are a list")?;
            let is_ready = |worker: &serde_json::Value| worker["state"] == "ready";
            if workers.iter().all(is_ready) && Some(workers.len() as u64) == status["target"].as_u64() {
                return Ok(());
            }
            // What is waited for has no one event: each worker has its own.
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("the app does not come to rest: {}", self.app.status()?)
    }

    /// Looks at what has grown, and stops the app.
    pub(crate) fn close(mut self, outcome: &mut Outcome) -> anyhow::Result<()> {
        self.scale(WORKERS)?;
        self.settle()?;
        let pid = self.app.pid();
        // What is open for a moment only, as while the primary looks into /proc, is no leak.
        let until = Instant::now() + PATIENCE;
        let before = outcome.descriptors.0;
        let kinds = loop {
            let now = kinds_of_descriptors(pid);
            if now.values().sum::<usize>() <= before + SLACK || Instant::now() >= until {
                break now;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let after = kinds.values().sum();
        outcome.descriptors.1 = after;
        let number = |kind: &String| self.descriptors.get(kind).copied().unwrap_or_default();
        outcome.more = kinds
            .iter()
            .filter(|(kind, now)| **now > number(kind))
            .map(|(kind, now)| (kind.clone(), now - number(kind)))
            .collect();
        outcome.memory_kib.1 = proc::own_kib(pid);
        if after > before + SLACK {
            let more = &outcome.more;
            self.faults.push(format!("the primary had {before} descriptors and has {after}: {more:?}"));
        }
        let (before, after) = outcome.memory_kib;
        if after > before + GROWTH_KIB {
            self.faults.push(format!("the primary had {before} KiB of its own and has {after}"));
        }
        let processes = processes_of(&self.app);
        if processes.len() != usize::from(WORKERS) + 1 {
            self.faults.push(format!("{WORKERS} workers and a primary are {} processes", processes.len()));
        }
        self.find_surprises();
        if !self.app.stop()?.success() {
            self.faults.push("the app did not stop in peace".into());
        }
        let left = processes_of(&self.app);
        if !left.is_empty() {
            self.faults.push(format!("processes are left: {left:?}"));
        }
        let Losses { with_worker, repeatable, unexplained, .. } = self.losses;
        outcome.answered = self.answered;
        (outcome.with_worker, outcome.repeatable) = (with_worker, repeatable);
        outcome.faults = self.faults.into_iter().chain(unexplained).collect();
        Ok(())
    }

    /// Nobody hangs who was not stopped, and nobody is ill who serves.
    fn find_surprises(&mut self) {
        for event in self.app.events() {
            let pid = event.worker_pid().unwrap_or_default();
            let is_surprise = match event.kind() {
                "hung" | "unhealthy" => !self.hung.contains(&pid),
                "crash_loop" => true,
                _ => false,
            };
            if is_surprise {
                self.faults.push(format!("not to be expected: {}", event.value));
            }
        }
    }

    pub(crate) fn last_lines(&self) -> Vec<String> {
        let lines = self.app.lines();
        lines.iter().rev().take(20).rev().cloned().collect()
    }
}

/// The workers that serve now, as far as the app has told, and that were not harmed.
fn serving(app: &RunningApp, hung: &[u32]) -> Vec<u32> {
    let mut ready = Vec::new();
    for event in app.events() {
        let Some(pid) = event.worker_pid() else { continue };
        match event.kind() {
            "ready" if !ready.contains(&pid) => ready.push(pid),
            "exited" | "draining" => ready.retain(|other| *other != pid),
            _ => {}
        }
    }
    ready.retain(|pid| !hung.contains(pid));
    ready
}

/// Stops a worker, sees whose connections it has accepted, and kills it unless it is to stand still.
fn hurt(harm: Harm, pick: Pick, workers: &[u32]) -> Option<(u32, Vec<SocketAddr>)> {
    let pid = pick.of(workers)?;
    let process = proc::Process::open(pid).filter(proc::Process::hold_still)?;
    let clients = process.peers().into_iter().collect();
    if harm == Harm::Kill {
        process.signal(Signal::KILL);
    }
    Some((pid, clients))
}

/// All processes of an app, by the runtime folder in the environment that they were started with.
fn processes_of(app: &RunningApp) -> Vec<u32> {
    let mark = format!("ALLCORES_RUNTIME_DIR={}", app.runtime_folder().display());
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let has_mark = |pid: &u32| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes())
    };
    pids.filter(has_mark).collect()
}

/// What `allcores reload` is to be given for a new version that is no good.
fn bad(fault: Fault) -> Vec<String> {
    let script = match fault {
        Fault::Throws => "throw new Error('no such table')",
        Fault::Silent => "setInterval(() => {}, 1000)",
        Fault::Ill => {
            "require('http').createServer((q, s) => { s.statusCode = q.url === '/' ? 200 : 500; \
             s.end(process.pid + '\\n') }).listen(process.env.PORT, process.env.HOST)"
        }
    };
    ["--ready-timeout", "2s", "--", "node", "-e", script].map(str::to_owned).to_vec()
}

/// How many descriptors a process has of each kind, as the kernel calls it but for numbers.
fn kinds_of_descriptors(pid: u32) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for (_, what) in proc::descriptors(pid) {
        let kind = what.replace(|letter: char| letter.is_ascii_digit(), "");
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}
