//! Node's own example of a cluster, in Rust: the primary forks one worker for each core, and each answers who it is.
//!
//!     hello                          a primary and its workers
//!     allcores run -- hello          workers of that primary
//!     ALLCORES_ROLE=worker hello     one server, as in a debugger
//!
//! It listens at `HOST` and `PORT`, 127.0.0.1:8000 unless they say otherwise.

use std::env;
use std::error::Error;
use std::process;
use std::thread::available_parallelism;

use allcores::{Builder, Event, Role, Worker};
use axum::Router;
use axum::routing::get;
use tokio::signal::unix::{SignalKind, signal};

type Result = std::result::Result<(), Box<dyn Error>>;

// A worker is for one core: one thread will do.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result {
    match allcores::role()? {
        Role::Primary(builder) => lead(builder).await,
        Role::Worker(worker) => serve(worker).await,
    }
}

async fn lead(builder: Builder) -> Result {
    println!("primary {} is running", process::id());
    let mut cluster = builder.workers(available_parallelism()?.get()).start().await?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    loop {
        tokio::select! {
            event = cluster.next_event() => match event {
                Some(Event::Exit { worker, status }) => {
                    println!("worker {} died: {status}", worker.id());
                    if cluster.workers().is_empty() {
                        return Ok(());
                    }
                }
                Some(_) => {}
                None => return Ok(()),
            },
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        }
    }
    Ok(cluster.stop().await?)
}

async fn serve(worker: Worker) -> Result {
    let host = env::var("HOST").unwrap_or_else(|_| "127.0.0.1".into());
    let port = env::var("PORT").map_or(Ok(8000), |port| port.parse())?;
    let listener = worker.listen((host, port)).await?;
    println!("worker {} ({}) started", worker.id(), process::id());
    let greeting = format!("hello from worker {}\n", worker.id());
    let app = Router::new().route("/", get(async move || greeting));
    axum::serve(listener, app).with_graceful_shutdown(worker.shutdown()).await?;
    Ok(())
}
