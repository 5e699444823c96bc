//! The idle case: eight workers, and nobody asks for anything. What the manager uses meanwhile, and what it has in memory.
//!
//! Before it is looked at, the app has answered for a while and rested: what is done once, and what is done late, is not counted.

use std::time::{Duration, Instant};

use allcores_testing::cost::{Memory, Usage};
use allcores_testing::load::Load;
use anyhow::Context;

use crate::bench::case::{Case, Expected, Plan};
use crate::bench::load::{self, float, mebibytes, ms};
use crate::bench::managed::{Managed, Manager};
use crate::bench::metric::Metric;
use crate::bench::record::{Metrics, Sample};
use crate::bench::{Arguments, duration};

const WORKERS: u16 = 8;

/// How long nothing happens before it is looked at.
const REST: Duration = Duration::from_secs(1);

const MANAGERS: [Manager; 3] = [Manager::Allcores(&[]), Manager::NodeCluster, Manager::Pm2];

pub(super) const CASE: Case = Case {
    name: "idle",
    about: "node; 8 workers and no request: what the manager uses, and its memory",
    metrics: &[
        Metric::lower("CPU ms/s").plotted(),
        Metric::lower("wakeups/s").plotted(),
        Metric::lower("resident MiB"),
        Metric::lower("proportional MiB"),
        Metric::lower("private MiB").plotted(),
    ],
    expected: &[
        Expected::NotWorse { metric: "CPU ms/s", ours: "allcores", than: "PM2", group: "" },
        Expected::NotWorse { metric: "wakeups/s", ours: "allcores", than: "PM2", group: "" },
        Expected::NotWorse { metric: "private MiB", ours: "allcores", than: "node:cluster", group: "" },
        Expected::NotWorse { metric: "private MiB", ours: "allcores", than: "PM2", group: "" },
    ],
    remarks: "\
A wakeup is a wait of any of the manager's threads that has come to its end (`voluntary_ctxt_switches`). Resident memory has the \
program's code in it, which other processes of the program have too: the proportional figure divides what is shared among those \
who share it, so that node's managers have a part only of what node is; the private one leaves it out.",
    plan,
};

fn plan(arguments: &Arguments) -> Plan {
    let time = duration(arguments.given.seconds);
    let contender = |manager: Manager| {
        manager.contender(&arguments.node_server, WORKERS, move |app| Ok(Sample::only(measure(app, time)?)))
    };
    Plan {
        title: format!("{WORKERS} node workers, nobody asks for anything; the manager"),
        packages: &[],
        contenders: MANAGERS.map(contender).into(),
        left_out: Vec::new(),
        each: load::time_of(time) + REST + Duration::from_secs(1),
    }
}

fn measure(app: &Managed, time: Duration) -> anyhow::Result<Metrics> {
    load::warm_up(&Load::new(app.address), time)?;
    std::thread::sleep(REST);
    let manager = app.manager().context("the manager is gone")?;
    let (began, before) = (Instant::now(), Usage::of(manager)?);
    std::thread::sleep(time);
    let (used, elapsed) = (Usage::of(manager)?.since(before), began.elapsed().as_secs_f64());
    let memory = Memory::of(manager)?;
    Ok(vec![
        ("CPU ms/s", ms(used.cpu) / elapsed),
        ("wakeups/s", float(used.waits) / elapsed),
        ("resident MiB", mebibytes(memory.resident)),
        ("proportional MiB", mebibytes(memory.proportional)),
        ("private MiB", mebibytes(memory.private)),
    ])
}
