//! What holds of the control API whatever bytes come, over a connection without a socket and a primary that does nothing.

use allcores::primary::{Refusal, Reload, Upgrade, UpgradeProgress, WorkerRef};
use allcores::{Signal, Slot};
use axum::Router;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde::de::IgnoredAny;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use super::{Control, Reloading, routes, server};
use crate::args::{Change, MAX_WORKERS};
use crate::hub::Subscription;
use crate::view::{DescriptionView, StatusView};

/// How much of what is answered may be on its way.
const ON_ITS_WAY: usize = 64 * 1024;

/// Sends bytes to the API, and reads until it has closed the connection. True if something was asked and done.
///
/// # Panics
///
/// If the primary is told what makes no sense, or a fault of ours is answered.
pub fn control(data: &[u8]) -> bool {
    thread_local! {
        static SERVER: (Runtime, TowerToHyperService<Router>) = (
            tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime"),
            TowerToHyperService::new(routes::router(Nobody)),
        );
    }
    SERVER.with(|(runtime, routes)| runtime.block_on(answer(data, routes.clone())))
}

async fn answer(data: &[u8], routes: TowerToHyperService<Router>) -> bool {
    let (mut client, socket) = tokio::io::duplex(ON_ITS_WAY);
    let (done, mut is_done) = mpsc::unbounded_channel();
    let service = service_fn(move |request| {
        let (answer, done) = (routes.call(request), done.clone());
        async move {
            let response = answer.await?;
            let status = response.status().as_u16();
            assert!(
                matches!(status, 200 | 202 | 400 | 404 | 405 | 408 | 409 | 413 | 503),
                "answered by {status}"
            );
            let _ = done.send(status < 300);
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let mut protocol = server::protocol();
    // Who has said all waits for the answers.
    let serve = protocol.half_close(true).serve_connection(TokioIo::new(socket), service);
    let ask = async {
        // It may close before it has read all.
        let (mut read, mut write) = tokio::io::split(&mut client);
        let speak = async {
            let _ = write.write_all(data).await;
            let _ = write.shutdown().await;
        };
        let mut answer = Vec::new();
        let _ = tokio::join!(speak, read.read_to_end(&mut answer));
        answer
    };
    // What is no HTTP is an error of the connection, and no other's affair.
    let (_, answer) = tokio::join!(serve, ask);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{}", answer.escape_ascii());
    let mut is_any = false;
    while let Ok(is_good) = is_done.try_recv() {
        is_any |= is_good;
    }
    is_any
}

/// A primary that refuses everything, and looks whether it makes sense.
#[derive(Clone, Copy, Debug)]
struct Nobody;

impl Nobody {
    fn refuse<T>() -> Result<T, Refusal> {
        Err(Refusal("nobody is here".into()))
    }
}

impl Control for Nobody {
    type Hold = ();

    fn hold(&self) {}

    fn stop(&self) {}

    fn stop_now(&self) {}

    async fn scale(&self, change: Change) -> Result<StatusView, Refusal> {
        if let Change::To(workers) = change {
            assert!((1..=MAX_WORKERS).contains(&workers), "{workers} workers");
        }
        Self::refuse()
    }

    async fn reload(&self, wish: Reload, _: Option<String>) -> Result<Reloading, Refusal> {
        assert!(wish.surge.is_none_or(|surge| (1..=MAX_WORKERS).contains(&surge)), "{wish:?}");
        assert!(wish.command.as_ref().is_none_or(|command| !command.is_empty()), "{wish:?}");
        Ok(Reloading { notices: vec!["nobody is here".into()], news: mpsc::unbounded_channel().1.into() })
    }

    fn describe(&self) -> DescriptionView {
        DescriptionView::default()
    }

    async fn signal(&self, _: Option<Slot>, _: Signal) -> Result<Vec<WorkerRef>, Refusal> {
        Self::refuse()
    }

    async fn send(&self, _: Option<Slot>, message: String) -> Result<Vec<WorkerRef>, Refusal> {
        assert!(!message.contains(['\n', '\r']), "several lines: {message:?}");
        assert!(serde_json::from_str::<IgnoredAny>(&message).is_ok(), "no JSON: {message:?}");
        Ok(Vec::new())
    }

    fn subscribe(&self, _: bool) -> Option<Subscription> {
        None
    }

    async fn metrics(&self) -> Result<String, Refusal> {
        Ok("# EOF\n".into())
    }

    fn turned_away(&self, _: Option<u32>) {}

    fn upgrade(&self, wish: Upgrade) -> UpgradeProgress {
        assert!(wish.executable.is_none_or(|path| path.is_absolute()));
        mpsc::unbounded_channel().1.into()
    }

    async fn status(&self) -> Result<StatusView, Refusal> {
        Self::refuse()
    }
}
