//! What a program says that was asked whether it can go on with what a primary has, and what is believed of it.

use serde::{Deserialize, Serialize};

use super::document::{Document, FORMAT};
use crate::proc;

/// A line on its stdout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::primary) struct Answer {
    /// Its version.
    pub(in crate::primary) allcores: String,
    /// The newest format that it knows.
    format: u32,
    /// What it read: the app, and its workers' ids.
    app: String,
    workers: Vec<u32>,
    /// What it would be allowed to do, as in `/proc/self/status`.
    capabilities: String,
}

impl Answer {
    /// What this program says about a document.
    pub(in crate::primary) fn to(document: &Document) -> Self {
        Self {
            allcores: env!("CARGO_PKG_VERSION").to_owned(),
            format: FORMAT,
            app: document.engine.settings.name.clone(),
            workers: document.engine.pool.workers().map(|id| id.0).collect(),
            capabilities: format!("{:x}", capabilities()),
        }
    }

    pub(in crate::primary) fn line(&self) -> String {
        serde_json::to_string(self).expect("plain fields are always JSON")
    }

    /// Reads what a program has said that was asked about `document`.
    ///
    /// # Errors
    ///
    /// If it is not what a program says that can go on, in words.
    pub(in crate::primary) fn read(stdout: &[u8], document: &Document) -> Result<Self, String> {
        let answer: Self = serde_json::from_slice(stdout.trim_ascii())
            .map_err(|_| format!("it answers {}", excerpt(stdout)))?;
        let expected = Self::to(document);
        if (&answer.app, &answer.workers) != (&expected.app, &expected.workers) {
            return Err(format!(
                "it read an app {:?} with {} workers, and there is {:?} with {}",
                answer.app,
                answer.workers.len(),
                expected.app,
                expected.workers.len()
            ));
        }
        let theirs = u64::from_str_radix(&answer.capabilities, 16).map_err(|_| "it names no capabilities")?;
        let lost = capabilities() & !theirs;
        if lost != 0 {
            return Err(format!(
                "it would not be allowed what this primary is (capabilities {lost:x}, see capabilities(7)): give its \
                 file the same with setcap"
            ));
        }
        Ok(answer)
    }
}

/// What this process may do beyond other processes of its user.
fn capabilities() -> u64 {
    let status = proc::text("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or(0)
}

fn excerpt(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
    if text.trim().is_empty() {
        "nothing".into()
    } else {
        format!("{text:?}, which is no answer to the question")
    }
}
