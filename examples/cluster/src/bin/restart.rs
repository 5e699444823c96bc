//! Restarting by hand, as programs for node:cluster do it: whenever a worker dies, another is forked.
//!
//! `Builder::keep(true)` does more: it waits longer each time for one that keeps dying at its start.

use std::process;

use allcores::{Builder, Event, Role, Worker};
use allcores_examples::{Result, address, asked_to_stop};
use axum::Router;
use axum::routing::get;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result {
    match allcores::role()? {
        Role::Primary(builder) => lead(builder).await,
        Role::Worker(worker) => serve(worker).await,
    }
}

async fn lead(builder: Builder) -> Result {
    let mut cluster = builder.workers(2).start().await?;
    let mut stop = std::pin::pin!(asked_to_stop());
    loop {
        let event = tokio::select! {
            event = cluster.next_event() => event,
            stopped = &mut stop => break stopped?,
        };
        match event {
            Some(Event::Exit { worker, status }) if worker.exited_after_disconnect() == Some(false) => {
                println!("worker {} died: {status}", worker.id());
                cluster.fork().await?;
            }
            Some(Event::Listening { worker, .. }) => println!("worker {} listens", worker.id()),
            Some(_) => {}
            None => break,
        }
    }
    Ok(cluster.stop().await?)
}

async fn serve(worker: Worker) -> Result {
    let who = format!("{} {}\n", worker.id(), process::id());
    let app = Router::new()
        .route("/", get(async || who))
        .route("/crash", get(async || -> &str { process::exit(1) }));
    let listener = worker.listen(address()?).await?;
    axum::serve(listener, app).with_graceful_shutdown(worker.shutdown()).await?;
    Ok(())
}
