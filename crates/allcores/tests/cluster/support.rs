//! Clusters of small scripts, and waiting for what they do.

use std::fmt::Debug;
use std::future::IntoFuture;
use std::time::Duration;

use allcores::{Builder, Cluster, Event, WorkerHandle};

/// How long anything here may take. Only ever waited for in full when a test fails.
const LIMIT: Duration = Duration::from_secs(20);

/// Workers that run this JavaScript, with `cluster` at hand.
pub(crate) fn script(code: &str) -> Builder {
    let code = format!("const cluster = require('node:cluster');\n{code}");
    // node:cluster looks for a second argument to know that a program is run at all.
    Builder::new().exec("node").args(["-e", &code, "worker"])
}

pub(crate) async fn start(builder: Builder) -> Cluster {
    within("the start", builder.start()).await.unwrap()
}

/// Waits for something, and fails the test if it does not come.
pub(crate) async fn within<F: IntoFuture>(what: impl Debug, future: F) -> F::Output {
    tokio::time::timeout(LIMIT, future.into_future())
        .await
        .unwrap_or_else(|_| panic!("waited in vain for {what:?}"))
}

/// The next event that `pick` wants; others are passed over.
pub(crate) async fn until<T>(cluster: &mut Cluster, mut pick: impl FnMut(&Event) -> Option<T>) -> T {
    let mut passed = Vec::new();
    let search = async {
        loop {
            let event = cluster.next_event().await.expect("the cluster has ended");
            if let Some(found) = pick(&event) {
                return found;
            }
            passed.push(name(&event));
        }
    };
    let found = tokio::time::timeout(LIMIT, search).await;
    found.unwrap_or_else(|_| panic!("in vain; passed over {passed:?}"))
}

/// All events until, and with, the one that `is_last`, by their names.
pub(crate) async fn names_until(
    cluster: &mut Cluster,
    mut is_last: impl FnMut(&Event) -> bool,
) -> Vec<&'static str> {
    let mut names = Vec::new();
    until(cluster, |event| {
        names.push(name(event));
        is_last(event).then_some(())
    })
    .await;
    names
}

/// Waits until a worker is gone: its channel and its process.
pub(crate) async fn gone(cluster: &mut Cluster, worker: &WorkerHandle) -> Event {
    until(cluster, |event| {
        let is_half = matches!(event, Event::Exit { .. } | Event::Disconnect { .. });
        let is_whole = worker.is_dead() && !worker.is_connected();
        (is_half && is_whole && event.worker() == Some(worker)).then(|| event.clone())
    })
    .await
}

/// node:cluster's name of an event, or ours.
pub(crate) fn name(event: &Event) -> &'static str {
    match event {
        Event::Setup { .. } => "setup",
        Event::Fork { .. } => "fork",
        Event::Online { .. } => "online",
        Event::Listening { .. } => "listening",
        Event::Message { .. } => "message",
        Event::Disconnect { .. } => "disconnect",
        Event::Exit { .. } => "exit",
        Event::Error { .. } => "error",
        Event::Ready { .. } => "ready",
        Event::Hung { .. } => "hung",
        Event::Draining { .. } => "draining",
        Event::SpawnFailed { .. } => "spawn failed",
        Event::Respawning { .. } => "respawning",
        Event::CrashLoop { .. } => "crash loop",
        Event::Output { .. } => "output",
        Event::Notice { .. } => "notice",
        Event::Stopping => "stopping",
        _ => "other",
    }
}

/// Whether a process exists. One that was waited for does not.
pub(crate) fn exists(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}
