//! Running other programs: shown before they run, in the root of the workspace.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, Command, ExitStatus, Stdio};

use allcores_testing::runtimes::workspace;
use anyhow::{Context, ensure};

/// The cargo that runs us.
pub(crate) fn cargo<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    program(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()), arguments)
}

/// The nightly compiler's cargo, where there is one.
pub(crate) fn nightly<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut cargo = program("rustup", ["run", "nightly", "cargo"]);
    // What names the compiler that we are made with would hide the nightly one.
    cargo.args(arguments).env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").env_remove("RUSTC");
    cargo
}

/// A program, to be run in the root of the workspace.
pub(crate) fn program<S: AsRef<OsStr>>(
    name: impl Into<OsString>,
    arguments: impl IntoIterator<Item = S>,
) -> Command {
    let mut command = Command::new(name.into());
    command.args(arguments).current_dir(workspace()).stdin(Stdio::null());
    command
}

/// Runs a command that must succeed.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = status(command)?;
    ensure!(status.success(), "`{}` failed: {status}", shown(command));
    Ok(())
}

/// Runs a command, whose outcome is up to the caller.
pub(crate) fn status(command: &mut Command) -> anyhow::Result<ExitStatus> {
    eprintln!("$ {}", shown(command));
    command.status().with_context(|| format!("start `{}`", shown(command)))
}

/// Starts a command, whose end is the caller's to wait for.
pub(crate) fn start(command: &mut Command) -> anyhow::Result<Child> {
    eprintln!("$ {}", shown(command));
    command.spawn().with_context(|| format!("start `{}`", shown(command)))
}

/// Runs a command, prints its standard output as it comes, and hands each line of it to `see` as well.
pub(crate) fn watch(command: &mut Command, mut see: impl FnMut(&str)) -> anyhow::Result<ExitStatus> {
    eprintln!("$ {}", shown(command));
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("start `{}`", shown(command)))?;
    let mut output = BufReader::new(child.stdout.take().context("standard output is piped")?);
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line)? > 0 {
        io::stdout().write_all(&line)?;
        see(&String::from_utf8_lossy(&line));
        line.clear();
    }
    child.wait().with_context(|| format!("wait for `{}`", shown(command)))
}

/// Whether a command succeeds; it is run without output.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// The first line that a command prints, if it succeeds.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.stderr(Stdio::null()).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().filter(|line| !line.is_empty()).map(str::to_owned)
}

/// The command as one would type it; a program that is given by its path goes by its name.
pub(crate) fn shown(command: &Command) -> String {
    let name = command.get_program();
    let name = std::path::Path::new(name).file_name().unwrap_or(name);
    let words = std::iter::once(name).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}
