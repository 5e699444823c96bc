//! Counting across workers: each tells the primary of every request, and the primary tells all of them the sum.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use allcores::{Builder, Event, Role, Worker};
use allcores_examples::{Result, address, asked_to_stop};
use axum::Router;
use axum::routing::get;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// What a worker says: how many requests it has had.
#[derive(Serialize, Deserialize)]
struct Served {
    requests: u64,
}

/// What the primary says: how many each worker has had.
#[derive(Default, Serialize, Deserialize)]
struct Total {
    by_worker: BTreeMap<u32, u64>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result {
    match allcores::role()? {
        Role::Primary(builder) => lead(builder).await,
        Role::Worker(worker) => serve(worker).await,
    }
}

async fn lead(builder: Builder) -> Result {
    let mut cluster = builder.workers(2).keep(true).start().await?;
    let mut stop = std::pin::pin!(asked_to_stop());
    let mut total = Total::default();
    loop {
        let event = tokio::select! {
            event = cluster.next_event() => event,
            stopped = &mut stop => break stopped?,
        };
        let Some(event) = event else { break };
        let Event::Message { worker, message } = event else { continue };
        let Served { requests } = message.parse()?;
        total.by_worker.insert(worker.id().0, requests);
        for worker in cluster.workers() {
            // One that has just gone need not know.
            let _ = worker.send(&total);
        }
    }
    Ok(cluster.stop().await?)
}

async fn serve(worker: Worker) -> Result {
    let (hear, total) = watch::channel(Total::default());
    let mut messages = worker.messages();
    tokio::spawn(async move {
        while let Some(message) = messages.next().await {
            if let Ok(total) = message.parse() {
                hear.send_replace(total);
            }
        }
    });

    let (id, own) = (worker.id().0, Arc::new(AtomicU64::new(0)));
    let teller = worker.clone();
    let count = async move || {
        let requests = own.fetch_add(1, Ordering::Relaxed) + 1;
        let mut total = total;
        let is_sent = teller.send(&Served { requests }).is_ok();
        let is_counted = |total: &Total| total.by_worker.get(&id).is_some_and(|counted| *counted >= requests);
        match total.wait_for(is_counted).await {
            Ok(total) if is_sent => {
                format!("{} requests, {requests} of them here\n", total.by_worker.values().sum::<u64>())
            }
            _ => "nobody counts any more\n".into(),
        }
    };
    let app = Router::new().route("/", get(count));
    let listener = worker.listen(address()?).await?;
    println!("worker {} listens", worker.id());
    axum::serve(listener, app).with_graceful_shutdown(worker.shutdown()).await?;
    Ok(())
}
