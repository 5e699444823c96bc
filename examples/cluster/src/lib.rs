//! What the examples have in common: where they listen, and when they stop.

use std::env;
use std::net::SocketAddr;

use tokio::signal::unix::{SignalKind, signal};

/// What the examples' `main` returns.
pub type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Where to listen: `ADDRESS`, or else 127.0.0.1:8000.
///
/// # Errors
///
/// It is no address.
pub fn address() -> Result<SocketAddr> {
    Ok(env::var("ADDRESS").as_deref().unwrap_or("127.0.0.1:8000").parse()?)
}

/// Completes at Ctrl-C, or when an operator asks by SIGTERM.
///
/// # Errors
///
/// Signals can't be listened for.
pub async fn asked_to_stop() -> Result {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// The guides' code, which is to compile.
#[cfg(doctest)]
mod guides {
    #[doc = include_str!("../../../docs/guide/rust.md")]
    struct Rust;

    #[doc = include_str!("../../../docs/guide/node.md")]
    struct Node;
}
