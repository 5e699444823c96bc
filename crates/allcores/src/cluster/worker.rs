//! A worker, as a primary's user holds it.

use std::future::{Future, IntoFuture};
use std::hash::{Hash, Hasher};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use allcores_core::exit::ExitStatus;
use allcores_core::worker::{Slot, WorkerId};
use serde::Serialize;
use tokio::sync::watch;

use super::stream::Hub;
use super::{Event, Events};
use crate::error::{Error, ErrorKind};
use crate::handle::{Handle, SendHandleError, send_with_handle};
use crate::message;
use crate::primary::{self, Link, WorkerRef};
use crate::signal::Signal;

/// A worker: node:cluster's `Worker`, as the primary has it. Cheap to clone; usable from any thread, also when the worker
/// is gone.
///
/// What it says of the worker has changed before the [`Event`] about it is told.
///
/// Unlike node:cluster's, a worker's process has a session of its own: what it starts is ended with it, and Ctrl-C on a
/// terminal reaches the primary alone.
#[derive(Clone, Debug)]
pub struct WorkerHandle(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    about: WorkerRef,
    link: Link,
    commands: primary::Handle,
    life: watch::Sender<Life>,
    hub: Hub,
    first: Mutex<First>,
}

/// What has happened so far, for the first who asks.
#[derive(Debug)]
enum First {
    /// It goes on.
    Open(Events),
    /// It is over. Told of a stand-in: a worker that kept what is told of itself would be kept by it.
    Over(Vec<Event>),
    /// Somebody has asked.
    Taken,
}

/// What changes about a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Life {
    state: WorkerState,
    is_connected: bool,
    exited_after_disconnect: Option<bool>,
    status: Option<ExitStatus>,
}

/// How far a worker has come, in node:cluster's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum WorkerState {
    /// Forked; Node's `none`.
    Starting,
    /// It said that it runs.
    Online,
    /// At least one server of it has listened.
    Listening,
    /// Its channel has closed.
    Disconnected,
    /// Its process has ended.
    Dead,
}

impl WorkerHandle {
    pub(super) fn new(about: WorkerRef, link: Link, commands: primary::Handle) -> Self {
        let life = Life {
            state: WorkerState::Starting,
            is_connected: true,
            exited_after_disconnect: None,
            status: None,
        };
        let hub = Hub::new(Arc::clone(&link.flow));
        let first = Mutex::new(First::Open(hub.subscribe_ahead()));
        Self(Arc::new(Inner { about, link, commands, life: watch::Sender::new(life), hub, first }))
    }

    /// Its number, from 1; never used again.
    pub fn id(&self) -> WorkerId {
        self.0.about.id
    }

    /// Its process.
    #[doc(alias = "worker.process")]
    pub fn pid(&self) -> u32 {
        self.0.about.pid
    }

    /// Its place among the workers, from 0: the lowest that was free. `ALLCORES_SLOT` and `NODE_APP_INSTANCE` in its
    /// environment tell it the same.
    pub fn slot(&self) -> Slot {
        self.0.about.slot
    }

    /// Sends a message: any value that serde can write as JSON.
    ///
    /// `Ok(false)` means that more than 128 KiB or 64 sockets wait to be written to the worker, this message among them: time to wait,
    /// as with Node's `send`. Of many sent without a pause the later ones are written together, when the task that sends them yields.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Disconnected`] if the channel has closed; [`ErrorKind::Message`] for a value that can't be written as JSON, or
    /// that Node would take for its own: an object whose `cmd` begins with `NODE_`; or for
    /// one of more than 64 MiB.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(worker: allcores::WorkerHandle) -> Result<(), allcores::Error> {
    /// #[derive(serde::Serialize)]
    /// struct Reload<'a> {
    ///     config: &'a str,
    /// }
    ///
    /// worker.send(&Reload { config: "/etc/app.toml" })?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn send<T: Serialize + ?Sized>(&self, message: &T) -> Result<bool, Error> {
        self.channel()?.send_user(message::to_json(message)?).map_err(|_| self.closed())
    }

    /// Sends a message with a socket, which is closed here once the worker has it.
    ///
    /// What it returns says as much as what [`send`](Self::send) does. Once that is `Ok`, the socket can't be had back: a worker
    /// that can't take it in, and not when it is sent again for a second either, does not get the message either, which an
    /// [`Event::Error`](crate::Event::Error) tells of; one that goes meanwhile does not get what it had not taken. Either way the
    /// socket is closed.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send); [`ErrorKind::Handle`] or [`ErrorKind::Io`] for a socket that can't be sent. The error
    /// [has the socket](SendHandleError::into_handle), which may go to somebody else.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(worker: allcores::WorkerHandle) -> Result<(), Box<dyn std::error::Error>> {
    /// let listener = tokio::net::TcpListener::bind("0.0.0.0:8080").await?;
    /// loop {
    ///     let (stream, client) = listener.accept().await?;
    ///     // Each that waits to be sent is a descriptor of this process.
    ///     if !worker.send_with_handle(&client, stream)? {
    ///         worker.drained().await;
    ///     }
    /// }
    /// # }
    /// ```
    #[doc(alias = "sendHandle")]
    pub fn send_with_handle<T: Serialize + ?Sized>(
        &self,
        message: &T,
        handle: impl TryInto<Handle, Error: Into<Error>>,
    ) -> Result<bool, SendHandleError> {
        send_with_handle(self.channel(), message, handle, || self.closed())
    }

    /// Completes when nothing that was sent waits to be written any more, or when the channel has closed.
    pub async fn drained(&self) {
        if let Ok(channel) = self.channel() {
            channel.drained().await;
        }
    }

    /// Takes the worker out of service and asks it to go: no new connection reaches it, it closes its servers, finishes
    /// its connections, closes the channel and ends. Repeated, it does nothing.
    ///
    /// What is returned may be awaited, until the worker is gone, or dropped.
    ///
    /// Disconnecting is not killing: a worker that has connections, or other things to do, takes its time, unless a
    /// [`kill_timeout`](super::Builder::kill_timeout) was set. A program that never said a word on its channel gets
    /// SIGTERM after two seconds.
    pub fn disconnect(&self) -> Departure {
        self.note_disconnect();
        self.0.commands.disconnect(self.id());
        Departure(self.clone())
    }

    pub(super) fn note_disconnect(&self) {
        self.change(|life| {
            if life.status.is_none() && life.is_connected {
                life.exited_after_disconnect = Some(true);
            }
        });
    }

    /// Sends a signal to the worker's process, and nothing more. That it has ended already is no error.
    ///
    /// As in Node, what [`exited_after_disconnect`](WorkerHandle::exited_after_disconnect) says does not change by it.
    ///
    /// # Errors
    ///
    /// The kernel refuses it: the worker runs as another user.
    #[doc(alias = "destroy")]
    pub fn kill(&self, signal: Signal) -> Result<(), Error> {
        let Some(raw) = signal.raw() else { return Ok(()) };
        match rustix::process::pidfd_send_signal(&self.0.link.pidfd, raw) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(Error::io(format!("sending {signal} to worker {}", self.id()), error.into())),
        }
    }

    /// Whether its channel is open: from its fork until its [`Event::Disconnect`].
    pub fn is_connected(&self) -> bool {
        self.life().is_connected
    }

    /// Whether its process has ended.
    pub fn is_dead(&self) -> bool {
        self.life().status.is_some()
    }

    /// Whether it went because it was asked to, or said that it would: by
    /// [`disconnect`](WorkerHandle::disconnect) on either side, or by the cluster as it stops or shrinks.
    ///
    /// `None` while it is there and nobody has asked; `Some(false)` once it has gone, or lost its channel, by itself.
    #[doc(alias = "exitedAfterDisconnect")]
    #[doc(alias = "suicide")]
    pub fn exited_after_disconnect(&self) -> Option<bool> {
        self.life().exited_after_disconnect
    }

    /// How far it has come.
    pub fn state(&self) -> WorkerState {
        self.life().state
    }

    /// How its process has ended; `None` while it has not. To wait for that, [`exited`](Self::exited).
    #[doc(alias = "exitCode")]
    #[doc(alias = "signalCode")]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.life().status
    }

    /// Waits until its process has ended, and says how.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn exited(&self) -> ExitStatus {
        let status = self.wait(|life| life.status).await;
        // Only a thread of ours that died could have left it without one.
        status.unwrap_or(ExitStatus::Code(255))
    }

    /// Tells what happens to this worker: everything since its fork to whoever asks first, also when the worker is gone by
    /// then (up to 4,096 events, or 1 MiB of messages and output; [`Event::Missed`] tells what was beyond), and from now on
    /// to others. Ends when the worker is gone.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(cluster: allcores::Cluster) -> Result<(), allcores::Error> {
    /// let worker = cluster.fork().await?;
    /// let mut events = worker.events();
    /// worker.send("how many?")?;
    /// if let Some((_, answer)) = events.next_message().await {
    ///     println!("{}", answer.parse::<u64>()?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn events(&self) -> Events {
        match std::mem::replace(&mut *self.first(), First::Taken) {
            First::Open(events) => events.asked_for(),
            First::Over(told) => Events::over(told.into_iter().map(|event| event.of(self.clone()))),
            First::Taken => self.0.hub.subscribe(),
        }
    }

    fn first(&self) -> MutexGuard<'_, First> {
        self.0.first.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn channel(&self) -> Result<&crate::channel::Sender, Error> {
        let channel = self.0.link.channel.as_ref().filter(|_| self.is_connected());
        channel.ok_or_else(|| self.closed())
    }

    fn closed(&self) -> Error {
        let tried = format!("sending to worker {}, whose channel has closed", self.id());
        Error::new(ErrorKind::Disconnected, tried)
    }

    fn life(&self) -> Life {
        *self.0.life.borrow()
    }

    fn change(&self, change: impl FnOnce(&mut Life)) {
        self.0.life.send_modify(change);
    }

    /// Waits for something to be known about it.
    async fn wait<T>(&self, what: impl Fn(&Life) -> Option<T>) -> Option<T> {
        let mut life = self.0.life.subscribe();
        let life = life.wait_for(|life| what(life).is_some()).await;
        life.ok().and_then(|life| what(&life))
    }
}

/// For those who tell of it.
impl WorkerHandle {
    pub(super) fn reach(&self, state: WorkerState) {
        self.change(|life| life.state = life.state.max(state));
    }

    pub(super) fn note_leaving(&self) {
        self.change(|life| life.exited_after_disconnect = Some(true));
    }

    /// Its channel has closed.
    pub(super) fn note_disconnected(&self) {
        self.change(|life| {
            life.is_connected = false;
            life.state = life.state.max(WorkerState::Disconnected);
            life.exited_after_disconnect.get_or_insert(false);
        });
    }

    /// Its process has ended.
    pub(super) fn note_exited(&self, status: ExitStatus) {
        self.change(|life| {
            life.status = Some(status);
            life.state = WorkerState::Dead;
            life.exited_after_disconnect.get_or_insert(false);
        });
    }

    pub(super) fn push(&self, event: Event) {
        self.0.hub.push(event);
    }

    pub(super) fn push_all(&self, events: impl Iterator<Item = Event> + Clone) {
        self.0.hub.push_all(events);
    }

    #[cfg(test)]
    pub(super) fn flow(&self) -> &Arc<crate::primary::Flow> {
        &self.0.link.flow
    }

    /// Nothing more will be told of it.
    pub(super) fn end(&self) {
        self.0.hub.end();
        let mut first = self.first();
        if let First::Open(events) = std::mem::replace(&mut *first, First::Taken) {
            let stand_in = self.stand_in();
            let told = events.into_rest().into_iter().map(|event| event.of(stand_in.clone()));
            *first = First::Over(told.collect());
        }
    }

    /// Another handle of the same worker, which keeps nothing that was told of it.
    fn stand_in(&self) -> Self {
        let Inner { about, link, commands, life, .. } = &*self.0;
        Self(Arc::new(Inner {
            about: *about,
            link: link.clone(),
            commands: commands.clone(),
            life: watch::Sender::new(*life.borrow()),
            hub: Hub::new(Arc::clone(&link.flow)),
            first: Mutex::new(First::Taken),
        }))
    }
}

/// Two handles are equal if they are of the same worker.
impl PartialEq for WorkerHandle {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for WorkerHandle {}

impl Hash for WorkerHandle {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id().hash(state);
    }
}

/// A worker on its way out. Await it to learn how it ended, or drop it: the worker goes all the same.
#[derive(Debug)]
#[must_use = "awaiting it waits until the worker is gone; to not wait, drop it"]
pub struct Departure(WorkerHandle);

impl Departure {
    /// The worker.
    pub fn worker(&self) -> &WorkerHandle {
        &self.0
    }
}

impl IntoFuture for Departure {
    type Output = ExitStatus;
    type IntoFuture = Pin<Box<dyn Future<Output = ExitStatus> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let is_gone = |life: &Life| life.status.filter(|_| !life.is_connected);
            self.0.wait(is_gone).await.unwrap_or(ExitStatus::Code(255))
        })
    }
}
