//! `allcores import`: a config file out of PM2's.

use std::fs::OpenOptions;
use std::io::{self, Write as _};

use anyhow::{Context as _, anyhow};

use crate::args::ImportArgs;
use crate::config::File;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::import;
use crate::screen;

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
    let Some(path) = args.output.as_deref() else { return super::print(text.as_bytes()) };
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(args.force).create_new(!args.force);
    let written = options.open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| {
        let next = match error.kind() {
            io::ErrorKind::AlreadyExists => "remove it, or have it replaced: --force",
            _ => "write another file: --output; or have it printed, without --output",
        };
        Failure::from(anyhow::Error::new(error).context(format!("write {}", path.display()))).next(next)
    })?;
    // What was written is good, or this is a mistake of ours, and shown with its line.
    File::read(path).map_err(|failure| anyhow!("{failure}")).context("read what was written")?;
    let names = imported.apps.join(", ");
    super::say(&format!(
        "{}: {names}\n  next: allcores check {0} && allcores start --config {0} --app {}\n",
        path.display(),
        imported.apps[0]
    ))
}
