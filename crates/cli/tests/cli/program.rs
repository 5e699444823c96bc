//! One run of the program in a runtime folder of its own, and what may be claimed about it.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use allcores_testing::terminal::Terminal;
use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

/// A command line that has not run yet.
pub(crate) struct Program {
    command: Command,
    runtime: TempDir,
    /// Where it runs.
    folder: TempDir,
}

/// How a run ended. Each claim that doesn't hold panics with all that is known.
#[derive(Debug)]
pub(crate) struct Run {
    code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Program {
    pub(crate) fn new(arguments: &[&str]) -> Self {
        let runtime = tempfile::tempdir().unwrap();
        fs::set_permissions(runtime.path(), Permissions::from_mode(0o700)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_allcores"));
        command
            .current_dir(folder.path())
            .args(arguments)
            .stdin(Stdio::null())
            .env("ALLCORES_RUNTIME_DIR", runtime.path())
            .env("ALLCORES_STATE_DIR", runtime.path().join(".state"))
            .env_remove("ALLCORES_LOG_FORMAT")
            .env_remove("COLUMNS");
        Self { command, runtime, folder }
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn env_remove(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Runs as another user, who can use the folders.
    pub(crate) fn user(mut self, uid: u32) -> Self {
        use std::os::unix::process::CommandExt as _;
        for folder in [&self.runtime, &self.folder] {
            std::os::unix::fs::chown(folder.path(), Some(uid), Some(uid)).unwrap();
        }
        self.command.uid(uid).gid(uid);
        self
    }

    /// Writes a file where it runs.
    pub(crate) fn file(self, name: &str, text: impl AsRef<[u8]>) -> Self {
        fs::write(self.folder.path().join(name), text).unwrap();
        self
    }

    pub(crate) fn runtime(&self) -> &Path {
        self.runtime.path()
    }

    /// Makes an app's folder, as a primary would.
    pub(crate) fn app(&self, name: &str) -> PathBuf {
        let folder = self.runtime.path().join(name);
        DirBuilder::new().mode(0o700).create(&folder).unwrap();
        folder
    }

    /// The folder of an app whose name a primary has, as it seems: process 4242. Until the lock is dropped.
    pub(crate) fn held_app(&self, name: &str) -> (PathBuf, File) {
        let folder = self.app(name);
        let mut lock = File::create(folder.join("lock")).unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        lock.write_all(b"4242").unwrap();
        (folder, lock)
    }

    /// How it ends on a terminal of so many columns, and what stands there then.
    pub(crate) fn run_on_terminal(&mut self, columns: u16) -> (Option<i32>, Vec<String>) {
        let (status, lines) = Terminal::spawn(&mut self.command, columns).unwrap().finish().unwrap();
        (status.code(), lines)
    }

    pub(crate) fn run(&mut self) -> Run {
        let output = self.command.output().unwrap();
        output.into()
    }

    /// The same, with what it prints going elsewhere.
    pub(crate) fn run_into(&mut self, stdout: File) -> Run {
        let child = self.command.stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
        child.wait_with_output().unwrap().into()
    }

    /// The same, in a folder that is removed before it begins.
    pub(crate) fn run_where_nothing_is(self) -> Run {
        let Self { command, runtime, folder } = self;
        let mut shell = Command::new("sh");
        shell
            .args(["-c", "rmdir \"$PWD\" && exec \"$@\"", "sh"])
            .arg(command.get_program())
            .args(command.get_args());
        let gone = folder.path().join("gone");
        fs::create_dir(&gone).unwrap();
        shell.current_dir(gone).stdin(Stdio::null());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        let run = shell.output().unwrap().into();
        drop((runtime, folder));
        run
    }
}

impl From<std::process::Output> for Run {
    fn from(output: std::process::Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Run {
    #[track_caller]
    pub(crate) fn code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    #[track_caller]
    pub(crate) fn stdout_is(self, text: &str) -> Self {
        assert_eq!(self.stdout, text, "{self:#?}");
        self
    }

    #[track_caller]
    pub(crate) fn stdout_has(self, part: &str) -> Self {
        assert!(self.stdout.contains(part), "no {part:?} in {self:#?}");
        self
    }

    #[track_caller]
    pub(crate) fn stderr_has(self, part: &str) -> Self {
        assert!(self.stderr.contains(part), "no {part:?} in {self:#?}");
        self
    }
}
