//! What workers use of memory and CPU: by what the kernel tells of all processes of the machine, on a thread of its own, since that
//! takes as long as there are processes.

use tokio::sync::oneshot;

use super::spawn_deaf;
use crate::proc::{self, Usage};

/// Measures it now. Needs no runtime: who asks may be on any.
pub(super) async fn measure() -> Usage {
    let (found, finding) = oneshot::channel();
    // Without a thread nothing is sent, and nothing known.
    let _ = spawn_deaf("allcores-usage", move || drop(found.send(proc::usage_by_session())));
    finding.await.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::SystemTime;

    use crate::primary::samples;
    use crate::proc::Stat;

    #[tokio::test]
    async fn who_asks_is_told_what_workers_use_at_that_moment() {
        let mut child = Command::new("setsid").args(["sleep", "60"]).spawn().unwrap();
        // Between one program and the next a process has no memory.
        let name = || std::fs::read_to_string(format!("/proc/{}/comm", child.id())).unwrap();
        while name() != "sleep\n" || Stat::read(child.id()).unwrap().rss_bytes == 0 {
            std::thread::yield_now();
        }
        let mut snapshot = samples::snapshot(SystemTime::now());
        for (worker, pid) in snapshot.workers.iter_mut().zip([Some(child.id()), None]) {
            (worker.pid, worker.rss_bytes, worker.cpu) = (pid, None, None);
        }
        let measured = snapshot.measured().await;
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(measured.workers[0].rss_bytes.is_some_and(|bytes| bytes > 0));
        assert!(measured.workers[0].cpu.is_some());
        assert_eq!(measured.workers[1].rss_bytes, None);
    }
}
