//! An ordinary axum server: it listens at `HOST` and `PORT`, answers its pid, and knows nothing of allcores.
//!
//! Run it on every core with `allcores run -- axum-hello`.

use std::time::{Duration, Instant};
use std::{env, io, process};

use axum::Router;
use axum::extract::Query;
use axum::routing::get;
use tokio::net::TcpListener;

#[derive(serde::Deserialize)]
struct Burn {
    ms: u64,
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let host = env::var("HOST").unwrap_or_else(|_| "127.0.0.1".to_owned());
    let port = match env::var("PORT") {
        Ok(port) => port.parse().map_err(io::Error::other)?,
        Err(_) => 8000,
    };
    let listener = TcpListener::bind((host, port)).await?;
    axum::serve(listener, Router::new().route("/", get(pid)).route("/burn", get(burn))).await
}

async fn pid() -> String {
    format!("{}\n", process::id())
}

/// Keeps a core busy for `ms` milliseconds before it answers.
async fn burn(Query(Burn { ms }): Query<Burn>) -> String {
    let end = Instant::now() + Duration::from_millis(ms);
    while Instant::now() < end {
        std::hint::spin_loop();
    }
    pid().await
}
