//! What servers in Python and Ruby have for several cores by themselves, to be compared with: each with the app of
//! `tests/fixtures`, and no more options than it needs.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use anyhow::Context;

use crate::baseline::wait_workers;
use crate::process::Process;
use crate::runtimes::{Install, Runtime};

/// A server with a manager of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framework {
    /// `uvicorn --workers N`.
    Uvicorn,
    /// gunicorn with uvicorn's workers, as uvicorn's documentation has it.
    Gunicorn,
    /// granian, which reads HTTP in Rust.
    Granian,
    /// puma in cluster mode.
    Puma,
}

impl Framework {
    /// The runtime whose app it serves.
    pub fn runtime(self) -> Runtime {
        match self {
            Self::Uvicorn | Self::Gunicorn | Self::Granian => Runtime::Uvicorn,
            Self::Puma => Runtime::Puma,
        }
    }

    /// Starts it and waits until every worker has answered.
    ///
    /// # Errors
    ///
    /// If it is not installed, or a worker does not answer in time.
    pub fn start(self, workers: u16, address: SocketAddr) -> anyhow::Result<RunningFramework> {
        let runtime = self.runtime();
        let (host, port) = (address.ip(), address.port());
        let (program, arguments): (OsString, String) = match self {
            Self::Uvicorn => (
                Install::Python.product("bin/uvicorn")?,
                format!("app:app --host {host} --port {port} --workers {workers}"),
            ),
            // Its control socket would lie in the home folder.
            Self::Gunicorn => (
                Install::Python.product("bin/gunicorn")?,
                format!(
                    "--no-control-socket --bind {address} -w {workers} -k uvicorn_worker.UvicornWorker app:app"
                ),
            ),
            Self::Granian => (
                Install::Python.product("bin/granian")?,
                format!("--interface asgi --host {host} --port {port} --workers {workers} app:app"),
            ),
            Self::Puma => (runtime.program()?, format!("-w {workers} -b tcp://{address} config.ru")),
        };
        let mut command = Command::new(program);
        command
            .args(arguments.split_whitespace())
            .current_dir(runtime.cwd())
            .envs(environment(runtime, address));
        let process = Process::spawn(command.stdin(Stdio::null()))?;
        let workers = wait_workers(address, workers.into())
            .with_context(|| format!("{self:?}: {:#?}", process.lines()))?;
        Ok(RunningFramework { process, workers })
    }
}

/// The variables of a runtime's server, whoever runs it, as it is compared: no line for each request, which of these uvicorn
/// alone would write.
pub fn environment(runtime: Runtime, address: SocketAddr) -> Vec<(&'static str, OsString)> {
    let mut variables = runtime.env(address);
    if runtime == Runtime::Uvicorn {
        variables.push(("UVICORN_ACCESS_LOG", "false".into()));
    }
    variables
}

/// A server that serves. Dropping it ends it.
#[derive(Debug)]
pub struct RunningFramework {
    process: Process,
    workers: BTreeSet<u32>,
}

impl RunningFramework {
    /// The process id of its manager.
    pub fn manager_pid(&self) -> u32 {
        self.process.pid()
    }

    /// The process ids of its workers, as they were when it began to serve.
    pub fn worker_pids(&self) -> &BTreeSet<u32> {
        &self.workers
    }

    /// Ends it with SIGTERM and waits for that.
    ///
    /// # Errors
    ///
    /// If it had to be killed.
    pub fn stop(&self) -> anyhow::Result<()> {
        self.process.stop().map(drop)
    }
}
