//! node:cluster's primary, for Rust: fork workers, hear of them, talk to them.
//!
//! A client of [`primary`](crate::primary), whose engine runs on a thread of its own and does everything; what is here
//! keeps the table of workers as users see it, and owns nothing else. It does not know how connections reach workers.

mod builder;
mod event;
mod fork;
mod reload;
mod settings;
mod stream;
mod tell;
mod thread;
mod worker;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use allcores_core::worker::WorkerId;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};

use crate::error::{Error, ErrorKind};
use crate::primary::{self, AppSnapshot, Extras, Flow};

pub use builder::Builder;
pub use event::{AddressType, Event, ListeningAddress};
pub use fork::Fork;
pub use reload::Reload;
pub use settings::{ClusterSettings, Stdio};
pub use stream::Events;
pub use worker::{Departure, WorkerHandle, WorkerState};

use settings::Plan;
use stream::Hub;

/// A primary and its workers: node:cluster's `cluster`, as a primary sees it.
///
/// Made by [`Builder::start`]. Its engine runs on a thread of its own (named `allcores`), so any async runtime will do,
/// and a busy program delays no worker. Dropping it stops the workers in peace, and nobody waits for that; to wait,
/// [`stop`](Cluster::stop).
///
/// # Examples
///
/// ```no_run
/// # async fn example(builder: allcores::Builder) -> Result<(), allcores::Error> {
/// use allcores::Event;
///
/// let mut cluster = builder.workers(4).start().await?;
/// while let Some(event) = cluster.next_event().await {
///     match event {
///         Event::Listening { worker, address } => println!("worker {} listens on {address}", worker.id()),
///         Event::Exit { worker, status } if worker.exited_after_disconnect() == Some(false) => {
///             println!("worker {} died: {status}", worker.id());
///             cluster.fork().await?;
///         }
///         _ => {}
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Cluster {
    shared: Arc<Shared>,
    events: Events,
}

/// What the cluster, its workers' handles and the engine's thread have in common.
#[derive(Debug)]
struct Shared {
    commands: primary::Handle,
    table: Mutex<BTreeMap<WorkerId, WorkerHandle>>,
    hub: Hub,
    plan: Mutex<Plan>,
    /// How the engine ended: of itself, with this.
    ended: watch::Sender<Option<Result<(), Arc<Error>>>>,
}

impl Shared {
    fn new(commands: primary::Handle, plan: Plan) -> Self {
        Self {
            commands,
            table: Mutex::default(),
            hub: Hub::new(Arc::new(Flow::default())),
            plan: Mutex::new(plan),
            ended: watch::Sender::new(None),
        }
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<WorkerId, WorkerHandle>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cluster {
    /// What [`Builder::start`] makes a cluster of.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Starts one more worker, by the present [settings](Cluster::settings).
    ///
    /// It is in [`workers`](Cluster::workers) when this returns, and its process exists.
    ///
    /// # Errors
    ///
    /// Its process could not be made, or the cluster stops. Where workers are [kept](Builder::keep) it is tried again all the
    /// same, after a [`backoff`](Builder::backoff): there is one more to be kept.
    ///
    /// # Cancel safety
    ///
    /// Once polled, a worker is forked whether or not anybody waits for it: [`Event::Fork`] and
    /// [`workers`](Cluster::workers) tell of it.
    pub async fn fork(&self) -> Result<WorkerHandle, Error> {
        self.fork_with(Fork::new()).await
    }

    /// Starts one more worker that gets something of its own.
    ///
    /// # Errors
    ///
    /// As [`fork`](Cluster::fork); [`ErrorKind::Settings`] for what makes no sense.
    ///
    /// # Cancel safety
    ///
    /// As [`fork`](Cluster::fork).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(cluster: allcores::Cluster) -> Result<(), allcores::Error> {
    /// use allcores::Fork;
    ///
    /// let worker = cluster.fork_with(Fork::new().env("ROLE", "scheduler")).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn fork_with(&self, fork: Fork) -> Result<WorkerHandle, Error> {
        let extras = Extras::try_from(fork)?;
        let gone = || Error::new(ErrorKind::Stopped, "forking a worker of a cluster that has stopped");
        let (reply, answer) = oneshot::channel();
        let shared = Arc::clone(&self.shared);
        // Looked up by the engine, before it can take note of the worker's end.
        self.shared.commands.fork(extras, move |forked| {
            let forked = forked.and_then(|id| shared.table().get(&id).cloned().ok_or_else(gone));
            let _ = reply.send(forked);
        });
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Lists the workers that there are, in the order in which they were forked.
    ///
    /// A worker is in it from its fork until its channel has closed and its process has ended, both. (node:cluster takes
    /// one out at once when the primary disconnects it, though it goes on serving what it has.)
    pub fn workers(&self) -> Vec<WorkerHandle> {
        self.shared.table().values().cloned().collect()
    }

    /// Finds a worker that there is.
    pub fn worker(&self, id: WorkerId) -> Option<WorkerHandle> {
        self.shared.table().get(&id).cloned()
    }

    /// Disconnects all workers, and completes when they are gone, all of them. With none, at once.
    ///
    /// The addresses that they listened on are free by then. The cluster is not over: it can fork again. One that
    /// [keeps](Builder::keep) its workers keeps none from now on but those that are forked then.
    ///
    /// Who has connected by now is served, also who waits for a worker that is busy (for as long as the
    /// [`drain_timeout`](Builder::drain_timeout)); who comes from now on is not let in. Each worker finishes its
    /// connections, however long that takes, unless a [`kill_timeout`](Builder::kill_timeout) was set.
    ///
    /// (node:cluster calls back when the *first* worker has gone, and cuts off who waits in the primary.)
    ///
    /// # Cancel safety
    ///
    /// Once polled, all workers go whether or not anybody waits for that.
    pub async fn disconnect(&self) {
        for worker in self.workers() {
            worker.note_disconnect();
        }
        self.shared.commands.disconnect_all().await;
    }

    /// Waits for what happens next; `None` once the cluster has stopped and everything has been told.
    ///
    /// What happened before the first call is not lost: up to 4,096 events, or 1 MiB of messages and output, are kept
    /// for it (a socket counts for 64 KiB). Beyond that the oldest is dropped, which [`Event::Missed`] tells first; so who
    /// forks workers that have much to say asks for the first event early. Later on nothing is dropped: while 4,096 messages
    /// and lines (or 16 MiB of them) have not been taken, no more is read from workers: what they print waits, and with their
    /// messages their answers to connections that were handed over. So who has asked once goes on asking; who wants a few
    /// events and no more takes them from [`events`](Cluster::events), which can be dropped.
    ///
    /// # Cancel safety
    ///
    /// Safe: an event that is not returned stays.
    pub async fn next_event(&mut self) -> Option<Event> {
        self.events.next().await
    }

    /// Tells what happens from now on to one listener more, beside [`next_event`](Cluster::next_event). Nothing of it is
    /// dropped.
    pub fn events(&self) -> Events {
        self.shared.hub.subscribe()
    }

    /// The settings that the next worker is forked with.
    #[doc(alias = "cluster.settings")]
    pub fn settings(&self) -> ClusterSettings {
        self.shared.plan().settings()
    }

    /// Changes settings for workers that are forked later; what is not named stays as it is. Told as [`Event::Setup`].
    ///
    /// # Errors
    ///
    /// The settings make no sense together; nothing has changed then.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(cluster: allcores::Cluster) -> Result<(), allcores::Error> {
    /// use allcores::ClusterSettings;
    ///
    /// cluster.setup(ClusterSettings::new().args(["--use", "https"]))?;
    /// cluster.fork().await?; // with https
    /// cluster.setup(ClusterSettings::new().args(["--use", "http"]))?;
    /// cluster.fork().await?; // with http
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "setupPrimary")]
    #[doc(alias = "setupMaster")]
    pub fn setup(&self, settings: ClusterSettings) -> Result<(), Error> {
        let mut plan = self.shared.plan();
        let engine = plan.change(settings)?;
        // Under the lock, so that the engine hears of changes in their order.
        self.shared.commands.set_up(engine);
        self.shared.hub.push(Event::Setup { settings: Box::new(plan.settings()) });
        Ok(())
    }

    /// Has so many workers, and completes when they run (where they are [kept](Builder::keep): when they serve) and the
    /// surplus has drained and gone.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unreached`] if workers keep exiting, or another number is asked for meanwhile.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the number is aimed at whether or not anybody waits for it.
    pub async fn scale(&self, workers: u16) -> Result<(), Error> {
        let tried = || format!("scaling to {workers} workers");
        let scaled = self.shared.commands.scale(workers).await;
        scaled.map(drop).map_err(|refusal| Error::new(ErrorKind::Unreached, tried()).because(refusal))
    }

    /// Looks at everything: what is listened on, each worker's queue, memory and CPU time.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Stopped`] if the cluster has.
    pub async fn snapshot(&self) -> Result<AppSnapshot, Error> {
        let snapshot = self.shared.commands.snapshot().await;
        snapshot.map_err(|refusal| Error::new(ErrorKind::Stopped, "looking at the cluster").because(refusal))
    }

    /// Serves until this process is asked to stop, by SIGTERM or SIGINT (Ctrl-C), and then [stops](Cluster::stop) in peace;
    /// asked again, it ends the workers at once. Who has nothing to do in between uses [`Builder::serve`].
    ///
    /// Nobody reads the cluster's own events any more; [streams](Cluster::events) that were taken before go on.
    ///
    /// # Errors
    ///
    /// The cluster has [ended](Cluster::ended) by itself: why. Or the signals can't be listened for; it stops then.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it stops the workers in peace, as the cluster does, and nobody waits for that.
    ///
    /// # Panics
    ///
    /// The future, outside of a tokio runtime that handles I/O.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(cluster: allcores::Cluster) -> Result<(), allcores::Error> {
    /// let mut events = cluster.events();
    /// tokio::spawn(async move {
    ///     while let Some(event) = events.next().await {
    ///         println!("{event:?}");
    ///     }
    /// });
    /// cluster.serve().await
    /// # }
    /// ```
    pub async fn serve(self) -> Result<(), Error> {
        let calls = Calls::listen()?;
        self.serve_until(calls).await
    }

    async fn serve_until(mut self, mut calls: Calls) -> Result<(), Error> {
        self.stop_listening();
        let mut is_stopping = false;
        loop {
            tokio::select! {
                ended = self.ended() => return ended,
                _ = calls.terminate.recv() => {}
                _ = calls.interrupt.recv() => {}
            }
            if std::mem::replace(&mut is_stopping, true) {
                self.shared.commands.stop_now();
            } else {
                self.shared.commands.stop();
            }
        }
    }

    /// Waits until the cluster has ended. It does so by itself where workers are [kept](Builder::keep) and it is of no use:
    /// none was ever ready, and each has exited early so often in a row that it is not started again.
    ///
    /// # Errors
    ///
    /// It has ended by itself: why.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn ended(&self) -> Result<(), Error> {
        let mut ended = self.shared.ended.subscribe();
        let outcome = ended.wait_for(Option::is_some).await.map(|outcome| outcome.clone());
        match outcome.ok().flatten() {
            Some(Err(error)) => {
                Err(Error::new(error.kind(), "the cluster has ended by itself").because(error))
            }
            _ => Ok(()),
        }
    }

    /// Stops in peace: refuses new connections, lets workers finish those that they have (up to the
    /// [`drain_timeout`](Builder::drain_timeout)), asks them to go, ends those that do not, and completes when all are
    /// gone.
    ///
    /// # Errors
    ///
    /// The cluster had ended before by itself: why.
    ///
    /// # Cancel safety
    ///
    /// Once polled, it stops whether or not anybody waits for that.
    pub async fn stop(mut self) -> Result<(), Error> {
        self.stop_listening();
        self.shared.commands.stop();
        self.ended().await
    }

    /// A stream that nobody reads would hold back workers on their way down.
    fn stop_listening(&mut self) {
        self.events = Events::over([]);
    }
}

/// The signals by which a process is asked to stop. From here on they don't end it by themselves any more.
struct Calls {
    terminate: Signal,
    interrupt: Signal,
}

impl Calls {
    fn listen() -> Result<Self, Error> {
        let failed = |error| Error::io("listening for SIGTERM and SIGINT", error);
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shared.commands.stop();
    }
}
