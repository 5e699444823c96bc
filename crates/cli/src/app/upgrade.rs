//! An app in its primary's next program: what this program leaves to it, and how it goes on from there.
//!
//! What the primary itself leaves is the engine's affair.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener as StdListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use allcores::primary::{Legacy, Primary, Program};
use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, UnixListener};

use super::commander::{Commander, Fixed, cwd_of};
use super::readiness::{Readiness, ReadinessSaved};
use super::source::{Source, SourceSaved};
use super::triggers::Baseline;
use super::{Kept, Opened, Seat, as_typed, conduct};
use crate::args::{LogFormat, OutputArgs};
use crate::control::Lobby;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::log::{self, LogSettings};
use crate::metrics::Tally;
use crate::report::Reporter;
use crate::runtime_folder::{AppFolder, Claim};
use crate::state_folder::StateFolder;

/// What this program leaves to the next.
pub(super) struct Luggage {
    pub(super) folder: PathBuf,
    pub(super) claim: Arc<Claim>,
    pub(super) listener: Arc<UnixListener>,
    pub(super) metrics: Option<Arc<TcpListener>>,
    pub(super) log: Option<LogSettings>,
    pub(super) lobby: Lobby,
    pub(super) reporter: Reporter,
    pub(super) output: OutputSaved,
    pub(super) commander: Commander,
    pub(super) readiness: Arc<Mutex<Readiness>>,
    pub(super) baseline: Baseline,
}

/// The same, written down.
#[derive(Debug, Serialize, Deserialize)]
struct LuggageSaved {
    folder: OsString,
    lock: RawFd,
    listener: RawFd,
    /// Connections to it on which nothing was asked.
    #[serde(default)]
    lobby: Vec<RawFd>,
    /// Where monitoring connects.
    #[serde(default)]
    metrics: Option<RawFd>,
    #[serde(default)]
    log: Option<LogSettings>,
    #[serde(default)]
    tally: Tally,
    /// Lines that were written to the log, and lost.
    #[serde(default)]
    lines: (u64, u64),
    output: OutputSaved,
    readiness: ReadinessSaved,
    source: SourceSaved,
    background: bool,
    /// Where it is kept how it was started.
    #[serde(default)]
    state: Option<StateFolder>,
    /// Where its workers were started first: the folder may have gone since.
    #[serde(default)]
    cwd: Option<String>,
    #[serde(default)]
    baseline: Option<u64>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct OutputSaved {
    format: FormatSaved,
    quiet: u8,
    verbose: u8,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FormatSaved {
    Pretty,
    Json,
    Raw,
}

impl Program for Luggage {
    fn save(&self) -> String {
        let mut lobby = Vec::new();
        self.lobby.visit(|stream| lobby.push(stream.as_raw_fd()));
        let account = self.reporter.account();
        let saved = LuggageSaved {
            folder: self.folder.clone().into(),
            lock: self.claim.lock().as_raw_fd(),
            listener: self.listener.as_raw_fd(),
            lobby,
            metrics: self.metrics.as_deref().map(AsRawFd::as_raw_fd),
            log: self.log.clone(),
            tally: self.commander.tally().clone(),
            lines: (account.written, account.dropped),
            output: self.output,
            readiness: super::lock(&self.readiness).save(),
            source: self.commander.save_source(),
            background: self.commander.is_background(),
            state: self.commander.state().cloned(),
            cwd: Some(self.commander.cwd().to_owned()),
            baseline: self.baseline.save(),
        };
        // These shapes have no map with keys that aren't strings, the one thing that can't be written.
        serde_json::to_string(&saved).unwrap_or_default()
    }

    fn descriptors(&self, show: &mut dyn FnMut(BorrowedFd<'_>)) {
        show(self.claim.lock());
        show(self.listener.as_fd());
        if let Some(listener) = &self.metrics {
            show(listener.as_fd());
        }
        self.lobby.visit(show);
    }

    fn is_busy(&self) -> bool {
        self.commander.is_held()
    }

    fn hold_off(&self, is_held_off: bool) {
        self.lobby.set_closed(is_held_off);
    }

    fn flush(&self) -> bool {
        self.reporter.flush()
    }
}

/// Whether this program can go on with what one has left, by its words, and by what they are about: it is asked where the
/// primary is, with the rights that the primary has.
///
/// # Errors
///
/// If it can't read them, or if something is missing that it will need.
pub(crate) fn check(left: &str) -> anyhow::Result<()> {
    let saved: LuggageSaved =
        serde_json::from_str(left).context("read what the program around the primary leaves")?;
    Source::restore(saved.source)?;
    let folder = folder_of(saved.folder)?;
    if !folder.is_running() {
        bail!("the lock of the app's name is not in {} any more", folder.path().display());
    }
    saved.log.as_ref().map_or(Ok(()), log::check)
}

/// The app's folder in the runtime folder, which has the app's name.
fn folder_of(saved: OsString) -> anyhow::Result<AppFolder> {
    let path = PathBuf::from(saved);
    let name = path.file_name().unwrap_or_default().to_string_lossy().parse().map_err(anyhow::Error::msg)?;
    Ok(AppFolder::at(name, &path))
}

/// Goes on with an app, in the place of the program that ran it.
///
/// # Errors
///
/// It can't go on. Its workers end with this process.
pub(crate) async fn resume(mut legacy: Legacy) -> Result<ExitCode, Failure> {
    let saved: LuggageSaved =
        serde_json::from_str(legacy.program()).context("read what the program before has left")?;
    let settings = legacy.settings().clone();
    let folder = folder_of(saved.folder)?;
    let mut take = |number: RawFd, what: &'static str| -> anyhow::Result<OwnedFd> {
        legacy.take_descriptor(number).with_context(|| format!("take over {what}"))
    };
    let lock = File::from(take(saved.lock, "the lock of the app's name")?);
    let listener = StdListener::from(take(saved.listener, "the control socket")?);
    let lobby = saved.lobby.into_iter().map(|number| take(number, "a connection to the control socket"));
    let lobby = Lobby::restore(lobby.collect::<anyhow::Result<_>>()?)
        .context("go on with connections to the control socket")?;
    let metrics = saved.metrics.map(|number| take(number, "the socket of metrics")).transpose()?;
    let metrics = metrics.map(|socket| {
        let socket = std::net::TcpListener::from(socket);
        socket.set_nonblocking(true).and_then(|()| TcpListener::from_std(socket))
    });
    let metrics = metrics.transpose().context("go on with metrics")?.map(Arc::new);
    let claim = folder.claim_again(lock).context("go on with the app's name")?;
    let listener = UnixListener::from_std(listener).context("go on with the control socket")?;
    let output = OutputArgs::from(saved.output);
    let workers = settings.pool.workers;
    // Its lock went with the program before.
    let opened = saved.log.clone().map(Opened::open_again);
    let (file, complaints) = opened.map_or((None, None), Opened::split);
    let reporter = Reporter::new(&settings.name, workers, &output, !saved.background, file)
        .context("start the threads that write output")?;
    reporter.count_from(saved.lines.0, saved.lines.1);
    // Older programs don't say either.
    let cwd = saved.cwd.unwrap_or_else(|| cwd_of(&settings).unwrap_or_default());
    let state = saved.state.or_else(|| StateFolder::from_env().ok().filter(|_| saved.background));
    let seat = Seat {
        command: as_typed(&settings.command),
        fixed: Fixed::new(cwd, &folder, saved.log.as_ref(), saved.background, state),
        name: settings.name,
        folder,
        claim: Arc::new(claim),
        entry: None,
        is_new: false,
        listener: Arc::new(listener),
        lobby,
        reporter,
        output: &output,
        source: Source::restore(saved.source)?,
        readiness: Readiness::again(workers, saved.readiness),
        kept: Kept {
            log: saved.log,
            complaints,
            metrics,
            tally: saved.tally,
            baseline: Baseline::restore(saved.baseline),
        },
    };
    Box::pin(conduct(Primary::resume(legacy), seat, None)).await
}

impl From<&OutputArgs> for OutputSaved {
    fn from(output: &OutputArgs) -> Self {
        let format = match output.log_format {
            LogFormat::Pretty => FormatSaved::Pretty,
            LogFormat::Json => FormatSaved::Json,
            LogFormat::Raw => FormatSaved::Raw,
        };
        Self { format, quiet: output.quiet, verbose: output.verbose }
    }
}

impl From<OutputSaved> for OutputArgs {
    fn from(saved: OutputSaved) -> Self {
        let log_format = match saved.format {
            FormatSaved::Pretty => LogFormat::Pretty,
            FormatSaved::Json => LogFormat::Json,
            FormatSaved::Raw => LogFormat::Raw,
        };
        Self { log_format, quiet: saved.quiet, verbose: saved.verbose }
    }
}
