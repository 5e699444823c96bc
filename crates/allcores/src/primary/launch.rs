//! Making a worker's process: what it executes, with which environment and descriptors.
//!
//! Chooses whether it gets a channel. Does not keep it: that is the engine's.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use allcores_core::worker::{Slot, WorkerId};

use super::{Output, Settings};
use crate::channel;
use crate::sys::Watch;
use crate::sys::seccomp::Filter;
use crate::sys::spawn::{self, Plan, SpawnError, Spawned, Step};

/// Variables that belong to us, or to a supervisor over us, and must not reach a worker as they are.
const PRIVATE: [&str; 10] = [
    "NODE_CHANNEL_FD",
    "NODE_CHANNEL_SERIALIZATION_MODE",
    "NODE_UNIQUE_ID",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PIDFDID",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

/// Scripts that start the server as a child of their own: a channel given to them would end with them.
const LAUNCHERS: [&str; 14] = [
    "npm",
    "npm-cli",
    "npx",
    "npx-cli",
    "yarn",
    "yarnpkg",
    "pnpm",
    "pnpx",
    "corepack",
    "tsx",
    "ts-node",
    "ts-node-esm",
    "nodemon",
    "concurrently",
];

/// Starts the workers of one app.
#[derive(Debug)]
pub(super) struct Launcher {
    command: Vec<OsString>,
    cwd: Option<PathBuf>,
    env: BTreeMap<OsString, OsString>,
    name: String,
    uid: Option<u32>,
    gid: Option<u32>,
    output: Output,
    filter: Option<Filter>,
    has_channel: bool,
    open_files: Option<(u64, u64)>,
}

/// A worker's process and our ends of what connects us.
#[derive(Debug)]
pub(super) struct Launched {
    pub(super) process: Spawned,
    pub(super) channel: Option<(channel::Sender, channel::Carrier)>,
    pub(super) stdout: Option<Watch>,
    pub(super) stderr: Option<Watch>,
}

/// Why a worker could not be started.
#[derive(Debug)]
pub(super) enum LaunchError {
    /// There is no such program.
    NotFound { program: String, reason: String },
    /// There is, and it can't be executed.
    NotExecutable { program: String, reason: String },
    /// Something else that may pass, in words.
    Failed(String),
}

impl Launcher {
    pub(super) fn new(settings: &Settings, open_files: Option<(u64, u64)>) -> Self {
        let mut env: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
        env.retain(|key, _| !PRIVATE.iter().any(|private| key == private));
        env.extend(settings.env.iter().cloned());
        Self {
            has_channel: is_node_program(&settings.command),
            command: settings.command.clone(),
            cwd: settings.cwd.clone(),
            env,
            name: settings.name.clone(),
            uid: settings.uid,
            gid: settings.gid,
            output: settings.output,
            filter: settings.adopt.then(Filter::bind_and_listen),
            open_files,
        }
    }

    /// Whether workers are offered node:cluster's channel.
    pub(super) fn has_channel(&self) -> bool {
        self.has_channel
    }

    /// Starts a worker. `inherited` are sockets for it with their names, by the convention of sd_listen_fds(3).
    pub(super) fn launch(
        &self,
        id: WorkerId,
        slot: Slot,
        inherited: &[(BorrowedFd<'_>, String)],
    ) -> Result<Launched, LaunchError> {
        let failed = |error: io::Error| LaunchError::Failed(error.to_string());
        let program = self.resolve()?;
        let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").map_err(failed)?;
        let (stdout, stdout_end) = self.stream(io::stdout().as_fd()).map_err(failed)?;
        let (stderr, stderr_end) = self.stream(io::stderr().as_fd()).map_err(failed)?;
        let (channel, channel_end) = match self.has_channel.then(channel::open).transpose().map_err(failed)? {
            Some((sender, carrier, end)) => (Some((sender, carrier)), Some(end)),
            None => (None, None),
        };
        let mut descriptors = vec![null.as_fd(), stdout_end.as_fd(), stderr_end.as_fd()];
        descriptors.extend(inherited.iter().map(|(socket, _)| *socket));
        let channel_number = descriptors.len();
        descriptors.extend(channel_end.as_ref().map(AsFd::as_fd));
        let mut env = self.env_of(id, slot);
        if channel.is_some() {
            env.insert("NODE_CHANNEL_FD".into(), channel_number.to_string().into());
            env.insert("NODE_UNIQUE_ID".into(), id.to_string().into());
        }
        if !inherited.is_empty() {
            let names: Vec<&str> = inherited.iter().map(|(_, name)| name.as_str()).collect();
            env.insert("LISTEN_FDS".into(), inherited.len().to_string().into());
            env.insert("LISTEN_FDNAMES".into(), names.join(":").into());
        }
        let plan = Plan {
            program: c_string(program.as_os_str()).map_err(failed)?,
            args: self.command.iter().map(|arg| c_string(arg)).collect::<io::Result<_>>().map_err(failed)?,
            env: env
                .iter()
                .map(|(key, value)| entry(key, value))
                .collect::<io::Result<_>>()
                .map_err(failed)?,
            tells_pid: !inherited.is_empty(),
            cwd: self.cwd.as_ref().map(|cwd| c_string(cwd.as_os_str())).transpose().map_err(failed)?,
            uid: self.uid,
            gid: self.gid,
            groups: (self.uid.is_some() || self.gid.is_some()).then(|| self.gid.into_iter().collect()),
            descriptors,
            filter: self.filter.as_ref(),
            open_files: self.open_files,
        };
        let process = spawn::spawn(&plan).map_err(|error| self.explain(&program, &error))?;
        Ok(Launched { process, channel, stdout, stderr })
    }

    fn env_of(&self, id: WorkerId, slot: Slot) -> BTreeMap<OsString, OsString> {
        let mut env = self.env.clone();
        env.insert("ALLCORES_NAME".into(), self.name.clone().into());
        env.insert("ALLCORES_SLOT".into(), slot.to_string().into());
        env.insert("ALLCORES_WORKER_ID".into(), id.to_string().into());
        env.insert("NODE_APP_INSTANCE".into(), slot.to_string().into());
        env
    }

    /// Our end and the worker's end of one of its streams.
    fn stream(&self, own: BorrowedFd<'_>) -> io::Result<(Option<Watch>, OwnedFd)> {
        if self.output == Output::Inherit {
            return Ok((None, own.try_clone_to_owned()?));
        }
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&read, true)?;
        Ok((Some(Watch::readable(read)?), write))
    }

    /// Finds the file to execute as execvp(3) would, with the worker's own PATH and folder.
    fn resolve(&self) -> Result<PathBuf, LaunchError> {
        let program = self.command.first().cloned().unwrap_or_default();
        let folder = self.cwd.as_deref().unwrap_or(Path::new(""));
        let shown = || program.to_string_lossy().into_owned();
        if program.as_bytes().contains(&b'/') {
            let path = absolute(folder.join(&program));
            return match check(&path) {
                Ok(()) => Ok(path),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Err(LaunchError::NotFound {
                    program: shown(),
                    reason: format!("there is no file {}", path.display()),
                }),
                Err(error) => Err(LaunchError::NotExecutable { program: shown(), reason: error.to_string() }),
            };
        }
        let path = self
            .env
            .get(OsStr::new("PATH"))
            .cloned()
            .unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
        let mut denied = None;
        for candidate in std::env::split_paths(&path).map(|entry| absolute(folder.join(entry).join(&program)))
        {
            match check(&candidate) {
                Ok(()) => return Ok(candidate),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => denied = Some(format!("{}: {error}", candidate.display())),
            }
        }
        Err(match denied {
            Some(reason) => LaunchError::NotExecutable { program: shown(), reason },
            None => LaunchError::NotFound {
                program: shown(),
                reason: "it is in no folder of PATH; give its full path, or check the spelling".into(),
            },
        })
    }

    fn explain(&self, program: &Path, error: &SpawnError) -> LaunchError {
        let shown = program.display().to_string();
        let cause = &error.source;
        match (error.step, cause.raw_os_error()) {
            (Step::Execute, Some(libc::ENOENT)) => LaunchError::NotExecutable {
                program: shown,
                reason: "the interpreter in its first line, or its dynamic loader, does not exist".into(),
            },
            (Step::Execute, Some(libc::ENOEXEC)) => LaunchError::NotExecutable {
                program: shown,
                reason: "it is neither a program for this machine nor a script with a #! line; for a shell script \
                         use `sh FILE`"
                    .into(),
            },
            (Step::Execute, Some(libc::EACCES)) => {
                LaunchError::NotExecutable { program: shown, reason: cause.to_string() }
            }
            (Step::User | Step::Group | Step::Groups, _) => {
                LaunchError::Failed(format!("changing to user {:?}, group {:?}: {cause}", self.uid, self.gid))
            }
            (Step::Folder, _) => {
                let folder = self.cwd.as_deref().unwrap_or(Path::new(".")).display();
                LaunchError::Failed(format!("entering the folder {folder}: {cause}"))
            }
            (step, _) => LaunchError::Failed(format!("starting {shown} ({step:?}): {cause}")),
        }
    }
}

/// The worker is in its own folder by the time the path is used.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// Whether a file exists and may be executed.
fn check(path: &Path) -> io::Result<()> {
    if std::fs::metadata(path)?.is_dir() {
        return Err(io::Error::other("is a folder"));
    }
    Ok(rustix::fs::access(path, rustix::fs::Access::EXEC_OK)?)
}

fn c_string(text: &OsStr) -> io::Result<CString> {
    spawn::c_string(text.as_bytes().to_vec())
}

fn entry(key: &OsString, value: &OsString) -> io::Result<CString> {
    let mut bytes = key.clone().into_vec();
    bytes.push(b'=');
    bytes.extend_from_slice(value.as_bytes());
    spawn::c_string(bytes)
}

/// Whether the command is node running a program of its own, rather than node running a launcher.
fn is_node_program(command: &[OsString]) -> bool {
    let stem = |arg: &OsString| Path::new(arg).file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let is_node = command.first().and_then(stem).is_some_and(|stem| stem == "node" || stem == "nodejs");
    let script = command.iter().skip(1).find(|arg| !arg.as_bytes().starts_with(b"-"));
    let is_launcher = script.and_then(stem).is_some_and(|stem| LAUNCHERS.contains(&stem.as_str()));
    is_node && script.is_some() && !is_launcher
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_node(command: &[&str]) -> bool {
        is_node_program(&command.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn node_with_a_program_gets_a_channel_and_node_with_a_launcher_does_not() {
        assert!(is_node(&["node", "server.js"]));
        assert!(is_node(&["/opt/node/bin/node", "--enable-source-maps", "dist/main.js"]));
        for launcher in [
            &["npm", "start"][..],
            &["node", "/usr/lib/node_modules/npm/bin/npm-cli.js", "start"],
            &["node", "node_modules/.bin/tsx", "server.ts"],
            &["node"],
            &["python3", "server.py"],
        ] {
            assert!(!is_node(launcher), "{launcher:?}");
        }
    }
}
