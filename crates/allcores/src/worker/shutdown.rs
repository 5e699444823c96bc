//! When it is time to go.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::link::Phase;
use super::{Kind, Worker};

impl Worker {
    /// Completes when this worker is to end: the primary said so or is gone, or [`disconnect`](Self::disconnect) or
    /// [`kill`](Self::kill) was called here, or SIGTERM came.
    ///
    /// Then nothing new is accepted any more: finish what there is and let `main` return. Made for
    /// `with_graceful_shutdown` of axum and of hyper. When the primary is gone without having said so, nothing ends this
    /// process but the program itself; Node exits at once there.
    ///
    /// SIGTERM is how primaries and operators ask when they get no answer otherwise, so that is taken for a wish too;
    /// where no primary has said when to go, alone or adopted, so is SIGINT: Ctrl-C. From the first poll of the future
    /// they don't end the process by themselves any more.
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
    ///             Err(error) => eprintln!("{error}"),
    ///         },
    ///         () = &mut shutdown => break,
    ///     }
    /// }
    /// drop(listener);
    /// serving.join_all().await;
    /// # async fn serve(_: tokio::net::TcpStream) {}
    /// # Ok(()) }
    /// ```
    pub fn shutdown(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut phase = self.link.phase();
        let kind = self.kind;
        async move {
            let interrupt = (kind != Kind::Connected).then_some(SignalKind::interrupt());
            tokio::select! {
                () = left(&mut phase) => {}
                () = arrived(Some(SignalKind::terminate())) => {}
                () = arrived(interrupt) => {}
            }
        }
    }
}

async fn left(phase: &mut watch::Receiver<Phase>) {
    // The sender lives as long as the worker; without either nobody could say so any more.
    if phase.wait_for(|phase| *phase != Phase::Serving).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Waits for a signal; for ever where it can't be listened for.
async fn arrived(kind: Option<SignalKind>) {
    let listened: Option<Signal> = kind.and_then(|kind| signal(kind).ok());
    match listened {
        Some(mut signals) => drop(signals.recv().await),
        None => std::future::pending().await,
    }
}
