//! A Unix socket that all workers share; its file is there while any of them listens.
//!
//!     unix /run/app.sock
//!     curl --unix-socket /run/app.sock http://localhost/

use std::path::PathBuf;

use allcores::{Builder, Role, Worker};
use allcores_examples::Result;
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
    // Workers get the same arguments.
    Ok(builder.workers(2).keep(true).serve().await?)
}

async fn serve(worker: Worker) -> Result {
    let path: PathBuf = std::env::args_os().nth(1).ok_or("which path?")?.into();
    let listener = worker.listen_unix(path).await?;
    println!("worker {} listens", worker.id());
    let greeting = format!("hello from worker {}\n", worker.id());
    let app = Router::new().route("/", get(async || greeting));
    axum::serve(listener, app).with_graceful_shutdown(worker.shutdown()).await?;
    Ok(())
}
