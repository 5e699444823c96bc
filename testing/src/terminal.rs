//! A program on a terminal of so many columns, and what stands on it then.
//!
//! The terminal is the kernel's own (pty(7)); of what a terminal's screen would do, only what our programs use is known:
//! colours, which are left out, and a line that is written over, of which the last is kept.

use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// A program whose three streams are one terminal. Dropped, it is killed.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    written: Arc<Written>,
    reader: Option<JoinHandle<()>>,
    columns: u16,
}

/// All that was written to it.
#[derive(Debug, Default)]
struct Written {
    bytes: Mutex<Vec<u8>>,
    more: Condvar,
}

impl Terminal {
    /// Starts a command on a terminal that has so many columns.
    ///
    /// # Errors
    ///
    /// There is no terminal to be had, or the command can't be started.
    pub fn spawn(command: &mut Command, columns: u16) -> anyhow::Result<Self> {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .context("make a terminal")?;
        grantpt(&ours).and_then(|()| unlockpt(&ours)).context("unlock the terminal")?;
        let name = ptsname(&ours, Vec::new()).context("find the terminal's name")?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let theirs = rustix::fs::open(name.as_c_str(), flags, Mode::empty()).context("open the terminal")?;
        let size = Winsize { ws_row: 50, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&theirs, size).context("give the terminal its size")?;
        let stream = || theirs.try_clone().map(Stdio::from).context("share the terminal");
        command.env("TERM", "xterm").env_remove("COLUMNS").env_remove("NO_COLOR");
        command.stdin(stream()?).stdout(stream()?).stderr(stream()?);
        let child = command.spawn().with_context(|| format!("start {}", command.get_program().display()))?;
        // What the command has of it is all that keeps it open.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        drop(theirs);
        let written = Arc::new(Written::default());
        let reader = std::thread::spawn({
            let written = Arc::clone(&written);
            move || written.read(ours)
        });
        Ok(Self { child, written, reader: Some(reader), columns })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until a text stands there, and returns all lines.
    ///
    /// # Errors
    ///
    /// It does not within this time.
    pub fn wait_for(&self, part: &str, patience: Duration) -> anyhow::Result<Vec<String>> {
        // Where the text is broken depends on the terminal.
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let bytes = self.written.lock();
        let lacks = |bytes: &mut Vec<u8>| !words(&lines(bytes).join("\n")).contains(part);
        let waited = self.written.more.wait_timeout_while(bytes, patience, lacks);
        let (bytes, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        let shown = lines(&bytes);
        ensure!(
            !timeout.timed_out(),
            "no {part:?} within {patience:?} on the terminal:\n{}",
            shown.join("\n")
        );
        Ok(shown)
    }

    /// Waits for the command's end; returns it, and all that stands on the terminal.
    ///
    /// # Errors
    ///
    /// It can't be waited for, or somebody else has the terminal still.
    pub fn finish(mut self) -> anyhow::Result<(ExitStatus, Vec<String>)> {
        let status = self.child.wait().context("wait for the command")?;
        let reader = self.reader.take().context("it is finished once")?;
        ensure!(reader.join().is_ok(), "the thread that reads the terminal panicked");
        Ok((status, lines(&self.written.lock())))
    }

    /// How many columns it has.
    pub fn columns(&self) -> usize {
        self.columns.into()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // One that has ended is not there any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Written {
    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads until nobody has the other end any more, which is an error (EIO) for a terminal.
    fn read(&self, terminal: OwnedFd) {
        let (mut terminal, mut buffer) = (std::fs::File::from(terminal), [0; 4096]);
        loop {
            match terminal.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => {
                    self.lock().extend_from_slice(&buffer[..count]);
                    self.more.notify_all();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }
}

/// What stands there, line by line.
fn lines(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let text = without_sequences(&text).replace("\r\n", "\n");
    // Of a line that is written over, what is written last.
    text.lines().map(|line| line.rsplit('\r').next().unwrap_or_default().to_owned()).collect()
}

/// A text without its control sequences (ECMA-48).
fn without_sequences(text: &str) -> String {
    let mut pieces = text.split("\x1b[");
    let mut plain = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let end = piece.find(|char| ('@'..='~').contains(&char)).map_or(piece.len(), |at| at + 1);
        plain.push_str(&piece[end..]);
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::{Terminal, lines};

    #[test]
    fn a_program_finds_a_terminal_of_the_size_that_was_asked_for() {
        let mut command = Command::new("sh");
        command.args(["-c", "stty size; printf 'one\\rtwo\\n\\033[1;31mred\\033[0m\\n' >&2; exit 3"]);
        let (status, lines) = Terminal::spawn(&mut command, 72).unwrap().finish().unwrap();
        assert_eq!((status.code(), lines), (Some(3), vec!["50 72".into(), "two".into(), "red".into()]));
    }

    #[test]
    fn a_line_that_is_written_over_is_the_last_one() {
        assert_eq!(lines(b"\r\x1b[Ka 1\r\x1b[Ka 2\r\nb\r\n"), ["a 2", "b"]);
    }
}
