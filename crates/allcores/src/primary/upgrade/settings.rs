//! Settings as data.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use allcores_core::channel::Serialization;
use allcores_core::pool::PoolSettings;
use serde::{Deserialize, Serialize};

use crate::carry::BytesSaved;
use crate::primary::{Health, HealthCheck, Host, Output, Settings, Upkeep};
use crate::signal::Signal;

/// Settings as data. Of a primary in a process of its own: no other is upgraded.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::primary) struct SettingsSaved {
    pub(super) name: String,
    command: Vec<BytesSaved>,
    #[serde(default)]
    cwd: Option<BytesSaved>,
    env: Vec<(BytesSaved, BytesSaved)>,
    #[serde(default)]
    uid: Option<u32>,
    #[serde(default)]
    gid: Option<u32>,
    policy: String,
    pending: usize,
    listen: Vec<SocketAddr>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pass_given: bool,
    adopt: bool,
    output: OutputSaved,
    #[serde(default)]
    inspect_port: Option<u16>,
    /// By its number.
    stop_signal: i32,
    #[serde(default)]
    mark: Option<String>,
    pool: PoolSettingsSaved,
    upkeep: UpkeepSaved,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OutputSaved {
    Capture,
    Inherit,
    Null,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting that stands for itself")]
struct PoolSettingsSaved {
    workers: u16,
    least: u16,
    keep: bool,
    min_uptime: Duration,
    max_restarts: u32,
    backoff: Duration,
    backoff_max: Duration,
    linger: Duration,
    drain_timeout: Duration,
    kill_timeout: Duration,
    disconnect_timeout: Duration,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    no_listen: bool,
    wait_ready: bool,
    wait_healthy: bool,
    ready_timeout: Duration,
    #[serde(default)]
    max_lifetime: Option<Duration>,
    #[serde(default)]
    hang_timeout: Option<Duration>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct UpkeepSaved {
    #[serde(default)]
    health: Option<HealthSaved>,
    #[serde(default)]
    watchdog: Option<Duration>,
    #[serde(default)]
    max_memory: Option<u64>,
    #[serde(default)]
    max_requests: Option<u64>,
    #[serde(default)]
    cgroup: Vec<(String, String)>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct HealthSaved {
    check: CheckSaved,
    timeout: Duration,
    interval: Duration,
    threshold: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum CheckSaved {
    Http(String),
    Tcp,
    Exec(BytesSaved),
}

impl From<&Settings> for SettingsSaved {
    fn from(settings: &Settings) -> Self {
        // Named one by one, so that none is forgotten here.
        let Settings {
            name,
            command,
            cwd,
            env,
            uid,
            gid,
            policy,
            pending,
            listen,
            // They are in the port table by now.
            given: _,
            pass_given,
            adopt,
            output,
            host: _,
            serialization: _,
            inspect_port,
            stop_signal,
            mark,
            pool,
            upkeep,
        } = settings;
        Self {
            name: name.clone(),
            command: command.iter().map(|word| word.as_os_str().into()).collect(),
            cwd: cwd.as_ref().map(|cwd| cwd.as_os_str().into()),
            env: env.iter().map(|(key, value)| (key.as_os_str().into(), value.as_os_str().into())).collect(),
            uid: *uid,
            gid: *gid,
            policy: policy.to_string(),
            pending: *pending,
            listen: listen.clone(),
            pass_given: *pass_given,
            adopt: *adopt,
            output: match output {
                Output::Capture => OutputSaved::Capture,
                Output::Inherit => OutputSaved::Inherit,
                Output::Null => OutputSaved::Null,
            },
            inspect_port: *inspect_port,
            stop_signal: stop_signal.number(),
            mark: mark.clone(),
            pool: pool.into(),
            upkeep: upkeep.into(),
        }
    }
}

impl TryFrom<SettingsSaved> for Settings {
    type Error = String;

    fn try_from(saved: SettingsSaved) -> Result<Self, String> {
        let policy = saved.policy.parse().map_err(|error| format!("{}: {error}", saved.policy))?;
        let stop_signal = Signal::from_number(saved.stop_signal)
            .ok_or_else(|| format!("there is no signal {}", saved.stop_signal))?;
        if saved.command.is_empty() {
            return Err("there is no command to run".into());
        }
        Ok(Self {
            name: saved.name,
            command: saved.command.into_iter().map(Into::into).collect(),
            cwd: saved.cwd.map(|cwd| PathBuf::from(std::ffi::OsString::from(cwd))),
            env: saved.env.into_iter().map(|(key, value)| (key.into(), value.into())).collect(),
            uid: saved.uid,
            gid: saved.gid,
            policy,
            pending: saved.pending,
            listen: saved.listen,
            given: Vec::new(),
            pass_given: saved.pass_given,
            adopt: saved.adopt,
            output: match saved.output {
                OutputSaved::Capture => Output::Capture,
                OutputSaved::Inherit => Output::Inherit,
                OutputSaved::Null => Output::Null,
            },
            host: Host::Process,
            serialization: Serialization::Json,
            inspect_port: saved.inspect_port,
            stop_signal,
            mark: saved.mark,
            pool: saved.pool.into(),
            upkeep: saved.upkeep.into(),
        })
    }
}

impl From<&PoolSettings> for PoolSettingsSaved {
    fn from(settings: &PoolSettings) -> Self {
        let PoolSettings {
            workers,
            least,
            keep,
            min_uptime,
            max_restarts,
            backoff,
            backoff_max,
            linger,
            drain_timeout,
            kill_timeout,
            disconnect_timeout,
            no_listen,
            wait_ready,
            wait_healthy,
            ready_timeout,
            max_lifetime,
            hang_timeout,
        } = *settings;
        Self {
            workers,
            least,
            keep,
            min_uptime,
            max_restarts,
            backoff,
            backoff_max,
            linger,
            drain_timeout,
            kill_timeout,
            disconnect_timeout,
            no_listen,
            wait_ready,
            wait_healthy,
            ready_timeout,
            max_lifetime,
            hang_timeout,
        }
    }
}

impl From<PoolSettingsSaved> for PoolSettings {
    fn from(saved: PoolSettingsSaved) -> Self {
        Self {
            workers: saved.workers,
            least: saved.least,
            keep: saved.keep,
            min_uptime: saved.min_uptime,
            max_restarts: saved.max_restarts,
            backoff: saved.backoff,
            backoff_max: saved.backoff_max,
            linger: saved.linger,
            drain_timeout: saved.drain_timeout,
            kill_timeout: saved.kill_timeout,
            disconnect_timeout: saved.disconnect_timeout,
            no_listen: saved.no_listen,
            wait_ready: saved.wait_ready,
            wait_healthy: saved.wait_healthy,
            ready_timeout: saved.ready_timeout,
            max_lifetime: saved.max_lifetime,
            hang_timeout: saved.hang_timeout,
        }
    }
}

impl From<&Upkeep> for UpkeepSaved {
    fn from(upkeep: &Upkeep) -> Self {
        let Upkeep { health, watchdog, max_memory, max_requests, cgroup } = upkeep;
        let health = health.as_ref().map(|Health { check, timeout, settings }| HealthSaved {
            check: match check {
                HealthCheck::Http { path } => CheckSaved::Http(path.clone()),
                HealthCheck::Tcp => CheckSaved::Tcp,
                HealthCheck::Exec { command } => CheckSaved::Exec(command.as_os_str().into()),
            },
            timeout: *timeout,
            interval: settings.interval,
            threshold: settings.threshold,
        });
        Self {
            health,
            watchdog: *watchdog,
            max_memory: *max_memory,
            max_requests: *max_requests,
            cgroup: cgroup.clone(),
        }
    }
}

impl From<UpkeepSaved> for Upkeep {
    fn from(saved: UpkeepSaved) -> Self {
        let health = saved.health.map(|HealthSaved { check, timeout, interval, threshold }| {
            let check = match check {
                CheckSaved::Http(path) => HealthCheck::Http { path },
                CheckSaved::Tcp => HealthCheck::Tcp,
                CheckSaved::Exec(command) => HealthCheck::Exec { command: command.into() },
            };
            Health::new(check).timeout(timeout).interval(interval).threshold(threshold)
        });
        Self {
            health,
            watchdog: saved.watchdog,
            max_memory: saved.max_memory,
            max_requests: saved.max_requests,
            cgroup: saved.cgroup,
        }
    }
}
