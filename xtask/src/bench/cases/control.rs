//! The control case: what clients of the control socket that mean no good cost those of the app, and those who command it.
//!
//! An app under load is asked for its status, again and again, by the socket; with nobody else there, and under each kind
//! of siege.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use allcores_testing::load::Load;
use allcores_testing::siege::{Means, Siege};
use allcores_testing::stats::quantile;
use anyhow::{Context, bail, ensure};
use tempfile::TempDir;

use crate::bench::case::{Case, Expected, Plan};
use crate::bench::contender::{Contender, Contestant, Server, Setting, Way};
use crate::bench::load::{self, failed, float, ms};
use crate::bench::metric::Metric;
use crate::bench::record::{Metrics, Role, Sample};
use crate::bench::{Arguments, duration, machine};

const WORKERS: u16 = 2;

/// How many requests the app gets in a second: few enough to leave room for those who lay siege, on the same cores. Else
/// what is seen is how the cores are shared out.
const RATE: f64 = 500.0;

/// How long it is until the next question for the status.
const PAUSE: Duration = Duration::from_millis(20);

/// An answer that is not there by then is none.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) const CASE: Case = Case {
    name: "control",
    about: "node; what a control socket under siege costs the app's clients, and who commands it",
    metrics: &[
        Metric::lower("p50 ms"),
        Metric::lower("p99 ms").plotted(),
        Metric::lower("failed").summed(),
        Metric::lower("status p50 ms"),
        Metric::lower("status p99 ms").plotted(),
        Metric::lower("primary's CPU %"),
        Metric::informative("hostile"),
    ],
    expected: &[Expected::Never("failed")],
    remarks: "\
The app with nobody at its control socket but who asks for the status is the limit here. The clients that mean no good run on the \
same two cores, so that a part of what they cost is their own work: as many malformed requests to a socket of somebody else's, who \
refuses them without a look, show how much. With a thousand silent connections a command waits: 256 are served at a time, and none has to \
make room before it had 100 ms to ask.",
    plan,
};

fn plan(arguments: &Arguments) -> Plan {
    let time = duration(arguments.given.seconds);
    let contender = |name: &str, siege: Option<(Target, Means)>| {
        let server = Server::Node(arguments.node_server.clone());
        let setting = Setting { way: Way::allcores("auto"), server, workers: WORKERS };
        Contender::serving(name, setting, move |contestant: &Contestant, _| {
            Ok(Sample::only(measure(contestant, siege, time)?))
        })
    };
    Plan {
        title: format!(
            "{WORKERS} node workers answer at once, open loop, {RATE} requests a second; the status is asked for every {} ms",
            PAUSE.as_millis()
        ),
        packages: &[],
        contenders: vec![
            contender("nobody else", None).role(Role::Limit),
            contender(
                "as many, at a socket of somebody else's",
                Some((Target::Other, Means::Malformed(2000))),
            )
            .role(Role::Limit),
            contender("2,000 malformed requests a second", Some((Target::App, Means::Malformed(2000)))),
            contender("200 requests that never end", Some((Target::App, Means::Slow(200)))),
            contender("1,000 connections that say nothing", Some((Target::App, Means::Silent(1000)))),
        ],
        left_out: Vec::new(),
        each: load::time_of(time),
    }
}

fn measure(
    contestant: &Contestant,
    siege: Option<(Target, Means)>,
    time: Duration,
) -> anyhow::Result<Metrics> {
    let socket = contestant.control_socket().context("it has no control socket")?;
    let load = Load::new(contestant.address).rate(RATE);
    load::warm_up(&load, time)?;
    // Held until all is measured: its socket is in a folder of its own.
    let refuser = match siege {
        Some((Target::Other, _)) => Some(Refuser::start()?),
        _ => None,
    };
    let besieged = refuser.as_ref().map_or(&socket, |refuser| &refuser.socket);
    let siege = siege.map(|(_, means)| Siege::begin(besieged, means));
    let cpu = machine::cpu_time(&contestant.manager_pids());
    let (began, running) = (Instant::now(), load.spawn());
    let mut answers = Vec::new();
    while began.elapsed() < time {
        answers.push(ask(&socket)?);
        std::thread::sleep(PAUSE);
    }
    let report = running.stop();
    let cpu = machine::cpu_time(&contestant.manager_pids()).saturating_sub(cpu);
    let made = siege.as_ref().map_or(0, Siege::made);
    drop(siege);
    answers.sort_unstable();
    let answer = |part| ms(quantile(&answers, part).copied().unwrap_or_default());
    Ok(vec![
        ("p50 ms", ms(report.latencies.p50())),
        ("p99 ms", ms(report.latencies.p99())),
        ("failed", failed(&report)),
        ("status p50 ms", answer(0.5)),
        ("status p99 ms", answer(0.99)),
        ("primary's CPU %", 100.0 * cpu.as_secs_f64() / report.elapsed.as_secs_f64()),
        ("hostile", float(made)),
    ])
}

/// Whose control socket is laid siege to.
#[derive(Clone, Copy, Debug)]
enum Target {
    App,
    Other,
}

/// A socket at which every request is refused, whatever it is. Its thread ends with the process.
struct Refuser {
    socket: PathBuf,
    _folder: TempDir,
}

impl Refuser {
    fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let socket = folder.path().join("refuser");
        let listener = UnixListener::bind(&socket)?;
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                // Whoever has gone needs no answer.
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n");
            }
        });
        Ok(Self { socket, _folder: folder })
    }
}

/// How long an answer takes, from the connection on.
fn ask(socket: &Path) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /v1/status HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        bail!("the status was not answered within {PATIENCE:?}: {error}");
    }
    ensure!(answer.starts_with(b"HTTP/1.1 200"), "the status: {}", String::from_utf8_lossy(&answer));
    Ok(began.elapsed())
}
