//! Cutting a stream of bytes into lines.

/// Cuts a stream of bytes into lines, of bounded length.
#[derive(Debug)]
pub struct Lines {
    buffer: Vec<u8>,
    /// Up to here it has been taken out.
    taken: usize,
    /// Up to here there is no line end.
    searched: usize,
    limit: usize,
}

/// A line grew beyond the limit.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a line of more than {0} bytes")]
pub struct TooLong(usize);

/// A buffer that has grown beyond this for one long line is given back when it is empty.
const KEPT: usize = 256 * 1024;

impl Lines {
    /// Lines of up to `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { buffer: Vec::new(), taken: 0, searched: 0, limit }
    }

    /// Takes in bytes. Best called when [`next_line`](Self::next_line) has no more.
    pub fn push(&mut self, bytes: &[u8]) {
        // Only the beginning of a line is left to be moved, and once for each push at most.
        self.buffer.drain(..self.taken);
        self.searched -= self.taken;
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Takes out the next whole line, without its line end.
    ///
    /// # Errors
    ///
    /// If it is longer than the limit, be it whole or not.
    pub fn next_line(&mut self) -> Result<Option<&[u8]>, TooLong> {
        let found = memchr::memchr(b'\n', &self.buffer[self.searched..]);
        let end = found.map_or(self.buffer.len(), |found| self.searched + found);
        if end - self.taken > self.limit {
            return Err(TooLong(self.limit));
        }
        if found.is_none() {
            self.searched = end;
            if self.taken == end {
                self.clear();
            }
            return Ok(None);
        }
        let line = self.taken..end;
        self.taken = end + 1;
        self.searched = self.taken;
        Ok(Some(&self.buffer[line]))
    }

    /// What has not been taken out.
    pub fn rest(&self) -> &[u8] {
        &self.buffer[self.taken..]
    }

    /// How many bytes there are of a line that is not whole yet, or of lines not taken out.
    pub fn len(&self) -> usize {
        self.buffer.len() - self.taken
    }

    /// Whether all that came has been taken out.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn clear(&mut self) {
        if self.buffer.capacity() > KEPT {
            self.buffer = Vec::new();
        } else {
            self.buffer.clear();
        }
        self.taken = 0;
        self.searched = 0;
    }
}
