//! Runs one app from its first worker to its last: name, control socket, signals, primary, report.
//!
//! What `run` and `demo` share. Which workers there are and what becomes of them is the engine's affair.

mod commander;
mod entry;
mod readiness;
mod signals;
mod source;
mod triggers;
mod upgrade;

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use allcores::primary::{Event, Leftovers, Primary, Settings, own_executable};
use anyhow::Context as _;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;

pub(crate) use source::Source;

use commander::{Commander, Fixed, cwd_of};
use entry::Entry;
use readiness::Readiness;
use triggers::{Baseline, Triggers};

use crate::args::OutputArgs;
use crate::background::Told;
use crate::control::{self, Lobby, Server};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::hub::Hub;
use crate::log::{self, LogFile, LogSettings};
use crate::metrics::{MetricsServer, Tally};
use crate::readable;
use crate::report::Reporter;
use crate::runtime_folder::{AppFolder, Claim, RuntimeFolder};
use crate::service::Service;
use crate::settings::AppName;
use crate::verdict::Verdict;

use upgrade::Luggage;
pub(crate) use upgrade::{check, resume};

/// An app that is to be run.
pub(crate) struct Begin<'a> {
    pub(crate) settings: Settings,
    pub(crate) output: &'a OutputArgs,
    /// Where it stands what it is to be.
    pub(crate) source: Source,
    pub(crate) log: Option<LogSettings>,
    /// Where monitoring may read how it is doing.
    pub(crate) metrics: Option<SocketAddr>,
    /// Whether `allcores start` has started it.
    pub(crate) is_background: bool,
    /// What that has told it.
    pub(crate) told: Option<Told>,
    /// What is said once a worker is ready.
    pub(crate) welcome: Option<String>,
}

/// What an app has for as long as it runs, whichever program runs it.
struct Seat<'a> {
    name: String,
    /// The app's command as a person would type it.
    command: String,
    folder: AppFolder,
    claim: Arc<Claim>,
    /// `None` for one that is not known in the state folder, or has stayed there already.
    entry: Option<Entry>,
    /// No program before this one has run it.
    is_new: bool,
    listener: Arc<UnixListener>,
    lobby: Lobby,
    reporter: Reporter,
    output: &'a OutputArgs,
    source: Source,
    fixed: Fixed,
    readiness: Readiness,
    kept: Kept,
}

/// What is kept of it besides: log, metrics, and what was seen of its files.
struct Kept {
    log: Option<LogSettings>,
    /// What is wrong with the log.
    complaints: Option<mpsc::UnboundedReceiver<String>>,
    metrics: Option<Arc<TcpListener>>,
    tally: Tally,
    baseline: Baseline,
}

/// A log, and where it tells what is wrong with it.
struct Opened {
    /// `None` where it could not be opened, which is then told.
    file: Option<LogFile>,
    complaints: mpsc::UnboundedReceiver<String>,
}

/// Runs an app until it has ended, and says how it did. Must be awaited on the main thread: workers are told of its death.
///
/// # Errors
///
/// The app could not be begun. Its end, however bad, is no error: it has been told, and is the exit code.
pub(crate) async fn run(begin: Begin<'_>) -> Result<ExitCode, Failure> {
    let Begin { mut settings, output, source, log, metrics, is_background, told, welcome } = begin;
    let name = settings.name.clone();
    let runtime_folder = RuntimeFolder::from_env()?;
    runtime_folder.prepare()?;
    let folder = runtime_folder.app(&name.parse::<AppName>().map_err(anyhow::Error::msg)?);
    let claim = folder.claim(if is_background { "start" } else { "run" })?;
    let state = told.as_ref().map(|told| told.state.clone());
    // Goes before the claim where the app can't be begun.
    let entry = told.map(|told| Entry::write(told.state, &told.record)).transpose()?;
    let command = as_typed(&settings.command);
    let workers = settings.pool.workers;
    let fixed = Fixed::new(cwd_of(&settings)?, &folder, log.as_ref(), is_background, state);
    let opened = log.clone().map(Opened::open).transpose()?;
    let metrics = match metrics {
        Some(address) => Some(MetricsServer::bind(address).await),
        None => None,
    };
    let metrics = metrics.transpose()?.map(Arc::new);
    let (file, complaints) = opened.map_or((None, None), Opened::split);
    let reporter = Reporter::new(&name, workers, output, !is_background, file)
        .context("start the threads that write output")?;
    settings.mark = claim.mark().ok();
    if claim.is_left() {
        end_leftovers(&settings, &reporter);
    }
    // Not before it can answer: whoever asks until then is told what keeps it.
    let listener = control::bind(&folder.socket()).map_err(|error| folder.unusable_socket(error))?;
    let (claim, listener) = (Arc::new(claim), Arc::new(listener));
    let readiness = Readiness::new(workers);
    let lobby = Lobby::default();
    let tally = Tally::default();
    let kept = Kept { log, complaints, metrics, tally, baseline: Baseline::default() };
    let seat = Seat {
        name,
        command,
        folder,
        claim,
        entry,
        is_new: true,
        listener,
        lobby,
        reporter,
        output,
        source,
        fixed,
        readiness,
        kept,
    };
    // It is large, and everything that awaits this would be, too.
    Box::pin(conduct(Primary::new(settings), seat, welcome)).await
}

/// Runs a primary until its end.
async fn conduct(primary: Primary, seat: Seat<'_>, mut welcome: Option<String>) -> Result<ExitCode, Failure> {
    let Seat {
        name,
        command,
        folder,
        claim,
        entry,
        is_new,
        listener,
        lobby,
        reporter,
        output,
        source,
        fixed,
        readiness,
        kept,
    } = seat;
    let hub = Hub::new(&name);
    let service = Service::find(readiness.is_told());
    let store = service.store();
    let service = Arc::new(Mutex::new(service));
    let readiness = Arc::new(Mutex::new(readiness));
    let (teller, known) = (reporter.clone(), Arc::clone(&service));
    let commander = Commander::new(primary.handle(), source, fixed, teller, hub.clone(), known);
    commander.count_from(kept.tally);
    if let Some(complaints) = kept.complaints {
        tokio::spawn(pass_on(complaints, commander.clone()));
    }
    let luggage = Luggage {
        folder: folder.path().to_owned(),
        claim: Arc::clone(&claim),
        listener: Arc::clone(&listener),
        metrics: kept.metrics.clone(),
        log: kept.log,
        lobby: lobby.clone(),
        reporter: reporter.clone(),
        output: output.into(),
        commander: commander.clone(),
        readiness: Arc::clone(&readiness),
        baseline: kept.baseline.clone(),
    };
    // Where it can't be found, an upgrade has to name the file.
    let primary = primary.upgradable(own_executable().unwrap_or_default(), luggage);
    let primary = match store {
        Some(store) => primary.putting_away(store),
        None => primary,
    };
    let server = Server::start(listener, commander.clone(), lobby);
    let metrics = kept.metrics.map(|listener| MetricsServer::serve(listener, commander.clone()));
    let options = commander.options();
    let mut triggers = options.map(|options| Triggers::start(options.triggers, &commander, kept.baseline));
    // What a worker has read before it was watched may be another by then. Workers of the program before are not kept waiting.
    if let Some(triggers) = triggers.as_mut().filter(|_| is_new) {
        triggers.begun().await;
    }
    let signals = signals::obey(commander.clone()).context("listen to signals")?;

    let told = {
        let (reporter, hub, service) = (reporter.clone(), hub.clone(), Arc::clone(&service));
        move |event: Event<'_>| {
            reporter.observe(&event);
            hub.observe(&event);
            commander.observe(&event);
            lock(&service).observe(&event);
            let told = lock(&readiness).observe(&event);
            if let Some(text) = told {
                reporter.ready(&text);
                lock(&service).ready(&text);
            }
            if let Some(text) = welcome.take_if(|_| matches!(event, Event::Ready { .. })) {
                reporter.explain(&text);
            }
        }
    };
    let outcome = primary.run(told).await;

    let ended = outcome.map(|outcome| (Verdict::of(&outcome, &command), outcome));
    if let Ok((verdict, outcome)) = &ended {
        hub.conclude(outcome, verdict);
        lock(&service).conclude(&verdict.message);
    }
    drop(metrics);
    server.finish().await;
    drop(triggers);
    signals.abort();
    // An app that has ended by itself has never served.
    if let (Some(entry), Ok((Verdict { code: ExitCode::Success, .. }, _))) = (entry, &ended) {
        entry.stays();
    }
    claim.clear();
    let (verdict, outcome) = ended.with_context(|| format!("start the app {name}"))?;
    reporter.conclude(&outcome, &verdict);
    // The name stays locked until this process has ended, so that who waits for that is not told too early.
    std::mem::forget(claim);
    Ok(verdict.code)
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends what is left of the primary before, which was killed: it would keep the address.
fn end_leftovers(settings: &Settings, reporter: &Reporter) {
    let Some(leftovers) = settings.mark.as_deref().map(Leftovers::find).filter(|found| !found.is_empty())
    else {
        return;
    };
    let pids = leftovers.pids();
    let tell = |text: String| reporter.observe(&Event::Notice { text: &text });
    tell(format!(
        "the primary before was killed and has left processes, which are ended: {}",
        readable::list(&pids)
    ));
    let alive = leftovers.end(settings.stop_signal, settings.pool.kill_timeout);
    if !alive.is_empty() {
        tell(format!("they do not go, even by SIGKILL: {}", readable::list(&alive)));
    }
}

impl Opened {
    fn open(log: LogSettings) -> Result<Self, Failure> {
        let (complain, complaints) = mpsc::unbounded_channel();
        let path = log.path.clone();
        // Where the app has ended, nobody is left to be told.
        let complain = move |text: &str| drop(complain.send(text.to_owned()));
        let file = LogFile::open(log, complain).map_err(|error| {
            Failure::new(ExitCode::StateFolder, error.context(format!("open the log {}", path.display())))
                .next(log::remedy(&path))
        })?;
        Ok(Self { file: Some(file), complaints })
    }

    /// Opens the log of an app that runs, which is not ended for want of it.
    fn open_again(log: LogSettings) -> Self {
        Self::open(log).unwrap_or_else(|failure| {
            let (complain, complaints) = mpsc::unbounded_channel();
            let why = failure.with_next_in_a_line();
            let _ = complain.send(format!("nothing is logged until the next upgrade: {why}"));
            Self { file: None, complaints }
        })
    }

    fn split(self) -> (Option<LogFile>, Option<mpsc::UnboundedReceiver<String>>) {
        (self.file, Some(self.complaints))
    }
}

/// Tells everybody what is wrong with the log.
async fn pass_on(mut complaints: mpsc::UnboundedReceiver<String>, commander: Commander) {
    while let Some(text) = complaints.recv().await {
        commander.notice(&text);
    }
}

/// A command as one would type it into a shell.
pub(crate) fn as_typed(command: &[impl AsRef<OsStr>]) -> String {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "/._-=:,@%+".contains(char);
    let words = command.iter().map(|word| {
        let word = word.as_ref().to_string_lossy();
        if !word.is_empty() && word.chars().all(is_plain) {
            word.into_owned()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::as_typed;

    #[test]
    fn commands_can_be_pasted_into_a_shell() {
        assert_eq!(as_typed(&["node", "server.js", "--port=80"]), "node server.js --port=80");
        assert_eq!(as_typed(&["sh", "-c", "echo it's", ""]), r"sh -c 'echo it'\''s' ''");
    }
}
