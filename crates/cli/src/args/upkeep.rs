//! The options by which workers are looked after: when one is ready, whether it is well, how long it may live.

use std::ffi::OsString;
use std::time::Duration;

use super::values;

/// When a worker is ready, whether it is well, how long it may live.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Ready and health")]
pub(crate) struct UpkeepArgs {
    /// Give a worker no connections before it says that it is ready
    ///
    /// It says so by READY=1 as sd_notify(3) does, or in node by `process.send('ready')`.
    #[arg(long)]
    pub(crate) wait_ready: bool,

    /// With --wait-ready, a health check, or in a reload: a worker that is not ready after this has failed
    #[arg(hide_short_help = true, long, value_name = "DURATION", default_value = "60s", value_parser = values::positive_duration)]
    pub(crate) ready_timeout: Duration,

    /// Ask each worker for this path; replace it if not well
    ///
    /// By HTTP; a status from 200 to 399 is well. Each worker is asked by itself, through its own queue. One that has not passed once gets no connections; one that
    /// fails --health-threshold times in a row gets a successor, and goes when that has passed. Where all workers accept
    /// from one listener (`--policy shared`, Unix sockets) nobody can be asked by himself: what fails is told, and
    /// nothing is done about it.
    #[arg(long, value_name = "PATH", value_parser = values::path, group = "health")]
    pub(crate) health_http: Option<String>,

    /// The same by connecting: a worker that accepts is well
    #[arg(hide_short_help = true, long, group = "health")]
    pub(crate) health_tcp: bool,

    /// The same by a command, run by `sh -c` for each worker; exit code 0 is well. ALLCORES_WORKER_PID,
    /// ALLCORES_WORKER_ID, ALLCORES_SLOT and ALLCORES_ADDRESS say which
    #[arg(hide_short_help = true, long, value_name = "COMMAND", group = "health")]
    pub(crate) health_exec: Option<OsString>,

    /// How long after a health check the next one follows
    #[arg(hide_short_help = true, long, value_name = "DURATION", default_value = "5s", value_parser = values::positive_duration)]
    pub(crate) health_interval: Duration,

    /// How long a health check may take
    #[arg(hide_short_help = true, long, value_name = "DURATION", default_value = "2s", value_parser = values::positive_duration)]
    pub(crate) health_timeout: Duration,

    /// How many health checks in a row must fail for a worker to be replaced
    #[arg(hide_short_help = true, long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) health_threshold: u32,

    /// Replace a worker that has not sent WATCHDOG=1 by sd_notify(3) for this long; it is told by WATCHDOG_USEC
    #[arg(hide_short_help = true, long, value_name = "DURATION", value_parser = values::positive_duration)]
    pub(crate) watchdog: Option<Duration>,

    /// Replace a worker that takes more memory: 512M, 2G
    ///
    /// What counts is the resident memory of all its processes.
    #[arg(long, value_name = "SIZE", value_parser = values::memory)]
    pub(crate) max_memory: Option<u64>,

    /// Replace a worker that has lived for this long, more or less a tenth
    #[arg(hide_short_help = true, long, value_name = "DURATION", value_parser = values::positive_duration)]
    pub(crate) max_lifetime: Option<Duration>,

    /// Replace a worker that says that it has served this many requests, by X_ALLCORES_REQUESTS=N on its NOTIFY_SOCKET
    #[arg(hide_short_help = true, long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_requests: Option<u64>,

    /// Have the kernel hold each worker with all its descendants to this limit: memory.max=512M, pids.max=64; may be given
    /// more than once
    ///
    /// LIMIT is a file of a cgroup, version 2, and VALUE is written to it. Each worker gets a cgroup of its own, below the one
    /// that allcores was started in, which has to be ours to divide: as a systemd service with `Delegate=yes`, by
    /// `systemd-run --user --scope -p Delegate=yes`, or in a container with a writable cgroup file system.
    #[arg(hide_short_help = true, long, value_name = "LIMIT=VALUE", value_parser = values::cgroup_limit)]
    pub(crate) cgroup: Vec<(String, String)>,
}
