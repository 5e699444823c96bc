//! Accepts connections on the control socket and lets in only the app's own user and root.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{Control, routes};

/// How long a request's head may take to arrive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long answers under way may take after the primary has gone.
const GRACE: Duration = Duration::from_secs(1);

/// How long to let be when the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Makes the control socket, in the place of one that a dead primary left. Only who holds the name may call this.
///
/// # Errors
///
/// The socket's folder can't be written to.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// A control server at work.
#[derive(Debug)]
pub(crate) struct Server {
    task: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

impl Server {
    /// Begins to answer, on the present runtime.
    pub(crate) fn start<C: Control>(listener: UnixListener, control: C) -> Self {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let connections = GracefulShutdown::new();
            tokio::select! {
                () = accept(&listener, &control, &connections) => {}
                _ = stopped => {}
            }
            drop(listener);
            // Past the grace, whoever still waits sees the connection close.
            let _ = tokio::time::timeout(GRACE, connections.shutdown()).await;
        });
        Self { task, stop }
    }

    /// Accepts no more, and lets answers under way be written.
    pub(crate) async fn finish(self) {
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}

async fn accept<C: Control>(listener: &UnixListener, control: &C, connections: &GracefulShutdown) {
    let own = rustix::process::geteuid().as_raw();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let peer = stream.peer_cred().ok().map(|peer| peer.uid());
                let routes =
                    if is_welcome(peer, own) { routes::router(control.clone()) } else { routes::denied() };
                tokio::spawn(serve(stream, routes, connections.watcher()));
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Says who may command an app: its own user, and root.
pub(super) fn is_welcome(peer: Option<u32>, own: u32) -> bool {
    peer.is_some_and(|uid| uid == own || uid == 0)
}

async fn serve(stream: UnixStream, routes: Router, connections: Watcher) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    // A client that went away, or spoke no HTTP, is its own affair.
    let _ = connections.watch(connection).await;
}
