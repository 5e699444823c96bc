//! A folder with config files, and apps that are run from it.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use allcores_testing::address::unused;
use allcores_testing::app::App;
use allcores_testing::runtimes::{Runtime, fixture};
use serde_json::Value;
use tempfile::TempDir;

/// A folder of its own for a test, with an address for what runs there.
pub(crate) struct Folder {
    temporary: TempDir,
    pub(crate) address: SocketAddr,
    /// For a second app.
    pub(crate) other: SocketAddr,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Folder {
    pub(crate) fn new() -> Self {
        Self { temporary: tempfile::tempdir().unwrap(), address: unused(), other: unused() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.temporary.path()
    }

    /// Writes a file. `$COMMAND` in it is a server that tells its variables, `$HOST` and `$PORT` are where it listens, or
    /// a second one at `$OTHER_HOST`.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let python = Runtime::Python.program().expect("python3 is there: every fixture needs it");
        let script = fixture("operate/variables.py");
        let command = format!("['{}', '{}']", python.display(), script.display());
        let text = text
            .replace("$COMMAND", &command)
            .replace("$HOST", &self.address.ip().to_string())
            .replace("$PORT", &self.address.port().to_string())
            .replace("$OTHER_HOST", &self.other.ip().to_string())
            .replace("$OTHER_PORT", &self.other.port().to_string());
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// An app in the foreground, of a config file.
    pub(crate) fn app(config: &Path) -> App {
        App::new(Vec::<String>::new())
            .binary(env!("CARGO_BIN_EXE_allcores"))
            .option(format!("--config={}", config.display()))
            .env("PYTHONDONTWRITEBYTECODE", "1")
    }

    /// Asks the app for a variable, or, by an empty name, for its folder.
    pub(crate) fn ask(&self, name: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        write!(stream, "GET /{name} HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
        body.trim_end().to_owned()
    }

    /// Runs `allcores` in this folder, to its end.
    pub(crate) fn allcores(&self, arguments: &[&str]) -> Run {
        self.command(arguments).output().unwrap().into()
    }

    /// The same, not yet run.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.command_of(env!("CARGO_BIN_EXE_allcores").as_ref(), arguments)
    }

    /// Another program, for the same folders.
    pub(crate) fn command_of<S: AsRef<OsStr>>(&self, program: &OsStr, arguments: &[S]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.path()).stdin(Stdio::null());
        command.env("ALLCORES_RUNTIME_DIR", self.path().join("run"));
        command.env("ALLCORES_STATE_DIR", self.path().join("state"));
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }

    /// How an app is doing.
    #[track_caller]
    pub(crate) fn status(&self, name: &str) -> Value {
        serde_json::from_str(&self.allcores(&["status", name, "--json"]).code(0).out).unwrap()
    }

    /// What happens to an app from now on: lines of JSON, as they come over its control socket.
    pub(crate) fn events(&self, name: &str) -> impl Iterator<Item = String> {
        let mut stream =
            UnixStream::connect(self.path().join("run").join(name).join("control.sock")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(b"GET /v1/events HTTP/1.1\r\nhost: app\r\n\r\n").unwrap();
        let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
        // From the end of the answer's head on, everything is told.
        assert!(lines.any(|line| line.is_empty()), "there was no answer");
        lines.filter(|line| line.starts_with('{'))
    }

    /// The log of an app in the background.
    pub(crate) fn log(&self, name: &str) -> String {
        fs::read_to_string(self.path().join(format!("state/logs/{name}.log"))).unwrap_or_default()
    }
}

/// No app outlives its test.
impl Drop for Folder {
    fn drop(&mut self) {
        let stopped = self.allcores(&["stop", "all", "--now", "--timeout", "20s"]);
        // 5: none was left.
        if !matches!(stopped.code, Some(0 | 5)) {
            eprintln!("what is left could not be stopped: {stopped:#?}");
        }
    }
}

impl From<std::process::Output> for Run {
    fn from(output: std::process::Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("it is text");
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Run {
    #[track_caller]
    pub(crate) fn code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    #[track_caller]
    pub(crate) fn has(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.out.contains(part) || self.err.contains(part), "no {part:?} in {self:#?}");
        }
        self
    }
}
