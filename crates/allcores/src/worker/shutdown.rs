//! When it is time to go.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::link::Phase;
use super::{Kind, Worker};

/// How often the reactor turns: once to find what has come, and once for who begins in that turn.
const TURNS: u8 = 2;

/// How long all threads of a runtime have to do so.
const SETTLING: Duration = Duration::from_millis(20);

impl Worker {
    /// Completes when this worker is to end: the primary said so or is gone, or [`disconnect`](Self::disconnect) or
    /// [`kill`](Self::kill) was called here, or SIGTERM came.
    ///
    /// Then drop the listeners, finish what there is and let `main` return. (Where the primary said so, nothing new is
    /// accepted any more.) Made for `with_graceful_shutdown` of axum and `serve_with_incoming_shutdown` of tonic. When the primary
    /// is gone without having said so, nothing ends this process but the program itself; Node exits at once there.
    ///
    /// It completes when what was accepted before has been read, as far as it had come: servers close connections
    /// from which they have read nothing. In a multi-threaded runtime that is believed of all threads after 20 ms.
    ///
    /// SIGTERM is how primaries and operators ask when they get no answer otherwise, so that is taken for a wish too;
    /// where no primary has said when to go, alone or adopted, so is SIGINT: Ctrl-C. From the first poll of the future
    /// they don't end the process by themselves any more; asked again after that, it completes at once, also if the signal
    /// came while nobody waited.
    ///
    /// # Panics
    ///
    /// The future, outside of a tokio runtime that handles I/O.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(worker: allcores::Worker) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut listener = worker.listen("0.0.0.0:8080").await?;
    /// let mut shutdown = std::pin::pin!(worker.shutdown());
    /// let mut serving = tokio::task::JoinSet::new();
    /// loop {
    ///     tokio::select! {
    ///         accepted = listener.accept() => match accepted {
    ///             Ok((stream, _)) => drop(serving.spawn(serve(stream))),
    ///             Err(error) => {
    ///                 eprintln!("accept: {error}");
    ///                 tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    ///             }
    ///         },
    ///         // Who is done leaves nothing behind.
    ///         Some(_) = serving.join_next() => {}
    ///         () = &mut shutdown => break,
    ///     }
    /// }
    /// drop(listener);
    /// serving.join_all().await;
    /// # async fn serve(_: tokio::net::TcpStream) {}
    /// # Ok(()) }
    /// ```
    pub fn shutdown(&self) -> impl Future<Output = ()> + Send + use<> {
        let (mut phase, link) = (self.link.phase(), Arc::clone(&self.link));
        let kind = self.kind;
        async move {
            // Both before it is looked what came earlier: nothing falls between.
            let mut terminate = listen(Some(SignalKind::terminate()));
            let mut interrupt = listen((kind != Kind::Connected).then_some(SignalKind::interrupt()));
            if link.calls.have_come(kind) {
                return;
            }
            tokio::select! {
                () = left(&mut phase) => {}
                () = arrived(&mut terminate) => link.calls.note(),
                () = arrived(&mut interrupt) => link.calls.note(),
            }
            read_what_was_accepted().await;
        }
    }
}

/// Waits until other tasks have read what had come to the connections that were accepted before. Those were polled once, when
/// the reactor knew nothing of them yet; hyper closes them unread when it is told of the end before they are polled again.
async fn read_what_was_accepted() {
    if Handle::current().runtime_flavor() != RuntimeFlavor::CurrentThread {
        // Other threads may compute before they come to theirs.
        let _ = tokio::task::spawn_blocking(|| std::thread::sleep(SETTLING)).await;
    }
    // A task of its own comes after all that are waiting; who waits for this may come before. What yields goes on after the
    // reactor has turned, and behind those whom it has woken.
    let turns = tokio::spawn(async {
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
    });
    let _ = turns.await;
}

/// The signals that ask this process to go, which may come while no [`Worker::shutdown`] waits for them.
#[derive(Debug, Default)]
pub(super) struct Calls(Mutex<State>);

#[derive(Debug, Default)]
enum State {
    /// Nobody has asked: a signal still ends the process.
    #[default]
    Unasked,
    /// Listened to since then, and looked at when somebody asks again.
    Kept(Vec<Signal>),
    Come,
}

impl Calls {
    fn note(&self) {
        *self.state() = State::Come;
    }

    /// Whether one has come since this was first asked. Nobody is woken when one comes.
    fn have_come(&self, kind: Kind) -> bool {
        let mut state = self.state();
        if let State::Unasked = *state {
            let kinds =
                [Some(SignalKind::terminate()), (kind != Kind::Connected).then_some(SignalKind::interrupt())];
            *state = State::Kept(kinds.into_iter().filter_map(listen).collect());
        }
        if let State::Kept(signals) = &mut *state {
            let context = &mut Context::from_waker(Waker::noop());
            if signals.iter_mut().any(|signal| signal.poll_recv(context) == Poll::Ready(Some(()))) {
                *state = State::Come;
            }
        }
        matches!(*state, State::Come)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn left(phase: &mut watch::Receiver<Phase>) {
    // The sender lives as long as the worker; without either nobody could say so any more.
    if phase.wait_for(|phase| *phase != Phase::Serving).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// None also where it can't be listened for.
fn listen(kind: Option<SignalKind>) -> Option<Signal> {
    kind.and_then(|kind| signal(kind).ok())
}

async fn arrived(signals: &mut Option<Signal>) {
    match signals {
        Some(signals) => drop(signals.recv().await),
        None => std::future::pending().await,
    }
}
