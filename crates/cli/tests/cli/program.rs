//! One run of the program in a runtime folder of its own, and what may be claimed about it.

use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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

    /// Writes a file where it runs.
    pub(crate) fn file(self, name: &str, text: &str) -> Self {
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

    pub(crate) fn run(&mut self) -> Run {
        let output = self.command.output().unwrap();
        Run {
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
