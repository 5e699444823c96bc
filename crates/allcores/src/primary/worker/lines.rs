//! Lines out of a pipe.

use std::io;
use std::os::fd::AsFd;

use crate::sys::Watch;

/// A longer line comes in pieces.
const LONGEST: usize = 64 * 1024;

/// How much is read at once.
const CHUNK: usize = 16 * 1024;

/// Reads a pipe line by line, without line ends.
#[derive(Debug)]
pub(super) struct LineReader {
    pipe: Option<Watch>,
    partial: Vec<u8>,
}

impl LineReader {
    pub(super) fn new(pipe: Option<Watch>) -> Self {
        Self { pipe, partial: Vec::new() }
    }

    pub(super) fn is_open(&self) -> bool {
        self.pipe.is_some()
    }

    /// Waits for bytes, and returns the lines that they complete.
    pub(super) async fn read(&mut self) -> Vec<Vec<u8>> {
        let Some(pipe) = &self.pipe else { return Vec::new() };
        let mut chunk = [0; CHUNK];
        match pipe.read(|fd| Ok(rustix::io::read(fd, &mut chunk)?)).await {
            Ok(0) | Err(_) => self.end(),
            Ok(count) => self.take(&chunk[..count]),
        }
    }

    /// Reads what is there now, to the last byte, complete or not.
    pub(super) fn drain(&mut self) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        let mut chunk = [0; CHUNK];
        while let Some(pipe) = &self.pipe {
            match rustix::io::read(pipe.as_fd(), &mut chunk).map_err(io::Error::from) {
                Ok(count) if count > 0 => lines.extend(self.take(&chunk[..count])),
                _ => lines.extend(self.end()),
            }
        }
        lines
    }

    fn end(&mut self) -> Vec<Vec<u8>> {
        self.pipe = None;
        let rest = std::mem::take(&mut self.partial);
        if rest.is_empty() { Vec::new() } else { vec![rest] }
    }

    fn take(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if self.partial.last() == Some(&b'\n') {
                self.partial.pop();
                lines.push(std::mem::take(&mut self.partial));
            } else if self.partial.len() >= LONGEST {
                lines.push(std::mem::take(&mut self.partial));
            }
        }
        lines
    }
}
