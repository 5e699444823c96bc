//! Cutting a stream of bytes into lines.

use std::ops::Range;

/// Cuts a stream of bytes into lines, of bounded length. What is read is read into its memory, and a line is lent from there.
#[derive(Debug)]
pub struct Lines {
    buffer: Vec<u8>,
    /// Where in the buffer what has come and not been taken out is.
    held: Range<usize>,
    /// Up to here there is no line end.
    searched: usize,
    limit: usize,
}

/// A line grew beyond the limit.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a line of more than {0} bytes")]
pub struct TooLong(usize);

/// A buffer larger than this was made for a long line, and goes with it.
const LONG: usize = 256 * 1024;

impl Lines {
    /// Lines of up to `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { buffer: Vec::new(), held: 0..0, searched: 0, limit }
    }

    /// Memory for so many bytes, to be read into. That they have [come](Self::came) is said afterwards. Best called when
    /// [`next_line`](Self::next_line) has no more.
    pub fn room(&mut self, bytes: usize) -> &mut [u8] {
        let len = self.len();
        if self.buffer.len() < len + bytes {
            // More than enough, so that a long line that comes in small pieces is not moved again and again.
            self.move_to((len + bytes).next_power_of_two());
        } else if len == 0 || self.buffer.len() - self.held.end < bytes {
            self.buffer.copy_within(self.held.clone(), 0);
            self.moved();
        }
        &mut self.buffer[self.held.end..][..bytes]
    }

    /// Moves what is held to another buffer, of this size. What of it is never read into takes no memory.
    fn move_to(&mut self, size: usize) {
        let mut buffer = vec![0; size];
        buffer[..self.len()].copy_from_slice(self.rest());
        self.buffer = buffer;
        self.moved();
    }

    /// What is held is at the beginning now.
    fn moved(&mut self) {
        self.searched -= self.held.start;
        self.held = 0..self.len();
    }

    /// Takes in so many bytes of what there was [room](Self::room) for.
    pub fn came(&mut self, bytes: usize) {
        self.held.end = (self.held.end + bytes).min(self.buffer.len());
    }

    /// Takes in these bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
        self.came(bytes.len());
    }

    /// Takes out the next whole line, without its line end.
    ///
    /// # Errors
    ///
    /// If it is longer than the limit, be it whole or not.
    pub fn next_line(&mut self) -> Result<Option<&[u8]>, TooLong> {
        let found = memchr::memchr(b'\n', &self.buffer[self.searched..self.held.end]);
        let end = found.map_or(self.held.end, |found| self.searched + found);
        let line = self.held.start..end;
        if line.len() > self.limit {
            return Err(TooLong(self.limit));
        }
        self.searched = end;
        if found.is_none() {
            if self.buffer.len() > LONG && self.len() <= LONG / 2 {
                self.move_to(self.len());
            }
            return Ok(None);
        }
        self.searched += 1;
        self.held.start = self.searched;
        Ok(Some(&self.buffer[line]))
    }

    /// What has not been taken out.
    pub fn rest(&self) -> &[u8] {
        &self.buffer[self.held.clone()]
    }

    /// How many bytes there are of a line that is not whole yet, or of lines not taken out.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether all that came has been taken out.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.buffer.len()
    }
}
