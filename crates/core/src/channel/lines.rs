//! Cutting a stream of bytes into lines.

use bytes::{Bytes, BytesMut};

/// Cuts a stream of bytes into lines, of bounded length. A line is not copied out: it shares the memory of what came with it.
#[derive(Debug)]
pub struct Lines {
    buffer: BytesMut,
    /// Up to here there is no line end.
    searched: usize,
    limit: usize,
}

/// A line grew beyond the limit.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a line of more than {0} bytes")]
pub struct TooLong(usize);

/// Memory of a line longer than this is not used for further ones, so that it is free as soon as nobody has the line any more.
const LONG: usize = 256 * 1024;

impl Lines {
    /// Lines of up to `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { buffer: BytesMut::new(), searched: 0, limit }
    }

    /// Takes in bytes. Best called when [`next_line`](Self::next_line) has no more.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Takes out the next whole line, without its line end.
    ///
    /// # Errors
    ///
    /// If it is longer than the limit, be it whole or not.
    pub fn next_line(&mut self) -> Result<Option<Bytes>, TooLong> {
        let found = memchr::memchr(b'\n', &self.buffer[self.searched..]);
        let end = found.map_or(self.buffer.len(), |found| self.searched + found);
        if end > self.limit {
            return Err(TooLong(self.limit));
        }
        if found.is_none() {
            self.searched = end;
            return Ok(None);
        }
        let mut line = self.buffer.split_to(end + 1);
        self.searched = 0;
        line.truncate(end);
        if end > LONG {
            self.buffer = BytesMut::from(&self.buffer[..]);
        }
        Ok(Some(line.freeze()))
    }

    /// What has not been taken out.
    pub fn rest(&self) -> &[u8] {
        &self.buffer
    }

    /// How many bytes there are of a line that is not whole yet, or of lines not taken out.
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether all that came has been taken out.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}
