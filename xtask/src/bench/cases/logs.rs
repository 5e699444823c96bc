//! The logs case: four workers write lines at a steady pace; what that costs who keeps them, and whether all are kept.
//!
//! Beside PM2 in its two modes, each started as a user would: in the background, with log files. What is counted is the CPU
//! time of the whole process that stands between workers and files, from the first line until the files have been still
//! for a moment, and the lines that are found in the files.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use allcores_testing::pm2::Pm2;
use allcores_testing::process::free_port;
use allcores_testing::runtimes::Install;
use anyhow::{Context, bail, ensure};
use serde::Deserialize;

use crate::bench::case::{Case, Expected, Plan};
use crate::bench::contender::{Contender, Turn};
use crate::bench::metric::Metric;
use crate::bench::need::Need;
use crate::bench::record::{Metrics, Role, Sample};
use crate::bench::{Arguments, duration, machine};

const SCRIPT: &str = "testing/baselines/lines.js";

const WORKERS: u16 = 4;

/// How many lines all workers are to write in a second, together.
const RATE: f64 = 50_000.0;

/// So large that a few are put aside in a measurement.
const LOG_SIZE: &str = "16M";

/// How long nothing may change in the folder of the logs until all that will be written is taken to be.
const STILL: Duration = Duration::from_secs(1);

/// How much longer than meant writing and packing may take.
const PATIENCE: Duration = Duration::from_mins(1);

pub(super) const CASE: Case = Case {
    name: "logs",
    about: "node; 4 workers write 50,000 lines a second: what keeping them costs, beside PM2",
    metrics: &[
        Metric::lower("manager's CPU µs/line").plotted(),
        Metric::lower("workers' CPU µs/line").plotted(),
        Metric::higher("lines/s"),
        Metric::lower("lost").summed(),
    ],
    expected: &[
        Expected::Never("lost"),
        Expected::NotWorse {
            metric: "manager's CPU µs/line",
            ours: "allcores, --log-plain",
            than: "PM2, cluster mode",
            group: "",
        },
    ],
    remarks: "\
The same program under both, started in the background, each line written by a call of its own. Counted are the CPU time of \
the whole process between workers and files (with allcores its primary, which also packs what was put aside; with PM2 its \
daemon), that of the workers, and the lines that are found in the files in the end. PM2's workers send the daemon each line \
as a message, or write the files themselves. With `raw` allcores' workers write to one file themselves, without slot and \
time, and it is not put aside.",
    plan,
};

/// Who keeps the lines.
#[derive(Clone, Copy, Debug)]
enum Keeper {
    /// With these further options.
    Allcores(&'static [&'static str]),
    /// With these further options of `pm2 start`.
    Pm2(&'static [&'static str]),
}

fn plan(arguments: &Arguments) -> Plan {
    let time = duration(arguments.given.seconds);
    let keepers = [
        ("allcores, --log-plain", Keeper::Allcores(&["--log-plain"])),
        ("allcores", Keeper::Allcores(&[])),
        ("allcores, --log-format raw", Keeper::Allcores(&["--log-format=raw"])),
        ("PM2, cluster mode", Keeper::Pm2(&[])),
        ("PM2, fork mode", Keeper::Pm2(&["--execute-command"])),
    ];
    let contenders = keepers.map(|(name, keeper)| {
        let measure = move |turn: Turn<'_>| Ok(Sample::only(keeper.measure(time, turn.binary)?));
        match keeper {
            Keeper::Allcores(_) => Contender::new(name, Role::Ours, measure),
            Keeper::Pm2(_) => Contender::new(name, Role::Peer, measure).needs(Need::Install(Install::Pm2)),
        }
    });
    Plan {
        title: format!(
            "{WORKERS} node workers write {RATE} lines of 100 bytes a second, each line by a call of its own; \
             `--log-size {LOG_SIZE}`"
        ),
        packages: &[],
        contenders: contenders.into(),
        left_out: Vec::new(),
        each: time + STILL + Duration::from_secs(3),
    }
}

/// What a worker says of itself when it has written its lines.
#[derive(Deserialize)]
struct Done {
    seconds: f64,
    cpu: f64,
}

impl Keeper {
    fn measure(self, time: Duration, binary: &Path) -> anyhow::Result<Metrics> {
        let folder = tempfile::tempdir()?;
        let script = folder.path().join("lines.js");
        fs::copy(SCRIPT, &script)?;
        let running = self.start(&script, binary)?;
        let each = (RATE * time.as_secs_f64() / f64::from(WORKERS)).round();

        let before = machine::cpu_time(&[running.pid()?]);
        begin(folder.path(), each, time)?;
        let limit = Instant::now() + time + PATIENCE;
        let done = wait_done(folder.path(), limit)?;
        wait_still(&running.logs(), limit)?;
        let cpu = machine::cpu_time(&[running.pid()?]).saturating_sub(before);

        let written = each * f64::from(WORKERS);
        let found = count(&running.logs())?;
        running.stop()?;
        let slowest = done.iter().map(|done| done.seconds).fold(0.0, f64::max);
        let micros = |seconds: f64| seconds * 1e6 / written;
        Ok(vec![
            ("manager's CPU µs/line", micros(cpu.as_secs_f64())),
            ("workers' CPU µs/line", micros(done.iter().map(|done| done.cpu).sum())),
            ("lines/s", written / slowest),
            ("lost", written - found),
        ])
    }

    fn start(self, script: &Path, binary: &Path) -> anyhow::Result<Running> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        match self {
            Self::Pm2(options) => Pm2::start(script, WORKERS, address, options).map(Running::Pm2),
            Self::Allcores(options) => {
                let home = tempfile::Builder::new().prefix("allcores-bench-").tempdir()?;
                fs::create_dir(home.path().join("logs"))?;
                let background = Background { binary: binary.to_owned(), home };
                let log = background.home.path().join("logs/web.log");
                let mut command = background.command();
                command.args(["start", "--name", NAME, "--workers", &WORKERS.to_string()]);
                command
                    .args(["--log-size", LOG_SIZE, "--log-keep", "1000", "--log-file"])
                    .arg(log)
                    .args(options);
                command.args(["--", "node"]).arg(script);
                command.env("HOST", address.ip().to_string()).env("PORT", address.port().to_string());
                succeed(&mut command)?;
                Ok(Running::Allcores(background))
            }
        }
    }
}

const NAME: &str = "web";

/// An app that `allcores start` has started, in folders of its own. Stopped when it is dropped.
struct Background {
    binary: PathBuf,
    home: tempfile::TempDir,
}

impl Background {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.env("ALLCORES_RUNTIME_DIR", self.home.path().join("run"));
        command.env("ALLCORES_STATE_DIR", self.home.path().join("state")).stdin(Stdio::null());
        command
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // That it has ended already is no failure here.
        let _ = self.command().args(["stop", NAME]).output();
    }
}

/// Workers that are ready, and who keeps their lines.
enum Running {
    Allcores(Background),
    Pm2(Pm2),
}

impl Running {
    /// The process between workers and files.
    fn pid(&self) -> anyhow::Result<u32> {
        #[derive(Deserialize)]
        struct Status {
            pid: u32,
        }
        match self {
            Self::Pm2(pm2) => pm2.daemon().context("PM2's daemon is gone"),
            Self::Allcores(background) => {
                let output = succeed(background.command().args(["status", NAME, "--json"]))?;
                Ok(serde_json::from_slice::<Status>(&output.stdout)?.pid)
            }
        }
    }

    fn logs(&self) -> PathBuf {
        match self {
            Self::Allcores(background) => background.home.path().join("logs"),
            Self::Pm2(pm2) => pm2.logs(),
        }
    }

    fn stop(self) -> anyhow::Result<()> {
        match self {
            Self::Allcores(background) => succeed(background.command().args(["stop", NAME])).map(drop),
            // Told so when it is dropped.
            Self::Pm2(_) => Ok(()),
        }
    }
}

fn succeed(command: &mut Command) -> anyhow::Result<Output> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}: {stderr}", output.status);
    Ok(output)
}

/// Has the workers write. They look for this file.
fn begin(folder: &Path, lines: f64, time: Duration) -> anyhow::Result<()> {
    let draft = folder.join("draft");
    let text = serde_json::json!({ "lines": lines, "seconds": time.as_secs_f64() });
    fs::write(&draft, text.to_string())?;
    fs::rename(draft, folder.join("begin"))?;
    Ok(())
}

/// Waits until every worker has said that it is done.
fn wait_done(folder: &Path, limit: Instant) -> anyhow::Result<Vec<Done>> {
    loop {
        let names: Vec<_> = files(folder)?.into_iter().map(|(path, _)| path).filter(is_done).collect();
        if names.len() == usize::from(WORKERS) {
            return names.iter().map(|name| Ok(serde_json::from_slice(&fs::read(name)?)?)).collect();
        }
        ensure!(Instant::now() < limit, "{} of {WORKERS} workers have written their lines", names.len());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[expect(clippy::ptr_arg, reason = "a filter over paths passes them so")]
fn is_done(path: &PathBuf) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("done-"))
}

/// Waits until nothing changes in a folder: no file grows, comes or goes.
fn wait_still(folder: &Path, limit: Instant) -> anyhow::Result<()> {
    let (mut last, mut since) = (files(folder)?, Instant::now());
    while since.elapsed() < STILL {
        ensure!(Instant::now() < limit, "{} is still being written to", folder.display());
        std::thread::sleep(Duration::from_millis(50));
        let now = files(folder)?;
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    Ok(())
}

/// The files of a folder, and how long each is.
fn files(folder: &Path) -> anyhow::Result<Vec<(PathBuf, u64)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        // One that is gone meanwhile counts as a change all the same: the next look does not list it.
        files.push((path.clone(), path.metadata().map_or(0, |metadata| metadata.len())));
    }
    files.sort();
    Ok(files)
}

/// Counts the lines in all files, each once.
fn count(folder: &Path) -> anyhow::Result<f64> {
    let mut found = HashSet::new();
    for (path, _) in files(folder)? {
        let file = fs::File::open(&path)?;
        if path.extension().is_some_and(|extension| extension == "gz") {
            let mut unpack = Command::new("gzip").arg("-dc").stdin(file).stdout(Stdio::piped()).spawn()?;
            find(unpack.stdout.take().context("it was to be piped")?, &mut found)?;
            ensure!(unpack.wait()?.success(), "gzip can't unpack {}", path.display());
        } else {
            find(file, &mut found)?;
        }
    }
    Ok(f64::from(u32::try_from(found.len())?))
}

/// Finds lines, by who wrote them and which it was. What is no line of theirs is passed over.
fn find(file: impl Read, found: &mut HashSet<(u32, u32)>) -> anyhow::Result<()> {
    for line in BufReader::new(file).lines() {
        let line = line?;
        let Some((_, rest)) = line.split_once("line ") else { continue };
        let mut words = rest.split(' ');
        let (Some(pid), Some(number), Some(_)) = (words.next(), words.next(), words.next()) else {
            bail!("a line is cut: {line}");
        };
        ensure!(found.insert((pid.parse()?, number.parse()?)), "a line stands there twice: {line}");
    }
    Ok(())
}
