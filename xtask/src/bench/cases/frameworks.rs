//! The frameworks case: servers in Python and Ruby, one process each under allcores, beside what they have for several cores
//! by themselves.

use allcores_testing::framework::Framework;
use allcores_testing::load::{Load, Mode};
use allcores_testing::runtimes::Runtime;

use super::memory;
use crate::bench::case::{Case, Expected, Plan};
use crate::bench::contender::{Contender, Contestant, Server, Setting, Turn, Way, absent_peers};
use crate::bench::load::{self, COST};
use crate::bench::metric::Metric;
use crate::bench::record::Sample;
use crate::bench::{Arguments, duration};

const WORKERS: u16 = 4;

const CLIENTS: usize = 8;

pub(super) const CASE: Case = Case {
    name: "frameworks",
    about: "uvicorn and puma: one process each under allcores, beside uvicorn's, gunicorn's, granian's and puma's own managers",
    metrics: &[
        Metric::higher("requests/s").plotted(),
        Metric::lower("p50 ms"),
        Metric::lower("p99 ms").plotted(),
        Metric::lower(COST),
        Metric::lower("failed").summed(),
        Metric::lower("manager's RSS MiB").plotted(),
        Metric::lower("manager's private MiB"),
        Metric::lower("a worker's RSS MiB"),
        Metric::lower("a worker's private MiB"),
    ],
    expected: &[Expected::NotWorse {
        metric: "manager's RSS MiB",
        ours: "allcores auto, uvicorn",
        than: "gunicorn, uvicorn's workers",
        group: "",
    }],
    remarks: "\
uvicorn reads HTTP with `h11`, in Python, under all three who run it, and writes no line for each request. granian is another server: it reads HTTP in Rust, which \
no manager of uvicorn can make up for. gunicorn and puma load the app in each worker here, too: neither was told to load it before it \
forks. puma has five threads a process, which answer one at a time.",
    plan,
};

fn plan(arguments: &Arguments) -> Plan {
    let time = duration(arguments.given.seconds);
    let contender = |(name, group, way, runtime)| {
        let setting = Setting { way, server: Server::Runtime(runtime), workers: WORKERS };
        let measure = move |contestant: &Contestant, _: Turn<'_>| {
            [Mode::ConnectionPerRequest, Mode::KeepAlive]
                .into_iter()
                .map(|mode| {
                    let load = Load::new(contestant.address).clients(CLIENTS).mode(mode);
                    let mut metrics = load::closed_loop(&load, time, contestant)?;
                    metrics.extend(memory::memory(contestant)?);
                    let name = match mode {
                        Mode::ConnectionPerRequest => "a connection for each request",
                        Mode::KeepAlive => "connections are kept",
                    };
                    Ok(Sample { load: name.into(), metrics })
                })
                .collect()
        };
        Contender::serving(name, setting, measure).group(group)
    };
    let (python, ruby) = ("ASGI", "Rack");
    Plan {
        title: format!("answers at once, {CLIENTS} clients, {WORKERS} workers"),
        packages: &[],
        contenders: [
            ("allcores auto, uvicorn", python, Way::allcores("auto"), Runtime::Uvicorn),
            ("uvicorn --workers", python, Way::Framework(Framework::Uvicorn), Runtime::Uvicorn),
            ("gunicorn, uvicorn's workers", python, Way::Framework(Framework::Gunicorn), Runtime::Uvicorn),
            ("granian", python, Way::Framework(Framework::Granian), Runtime::Uvicorn),
            ("allcores auto, puma", ruby, Way::allcores("auto"), Runtime::Puma),
            ("puma, cluster mode", ruby, Way::Framework(Framework::Puma), Runtime::Puma),
        ]
        .map(contender)
        .into(),
        left_out: absent_peers(),
        each: load::time_of(time) * 2,
    }
}
