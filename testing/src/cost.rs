//! What a process costs: CPU time and wakeups so far, memory now. From /proc, so alike for any program.

use std::fs;
use std::time::Duration;

use anyhow::{Context, ensure};

/// What all threads of a process that are there have used so far. One that has ended meanwhile is missing from a later reading:
/// of programs that end threads, the difference of two is too small.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Time on a CPU, counted by the scheduler in nanoseconds.
    pub cpu: Duration,
    /// How often a thread gave up its CPU to wait for something.
    pub waits: u64,
}

/// What a process has in memory, in KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// All that is there, code included.
    pub resident: u64,
    /// The same, what is shared divided among those who share it.
    pub proportional: u64,
    /// What is its own alone.
    pub private: u64,
}

impl Usage {
    /// Looks at a process.
    ///
    /// # Errors
    ///
    /// If it has gone, or the kernel does not tell.
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let (mut usage, mut threads) = (Self::default(), 0);
        let tasks = format!("/proc/{pid}/task");
        for task in fs::read_dir(&tasks).with_context(|| format!("read {tasks}"))? {
            let task = task?.path();
            // A thread may end between two looks.
            let Ok(status) = fs::read_to_string(task.join("status")) else { continue };
            let Ok(scheduled) = fs::read_to_string(task.join("schedstat")) else { continue };
            let on_cpu = scheduled.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
            usage.cpu += Duration::from_nanos(on_cpu.with_context(|| format!("{pid}: {scheduled:?}"))?);
            usage.waits += field(&status, "voluntary_ctxt_switches")?;
            threads += 1;
        }
        ensure!(threads > 0, "the kernel does not tell what the process {pid} has used");
        Ok(usage)
    }

    /// What has been used since an earlier look.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self { cpu: self.cpu.saturating_sub(earlier.cpu), waits: self.waits.saturating_sub(earlier.waits) }
    }
}

impl Memory {
    /// Looks at a process.
    ///
    /// # Errors
    ///
    /// If it has gone, or is another user's.
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        Ok(Self {
            resident: field(&text, "Rss")?,
            proportional: field(&text, "Pss")?,
            private: field(&text, "Private_Clean")? + field(&text, "Private_Dirty")?,
        })
    }
}

/// The number in a line like `NAME:   1234 kB`.
fn field(text: &str, name: &str) -> anyhow::Result<u64> {
    let mut values = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let value = values.next().and_then(|value| value.split_whitespace().next()?.parse().ok());
    value.with_context(|| format!("there is no {name}"))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::process::{self, Command, Stdio};
    use std::time::Instant;

    use super::*;

    #[test]
    fn what_is_computed_and_waited_for_is_seen() {
        let script = "echo; while read line; do i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done; echo; done";
        let mut shell = Command::new("sh");
        let mut shell =
            shell.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut answers = BufReader::new(shell.stdout.take().unwrap()).lines();
        answers.next().unwrap().unwrap();
        let before = Usage::of(shell.id()).unwrap();
        for _ in 0..2 {
            writeln!(shell.stdin.as_mut().unwrap()).unwrap();
            answers.next().unwrap().unwrap();
            wait_until_asleep(shell.id());
        }
        let used = Usage::of(shell.id()).unwrap().since(before);
        shell.kill().unwrap();
        shell.wait().unwrap();
        assert!(used.cpu > Duration::from_millis(1) && used.waits > 0, "{used:?}");
    }

    /// Waits until a process waits for what it is to do next. Nothing tells when, so this looks until it does.
    fn wait_until_asleep(pid: u32) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") S ") {
            assert!(Instant::now() < deadline, "{pid} does not come to rest");
            std::thread::yield_now();
        }
    }

    #[test]
    fn own_memory_is_part_of_what_is_there() {
        let memory = Memory::of(process::id()).unwrap();
        assert!(0 < memory.private && memory.private <= memory.proportional, "{memory:?}");
        assert!(memory.proportional <= memory.resident, "{memory:?}");
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        // Above the largest pid that Linux gives.
        assert!(Usage::of(1 << 23).is_err() && Memory::of(1 << 23).is_err());
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        assert_eq!(field("Pss_Dirty: 3 kB\nPss:  4 kB\n", "Pss").unwrap(), 4);
        assert!(field("Pss_Dirty: 3 kB\n", "Pss").is_err());
    }
}
