//! The lines that go with every connection that is handed over, read and written for what they are: each side writes
//! them in one shape, and taking that apart as JSON would be most of what a message costs.
//!
//! Knows a shape or does not: whatever else there is in a line, another order of its fields even, is for the reader of
//! JSON, which finds the same in these.

const ANSWER: &str = r#"{"cmd":"NODE_CLUSTER","ack":"#;
const ACCEPTED: &str = r#","accepted":true,"seq":"#;
const REFUSED: &str = r#","accepted":false,"seq":"#;

const CONNECTION: &str =
    r#"{"cmd":"NODE_HANDLE","type":"net.Native","msg":{"cmd":"NODE_CLUSTER","act":"newconn","key":"#;
const NUMBER: &str = r#","seq":"#;
// `socketType` and `nativeKind` are for Deno; Node ignores them.
const CONNECTION_END: &str = r#"},"socketType":0,"nativeKind":"tcp"}"#;

/// A worker's answer to a connection: the number that it is about, and whether it was taken.
pub(super) fn read_answer(line: &[u8]) -> Option<(u64, bool)> {
    let (ack, rest) = number(line.strip_prefix(ANSWER.as_bytes())?)?;
    let (is_accepted, rest) = match rest.strip_prefix(ACCEPTED.as_bytes()) {
        Some(rest) => (true, rest),
        None => (false, rest.strip_prefix(REFUSED.as_bytes())?),
    };
    let (_, rest) = number(rest)?;
    (rest == b"}").then_some((ack, is_accepted))
}

pub(super) fn write_answer(ack: u64, is_accepted: bool, seq: u64) -> String {
    let mut line = String::with_capacity(ANSWER.len() + REFUSED.len() + 45);
    line.push_str(ANSWER);
    push_number(&mut line, ack);
    line.push_str(if is_accepted { ACCEPTED } else { REFUSED });
    push_number(&mut line, seq);
    line.push('}');
    line
}

/// A connection as [`write_connection`] writes it: its number, and the key of its listener.
pub(super) fn read_connection(line: &[u8]) -> Option<(u64, &str)> {
    let rest = line.strip_prefix(CONNECTION.as_bytes())?.strip_prefix(b"\"")?;
    let end = rest.iter().position(|byte| !is_plain(*byte))?;
    let (key, rest) = rest.split_at(end);
    let (seq, rest) = number(rest.strip_prefix(b"\"")?.strip_prefix(NUMBER.as_bytes())?)?;
    let key = std::str::from_utf8(key).ok()?;
    (rest == CONNECTION_END.as_bytes()).then_some((seq, key))
}

pub(super) fn write_connection(key: &str, seq: u64) -> String {
    // One byte more for the end of the line.
    let mut line = String::with_capacity(CONNECTION.len() + key.len() + CONNECTION_END.len() + 30);
    line.push_str(CONNECTION);
    if key.bytes().all(is_plain) {
        line.push('"');
        line.push_str(key);
        line.push('"');
    } else {
        line.push_str(&super::quoted(key));
    }
    line.push_str(NUMBER);
    push_number(&mut line, seq);
    line.push_str(CONNECTION_END);
    line
}

/// Whether it stands for itself in JSON's strings.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'
}

/// A number as JSON has it, of so few digits that it can't be too large.
fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let digits = text.iter().take(19).take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = text.split_at(digits);
    if digits.is_empty() || digits.len() > 18 || (digits.len() > 1 && digits[0] == b'0') {
        return None;
    }
    Some((digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')), rest))
}

fn push_number(line: &mut String, number: u64) {
    if number >= 10 {
        push_number(line, number / 10);
    }
    line.push(char::from_digit((number % 10) as u32, 10).unwrap_or('0'));
}
