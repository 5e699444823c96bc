//! The scale case: another number of workers under load, from two to six and back.
//!
//! A step up is over when the new workers listen, a step down when those that had to go are gone, and neither before the command
//! has ended.

use std::time::{Duration, Instant};

use crate::bench::Arguments;
use crate::bench::case::{Case, Expected, Plan};
use crate::bench::loads::{self, Loads};
use crate::bench::managed::{Managed, Manager};
use crate::bench::metric::Metric;
use crate::bench::record::Sample;

const FEW: u16 = 2;

const MANY: u16 = 6;

/// The clients that keep their connections never pause: each worker that goes takes all of the drain timeout.
const MANAGERS: [Manager; 2] = [Manager::Allcores(&["--drain-timeout=2s"]), Manager::Pm2];

pub(super) const CASE: Case = Case {
    name: "scale",
    about: "node; from 2 to 6 workers and back under load, beside PM2",
    metrics: &[
        Metric::lower("s up").plotted(),
        Metric::lower("s down").plotted(),
        loads::ANSWERED,
        loads::LOST.plotted(),
        loads::REPEATABLE,
        loads::REFUSED,
        loads::RESET,
        loads::TIMED_OUT,
        loads::CLOSED,
    ],
    expected: &[Expected::Never(loads::LOST.name)],
    remarks: "\
*Repeatable* and *lost* mean what they do when apps are reloaded.

A step up is over when the new workers listen, a step down when those that had to go are gone. Who lets its workers go without a \
word is quick at that; what it costs stands beside it. Clients that keep their connections and never pause make a worker that \
drains take all of `--drain-timeout`.",
    plan,
};

fn plan(arguments: &Arguments) -> Plan {
    let contender = |manager: Manager| manager.contender(&arguments.node_server, FEW, |app| measure(app));
    Plan {
        title: format!("{FEW} node workers, {MANY}, and {FEW} again; {}", loads::title()),
        packages: &[],
        contenders: MANAGERS.map(contender).into(),
        left_out: Vec::new(),
        each: Duration::from_secs(8),
    }
}

fn measure(app: &Managed) -> anyhow::Result<Vec<Sample>> {
    let loads = Loads::start(app.address)?;
    let up = step_up(app)?;
    loads.pass()?;
    let down = step_down(app)?;
    loads.pass()?;
    Ok(loads.stop().samples(vec![("s up", up), ("s down", down)]))
}

fn step_up(app: &Managed) -> anyhow::Result<f64> {
    let (began, listening) = (Instant::now(), app.listening());
    app.scale(MANY)?;
    app.wait_listening(listening + usize::from(MANY - FEW))?;
    Ok(began.elapsed().as_secs_f64())
}

fn step_down(app: &Managed) -> anyhow::Result<f64> {
    let began = Instant::now();
    app.scale(FEW)?;
    app.wait_workers(FEW)?;
    Ok(began.elapsed().as_secs_f64())
}
