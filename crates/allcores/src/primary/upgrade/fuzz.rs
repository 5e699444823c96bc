//! What holds of a state that a primary is to go on with, whatever its bytes are.

use super::{Answer, Document};

/// Reads bytes as the state of a primary. True if it is one: then it can be written, read and written the same.
///
/// # Panics
///
/// If that does not hold.
pub fn state(bytes: &[u8]) -> bool {
    let Ok(document) = Document::read(bytes) else { return false };
    let written = document.write().expect("what was read can be written");
    let again = Document::read(&written).expect("what was written can be read");
    assert_eq!(again.write().expect("and written again"), written);
    let answer = Answer::to(&document);
    assert_eq!(Answer::read(answer.line().as_bytes(), &again), Ok(answer), "it answers otherwise");
    true
}
