//! A primary that dies without a chance to clean up.

use std::time::{Duration, Instant};

use allcores_testing::load::Load;
use allcores_testing::runtimes::{Runtime, require};
use allcores_testing::{address, machine};
use rustix::process::Signal;

use crate::proc::Process;
use crate::{app, proc};

const WORKERS: u16 = 4;

/// How long a worker may take to see that the primary is gone, and to go.
const NOTICE: Duration = Duration::from_secs(5);

fn ends_its_workers_and_leaves_its_name(runtime: Runtime) {
    let Some(runtime) = require(runtime) else { return };
    let _turn = machine::together();
    let address = address::unused();
    let server = || {
        let server = app::server(runtime, address).workers(WORKERS);
        match runtime {
            // Its master listens before its own worker can be told anything, and waits for that for half a minute.
            Runtime::Gunicorn => server.option("--health-http=/"),
            _ => server,
        }
    };
    let first = server().start().unwrap();
    first.wait_ready(WORKERS.into()).unwrap();
    let workers = app::workers(&first.status().unwrap());
    let members: Vec<Process> =
        workers.values().flat_map(|worker| proc::session(*worker)).filter_map(Process::open).collect();
    assert!(members.len() >= workers.len(), "{members:?}");

    let killed = Instant::now();
    first.signal(Signal::KILL).unwrap();
    first.wait(NOTICE).unwrap();
    for member in &members {
        assert!(member.has_ended_within(NOTICE), "{} of {members:?} is left", member.pid);
    }
    eprintln!(
        "{runtime}: all of {} processes gone {:.0?} after the primary",
        members.len(),
        killed.elapsed()
    );
    let folder = first.runtime_folder().join(first.name());
    assert!(folder.join("control.sock").exists() && folder.join("lock").exists(), "nothing stale is left");

    let second = server().again(&first).start().unwrap();
    second.wait_ready(WORKERS.into()).unwrap();
    assert_eq!(second.status().unwrap()["pid"], second.pid());
    let report = Load::new(address).requests(20).run_blocking();
    assert!(report.is_clean(), "{report}");
    assert_eq!(second.stop().unwrap().code(), Some(0), "{:#?}", second.lines());
}

macro_rules! each {
    ($($name:ident: $runtime:ident,)+) => {
        $(#[test]
        fn $name() {
            ends_its_workers_and_leaves_its_name(Runtime::$runtime);
        })+
    };
}

each! {
    a_killed_primary_takes_its_python_workers_with_it_and_leaves_its_name: Python,
    a_killed_primary_takes_its_node_workers_with_it_and_leaves_its_name: Node,
    a_killed_primary_takes_its_go_workers_with_it_and_leaves_its_name: Go,
    a_killed_primary_takes_its_gunicorn_workers_with_it_and_leaves_its_name: Gunicorn,
}
