//! Answers monitoring on an address of its own: `/metrics`, `/ready` and `/live`, and nothing by which the app could be
//! commanded. Whoever can connect may read.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::control::{self, Control};
use crate::exit_code::ExitCode;
use crate::failure::Failure;

/// How many connections are served at a time; more wait in the kernel's queue.
const AT_ONCE: usize = 32;

/// How long one may last: who does not read its answer must not keep others out.
const LIFETIME: Duration = Duration::from_secs(30);

/// How long to let be when the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A server for monitoring. Nobody listens any more when it is dropped.
#[derive(Debug)]
pub(crate) struct MetricsServer {
    task: JoinHandle<()>,
}

impl MetricsServer {
    /// Listens. Who connects waits until [`serve`](Self::serve).
    ///
    /// # Errors
    ///
    /// The address can't be had.
    pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("serve metrics on {address}"));
        listener.map_err(|error| {
            Failure::new(ExitCode::AddressUnavailable, error)
                .next("give another address (--metrics), or end who has it")
        })
    }

    /// Begins to answer, on the present runtime.
    pub(crate) fn serve<C: Control>(listener: Arc<TcpListener>, control: C) -> Self {
        let room = Arc::new(Semaphore::new(AT_ONCE));
        let task = tokio::spawn(async move {
            // Nobody closes it.
            while let Ok(place) = Arc::clone(&room).acquire_owned().await {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let connection = control::serve_monitoring(stream, control.clone());
                        tokio::spawn(async move {
                            let _ = tokio::time::timeout(LIFETIME, connection).await;
                            drop(place);
                        });
                    }
                    Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
                }
            }
        });
        Self { task }
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
