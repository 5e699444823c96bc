//! Connections that are opened and held: who gets them, when nothing but their number tells the workers apart.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::runtime::Runtime;

use super::connection::{Connection, sources};

/// How long each connection's one answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Open connections, idle since their one answer. They end when this is dropped, or when the server's keep-alive
/// timeout says so (5 s in node).
#[derive(Debug)]
pub struct Held {
    by_body: BTreeMap<String, u64>,
    connections: Vec<Connection>,
    // Last, so that the connections are dropped while their reactor lives.
    _runtime: Runtime,
}

impl Held {
    /// Counts the connections by the body of their one answer.
    pub fn by_body(&self) -> &BTreeMap<String, u64> {
        &self.by_body
    }

    /// Counts the connections that the server has not ended.
    pub fn open(&self) -> usize {
        self.connections.iter().filter(|connection| connection.is_idle()).count()
    }
}

/// Opens connections one after the other, makes one request on each to learn who has it, and holds them.
///
/// # Errors
///
/// If one of them has no good answer, or the server does not keep it.
///
/// # Panics
///
/// If the target is not a loopback address.
pub fn hold(target: SocketAddr, count: usize, path: &str) -> anyhow::Result<Held> {
    assert!(target.ip().is_loopback(), "load goes to loopback addresses only, not to {target}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut by_body = BTreeMap::new();
    let mut connections = Vec::with_capacity(count);
    let source = sources(target).first().copied();
    runtime.block_on(async {
        for nth in 1..=count {
            let one = tokio::time::timeout(TIMEOUT, async {
                let mut connection =
                    Connection::open(target, source, &mut None).await.map_err(|failed| failed.detail)?;
                let answer = connection.get(path, false).await.map_err(|failed| failed.detail)?;
                Ok::<_, String>((connection, answer))
            });
            let (connection, answer) = one
                .await
                .with_context(|| format!("connection {nth} of {count} to {target}"))?
                .map_err(|detail| anyhow::anyhow!("connection {nth} of {count} to {target}: {detail}"))?;
            if answer.status != 200 || !answer.is_kept_alive {
                bail!("connection {nth} of {count} to {target} was not kept: status {}", answer.status);
            }
            *by_body.entry(String::from_utf8_lossy(&answer.body).trim().to_owned()).or_default() += 1;
            connections.push(connection);
        }
        Ok(())
    })?;
    Ok(Held { by_body, connections, _runtime: runtime })
}
