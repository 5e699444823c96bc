//! Turns what was typed into what is meant: the engine's `Settings`, checked against this machine.
//!
//! Starts nothing and opens no socket: whether the command exists and the address is free, the engine finds out.

mod accounts;
mod name;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::thread;

use allcores::PoolSettings;
use allcores::primary::{Output, Policy, Settings};
use anyhow::{Context as _, anyhow};

pub(crate) use name::AppName;

use crate::args::{DemoArgs, LogFormat, PolicyArg, RunArgs, Workers};
use crate::failure::Failure;

/// What `run` was asked to do.
///
/// # Errors
///
/// A folder, user or group that doesn't exist.
pub(crate) fn of_run(args: &RunArgs) -> Result<Settings, Failure> {
    let cwd = args.cwd.as_deref().map(existing_folder).transpose()?;
    let (uid, gid) = accounts::resolve(args.uid.as_deref(), args.gid.as_deref())?;
    let name = match &args.name {
        Some(name) => name.clone(),
        None => AppName::derive(&args.command, &app_folder(cwd.as_deref())?),
    };
    Ok(Settings {
        name: name.into(),
        command: args.command.clone(),
        cwd,
        env: args.env.clone(),
        uid,
        gid,
        policy: args.policy.into(),
        listen: args.listen.clone(),
        adopt: !args.no_adopt,
        output: output(args.output.log_format),
        pool: pool(args)?,
    })
}

/// What `demo` was asked to do: this very program again, in its hidden part as a web server.
pub(crate) fn of_demo(args: &DemoArgs) -> Result<Settings, Failure> {
    let program =
        std::env::current_exe().context("find the program `allcores` itself, to run it as demo worker")?;
    Ok(Settings {
        name: "demo".into(),
        command: vec![program.into(), "demo-worker".into(), OsString::from(args.listen.to_string())],
        cwd: None,
        env: Vec::new(),
        uid: None,
        gid: None,
        policy: Policy::Auto,
        listen: Vec::new(),
        adopt: true,
        output: output(args.output.log_format),
        pool: PoolSettings { workers: workers(args.workers)?, ..PoolSettings::default() },
    })
}

fn pool(args: &RunArgs) -> Result<PoolSettings, Failure> {
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
        ..defaults
    })
}

fn workers(wanted: Workers) -> Result<u16, Failure> {
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

fn existing_folder(path: &Path) -> Result<PathBuf, Failure> {
    let folder = path.canonicalize().map_err(|error| {
        Failure::usage(anyhow::Error::new(error).context(format!("--cwd {}", path.display())))
            .next("give a folder that exists")
    })?;
    if folder.is_dir() {
        Ok(folder)
    } else {
        Err(Failure::usage(anyhow!("--cwd {}: not a folder", path.display()))
            .next("give a folder that exists"))
    }
}

fn app_folder(cwd: Option<&Path>) -> Result<PathBuf, Failure> {
    match cwd {
        Some(folder) => Ok(folder.to_path_buf()),
        None => Ok(std::env::current_dir().context("find the present folder, to name the app after it")?),
    }
}

fn output(format: LogFormat) -> Output {
    match format {
        LogFormat::Pretty | LogFormat::Json => Output::Capture,
        LogFormat::Raw => Output::Inherit,
    }
}

impl From<PolicyArg> for Policy {
    fn from(policy: PolicyArg) -> Self {
        match policy {
            PolicyArg::Auto => Self::Auto,
            PolicyArg::Lanes => Self::Lanes,
            PolicyArg::Shared => Self::Shared,
        }
    }
}

#[cfg(test)]
mod tests;
