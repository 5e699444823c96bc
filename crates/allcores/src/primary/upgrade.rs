//! An upgrade of the running primary: what may be asked of it, what is told of it, and what goes on in the next program.
//!
//! How it goes about it is the engine's affair; why it goes about it so is in
//! docs/adr/0011-an-upgrade-is-an-exec-in-place.md.

mod answer;
mod document;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod settings;

use std::ffi::OsString;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::mpsc;

use super::Settings;
use crate::carry::{FdSaved, Inherited};

pub(super) use answer::Answer;
pub(super) use document::Document;
pub(super) use settings::SettingsSaved;

/// Names, to a program that is executed in a primary's place, the process that it is meant for and the descriptor of
/// what it is to go on with.
pub(super) const VARIABLE: &str = "ALLCORES_UPGRADE";

/// How long a program may take to say whether it can go on with what the primary has.
const CHECK_PATIENCE: Duration = Duration::from_secs(10);

/// An upgrade as it is asked for. By default what is now in the file that the primary was started from.
#[derive(Clone, Debug)]
pub struct Upgrade {
    /// What to execute.
    pub executable: Option<PathBuf>,
    /// How long it may take to say whether it can go on with what the primary has.
    pub check_patience: Duration,
}

impl Default for Upgrade {
    fn default() -> Self {
        Self { executable: None, check_patience: CHECK_PATIENCE }
    }
}

/// What is told of an upgrade to who asked for it. The connection to the new program is theirs to make: when nothing more
/// comes and the last was not [`Refused`](Self::Refused), the primary has become another program, or has gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpgradeNews {
    /// Something has to be over before.
    Waiting {
        /// What, in words.
        reason: String,
    },
    /// The new program is asked whether it can go on with what the primary has.
    Checking {
        /// Which.
        executable: PathBuf,
    },
    /// It says that it can. It is executed as soon as nothing has to be over before.
    Checked {
        /// Its version.
        version: String,
    },
    /// Nothing has changed. Nothing follows.
    Refused {
        /// Why, in words.
        reason: String,
    },
}

/// Tells how an upgrade goes on. Dropping it changes nothing about the upgrade.
#[derive(Debug)]
pub struct UpgradeProgress {
    news: mpsc::UnboundedReceiver<UpgradeNews>,
}

impl From<mpsc::UnboundedReceiver<UpgradeNews>> for UpgradeProgress {
    fn from(news: mpsc::UnboundedReceiver<UpgradeNews>) -> Self {
        Self { news }
    }
}

impl UpgradeProgress {
    /// Waits for the next piece of news, for those who poll; `None` after [`UpgradeNews::Refused`], or when the app has
    /// gone.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<UpgradeNews>> {
        self.news.poll_recv(context)
    }
}

/// The program around a primary, as far as an upgrade needs it.
pub trait Program {
    /// What the next program needs of this one, in words of its own; descriptors by their numbers.
    fn save(&self) -> String;

    /// Shows the descriptors that it names.
    fn descriptors(&self, show: &mut dyn FnMut(BorrowedFd<'_>));

    /// Whether somebody waits for an answer of it, or it is about to ask the primary for something: that would be lost. It
    /// has to ask the primary something when it no longer is.
    fn is_busy(&self) -> bool {
        false
    }

    /// Has who asks for something from now on wait, for this program or the next; or no longer.
    fn hold_off(&self, is_held_off: bool) {
        let _ = is_held_off;
    }

    /// Gets out what waits to be written. False if that can't be, and would be lost.
    fn flush(&self) -> bool;
}

/// Why what a primary has left can't be gone on with.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(pub(super) String);

/// Reads what a primary is about to leave, and says so in a line for it. `program` reads what the program around it
/// leaves.
///
/// # Errors
///
/// If it is of a format that this program does not know, or contradicts itself.
pub fn check(state: &[u8], program: impl FnOnce(&str) -> Result<(), String>) -> Result<String, Unreadable> {
    let document = Document::read(state)?;
    program(&document.program).map_err(Unreadable)?;
    Ok(Answer::to(&document).line())
}

/// What the program before has left to this one, which was executed in its place.
#[derive(Debug)]
pub struct Legacy {
    pub(super) document: Document,
    pub(super) inherited: Inherited,
    settings: Settings,
}

impl Legacy {
    /// Takes over what the program before has left; `None` in a program that was started in the usual way. To be called
    /// first thing in `main`, while there is one thread.
    ///
    /// # Errors
    ///
    /// If something was left and can't be gone on with.
    pub fn take() -> Option<Result<Self, Unreadable>> {
        let value = std::env::var(VARIABLE).ok();
        crate::sys::process::change_variables(&[(VARIABLE, None)]);
        let (pid, number) = value.as_deref()?.split_once(':')?;
        // Who else finds it in the environment is not meant.
        (pid.parse() == Ok(std::process::id())).then(|| Self::from_descriptor(number.parse().unwrap_or(-1)))
    }

    fn from_descriptor(number: RawFd) -> Result<Self, Unreadable> {
        let failed = |what: &'static str| move |error: io::Error| Unreadable(format!("{what}: {error}"));
        let file =
            crate::sys::process::take_inherited(number, |_| true).map_err(failed("opening what was left"))?;
        if !crate::carry::is_sealed(&file) {
            return Err(Unreadable("what was left could have been changed".into()));
        }
        let document = Document::read_from(file.into())?;
        let inherited = Inherited::claim(&document.descriptors)
            .map_err(failed("taking over the descriptors that were left"))?;
        let settings = document.engine.settings.clone().try_into().map_err(Unreadable)?;
        Ok(Self { document, inherited, settings })
    }

    /// What the program before needed to go on, in its words.
    pub fn program(&self) -> &str {
        &self.document.program
    }

    /// Takes one of its descriptors.
    ///
    /// # Errors
    ///
    /// If it was not left.
    pub fn take_descriptor(&mut self, number: RawFd) -> io::Result<OwnedFd> {
        self.inherited.take(FdSaved::of_number(number))
    }

    /// What the primary runs and how.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
}

/// Finds the file that this program was started from, as whoever started it named it: a link that is changed later leads
/// to what it is changed to.
pub fn own_executable() -> io::Result<PathBuf> {
    let running = std::env::current_exe()?;
    let named = std::env::args_os().next().and_then(|name| find(&name));
    Ok(named.filter(|named| is_same_file(named, Path::new("/proc/self/exe"))).unwrap_or(running))
}

/// Where a command is, as a shell would find it.
fn find(name: &OsString) -> Option<PathBuf> {
    let name = Path::new(name);
    if name.components().count() > 1 {
        return std::path::absolute(name).ok();
    }
    let path = std::env::var_os("PATH")?;
    let mut candidates = std::env::split_paths(&path).map(|folder| folder.join(name));
    candidates.find(|candidate| candidate.is_file()).and_then(|found| std::path::absolute(found).ok())
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| rustix::fs::stat(path).map(|stat| (stat.st_dev, stat.st_ino));
    matches!((identity(one), identity(other)), (Ok(one), Ok(other)) if one == other)
}

#[cfg(test)]
mod tests;
