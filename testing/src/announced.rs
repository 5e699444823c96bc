//! A node server that says when it listens, in the same way whoever runs it: managers tell of it differently, or not at all.
//!
//! The server itself is untouched. A script of two lines stands before it, in a folder of its own, and a thread reads what its
//! processes write into a pipe there.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;

use crate::runtimes::workspace;

/// What ends the thread: no process says it.
const END: &[u8] = b"end\n";

/// A server whose processes are heard of when they listen.
#[derive(Debug)]
pub struct Announced {
    folder: TempDir,
    /// Open for both, so that no process waits for a reader and the thread sees no end when they have all gone.
    pipe: File,
    heard: Arc<Heard>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Heard {
    /// Who listens, and since when.
    all: Mutex<Vec<(u32, Instant)>>,
    changed: Condvar,
}

impl Announced {
    /// Prepares a script that runs this server.
    ///
    /// # Errors
    ///
    /// If the server does not exist, or there can be no pipe.
    pub fn new(server: &Path) -> anyhow::Result<Self> {
        let server = server.canonicalize().with_context(|| format!("the server {}", server.display()))?;
        let folder = tempfile::Builder::new().prefix("allcores-announced-").tempdir()?;
        let pipe = folder.path().join("listening");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).context("make a pipe")?;
        let announce = workspace().join("testing/baselines/announce.js");
        let text =
            format!("require({})({});\nrequire({});\n", quoted(&announce)?, quoted(&pipe)?, quoted(&server)?);
        fs::write(folder.path().join("server.js"), text)?;

        let pipe = OpenOptions::new().read(true).write(true).open(pipe)?;
        let heard = Arc::<Heard>::default();
        let thread = std::thread::spawn({
            let (heard, lines) = (Arc::clone(&heard), BufReader::new(pipe.try_clone()?).lines());
            move || heard.listen(lines)
        });
        Ok(Self { folder, pipe, heard, thread: Some(thread) })
    }

    /// What is to be run.
    pub fn script(&self) -> PathBuf {
        self.folder.path().join("server.js")
    }

    /// How many processes have begun to listen so far.
    pub fn count(&self) -> usize {
        self.heard.all.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Waits until this many processes have begun to listen, counted from the start, and says when the last of them did.
    ///
    /// # Errors
    ///
    /// If they have not in time.
    pub fn wait(&self, count: usize, timeout: Duration) -> anyhow::Result<Instant> {
        let all = self.heard.all.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, _) = self
            .heard
            .changed
            .wait_timeout_while(all, timeout, |all| all.len() < count)
            .unwrap_or_else(PoisonError::into_inner);
        ensure!(all.len() >= count, "{} of {count} processes listen after {timeout:?}", all.len());
        Ok(all[count.saturating_sub(1)].1)
    }
}

impl Heard {
    fn listen(&self, lines: impl Iterator<Item = std::io::Result<String>>) {
        for line in lines {
            let Some(pid) = line.ok().and_then(|line| line.parse().ok()) else { return };
            self.all.lock().unwrap_or_else(PoisonError::into_inner).push((pid, Instant::now()));
            self.changed.notify_all();
        }
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        // Were the pipe full, the thread would be reading.
        let _ = self.pipe.write_all(END);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A path as a string of JavaScript's.
fn quoted(path: &Path) -> anyhow::Result<String> {
    let path = path.to_str().with_context(|| format!("{} is no UTF-8", path.display()))?;
    Ok(serde_json::to_string(path)?)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_server_is_heard_of_when_it_listens() {
        let folder = tempfile::tempdir().unwrap();
        let server = folder.path().join("it's mine.js");
        fs::write(&server, "require('net').createServer().listen(0, '127.0.0.1');").unwrap();
        let announced = Announced::new(&server).unwrap();
        let began = Instant::now();
        let start = || Command::new("node").arg(announced.script()).stdin(Stdio::null()).spawn().unwrap();
        let mut started = [start(), start()];
        let last = announced.wait(2, Duration::from_secs(30));
        let refused = announced.wait(3, Duration::from_millis(10));
        for process in &mut started {
            process.kill().unwrap();
            process.wait().unwrap();
        }
        assert!(last.unwrap() > began && announced.count() == 2);
        assert!(refused.unwrap_err().to_string().starts_with("2 of 3 processes listen"));
    }

    #[test]
    fn a_server_that_does_not_exist_is_named() {
        let error = Announced::new(Path::new("no-such.js")).unwrap_err();
        assert!(error.to_string().contains("no-such.js"), "{error}");
    }
}
