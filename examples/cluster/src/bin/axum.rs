//! An axum server on every core: the primary keeps a worker alive on each, and each worker serves.

use allcores::{Builder, Role, Worker};
use allcores_examples::{Result, address};
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
    let cores = std::thread::available_parallelism()?.get();
    Ok(builder.workers(cores).keep(true).serve().await?)
}

async fn serve(worker: Worker) -> Result {
    let greeting = format!("hello from worker {}\n", worker.id());
    let app = Router::new().route("/", get(async || greeting));
    let listener = worker.listen(address()?).await?;
    println!("worker {} listens", worker.id());
    axum::serve(listener, app).with_graceful_shutdown(worker.shutdown()).await?;
    Ok(())
}
