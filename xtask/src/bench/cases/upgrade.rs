//! The upgrade case: another process of the same program takes over from the manager under load.
//!
//! It is over when the command has ended and, of those who start their workers anew, all of these listen.

use std::time::{Duration, Instant};

use crate::bench::Arguments;
use crate::bench::case::{Case, Expected, Plan};
use crate::bench::loads::{self, Loads};
use crate::bench::managed::{Managed, Manager};
use crate::bench::metric::Metric;
use crate::bench::record::Sample;

const WORKERS: u16 = 4;

const MANAGERS: [Manager; 2] = [Manager::Allcores(&[]), Manager::Pm2];

pub(super) const CASE: Case = Case {
    name: "upgrade",
    about: "node; the manager becomes another process of its program under load, beside PM2",
    metrics: &[
        Metric::lower("s an upgrade").plotted(),
        loads::ANSWERED,
        loads::LOST.plotted(),
        loads::REPEATABLE,
        loads::REFUSED,
        loads::RESET,
        loads::TIMED_OUT,
        loads::CLOSED,
    ],
    expected: &[Expected::Never(loads::LOST.name), Expected::Never(loads::REPEATABLE.name)],
    remarks: "\
*Repeatable* and *lost* mean what they do when apps are reloaded.

`allcores upgrade` executes the new program in the old one's place and leaves the workers as they are. PM2's counterpart is `pm2 \
update`, to be run after each new version of PM2: it ends the daemon and all workers and starts them anew.",
    plan,
};

fn plan(arguments: &Arguments) -> Plan {
    let contender = |manager: Manager| manager.contender(&arguments.node_server, WORKERS, |app| measure(app));
    Plan {
        title: format!("to the same program, {WORKERS} node workers; {}", loads::title()),
        packages: &[],
        contenders: MANAGERS.map(contender).into(),
        left_out: Vec::new(),
        each: Duration::from_secs(5),
    }
}

fn measure(app: &Managed) -> anyhow::Result<Vec<Sample>> {
    let loads = Loads::start(app.address)?;
    let took = upgrade(app)?;
    loads.pass()?;
    Ok(loads.stop().samples(vec![("s an upgrade", took)]))
}

fn upgrade(app: &Managed) -> anyhow::Result<f64> {
    let (before, listening, began) = (app.workers()?, app.listening(), Instant::now());
    app.upgrade()?;
    if app.workers()? != before {
        // PM2's daemon has other children too, for a moment.
        app.wait_listening(listening + usize::from(WORKERS))?;
    }
    Ok(began.elapsed().as_secs_f64())
}
