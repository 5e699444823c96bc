//! The control case: what clients of the control socket that mean no good cost those of the app, and those who command it.
//!
//! An app under load is asked for its status, again and again, by the socket; with nobody else there, and under each kind
//! of siege.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use allcores_testing::load::Load;
use allcores_testing::siege::{Means, Siege};
use allcores_testing::stats::quantile;
use anyhow::{Context, bail, ensure};

use super::cases::{Plan, failed, float, ms, warm_up};
use super::contender::{Contender, Contestant, Server};
use super::{Arguments, Metrics, duration, machine};

/// How many requests the app gets in a second: few enough to leave room for those who lay siege, on the same cores. Else
/// what is seen is how the cores are shared out.
const RATE: f64 = 500.0;

/// How long it is until the next question for the status.
const PAUSE: Duration = Duration::from_millis(20);

/// An answer that is not there by then is none.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn plan(arguments: &Arguments) -> Plan {
    let time = duration(arguments.seconds);
    let contender = |name: &str| Contender::allcores(name, "auto").workers(2);
    Plan {
        title: format!(
            "answers at once, open loop, {RATE} requests a second; and the status is asked for, every {} ms",
            PAUSE.as_millis()
        ),
        server: Server::Node(arguments.node_server.clone()),
        packages: &[],
        contenders: vec![
            contender("nobody else"),
            contender("2,000 malformed requests a second").siege(Means::Malformed(2000)),
            contender("200 requests that never end").siege(Means::Slow(200)),
            contender("1,000 connections that say nothing").siege(Means::Silent(1000)),
        ],
        measure: Box::new(move |contestant: &Contestant, _| measure(contestant, time)),
    }
}

fn measure(contestant: &Contestant, time: Duration) -> anyhow::Result<Metrics> {
    let socket = contestant.control_socket().context("it has no control socket")?;
    let load = Load::new(contestant.address).rate(RATE);
    warm_up(&load)?;
    let siege = contestant.siege.map(|means| Siege::begin(&socket, means));
    let cpu = machine::cpu_time(contestant.primary_pid());
    let (began, running) = (Instant::now(), load.spawn());
    let mut answers = Vec::new();
    while began.elapsed() < time {
        answers.push(ask(&socket)?);
        std::thread::sleep(PAUSE);
    }
    let report = running.stop();
    let cpu = machine::cpu_time(contestant.primary_pid()).saturating_sub(cpu);
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
