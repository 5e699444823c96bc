//! A cluster to be.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use allcores_core::channel::Serialization;
use allcores_core::policy::Policy;
use allcores_core::pool::PoolSettings;

use super::settings::Plan;
use super::{Calls, Cluster, ClusterSettings, Shared, Stdio, thread};
use crate::error::{Error, ErrorKind};
use crate::primary::{Health, Host, Output, Primary, Settings, Upkeep};
use crate::signal::Signal;
use crate::worker::Worker;

/// A cluster to be: node:cluster's `setupPrimary`, and what the engine offers beyond it.
///
/// As it is it starts none: workers are forked by [`Cluster::fork`], run the primary's own program with the same
/// arguments, write to the same terminal, and are not replaced when they go.
///
/// # Examples
///
/// Keep four workers alive, whatever becomes of them:
///
/// ```no_run
/// # async fn example() -> Result<(), allcores::Error> {
/// let builder = allcores::Builder::new().exec("/usr/local/bin/server");
/// let cluster = builder.workers(4).keep(true).start().await?;
/// # Ok(())
/// # }
/// ```
///
/// A program that is its own workers gets its builder from [`role`](crate::role()): without asking that first, each
/// worker would start a cluster in its turn, which [`start`](Self::start) refuses. In a test the program is the test itself,
/// with all that is in it; so name another by [`exec`](Self::exec): `env!("CARGO_BIN_EXE_server")`.
#[derive(Clone, Debug)]
#[must_use = "nothing is started before `start`"]
#[doc(alias = "setupPrimary")]
pub struct Builder {
    settings: ClusterSettings,
    name: Option<String>,
    policy: Option<Policy>,
    workers: usize,
    adopt: bool,
    pending: usize,
    stop_signal: Signal,
    pool: PoolSettings,
    upkeep: Upkeep,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            settings: ClusterSettings::default(),
            name: None,
            policy: None,
            workers: 0,
            adopt: false,
            pending: 1024,
            stop_signal: Signal::TERM,
            pool: PoolSettings { least: 0, keep: false, ..PoolSettings::default() },
            upkeep: Upkeep::default(),
        }
    }
}

impl Builder {
    /// A cluster by default settings.
    pub fn new() -> Self {
        Self::default()
    }

    /// Names the cluster: workers find it in `ALLCORES_NAME`. By default the name of the program that runs.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Has workers execute this program, searched in PATH, with no arguments unless [`args`](Self::args) gives some. By
    /// default they run the primary's own, with its arguments.
    pub fn exec(mut self, program: impl Into<OsString>) -> Self {
        self.settings = self.settings.exec(program);
        self
    }

    /// Has workers run this script with node: `exec("node")`, with the script in front of the arguments.
    pub fn node(mut self, script: impl Into<OsString>) -> Self {
        self.settings = self.settings.node(script);
        self
    }

    /// Gives arguments that go in front of the script and of [`args`](Self::args): node's own options.
    #[doc(alias = "execArgv")]
    pub fn exec_args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.settings = self.settings.exec_args(args);
        self
    }

    /// Gives workers' arguments, verbatim and all of them.
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.settings = self.settings.args(args);
        self
    }

    /// Has workers start in this folder.
    pub fn cwd(mut self, folder: impl Into<PathBuf>) -> Self {
        self.settings = self.settings.cwd(folder);
        self
    }

    /// Adds a variable to workers' environment, or replaces one.
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.settings = self.settings.env(key, value);
        self
    }

    /// Has workers run as this user, without supplementary groups.
    pub fn uid(mut self, uid: u32) -> Self {
        self.settings = self.settings.uid(uid);
        self
    }

    /// Has workers run as this group, and as no other.
    pub fn gid(mut self, gid: u32) -> Self {
        self.settings = self.settings.gid(gid);
        self
    }

    /// Says where workers' standard streams lead.
    pub fn stdio(mut self, stdio: Stdio) -> Self {
        self.settings = self.settings.stdio(stdio);
        self
    }

    /// `true` is [`Stdio::Piped`], `false` is [`Stdio::Inherit`].
    pub fn silent(mut self, is_silent: bool) -> Self {
        self.settings = self.settings.silent(is_silent);
        self
    }

    /// Says how messages are written on the channel.
    pub fn serialization(mut self, serialization: Serialization) -> Self {
        self.settings = self.settings.serialization(serialization);
        self
    }

    /// Sets the inspector's port in the first worker, for node workers with an inspector; the others count on from it.
    #[doc(alias = "inspectPort")]
    pub fn inspect_port(mut self, port: u16) -> Self {
        self.settings = self.settings.inspect_port(port);
        self
    }

    /// Says how connections reach workers. By default [`Policy::Auto`], unless the environment says otherwise by
    /// `NODE_CLUSTER_SCHED_POLICY` (`rr` or `none`).
    #[doc(alias = "schedulingPolicy")]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Forks so many workers at the start. By default none.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Replaces workers that go without having been asked to, those that were disconnected, and those that hang. By
    /// default, as in Node, nobody is replaced.
    ///
    /// A worker that was up for [`min_uptime`](Self::min_uptime) is replaced at once, one that exits earlier after a
    /// [`backoff`](Self::backoff). If no worker ever served and all keep exiting early, more than
    /// [`max_restarts`](Self::max_restarts) times in a row, the cluster [ends](Cluster::ended): by default that takes some two
    /// seconds where each exits at once.
    pub fn keep(mut self, is_kept: bool) -> Self {
        self.pool.keep = is_kept;
        self
    }

    /// A worker that was up this long has started well. By default 1 s.
    pub fn min_uptime(mut self, uptime: Duration) -> Self {
        self.pool.min_uptime = uptime;
        self
    }

    /// More early exits in a row than this are a crash loop. By default 5.
    pub fn max_restarts(mut self, restarts: u32) -> Self {
        self.pool.max_restarts = restarts;
        self
    }

    /// The first wait before a worker that exited early again is replaced; it doubles up to 15 s. By default 100 ms.
    pub fn backoff(mut self, backoff: Duration) -> Self {
        self.pool.backoff = backoff;
        self.pool.backoff_max = self.pool.backoff_max.max(backoff);
        self
    }

    /// How long workers may finish their connections when the cluster stops or shrinks, before they are asked to go all
    /// the same. By default 10 s.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.pool.drain_timeout = timeout;
        self
    }

    /// How long a worker that was asked to go may take before it is killed. Half a second before that, its connections are
    /// ended as if its clients had nothing more to ask. By default 5 s when the cluster stops or
    /// shrinks, and without end when it was disconnected, as in Node; when set, it holds for both.
    pub fn kill_timeout(mut self, timeout: Duration) -> Self {
        self.pool.kill_timeout = timeout;
        self.pool.disconnect_timeout = timeout;
        self
    }

    /// What a worker gets that was asked to go and does not, before it is killed; and at once, one that knows nothing of
    /// the channel. By default `SIGTERM`.
    pub fn stop_signal(mut self, signal: Signal) -> Self {
        self.stop_signal = signal;
        self
    }

    /// Tells of workers for which connections wait while they take none for so long, and replaces them where they are
    /// [kept](Self::keep). By default nobody looks.
    pub fn hang_timeout(mut self, timeout: Duration) -> Self {
        self.pool.hang_timeout = Some(timeout);
        self
    }

    /// A worker gets no connections before it has said that it is ready: by [`Worker::ready`], `READY=1` of sd_notify(3), or
    /// node's `process.send('ready')`. By default one that listens is ready.
    pub fn wait_ready(mut self, is_on: bool) -> Self {
        self.pool.wait_ready = is_on;
        self
    }

    /// Where workers have to say that they are ready, or to pass a health check, and in a [reload](Cluster::reload): one that
    /// is not ready after this has failed. By default 1 min.
    pub fn ready_timeout(mut self, timeout: Duration) -> Self {
        self.pool.ready_timeout = timeout;
        self
    }

    /// Asks each worker how it is, through its own queue. One that has not passed once gets no connections; one that fails too
    /// often in a row is told of, and replaced where workers are [kept](Self::keep).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use allcores::Health;
    ///
    /// let builder = allcores::Builder::new().health(Health::http("/healthz").interval(Duration::from_secs(1)));
    /// ```
    pub fn health(mut self, health: Health) -> Self {
        self.upkeep.health = Some(health);
        self
    }

    /// Replaces a worker that has not sent `WATCHDOG=1` by sd_notify(3) for so long; it is told by `WATCHDOG_USEC`.
    pub fn watchdog(mut self, timeout: Duration) -> Self {
        self.upkeep.watchdog = Some(timeout);
        self
    }

    /// Replaces a worker whose processes have more resident memory than so many bytes.
    pub fn max_memory(mut self, bytes: u64) -> Self {
        self.upkeep.max_memory = Some(bytes);
        self
    }

    /// Replaces a worker that says that it has served so many requests, by `X_ALLCORES_REQUESTS=N` on its `NOTIFY_SOCKET`.
    pub fn max_requests(mut self, requests: u64) -> Self {
        self.upkeep.max_requests = Some(requests);
        self
    }

    /// Replaces a worker that has lived for so long, more or less a tenth.
    pub fn max_lifetime(mut self, lifetime: Duration) -> Self {
        self.pool.max_lifetime = Some(lifetime);
        self
    }

    /// Has the kernel hold each worker, with its descendants, to a limit: `value` is written to the file `limit` of a cgroup
    /// (version 2) of its own. May be called more than once, e.g. with `("memory.max", "512M")`.
    ///
    /// # Platform
    ///
    /// The cgroup that the program was started in has to be its own to divide, as under systemd with `Delegate=yes`. The whole
    /// process moves to one below it, `allcores.primary`.
    pub fn cgroup(mut self, limit: impl Into<String>, value: impl Into<String>) -> Self {
        self.upkeep.cgroup.push((limit.into(), value.into()));
        self
    }

    /// Answers the `bind` and `listen` of workers that know nothing of the channel, so that any program can share a port.
    /// By default off: a worker that uses this crate, or node:cluster's way, needs none.
    ///
    /// # Platform
    ///
    /// Takes a seccomp filter in each worker, which it can see and can't remove.
    pub fn adopt(mut self, is_on: bool) -> Self {
        self.adopt = is_on;
        self
    }

    /// How many accepted connections of one address may wait for workers where they are handed over; beyond it the
    /// kernel's own queue fills. By default 1,024.
    pub fn pending(mut self, connections: usize) -> Self {
        self.pending = connections;
        self
    }

    /// Starts the cluster and [serves](Cluster::serve) until this process is asked to stop, which it may be from the first
    /// moment on: all that most primaries do.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start) and [`Cluster::serve`].
    ///
    /// # Cancel safety
    ///
    /// As [`start`](Self::start) and [`Cluster::serve`].
    ///
    /// # Panics
    ///
    /// The future, outside of a tokio runtime that handles I/O.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(builder: allcores::Builder) -> Result<(), allcores::Error> {
    /// builder.workers(4).keep(true).serve().await
    /// # }
    /// ```
    pub async fn serve(self) -> Result<(), Error> {
        let calls = Calls::listen()?;
        self.start().await?.serve_until(calls).await
    }

    /// Starts the cluster, and its first workers if there are to be some.
    ///
    /// # Errors
    ///
    /// The settings make no sense, or the first workers' processes could not be made. Nothing runs then.
    /// [`ErrorKind::Settings`] also in a worker that would run its own program again with the same arguments.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is done, it leaves no cluster: what was started by then stops in peace, and nobody waits for that.
    pub async fn start(self) -> Result<Cluster, Error> {
        let is_own_program = self.settings.exec.is_none() && self.settings.args.is_none();
        if is_own_program && Worker::from_env()?.is_some_and(|worker| !worker.is_alone()) {
            let attempt = "starting a cluster of this very program in a worker of one: ask `allcores::role()` first, \
                           or name another program or other arguments";
            return Err(Error::new(ErrorKind::Settings, attempt));
        }
        let too_many =
            |_| Error::new(ErrorKind::Settings, format!("starting {} workers: 65,535 at most", self.workers));
        let workers = u16::try_from(self.workers).map_err(too_many)?;
        let engine = Settings {
            name: self.name.unwrap_or_else(own_name),
            command: Vec::new(),
            cwd: None,
            mark: None,
            env: Vec::new(),
            uid: None,
            gid: None,
            policy: self.policy.unwrap_or_else(policy_from_env),
            pending: self.pending,
            listen: Vec::new(),
            given: Vec::new(),
            pass_given: false,
            adopt: self.adopt,
            output: Output::Inherit,
            stop_signal: self.stop_signal,
            host: Host::Program,
            serialization: Serialization::Json,
            inspect_port: None,
            pool: PoolSettings { workers, wait_healthy: self.upkeep.health.is_some(), ..self.pool },
            upkeep: self.upkeep,
        };
        let plan = Plan::new(self.settings, engine)?;
        let primary = Primary::new(plan.engine().clone());
        let shared = Arc::new(Shared::new(primary.handle(), plan));
        let cluster = Cluster { events: shared.hub.subscribe_ahead(), shared: Arc::clone(&shared) };
        let begun = thread::start(primary, shared)?;
        match begun.await {
            Ok(Ok(())) => Ok(cluster),
            Ok(Err(error)) => {
                let _ = cluster.stop().await;
                Err(error)
            }
            // It ended before it began.
            Err(_) => Err(cluster.stop().await.err().unwrap_or_else(|| {
                Error::new(ErrorKind::Stopped, "starting a cluster, whose thread ended at once")
            })),
        }
    }
}

fn policy_from_env() -> Policy {
    let value = std::env::var("NODE_CLUSTER_SCHED_POLICY");
    value.ok().and_then(|value| Policy::from_node(&value)).unwrap_or_default()
}

fn own_name() -> String {
    let program = std::env::current_exe().ok();
    let stem = program.as_deref().and_then(|path| path.file_stem());
    stem.map_or_else(|| "cluster".into(), |stem| stem.to_string_lossy().into_owned())
}
