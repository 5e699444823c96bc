//! Making a worker's process: what it executes, with which environment and descriptors.
//!
//! Chooses whether it gets a channel. Does not keep it: that is the engine's.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use allcores_core::channel::Serialization;
use allcores_core::worker::{Slot, WorkerId};

use super::{Host, Output, Settings, WorkerRef, leftovers};
use crate::cgroup::{Cgroup, Cgroups};
use crate::channel;
use crate::rendezvous;
use crate::sys::Watch;
use crate::sys::seccomp::Filter;
use crate::sys::spawn::{self, MAX_DESCRIPTORS, Plan, SpawnError, Spawned, Step};

mod inspect;
mod saved;

pub(super) use saved::LauncherSaved;

/// Variables that belong to us, or to a supervisor over us, and must not reach a worker as they are.
const PRIVATE: [&str; 14] = [
    rendezvous::VARIABLE,
    super::upgrade::VARIABLE,
    "ALLCORES_ROLE",
    "NODE_CHANNEL_FD",
    "NODE_CHANNEL_SERIALIZATION_MODE",
    "NODE_UNIQUE_ID",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PIDFDID",
    "NOTIFY_SOCKET",
    "FDSTORE",
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

/// What one worker gets that others do not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extras {
    /// Added to, and overriding, everything but what tells it who it is.
    pub(crate) env: Vec<(OsString, OsString)>,
    /// From number 4 on, behind the channel.
    pub(crate) descriptors: Vec<Arc<OwnedFd>>,
}

/// Starts the workers of one app.
#[derive(Debug)]
pub(super) struct Launcher {
    command: Vec<OsString>,
    /// Where workers start, without symbolic links: as it was when this generation began.
    cwd: Result<Option<PathBuf>, String>,
    env: BTreeMap<OsString, OsString>,
    name: String,
    uid: Option<u32>,
    gid: Option<u32>,
    output: Output,
    host: Host,
    serialization: Serialization,
    inspect: inspect::Ports,
    filters: Option<Filters>,
    has_channel: bool,
    open_files: Option<(u64, u64)>,
    /// How often workers are to give a sign of life.
    heartbeat: Option<Duration>,
    /// Where each worker gets a cgroup of its own, if that is asked for.
    cgroups: Result<Option<Arc<Cgroups>>, String>,
}

/// What is reported of workers.
#[derive(Debug)]
struct Filters {
    usual: Filter,
    /// While the app has Unix sockets: a process that outlives the primary could remove no file any more, and each
    /// removal is asked about.
    with_files: Filter,
}

impl Filters {
    fn new() -> Self {
        Self { usual: Filter::bind_and_listen(), with_files: Filter::bind_listen_and_unlink() }
    }
}

/// A worker's process and our ends of what connects us.
#[derive(Debug)]
pub(super) struct Launched {
    pub(super) process: Spawned,
    pub(super) channel: Option<(channel::Sender, channel::Carrier)>,
    pub(super) stdout: Option<Watch>,
    pub(super) stderr: Option<Watch>,
    pub(super) cgroup: Option<Cgroup>,
}

/// Why a worker could not be started.
#[derive(Debug)]
pub(super) enum LaunchError {
    /// There is no such program.
    NotFound { program: String, reason: String },
    /// There is, and it can't be executed.
    NotExecutable { program: String, reason: String },
    /// What is asked for can't be had here, in words.
    Impossible(String),
    /// Something else that may pass, in words.
    Failed(String),
}

impl Launcher {
    pub(super) fn new(settings: &Settings, open_files: Option<(u64, u64)>) -> Self {
        let mut env: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
        env.retain(|key, _| !PRIVATE.iter().any(|private| key == private));
        env.extend(settings.env.iter().cloned());
        env.extend(settings.mark.iter().map(|mark| (leftovers::VARIABLE.into(), mark.into())));
        Self {
            has_channel: settings.host == Host::Program || is_node_program(&settings.command),
            command: settings.command.clone(),
            cwd: settings.cwd.as_deref().map(real_folder).transpose(),
            env,
            name: settings.name.clone(),
            uid: settings.uid,
            gid: settings.gid,
            output: settings.output,
            host: settings.host,
            serialization: settings.serialization,
            inspect: inspect::Ports::new(settings.inspect_port),
            filters: settings.adopt.then(Filters::new),
            open_files,
            heartbeat: settings.upkeep.watchdog,
            cgroups: Cgroups::prepare(&settings.upkeep.cgroup),
        }
    }

    /// Whether workers are offered node:cluster's channel.
    pub(super) fn has_channel(&self) -> bool {
        self.has_channel
    }

    /// Whom workers run as, if not as we do.
    pub(super) fn user(&self) -> Option<u32> {
        self.uid
    }

    /// Has workers know where they can come by themselves.
    pub(super) fn set_rendezvous(&mut self, name: &str) {
        self.env.insert(rendezvous::VARIABLE.into(), name.into());
    }

    /// Starts a worker. `inherited` are sockets for it with their names, by the convention of sd_listen_fds(3);
    /// `notify` is where it may speak of itself, by that of sd_notify(3). With `has_files`, what it removes is reported.
    pub(super) fn launch(
        &self,
        (id, slot): (WorkerId, Slot),
        inherited: &[(BorrowedFd<'_>, String)],
        has_files: bool,
        notify: Option<&str>,
        extras: &Extras,
    ) -> Result<Launched, LaunchError> {
        let failed = |error: io::Error| LaunchError::Failed(error.to_string());
        let cwd = self.cwd.as_ref().map_err(|reason| LaunchError::Failed(reason.clone()))?.as_deref();
        let program = self.resolve(cwd)?;
        let cgroups = self.cgroups.as_ref().map_err(|reason| LaunchError::Impossible(reason.clone()))?;
        let cgroup = cgroups.as_ref().map(|cgroups| cgroups.make(id)).transpose();
        let cgroup = cgroup.map_err(LaunchError::Failed)?;
        let door = cgroup.as_ref().map(Cgroup::door).transpose().map_err(failed)?;
        let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").map_err(failed)?;
        let stdin = self.stdin(null.into()).map_err(failed)?;
        let (stdout, stdout_end) = self.stream(io::stdout().as_fd()).map_err(failed)?;
        let (stderr, stderr_end) = self.stream(io::stderr().as_fd()).map_err(failed)?;
        let opened =
            self.has_channel.then(|| channel::open(Serialization::Json)).transpose().map_err(failed)?;
        let (channel, channel_end) = match opened {
            Some((sender, carrier, end)) => (Some((sender, carrier)), Some(end)),
            None => (None, None),
        };
        let mut descriptors = vec![stdin.as_fd(), stdout_end.as_fd(), stderr_end.as_fd()];
        descriptors.extend(inherited.iter().map(|(socket, _)| *socket));
        let channel_number = descriptors.len();
        descriptors.extend(channel_end.as_ref().map(AsFd::as_fd));
        descriptors.extend(extras.descriptors.iter().map(AsFd::as_fd));
        let mut env = self.env_of(id, slot);
        env.extend(extras.env.iter().cloned());
        if let Some(notify) = notify {
            env.insert("NOTIFY_SOCKET".into(), notify.into());
            // Not WATCHDOG_PID, so that any process of the worker may send the heartbeats.
            env.extend(
                self.heartbeat.map(|time| ("WATCHDOG_USEC".into(), time.as_micros().to_string().into())),
            );
        }
        if channel.is_some() {
            env.insert("NODE_CHANNEL_FD".into(), channel_number.to_string().into());
            env.insert("NODE_UNIQUE_ID".into(), id.to_string().into());
            env.insert("NODE_CHANNEL_SERIALIZATION_MODE".into(), self.serialization.name().into());
        }
        if !inherited.is_empty() {
            let names: Vec<&str> = inherited.iter().map(|(_, name)| name.as_str()).collect();
            env.insert("LISTEN_FDS".into(), inherited.len().to_string().into());
            env.insert("LISTEN_FDNAMES".into(), names.join(":").into());
        }
        let plan = Plan {
            program: c_string(program.as_os_str()).map_err(failed)?,
            args: self.arguments(slot, &env).map_err(failed)?,
            env: env
                .iter()
                .map(|(key, value)| entry(key, value))
                .collect::<io::Result<_>>()
                .map_err(failed)?,
            tells_pid: !inherited.is_empty(),
            cwd: cwd.map(|cwd| c_string(cwd.as_os_str())).transpose().map_err(failed)?,
            uid: self.uid,
            gid: self.gid,
            groups: (self.uid.is_some() || self.gid.is_some()).then(|| self.gid.into_iter().collect()),
            descriptors,
            filter: self
                .filters
                .as_ref()
                .map(|filters| if has_files { &filters.with_files } else { &filters.usual }),
            open_files: self.open_files,
            cgroup: door.as_ref().map(AsFd::as_fd),
        };
        let process = spawn::spawn(&plan).map_err(|error| self.explain(&program, &error))?;
        Ok(Launched { process, channel, stdout, stderr, cgroup })
    }

    /// Runs a command about a worker, by the shell, as the user that workers run as.
    pub(super) fn examine(
        &self,
        about: WorkerRef,
        address: Option<&str>,
        command: &OsStr,
    ) -> io::Result<Spawned> {
        let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
        let mut env = self.env_of(about.id, about.slot);
        env.remove(OsStr::new(rendezvous::VARIABLE));
        env.insert("ALLCORES_WORKER_PID".into(), about.pid.to_string().into());
        env.insert("ALLCORES_ADDRESS".into(), address.unwrap_or_default().into());
        let cwd = self.cwd.as_ref().map_err(|reason| io::Error::other(reason.clone()))?.as_deref();
        let args = [OsStr::new("sh"), OsStr::new("-c"), command];
        let plan = Plan {
            program: c_string(OsStr::new("/bin/sh"))?,
            args: args.into_iter().map(c_string).collect::<io::Result<_>>()?,
            env: env.iter().map(|(key, value)| entry(key, value)).collect::<io::Result<_>>()?,
            tells_pid: false,
            cwd: cwd.map(|cwd| c_string(cwd.as_os_str())).transpose()?,
            uid: self.uid,
            gid: self.gid,
            groups: (self.uid.is_some() || self.gid.is_some()).then(|| self.gid.into_iter().collect()),
            descriptors: vec![null.as_fd(), null.as_fd(), null.as_fd()],
            filter: None,
            open_files: self.open_files,
            cgroup: None,
        };
        spawn::spawn(&plan).map_err(|error| error.source)
    }

    fn env_of(&self, id: WorkerId, slot: Slot) -> BTreeMap<OsString, OsString> {
        let mut env = self.env.clone();
        env.insert("ALLCORES_NAME".into(), self.name.clone().into());
        env.insert("ALLCORES_SLOT".into(), slot.to_string().into());
        env.insert("ALLCORES_WORKER_ID".into(), id.to_string().into());
        env.insert("NODE_APP_INSTANCE".into(), slot.to_string().into());
        env
    }

    /// A program's workers read what the program does not, as in Node; an app's have nothing to read.
    fn stdin(&self, null: OwnedFd) -> io::Result<OwnedFd> {
        match (self.host, self.output) {
            (Host::Program, Output::Inherit) => io::stdin().as_fd().try_clone_to_owned(),
            _ => Ok(null),
        }
    }

    fn arguments(&self, slot: Slot, env: &BTreeMap<OsString, OsString>) -> io::Result<Vec<CString>> {
        let mut command = self.command.clone();
        let options = env.get(OsStr::new("NODE_OPTIONS")).map(OsString::as_os_str);
        if let Some(port) = self.inspect.of(&command, options, slot) {
            command.insert(1, format!("--inspect-port={port}").into());
        }
        command.iter().map(|arg| c_string(arg)).collect()
    }

    /// Our end and the worker's end of one of its streams.
    fn stream(&self, own: BorrowedFd<'_>) -> io::Result<(Option<Watch>, OwnedFd)> {
        match self.output {
            Output::Inherit => return Ok((None, own.try_clone_to_owned()?)),
            Output::Null => return Ok((None, std::fs::File::create("/dev/null")?.into())),
            Output::Capture => {}
        }
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&read, true)?;
        Ok((Some(Watch::readable(read)?), write))
    }

    /// Finds the file to execute as execvp(3) would, with the worker's own PATH and folder.
    fn resolve(&self, cwd: Option<&Path>) -> Result<PathBuf, LaunchError> {
        let program = self.command.first().cloned().unwrap_or_default();
        let folder = cwd.unwrap_or(Path::new(""));
        let shown = || program.to_string_lossy().into_owned();
        if program.as_bytes().contains(&b'/') {
            let path = absolute(folder.join(&program));
            return match check(&path) {
                Ok(()) => Ok(path),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Err(LaunchError::NotFound {
                    program: shown(),
                    reason: format!(
                        "there is no file {}: check the path, and the folder (--cwd)",
                        path.display()
                    ),
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
            (Step::Descriptors, Some(libc::E2BIG)) => LaunchError::Failed(format!(
                "starting {shown}: it would be given more than {MAX_DESCRIPTORS} descriptors; give it fewer sockets \
                 (--listen)"
            )),
            (Step::User | Step::Group | Step::Groups, _) => {
                LaunchError::Failed(format!("changing to user {:?}, group {:?}: {cause}", self.uid, self.gid))
            }
            (Step::Folder, _) => {
                let folder = self.cwd.as_ref().ok().and_then(Option::as_deref).unwrap_or(Path::new("."));
                LaunchError::Failed(format!("entering the folder {}: {cause}", folder.display()))
            }
            (step, _) => LaunchError::Failed(format!("starting {shown} ({step:?}): {cause}")),
        }
    }
}

/// Where a path leads now.
fn real_folder(path: &Path) -> Result<PathBuf, String> {
    path.canonicalize().map_err(|error| format!("finding the folder {}: {error}", path.display()))
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

/// Whether a command is node itself.
fn is_node(command: &[OsString]) -> bool {
    let stem = command.first().and_then(|program| Path::new(program).file_stem());
    stem.is_some_and(|stem| stem == "node" || stem == "nodejs")
}

/// Node's options whose value may be the next word, which is no script then.
pub const NODE_OPTIONS_WITH_VALUE: [&str; 17] = [
    "-r",
    "--require",
    "--import",
    "--loader",
    "--experimental-loader",
    "-C",
    "--conditions",
    "--env-file",
    "--env-file-if-exists",
    "--input-type",
    "--experimental-default-type",
    "--title",
    "--inspect-port",
    "--dns-result-order",
    "--unhandled-rejections",
    "--openssl-config",
    "--icu-data-dir",
];

/// Options with which node runs what the command line says, as no worker of a cluster.
const NO_SCRIPT: [&[u8]; 5] = [b"-e", b"--eval", b"-p", b"--print", b"-pe"];

/// Whether the command is node running a program of its own, rather than node running a launcher.
pub(super) fn is_node_program(command: &[OsString]) -> bool {
    let stem = |arg: &OsString| Path::new(arg).file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let script = node_script(command.get(1..).unwrap_or_default());
    let is_launcher = script.and_then(stem).is_some_and(|stem| LAUNCHERS.contains(&stem.as_str()));
    is_node(command) && script.is_some() && !is_launcher
}

/// The program that node is to run, of its arguments; none where they say it themselves.
fn node_script(arguments: &[OsString]) -> Option<&OsString> {
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        if !argument.as_bytes().starts_with(b"-") {
            return Some(argument);
        } else if NO_SCRIPT.contains(&argument.as_bytes()) {
            return None;
        } else if NODE_OPTIONS_WITH_VALUE.iter().any(|option| argument == option) {
            arguments.next();
        }
    }
    None
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
        assert!(is_node(&["node", "--import", "tsx", "server.ts"]));
        assert!(is_node(&[
            "node",
            "--env-file=.env",
            "--env-file",
            "more.env",
            "-r",
            "tsx/cjs",
            "server.ts"
        ]));
        for launcher in [
            &["npm", "start"][..],
            &["node", "/usr/lib/node_modules/npm/bin/npm-cli.js", "start"],
            &["node", "node_modules/.bin/tsx", "server.ts"],
            &["node"],
            &["node", "-e", "server()"],
            &["node", "--import", "tsx", "-e", "server()"],
            &["node", "--import", "./trace.js", "node_modules/.bin/tsx", "server.ts"],
            &["node", "--import", "tsx"],
            &["node", "--no-warnings", "--print", "1"],
            &["python3", "server.py"],
        ] {
            assert!(!is_node(launcher), "{launcher:?}");
        }
    }
}
