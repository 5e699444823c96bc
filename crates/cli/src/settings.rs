//! Turns what was typed into what is meant: the engine's `Settings`, checked against this machine.
//!
//! Starts nothing and opens no socket: whether the command exists and the address is free, the engine finds out. Who wants to know
//! of a command beforehand asks `program`.

mod accounts;
mod environment;
mod name;
mod program;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use allcores::primary::{Health, HealthCheck, Host, Output, Policy, PoolSettings, Settings, Upkeep};
use allcores::{Serialization, Signal};
use anyhow::Context as _;

pub(crate) use accounts::check_user;
pub(crate) use name::{AppName, MAX_NAME};
pub(crate) use program::{check_program, find_program, interpreter, run_as, unit_path};

use crate::args::{AppOptions, DemoArgs, LogArgs, LogFormat, PENDING, SecretSource, UpkeepArgs, Workers};
use crate::config::{App, Places};
use crate::failure::{Failure, Failures};
use crate::log::{self, LogSettings};
use crate::state_folder::StateFolder;

/// What an app is to be.
///
/// # Errors
///
/// All folders, users, groups and secrets that aren't there.
pub(crate) fn of_app(app: &App) -> Result<Settings, Failure> {
    let mut wrong = Failures::default();
    for path in &app.options.triggers.watch {
        let there = std::fs::metadata(path);
        wrong.keep(there.map_err(|error| {
            let refused = app.places.refuse("watch", &path.to_string_lossy(), error);
            refused.next(
                "give a folder or a file that exists; it can be made empty, and filled while the app runs",
            )
        }));
    }
    put_together(app, wrong, false)
}

/// The same for an app that runs. What it watches is fixed, and may have gone since.
///
/// # Errors
///
/// As of [`of_app`].
pub(crate) fn of_running(app: &App) -> Result<Settings, Failure> {
    put_together(app, Failures::default(), true)
}

/// Makes the settings, unless something is wrong with them or has been before.
fn put_together(app: &App, mut wrong: Failures, is_running: bool) -> Result<Settings, Failure> {
    let (options, places) = (&app.options, &app.places);
    let real = options.cwd.as_deref().map(|path| existing_folder(path, places)).transpose();
    let real = wrong.keep(real).flatten();
    let accounts = accounts::resolve(options.uid.as_deref(), options.gid.as_deref(), places);
    let (uid, gid) = wrong.keep(accounts).unwrap_or_default();
    let env = wrong.keep(environment::of(options, places, is_running)).unwrap_or_default();
    let pool = wrong.keep(pool(options)).unwrap_or_default();
    wrong.none()?;
    let cwd = options.cwd.as_deref().map(std::path::absolute).transpose().context("make --cwd absolute")?;
    let name = match &app.name {
        Some(name) => name.clone(),
        None => AppName::derive(&app.command, &app_folder(real.as_deref())?),
    };
    Ok(Settings {
        name: name.into(),
        command: app.command.clone(),
        cwd: cwd.or_else(folder_as_typed),
        mark: None,
        env,
        uid,
        gid,
        policy: policy(options.policy.as_ref()),
        pending: options.pending,
        listen: options.listen.clone(),
        given: Vec::new(),
        pass_given: options.pass_sockets,
        adopt: !options.no_adopt,
        output: output(options.output.log_format),
        stop_signal: options.stop_signal,
        host: Host::Process,
        serialization: Serialization::Json,
        inspect_port: None,
        pool,
        upkeep: upkeep(&options.upkeep),
    })
}

/// Leaves out of an app what systemd passes to its unit alone, which nobody else can read; the credentials' names.
pub(crate) fn leave_out_credentials(app: &mut App) -> Vec<String> {
    let mut names = Vec::new();
    app.options.secret.retain(|(_, source)| match source {
        SecretSource::File(_) => true,
        SecretSource::Credential(name) => {
            names.push(name.clone());
            false
        }
    });
    names.sort_unstable();
    names.dedup();
    names
}

/// Says that the log that was asked for will not be to be had. Nothing makes its folder.
///
/// # Errors
///
/// Its folder is not there.
pub(crate) fn check_log(app: &App) -> Result<(), Failure> {
    let Some(path) = &app.options.log.file else { return Ok(()) };
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else { return Ok(()) };
    std::fs::metadata(folder).map(drop).map_err(|error| {
        app.places.refuse("log-file", &path.to_string_lossy(), error).next(log::remedy(path))
    })
}

/// Where an app's log is to be: where it was said; else, in the background, in the state folder.
///
/// # Errors
///
/// There is no state folder.
pub(crate) fn log_of(
    options: &AppOptions,
    name: &AppName,
    is_background: bool,
) -> Result<Option<LogSettings>, Failure> {
    let LogArgs { file, size, age, keep, plain } = &options.log;
    // Workers that write to the file themselves would go on with one that was put aside.
    let is_raw = options.output.log_format == LogFormat::Raw;
    let path = match file {
        Some(path) => std::path::absolute(path).context("make --log-file absolute")?,
        None if is_background => StateFolder::from_env()?.log(name),
        None => return Ok(None),
    };
    Ok(Some(LogSettings {
        path,
        max_size: if is_raw { u64::MAX } else { *size },
        max_age: age.filter(|_| !is_raw),
        keep: (*keep).try_into().unwrap_or(usize::MAX),
        is_packed: !plain,
    }))
}

/// What `demo` was asked to do: this very program again, in its hidden part as a web server.
pub(crate) fn of_demo(args: &DemoArgs) -> Result<Settings, Failure> {
    let program =
        std::env::current_exe().context("find the program `allcores` itself, to run it as demo worker")?;
    Ok(Settings {
        name: "demo".into(),
        command: vec![program.into(), "demo-worker".into(), OsString::from(args.listen.to_string())],
        cwd: None,
        mark: None,
        env: Vec::new(),
        uid: None,
        gid: None,
        policy: Policy::Auto,
        pending: PENDING,
        listen: Vec::new(),
        given: Vec::new(),
        pass_given: false,
        adopt: true,
        output: output(args.output.log_format),
        stop_signal: Signal::TERM,
        host: Host::Process,
        serialization: Serialization::Json,
        inspect_port: None,
        pool: PoolSettings { workers: workers(args.workers)?, ..PoolSettings::default() },
        upkeep: Upkeep::default(),
    })
}

fn pool(args: &AppOptions) -> Result<PoolSettings, Failure> {
    let defaults = PoolSettings::default();
    Ok(PoolSettings {
        workers: workers(args.workers)?,
        min_uptime: args.min_uptime,
        max_restarts: args.max_restarts,
        backoff: args.backoff,
        backoff_max: defaults.backoff_max.max(args.backoff),
        kill_timeout: args.kill_timeout,
        drain_timeout: args.drain_timeout,
        hang_timeout: args.hang_timeout,
        no_listen: args.no_listen,
        wait_ready: args.upkeep.wait_ready,
        ready_timeout: args.upkeep.ready_timeout,
        max_lifetime: args.upkeep.max_lifetime,
        ..defaults
    })
}

fn upkeep(args: &UpkeepArgs) -> Upkeep {
    let http = args.health_http.clone().map(|path| HealthCheck::Http { path });
    let exec = args.health_exec.clone().map(|command| HealthCheck::Exec { command });
    let check = http.or(exec).or(args.health_tcp.then_some(HealthCheck::Tcp));
    let health = |check| {
        Health::new(check)
            .timeout(args.health_timeout)
            .interval(args.health_interval)
            .threshold(args.health_threshold)
    };
    Upkeep {
        health: check.map(health),
        watchdog: args.watchdog,
        max_memory: args.max_memory,
        max_requests: args.max_requests,
        cgroup: args.cgroup.clone(),
    }
}

/// How many workers are asked for, on this machine.
pub(crate) fn workers(wanted: Workers) -> Result<u16, Failure> {
    if let Workers::Exactly(count) = wanted {
        return Ok(count);
    }
    match thread::available_parallelism() {
        Ok(cores) => Ok(wanted.resolve(cores.get())),
        Err(error) => {
            Err(Failure::from(anyhow::Error::new(error).context("count the cores of this machine"))
                .next("say how many workers there should be: -w 4"))
        }
    }
}

fn existing_folder(path: &Path, places: &Places) -> Result<PathBuf, Failure> {
    let refuse = |error: io::Error| {
        places.refuse("cwd", &path.to_string_lossy(), error).next("give a folder that exists")
    };
    let folder = path.canonicalize().map_err(refuse)?;
    if folder.is_dir() { Ok(folder) } else { Err(refuse(io::ErrorKind::NotADirectory.into())) }
}

/// The present folder by the name that the shell has for it, where that leads through a symbolic link: to where that
/// leads then, each reload will go.
pub(crate) fn folder_as_typed() -> Option<PathBuf> {
    let typed = PathBuf::from(std::env::var_os("PWD")?);
    let real = std::env::current_dir().ok()?;
    let is_another_name = typed.is_absolute() && typed != real && typed.canonicalize().ok()? == real;
    is_another_name.then_some(typed)
}

fn app_folder(cwd: Option<&Path>) -> Result<PathBuf, Failure> {
    match cwd {
        Some(folder) => Ok(folder.to_path_buf()),
        None => std::env::current_dir()
            .context("find the present folder, to name the app after it")
            .map_err(|error| Failure::from(error).next("go to a folder that is there, or name one: --cwd")),
    }
}

fn output(format: LogFormat) -> Output {
    match format {
        LogFormat::Pretty | LogFormat::Json => Output::Capture,
        LogFormat::Raw => Output::Inherit,
    }
}

/// What was asked for; else what Node's own variable asks for, where it is set; else what is best nearly always.
fn policy(asked: Option<&Policy>) -> Policy {
    let of_node = || Policy::from_node(&std::env::var("NODE_CLUSTER_SCHED_POLICY").ok()?);
    asked.cloned().or_else(of_node).unwrap_or_default()
}

#[cfg(test)]
mod tests;
