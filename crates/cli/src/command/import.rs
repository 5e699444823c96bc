//! `allcores import`: a config file out of PM2's.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};

use super::start;
use crate::app::as_typed;
use crate::args::ImportArgs;
use crate::config::File;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::import;
use crate::screen;
use crate::whole::{self, Existing};

/// Translates the file, writes or prints what it comes to, and says what does not come along.
pub(super) fn execute(args: &ImportArgs) -> Result<ExitCode, Failure> {
    let file = import::read(&args.file)?;
    let tried = || format!("import {}", args.file.display());
    let imported = import::import(&file).map_err(|why| {
        Failure::new(ExitCode::Config, anyhow!(why).context(tried()))
            .next("see whether PM2 takes it; what is expected is an object with `apps`, an array")
    })?;
    let text = format!(
        "# Made of {} by `allcores import`.\n# What each key means: `allcores run --help`.\n\n{}",
        args.file.display(),
        imported.text
    );
    for note in &imported.notes {
        screen::tell(&format!("{}: {}: {}", note.app, note.option, note.text));
    }
    if imported.apps.is_empty() {
        let text = "each of its apps runs to its end (`autorestart: false`), and allcores keeps running what it starts";
        return Err(Failure::new(ExitCode::Config, anyhow!(text).context(tried()))
            .next("have systemd timers, cron or a job of Kubernetes run them"));
    }
    let Some(path) = args.output.as_deref() else { return super::print(text.as_bytes()) };
    let existing = if args.force { Existing::Goes } else { Existing::Stays };
    let written = whole::write(path, &text, existing);
    written.map_err(|error| {
        let next = match error.kind() {
            io::ErrorKind::AlreadyExists => "remove it, or have it replaced: --force".to_owned(),
            _ => whole::remedy(path, "write another file: --output; or have it printed, without --output"),
        };
        Failure::from(anyhow::Error::new(error).context(format!("write {}", path.display()))).next(next)
    })?;
    // What was written is good, or this is a mistake of ours, and shown with its line.
    File::read(path).map_err(|failure| anyhow!("{failure}")).context("read what was written")?;
    let names = imported.apps.join(", ");
    super::say(&format!("{}: {names}\n  next: {}\n", path.display(), next(path)))
}

/// What to run next, to be pasted into a shell.
fn next(file: &Path) -> String {
    // Else it would be taken for an app's name by `start`.
    let file = if start::is_path(file) { file.to_owned() } else { PathBuf::from(".").join(file) };
    let check = [OsStr::new("allcores"), "check".as_ref(), file.as_os_str()];
    let start = [OsStr::new("allcores"), "start".as_ref(), file.as_os_str()];
    format!("{} && {}", as_typed(&check), as_typed(&start))
}
