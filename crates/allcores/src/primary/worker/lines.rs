//! Lines out of a pipe.

use std::io;
use std::os::fd::AsFd;

use serde::{Deserialize, Serialize};

use crate::carry::{BytesSaved, FdSaved, Inherited, Manifest};
use crate::sys::Watch;

/// A longer line comes in pieces.
const LONGEST: usize = 64 * 1024;

/// How much is read at once.
const CHUNK: usize = 16 * 1024;

/// A line without its end, or a piece of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) bytes: Vec<u8>,
    /// Its end has not come: there is more of it, or the stream has ended without one.
    pub(crate) is_partial: bool,
}

/// Reads a pipe line by line.
#[derive(Debug)]
pub(super) struct LineReader {
    pipe: Option<Watch>,
    partial: Vec<u8>,
}

/// A pipe as data.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct PipeSaved {
    pipe: FdSaved,
    partial: BytesSaved,
}

impl LineReader {
    pub(super) fn new(pipe: Option<Watch>) -> Self {
        Self { pipe, partial: Vec::new() }
    }

    /// What is read, and what was read of a line that is not whole; `None` once it has ended.
    pub(super) fn save(&self, manifest: &mut Manifest) -> Option<PipeSaved> {
        let pipe = manifest.note(self.pipe.as_ref()?);
        Some(PipeSaved { pipe, partial: self.partial.as_slice().into() })
    }

    pub(super) fn restore(saved: Option<PipeSaved>, inherited: &mut Inherited) -> io::Result<Self> {
        let Some(PipeSaved { pipe, partial }) = saved else { return Ok(Self::new(None)) };
        let pipe = Watch::readable(inherited.take(pipe)?)?;
        Ok(Self { pipe: Some(pipe), partial: partial.into() })
    }

    pub(super) fn is_open(&self) -> bool {
        self.pipe.is_some()
    }

    /// Waits for bytes, and returns the lines that they complete.
    pub(super) async fn read(&mut self) -> Vec<Line> {
        let Some(pipe) = &self.pipe else { return Vec::new() };
        let mut chunk = [0; CHUNK];
        match pipe.read(|fd| Ok(rustix::io::read(fd, &mut chunk)?)).await {
            Ok(0) | Err(_) => self.end(),
            Ok(count) => self.take(&chunk[..count]),
        }
    }

    /// Reads what is there now, to the last byte, complete or not, and nothing that comes meanwhile: others may hold the
    /// pipe and write to it without end.
    pub(super) fn drain(&mut self) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut chunk = [0; CHUNK];
        let waiting = self.pipe.as_ref().and_then(|pipe| rustix::io::ioctl_fionread(pipe).ok());
        let mut left = waiting.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(0);
        while let Some(pipe) = self.pipe.as_ref().filter(|_| left > 0) {
            match rustix::io::read(pipe.as_fd(), &mut chunk).map_err(io::Error::from) {
                Ok(count) if count > 0 => {
                    left = left.saturating_sub(count);
                    lines.extend(self.take(&chunk[..count]));
                }
                _ => left = 0,
            }
        }
        lines.extend(self.end());
        lines
    }

    fn end(&mut self) -> Vec<Line> {
        self.pipe = None;
        let rest = std::mem::take(&mut self.partial);
        if rest.is_empty() { Vec::new() } else { vec![Line { bytes: rest, is_partial: true }] }
    }

    fn take(&mut self, bytes: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if self.partial.last() == Some(&b'\n') {
                self.partial.pop();
                lines.push(Line { bytes: std::mem::take(&mut self.partial), is_partial: false });
            } else if self.partial.len() >= LONGEST {
                lines.push(Line { bytes: std::mem::take(&mut self.partial), is_partial: true });
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::{LONGEST, Line, LineReader};

    #[test]
    fn the_pieces_of_what_was_written_tell_where_its_line_ends_were() {
        let mut written = b"one\n\ntwo\n".to_vec();
        written.extend(vec![b'x'; 2 * LONGEST + 7]);
        written.extend(b"\n\xff\0\r\nend");
        let mut reader = LineReader::new(None);
        let mut lines: Vec<Line> = written.chunks(1000).flat_map(|chunk| reader.take(chunk)).collect();
        lines.extend(reader.end());
        let again: Vec<u8> = lines
            .iter()
            .flat_map(|line| line.bytes.iter().copied().chain((!line.is_partial).then_some(b'\n')))
            .collect();
        assert!(again == written);
        assert!(lines.last().is_some_and(|last| last.is_partial && last.bytes == b"end"));
        assert!(lines.iter().all(|line| line.bytes.len() < LONGEST + 1000));
    }
}
