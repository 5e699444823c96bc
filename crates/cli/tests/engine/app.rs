//! Apps to be tested, and their workers as `allcores status` tells of them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Output;

use allcores_testing::app::{App, RunningApp};
use allcores_testing::runtimes::{Runtime, fixture};
use serde_json::Value;

use crate::proc;

/// Describes an app that runs this command by the program under test.
pub(crate) fn command<S: Into<OsString>>(command: impl IntoIterator<Item = S>) -> App {
    App::new(command).binary(env!("CARGO_BIN_EXE_allcores"))
}

/// Describes an app that runs the server of a runtime which is not missing.
pub(crate) fn server(runtime: Runtime, address: SocketAddr) -> App {
    let app = command(runtime.command(address).unwrap()).folder(runtime.cwd());
    runtime.env(address).into_iter().fold(app, |app, (name, value)| app.env(name, value))
}

/// Describes an app that runs a script below `tests/fixtures` at an address.
pub(crate) fn script(interpreter: Runtime, path: &str) -> App {
    let path = fixture(path).into_os_string();
    command([interpreter.program().unwrap(), path]).env("PYTHONDONTWRITEBYTECODE", "1")
}

/// The workers of an app, by slot.
pub(crate) fn workers(status: &Value) -> BTreeMap<u64, u32> {
    let worker = |worker: &Value| {
        let pid = worker["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        (worker["slot"].as_u64().expect("a slot is a number"), pid.expect("the worker runs"))
    };
    status["workers"].as_array().expect("workers are a list").iter().map(worker).collect()
}

/// Stops all workers with SIGSTOP, and waits until they stand still.
pub(crate) fn hold_still(workers: &BTreeMap<u64, u32>) {
    for pid in workers.values() {
        proc::stop_group(*pid);
    }
}

/// Lets them go on.
pub(crate) fn let_run(workers: &BTreeMap<u64, u32>) {
    for pid in workers.values() {
        proc::resume_group(*pid);
    }
}

/// The slot whose worker is this process or an ancestor of it.
pub(crate) fn slot_of(workers: &BTreeMap<u64, u32>, pid: u32) -> Option<u64> {
    let line = std::iter::successors(Some(pid), |pid| proc::parent(*pid));
    line.take_while(|pid| *pid > 1)
        .find_map(|pid| workers.iter().find(|(_, worker)| **worker == pid).map(|(slot, _)| *slot))
}

/// How many answers each slot gave, from how many each pid gave.
#[track_caller]
pub(crate) fn by_slot(workers: &BTreeMap<u64, u32>, by_pid: &BTreeMap<String, u64>) -> BTreeMap<u64, u64> {
    let mut by_slot = BTreeMap::new();
    for (pid, count) in by_pid {
        let slot = pid.parse().ok().and_then(|pid| slot_of(workers, pid));
        let slot = slot.unwrap_or_else(|| panic!("{pid:?} is no worker's: {workers:?}"));
        *by_slot.entry(slot).or_default() += count;
    }
    by_slot
}

/// Asks for another number of workers, and waits until it is so.
#[track_caller]
pub(crate) fn scale(app: &RunningApp, workers: u16) {
    let Output { status, stderr, .. } = app.run(["scale", app.name(), &workers.to_string()]).unwrap();
    assert!(status.success(), "scale to {workers}: {status}: {}", String::from_utf8_lossy(&stderr));
}

/// A name for a Unix socket in the app-to-be's own folder.
pub(crate) fn socket_in(folder: &Path) -> String {
    folder.join("server.sock").to_str().expect("temporary folders have plain names").to_owned()
}
