//! Memory for the texts of messages.

use bytes::BytesMut;
use bytestring::ByteString;

/// Keeps texts, short ones several to an allocation: one for each would be a good part of what a message costs.
///
/// A short text that is kept for long keeps those that came before and after it, 4 KiB of them; a long one nothing
/// else. Whatever else was in their lines is kept with neither.
#[derive(Debug, Default)]
pub struct Texts {
    block: BytesMut,
}

/// How much is allocated for short texts.
const BLOCK: usize = 4096;

/// What is longer has an allocation of its own.
const SHORT: usize = BLOCK / 8;

impl Texts {
    /// Copies a text.
    pub fn keep(&mut self, text: &str) -> ByteString {
        if text.len() > SHORT {
            return text.into();
        }
        if self.block.capacity() < text.len() {
            self.block = BytesMut::with_capacity(BLOCK);
        }
        self.block.extend_from_slice(text.as_bytes());
        ByteString::try_from(self.block.split()).unwrap_or_default()
    }
}
