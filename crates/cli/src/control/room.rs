//! How many are let in to the control socket at a time, and who has to go when there is no room: who has asked for nothing.
//!
//! A connection is idle until a request has come over it whole. Where all places are taken, the one that is idle for the longest
//! time makes room for who comes next. So neither silence nor a request that never ends keeps anybody from commanding an app.

use std::collections::BTreeMap;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// How many connections are served at a time. Commands need one each, and who reads events keeps one.
const AT_ONCE: usize = 256;

/// How long nobody has to go for another. Where there is no room, who means well has asked while waiting to be accepted, and is
/// heard at once; and who comes back at once waits.
const GRACE: Duration = Duration::from_millis(10);

/// The places.
#[derive(Clone, Debug)]
pub(super) struct Room {
    places: Arc<Semaphore>,
    /// By number, so the oldest first.
    idle: Arc<Mutex<BTreeMap<u64, Idler>>>,
}

#[derive(Clone, Debug)]
struct Idler {
    since: Instant,
    is_to_go: Arc<Notify>,
}

/// A connection's place. It is another's once this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    number: u64,
    room: Room,
    is_to_go: Arc<Notify>,
    _permit: OwnedSemaphorePermit,
}

impl Default for Room {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(AT_ONCE)), idle: Arc::default() }
    }
}

impl Room {
    /// Waits for a place for the connection of this number, which is higher than all before, and has another go if need be:
    /// one at the most, so this is to be called for one connection after the other.
    pub(super) async fn enter(self, number: u64) -> Option<Place> {
        let permit = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => self.make().await?,
        };
        let is_to_go = Arc::new(Notify::new());
        self.idle().insert(number, Idler { since: Instant::now(), is_to_go: Arc::clone(&is_to_go) });
        Some(Place { number, room: self, is_to_go, _permit: permit })
    }

    async fn make(&self) -> Option<OwnedSemaphorePermit> {
        let mut free = pin!(Arc::clone(&self.places).acquire_owned());
        let oldest = self.idle().values().next().map(|idler| idler.since);
        if let Some(since) = oldest {
            if let Ok(permit) = tokio::time::timeout_at(since + GRACE, &mut free).await {
                return permit.ok();
            }
            if let Some((_, idler)) = self.idle().pop_first() {
                idler.is_to_go.notify_one();
            }
        }
        free.await.ok()
    }

    /// Whether nobody is there.
    pub(super) fn is_empty(&self) -> bool {
        self.places.available_permits() == AT_ONCE
    }

    fn idle(&self) -> MutexGuard<'_, BTreeMap<u64, Idler>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Whose it is.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Waits until it has to be left. It has not once a request is whole.
    pub(super) async fn is_lost(&self) {
        self.is_to_go.notified().await;
    }

    /// Who is to be told when a request is whole.
    pub(super) fn asking(&self) -> Asking {
        Asking { number: self.number, room: self.room.clone() }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.idle().remove(&self.number);
    }
}

/// Somebody is asking for something.
#[derive(Clone, Debug)]
pub(super) struct Asking {
    number: u64,
    room: Room,
}

impl Asking {
    fn done(&self) {
        self.room.idle().remove(&self.number);
    }
}

/// Notices when a request is whole: its head is when this is called, and its body when it was read or is not wanted.
pub(super) async fn notice(Extension(asking): Extension<Asking>, request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        asking.done();
        return next.run(request).await;
    }
    next.run(request.map(|body| Body::new(Awaited { body, asking }))).await
}

/// A body that comes.
struct Awaited {
    body: Body,
    asking: Asking,
}

impl HttpBody for Awaited {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.asking.done();
    }
}
