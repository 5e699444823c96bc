//! The start case: how long it is from the start of the command until all workers listen, and what manager and workers have in
//! memory then.

use std::path::Path;
use std::time::Duration;

use allcores_testing::cost::Memory;
use anyhow::{Context, ensure};

use crate::bench::Arguments;
use crate::bench::case::{Case, Expected, Plan};
use crate::bench::contender::Turn;
use crate::bench::load::mebibytes;
use crate::bench::managed::Manager;
use crate::bench::metric::Metric;
use crate::bench::record::{Metrics, Sample};

const WORKERS: [u16; 3] = [2, 16, 64];

const MANAGERS: [Manager; 3] = [Manager::Allcores(&[]), Manager::NodeCluster, Manager::Pm2];

pub(super) const CASE: Case = Case {
    name: "start",
    about: "node; 2, 16 and 64 workers: how long until all listen, and the memory of manager and workers",
    metrics: &[
        Metric::lower("s until all listen").plotted(),
        Metric::lower("manager's MiB").plotted(),
        Metric::lower("a worker's MiB"),
    ],
    expected: &[
        Expected::NotWorse { metric: "manager's MiB", ours: "allcores", than: "node:cluster", group: "" },
        Expected::NotWorse { metric: "manager's MiB", ours: "allcores", than: "PM2", group: "" },
    ],
    remarks: "\
A worker listens when its own server says so, whoever runs it. Each worker is a runtime that boots, so that with many of them it \
is mostly the cores that are measured. PM2's time has that of its daemon in it, which is started with the first app.

Memory is resident memory, code included. Workers share their code: so many times a worker's is more than the machine has to have.",
    plan,
};

fn plan(arguments: &Arguments) -> Plan {
    let contender = |workers, manager: Manager| {
        let server = arguments.node_server.clone();
        let measure =
            move |turn: Turn<'_>| Ok(Sample::only(measure(manager, &server, workers, turn.binary)?));
        manager.measured(measure).group(format!("{workers} workers"))
    };
    Plan {
        title: format!(
            "{} node workers, from the start of the command",
            WORKERS.map(|n| n.to_string()).join(", ")
        ),
        packages: &[],
        contenders: WORKERS
            .into_iter()
            .flat_map(|workers| MANAGERS.map(|manager| contender(workers, manager)))
            .collect(),
        left_out: Vec::new(),
        each: Duration::from_secs(6),
    }
}

fn measure(manager: Manager, server: &Path, workers: u16, binary: &Path) -> anyhow::Result<Metrics> {
    let (app, took) = manager.start(server, workers, binary)?;
    let pids = app.workers()?;
    ensure!(
        pids.len() == usize::from(workers),
        "{workers} workers were started, and there are {}",
        pids.len()
    );
    let resident = |pid| Memory::of(pid).map(|memory| mebibytes(memory.resident));
    let of_manager = resident(app.manager().context("the manager is gone")?)?;
    let of_workers: Vec<f64> = pids.into_iter().map(resident).collect::<anyhow::Result<_>>()?;
    app.stop()?;
    Ok(vec![
        ("s until all listen", took.as_secs_f64()),
        ("manager's MiB", of_manager),
        ("a worker's MiB", of_workers.iter().sum::<f64>() / f64::from(workers)),
    ])
}
