//! Who commands the primary: signals and the control API, through one door.
//!
//! Before a reload it reads anew what the app is to be; a file that is wrong by then changes nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use allcores::primary::{
    AppSnapshot, Event, Handle, Refusal, Reload, ReloadNews, ReloadProgress, Settings, Upgrade,
    UpgradeProgress, WorkerRef, spawn_deaf,
};
use allcores::{Signal, Slot};
use anyhow::{Context as _, anyhow};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::source::{Described, Fresh, Next, Settled, Source, SourceSaved, text};
use super::{as_typed, lock};
use crate::args::{AppOptions, Change, MAX_WORKERS};
use crate::control::{Control, Reloading};
use crate::failure::Failure;
use crate::hub::{Hub, Subscription};
use crate::log::LogSettings;
use crate::metrics::{Reading, Tally};
use crate::readable;
use crate::report::Reporter;
use crate::runtime_folder::AppFolder;
use crate::service::Service;
use crate::settings::AppName;
use crate::state_folder::{Given, StateFolder};
use crate::view::{DescriptionView, StatusView};

/// How long the end of a reload waits until what it was given is kept in mind. It has arrived all the same.
const MEMORY_PATIENCE: Duration = Duration::from_secs(5);

/// How long a reload waits for the files that say what the app is to be.
const READING_PATIENCE: Duration = Duration::from_secs(10);

/// For how much longer than it took to count connections they are not counted again.
const COUNTING_SHARE: u32 = 10;

/// Commands a primary. Clones command the same.
#[derive(Clone)]
pub(crate) struct Commander {
    handle: Handle,
    source: Arc<Source>,
    fixed: Arc<Fixed>,
    reporter: Reporter,
    hub: Hub,
    service: Arc<Mutex<Service>>,
    tally: Arc<Mutex<Tally>>,
    holds: Arc<Holds>,
    /// How many connections workers had when they were counted last.
    counted: Arc<tokio::sync::Mutex<Option<Counted>>>,
    /// Had while what the app is to be is read anew, however long that takes.
    reading: Arc<tokio::sync::Mutex<()>>,
    /// The end of the reload that was asked for last.
    last: Arc<tokio::sync::Mutex<Option<oneshot::Receiver<()>>>>,
}

/// Holds up an upgrade: somebody has asked for something, and either the primary has not been told or nobody answered.
pub(crate) struct Hold {
    holds: Arc<Holds>,
    handle: Handle,
}

/// Connections by workers' ids, and until when they are good enough.
struct Counted {
    connections: BTreeMap<u32, u64>,
    at: Instant,
    lasts: Duration,
}

/// How many there are.
#[derive(Debug, Default)]
struct Holds {
    count: AtomicUsize,
    /// An upgrade waits for the last.
    is_awaited: AtomicBool,
}

/// What an app is for as long as its primary lives.
pub(super) struct Fixed {
    name: String,
    folder: String,
    socket: String,
    is_background: bool,
    log: Option<String>,
    /// Where it is kept how it was started, if anywhere.
    state: Option<StateFolder>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let is_last = self.holds.count.fetch_sub(1, Ordering::Relaxed) == 1;
        if !is_last || !self.holds.is_awaited.swap(false, Ordering::Relaxed) {
            return;
        }
        let handle = self.handle.clone();
        // It looks again when the primary is asked something.
        tokio::spawn(async move { drop(handle.snapshot().await) });
    }
}

impl Fixed {
    pub(super) fn new(
        cwd: String,
        folder: &AppFolder,
        log: Option<&LogSettings>,
        is_background: bool,
        state: Option<StateFolder>,
    ) -> Self {
        Self {
            name: folder.name().to_string(),
            folder: cwd,
            socket: folder.socket().display().to_string(),
            is_background,
            log: log.map(|log| log.path.display().to_string()),
            state,
        }
    }
}

/// The folder in which workers are started, by its name.
pub(super) fn cwd_of(settings: &Settings) -> Result<String, Failure> {
    let here = || std::env::current_dir().context("find the present folder");
    let cwd = settings.cwd.clone().map_or_else(here, Ok)?;
    Ok(cwd.display().to_string())
}

impl Commander {
    pub(super) fn new(
        handle: Handle,
        source: Source,
        fixed: Fixed,
        reporter: Reporter,
        hub: Hub,
        service: Arc<Mutex<Service>>,
    ) -> Self {
        let (source, fixed) = (Arc::new(source), Arc::new(fixed));
        let (tally, holds, last) = (Arc::default(), Arc::default(), Arc::default());
        let (counted, reading) = (Arc::default(), Arc::default());
        Self { handle, source, fixed, reporter, hub, service, tally, holds, counted, reading, last }
    }

    /// Counts an event.
    pub(super) fn observe(&self, event: &Event<'_>) {
        // Of what workers write there may be very much, and nothing to count.
        if !matches!(event, Event::Output { .. }) {
            self.tally().observe(event, SystemTime::now());
        }
    }

    /// Goes on counting where another has ended.
    pub(super) fn count_from(&self, tally: Tally) {
        *self.tally() = tally;
    }

    pub(super) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the primary's next program needs to know of where it stands what the app is to be.
    pub(super) fn save_source(&self) -> SourceSaved {
        self.source.save()
    }

    /// The folder in which its first workers were started.
    pub(super) fn cwd(&self) -> &str {
        &self.fixed.folder
    }

    /// Where it is kept how the app was started.
    pub(super) fn state(&self) -> Option<&StateFolder> {
        self.fixed.state.as_ref()
    }

    /// Whether `allcores start` has started the app.
    pub(super) fn is_background(&self) -> bool {
        self.fixed.is_background
    }

    /// Whether somebody has asked for something and has no answer so far; or the primary does not know of it yet, as it
    /// is being read anew what the app is to be.
    pub(super) fn is_held(&self) -> bool {
        let is_held = self.holds.count.load(Ordering::Relaxed) > 0;
        self.holds.is_awaited.store(is_held, Ordering::Relaxed);
        is_held
    }

    /// Changes the number of workers by so many, if as many as that leaves there may be, and does not wait.
    pub(super) fn scale_unasked(&self, difference: i16) {
        drop(self.handle.scale_by(difference, 1..=MAX_WORKERS));
        let (commander, hold) = (self.clone(), self.hold());
        tokio::spawn(async move {
            // Asked after it, so the number is the new one.
            if let Ok(snapshot) = commander.handle.snapshot().await {
                commander.scaled(snapshot.target).await;
            }
            drop(hold);
        });
    }

    /// Has the app started with so many workers the next time, too.
    async fn scaled(&self, workers: u16) {
        if self.source.scaled(workers) {
            self.remember("this number of workers").await;
        }
    }

    /// Opens the log anew.
    pub(super) fn reopen_log(&self) {
        self.reporter.reopen();
    }

    /// Explains something to who sees the primary's output.
    pub(super) fn explain(&self, text: &str) {
        self.reporter.explain(text);
    }

    fn seen(&self, snapshot: AppSnapshot) -> StatusView {
        let failed_reload = self.tally().failed_reload();
        StatusView::of(snapshot, &self.reporter.account(), failed_reload)
    }

    /// The options that the app was begun with.
    pub(super) fn options(&self) -> Option<AppOptions> {
        self.source.options()
    }

    /// Tells everybody of something that is no event of the engine's.
    pub(super) fn notice(&self, text: &str) {
        let event = Event::Notice { text };
        self.reporter.observe(&event);
        self.hub.observe(&event);
    }

    /// Reloads for nobody who waits. How it goes on, the events tell.
    pub(super) fn reload_unasked(&self) {
        self.reload_unasked_then(|| {});
    }

    /// The same; `asked` is called when an upgrade would wait for it, or when it was refused.
    pub(super) fn reload_unasked_then(&self, asked: impl FnOnce() + Send + 'static) {
        self.reload_or(Self::notice, asked);
    }

    /// Reloads for who has sent a signal: a service manager waits for the end, also of what is refused.
    pub(super) fn reload_signalled(&self) {
        let refused = |commander: &Self, text: &str| {
            commander.notice(text);
            lock(&commander.service).refused(text);
        };
        self.reload_or(refused, || {});
    }

    fn reload_or(&self, refused: fn(&Self, &str), asked: impl FnOnce() + Send + 'static) {
        let commander = self.clone();
        tokio::spawn(async move {
            let reloading = commander.reload(Reload::default(), None).await;
            asked();
            if let Err(Refusal(reason)) = reloading {
                refused(&commander, &format!("not reloaded: {reason}"));
            }
        });
    }

    /// Reads anew what the app is to be. Where its files are on a disk that does not answer, neither the workers nor whoever
    /// asks have to wait for it.
    async fn read(&self, environment: Option<String>) -> Result<Option<Fresh>, Failure> {
        let context = "read anew what the app is to be";
        let Ok(turn) = Arc::clone(&self.reading).try_lock_owned() else {
            return Err(unanswered("the reading that was begun before has not ended", context));
        };
        let source = Arc::clone(&self.source);
        let read = aside("read", READING_PATIENCE, move || {
            let read = source.read(environment);
            drop(turn);
            read
        });
        match read.await {
            Ok(read) => read,
            Err(Aside::Late) => {
                let patience = readable::duration(READING_PATIENCE);
                Err(unanswered(&format!("its files have not answered for {patience}"), context))
            }
            Err(Aside::Not(error)) => Err(error.context(context).into()),
        }
    }

    /// Passes on the news. When the new version serves, it is what there is now. `before` is the end of the reload that was
    /// asked for before this one, and `over` this one's.
    fn follow(
        &self,
        mut news: ReloadProgress,
        next: Next,
        before: Option<oneshot::Receiver<()>>,
        over: oneshot::Sender<()>,
    ) -> ReloadProgress {
        let (tell, told) = mpsc::unbounded_channel();
        let commander = self.clone();
        // The next program would not know how it ended.
        let hold = self.hold();
        tokio::spawn(async move {
            let (mut next, mut turn) = (Some(next), Some((before, over)));
            while let Some(piece) = news.next().await {
                if let ReloadNews::Ended(outcome) = &piece
                    && let (Some(next), Some((before, over))) = (next.take(), turn.take())
                {
                    // Several that are joined end at one moment, and the later wins. Who was before us has been told.
                    if let Some(before) = before {
                        let _ = before.await;
                    }
                    let Settled { is_given, workers } = commander.source.settle(next, outcome);
                    if let Some(workers) = workers {
                        let handle = commander.handle.clone();
                        // Whether it is done, the events tell.
                        tokio::spawn(async move { drop(handle.scale(workers).await) });
                    }
                    drop(over);
                    if is_given {
                        commander.remember("what this reload was given").await;
                    }
                }
                let _ = tell.send(piece);
            }
            drop(tell);
            // Whom it was told has its turn before the upgrade that may wait for us.
            tokio::task::yield_now().await;
            drop(hold);
        });
        told.into()
    }

    /// How many connections each worker has, or had a moment ago: to count them takes a look at all that the machine has, and
    /// monitoring that asks all the time is to cost nobody else anything.
    async fn connections(&self) -> Result<BTreeMap<u32, u64>, Refusal> {
        let mut counted = self.counted.lock().await;
        if let Some(counted) = counted.as_ref().filter(|counted| counted.at.elapsed() < counted.lasts) {
            return Ok(counted.connections.clone());
        }
        let begun = Instant::now();
        let connections: BTreeMap<u32, u64> =
            self.handle.connections().await?.into_iter().map(|(id, held)| (id.0, held)).collect();
        let (at, lasts) = (Instant::now(), COUNTING_SHARE * begun.elapsed());
        *counted = Some(Counted { connections: connections.clone(), at, lasts });
        Ok(connections)
    }

    /// Has the app started with what reloads and scaling gave it the next time, too, of which `what` is new.
    async fn remember(&self, what: &str) {
        let Some(state) = self.fixed.state.clone() else { return };
        let (name, source) = (self.fixed.name.clone(), Arc::clone(&self.source));
        let remember = move || -> Result<(), Failure> {
            let name: AppName = name.parse().map_err(anyhow::Error::msg)?;
            state.change(|change| {
                let Some(record) = state.record(&name)? else { return Ok(()) };
                // As it is by now: whoever comes last writes all of it.
                change.keep(&record.giving(source.given()))
            })
        };
        let remembered = match aside("remember", MEMORY_PATIENCE, remember).await {
            Ok(remembered) => remembered,
            Err(Aside::Late) => {
                let patience = readable::duration(MEMORY_PATIENCE);
                Err(anyhow!("the state folder has not answered for {patience}").into())
            }
            Err(Aside::Not(error)) => Err(error.context("keep it in mind").into()),
        };
        if let Err(failure) = remembered {
            let text = failure.with_next_in_a_line();
            self.notice(&format!("the next start may be without {what}: {text}"));
        }
    }
}

/// Why there is no result of what is done aside.
enum Aside {
    /// It is not done yet.
    Late,
    /// It could not be begun, or has died.
    Not(anyhow::Error),
}

/// Does what may take for ever, on a thread that may outlast our patience, and is no reason for the program to stay.
async fn aside<T: Send + 'static>(
    name: &str,
    patience: Duration,
    task: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Aside> {
    let (tell, told) = oneshot::channel();
    spawn_deaf(name, move || drop(tell.send(task())))
        .map_err(|error| Aside::Not(anyhow::Error::new(error).context("start a thread")))?;
    match timeout(patience, told).await {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(_)) => Err(Aside::Not(anyhow!("the thread that was to do it died"))),
        Err(_) => Err(Aside::Late),
    }
}

fn unanswered(why: &str, context: &'static str) -> Failure {
    Failure::from(anyhow!("{why}").context(context))
        .next("see whether its config file, env files, secrets and folder can be read, and reload again")
}

impl Control for Commander {
    type Hold = Hold;

    fn hold(&self) -> Hold {
        self.holds.count.fetch_add(1, Ordering::Relaxed);
        Hold { holds: Arc::clone(&self.holds), handle: self.handle.clone() }
    }

    fn stop(&self) {
        self.handle.stop();
    }

    fn stop_now(&self) {
        self.handle.stop_now();
    }

    async fn scale(&self, change: Change) -> Result<StatusView, Refusal> {
        let (commander, hold) = (self.clone(), self.hold());
        // Who has asked may go before it is so. It is done all the same, and kept in mind.
        let done = tokio::spawn(async move {
            let snapshot = match change {
                Change::To(workers) => commander.handle.scale(workers).await?,
                Change::By(difference) => commander.handle.scale_by(difference, 1..=MAX_WORKERS).await?,
            };
            commander.scaled(snapshot.target).await;
            drop(hold);
            Ok(commander.seen(snapshot))
        });
        done.await.unwrap_or_else(|error| Err(Refusal(format!("scale: {error}"))))
    }

    async fn reload(&self, mut wish: Reload, environment: Option<String>) -> Result<Reloading, Refusal> {
        let _hold = self.hold();
        // One after the other: each is read as it is to be after those that were asked for before it.
        let mut last = self.last.lock().await;
        let environment = environment.or_else(|| self.source.environment());
        let fresh = self.read(environment.clone()).await;
        let fresh = fresh.map_err(|failure| {
            let reason = failure.in_a_line();
            self.tally().reload_failed(reason.clone(), SystemTime::now());
            Refusal(reason)
        })?;
        let given = Given {
            command: wish.command.as_ref().map(|command| command.iter().map(text).collect()),
            env: wish.env.iter().map(|(key, value)| (text(key), text(value))).collect(),
            environment: environment.clone(),
            scaled: None,
        };
        let mut next = Next { fresh: None, given };
        let mut notices = Vec::new();
        if let Some(fresh) = fresh {
            next.fresh = Some((fresh.app, fresh.settings.pool.workers));
            wish.settings = Some(Box::new(fresh.settings));
            notices = fresh.notices;
            for text in &notices {
                self.notice(text);
            }
        }
        self.source.wants(environment);
        let (over, end) = oneshot::channel();
        let before = last.replace(end);
        Ok(Reloading { notices, news: self.follow(self.handle.reload(wish), next, before, over) })
    }

    fn upgrade(&self, wish: Upgrade) -> UpgradeProgress {
        self.handle.upgrade(wish)
    }

    async fn status(&self) -> Result<StatusView, Refusal> {
        self.handle.snapshot().await.map(|snapshot| self.seen(snapshot))
    }

    fn turned_away(&self, user: Option<u32>) {
        let who =
            user.map_or_else(|| "of a user that can't be told".to_owned(), |user| format!("of user {user}"));
        let text =
            format!("turned away from the control socket: a process {who}; the app belongs to another");
        self.notice(&text);
    }

    async fn metrics(&self) -> Result<String, Refusal> {
        let connections = self.connections().await?;
        let status = self.status().await?;
        Ok(Reading::new(status, &mut self.tally(), connections).into_open_metrics())
    }

    fn describe(&self) -> DescriptionView {
        let Described { command, workers, scaled, config, options, waiting, variables, secrets } =
            self.source.describe();
        let fixed = &*self.fixed;
        DescriptionView {
            name: fixed.name.clone(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            command_line: as_typed(&command),
            command,
            folder: fixed.folder.clone(),
            workers,
            scaled,
            config,
            background: fixed.is_background,
            socket: fixed.socket.clone(),
            log: fixed.log.clone(),
            options,
            waiting,
            variables,
            secrets,
        }
    }

    async fn signal(&self, slot: Option<Slot>, signal: Signal) -> Result<Vec<WorkerRef>, Refusal> {
        self.handle.signal(slot, signal).await
    }

    async fn send(&self, slot: Option<Slot>, message: String) -> Result<Vec<WorkerRef>, Refusal> {
        self.handle.send(slot, message).await
    }

    fn subscribe(&self, has_output: bool) -> Option<Subscription> {
        self.hub.subscribe(has_output)
    }
}
