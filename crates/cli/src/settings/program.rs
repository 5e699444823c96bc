//! Where a worker's program is, looked for as the engine will when it starts one.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::anyhow;

use super::environment;
use crate::config::App;
use crate::failure::Failure;

/// Where programs are looked for in an environment without a PATH.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// What PATH a unit of systemd's has unless it says otherwise (systemd.exec(5)).
const UNIT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Finds an app's program, as a worker that is started from here would.
///
/// # Errors
///
/// It is not there, or can't be executed.
pub(crate) fn check_program(app: &App) -> Result<PathBuf, Failure> {
    let path = environment::path(&app.options).or_else(|| std::env::var_os("PATH"));
    of_app(app, path.as_deref()).map_err(|reason| refuse(app, reason))
}

/// Which PATH a unit needs, so that an app's program is found in it: none where it is found anyway. What is found from here
/// may be in a folder that only a shell's PATH has, as nvm and pyenv set it.
///
/// # Errors
///
/// It is not there, or can't be executed.
pub(crate) fn unit_path(app: &App) -> Result<Option<String>, Failure> {
    let found = check_program(app)?;
    if environment::path(&app.options).is_some() || of_app(app, Some(UNIT_PATH.as_ref())).is_ok() {
        return Ok(None);
    }
    Ok(found.parent().map(|folder| format!("{}:{UNIT_PATH}", folder.display())))
}

fn refuse(app: &App, reason: String) -> Failure {
    let program = app.command.first().map(|program| program.to_string_lossy()).unwrap_or_default();
    app.places.refuse("command", &program, anyhow!(reason)).next(
        "check the spelling, install it, or give its whole path; `allcores check --elsewhere` is for a file of another machine",
    )
}

fn of_app(app: &App, path: Option<&OsStr>) -> Result<PathBuf, String> {
    let program = app.command.first().map(OsString::as_os_str).unwrap_or_default();
    let folder = app.options.cwd.as_deref().unwrap_or(Path::new(""));
    match find_program(program, folder, path) {
        // What is wrong then is the folder, and said of it.
        Err(_) if is_path(program) && app.options.cwd.is_some() && !folder.is_dir() => {
            Ok(folder.join(program))
        }
        found => found,
    }
}

/// Finds a program as who starts it in this folder does, with this PATH or without one.
///
/// # Errors
///
/// It is not there, or can't be executed; in words.
pub(crate) fn find_program(program: &OsStr, folder: &Path, path: Option<&OsStr>) -> Result<PathBuf, String> {
    if is_path(program) {
        let file = folder.join(program);
        return may_run(&file).map(|()| file.clone()).map_err(|error| format!("{}: {error}", file.display()));
    }
    let mut denied = None;
    for entry in std::env::split_paths(path.unwrap_or(OsStr::new(DEFAULT_PATH))) {
        let file = folder.join(entry).join(program);
        match may_run(&file) {
            Ok(()) => return Ok(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => denied = Some(format!("{}: {error}", file.display())),
        }
    }
    Err(denied.unwrap_or_else(|| format!("{} is in no folder of PATH", program.display())))
}

/// The program that usually runs a script with this extension.
pub(crate) fn interpreter(extension: &str) -> Option<&'static str> {
    match extension {
        "js" | "cjs" | "mjs" => Some("node"),
        "ts" | "tsx" => Some("bun"),
        "py" => Some("python3"),
        "sh" => Some("bash"),
        "rb" => Some("ruby"),
        "php" => Some("php"),
        "pl" => Some("perl"),
        _ => None,
    }
}

/// How to run what somebody has given as a command, where that is a file of this folder: `node server.js`, `./server`.
pub(crate) fn run_as(word: &str, folder: &Path) -> Option<String> {
    let file = folder.join(word);
    let extension = file.extension().and_then(OsStr::to_str);
    if !file.is_file() {
        None
    } else if let Some(interpreter) = extension.and_then(interpreter) {
        Some(format!("{interpreter} {word}"))
    } else {
        (!word.contains('/') && may_run(&file).is_ok()).then(|| format!("./{word}"))
    }
}

/// Whether a word leads to a program by itself.
fn is_path(program: &OsStr) -> bool {
    program.as_bytes().contains(&b'/')
}

/// Whether a file exists and may be executed.
fn may_run(path: &Path) -> io::Result<()> {
    if std::fs::metadata(path)?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok(rustix::fs::access(path, rustix::fs::Access::EXEC_OK)?)
}
