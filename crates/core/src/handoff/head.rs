//! Finding what tells a client from another in the head of its first request.
//!
//! Looks at bytes that the worker will read too, so nothing here changes them. What is no HTTP/1 request has nothing to
//! be found in it.

use super::Key;
use crate::policy::StickyBy;

/// What a head, as far as it has come, says about its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Who it is.
    Client(Key),
    /// Nothing, and more bytes won't change that.
    Nothing,
    /// Nothing so far.
    Incomplete,
}

/// More header fields than this are not looked at.
const MOST_FIELDS: usize = 128;

/// Looks for what clients are told apart by. A value counts as it stands: it is not decoded.
pub fn find(head: &[u8], by: &StickyBy) -> Found {
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let Ok(status) = request.parse(head) else { return Found::Nothing };
    if let (StickyBy::Query(name), Some(target)) = (by, request.path) {
        return of(parameter(target, name));
    }
    if status.is_partial() {
        return Found::Incomplete;
    }
    let mut fields = request.headers.iter();
    match by {
        StickyBy::Source | StickyBy::Query(_) => Found::Nothing,
        StickyBy::Header(name) => {
            of(fields.find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value))
        }
        StickyBy::Cookie(name) => {
            let mut cookies = fields.filter(|field| field.name.eq_ignore_ascii_case("cookie"));
            of(cookies.find_map(|field| cookie(field.value, name)))
        }
    }
}

fn of(value: Option<&[u8]>) -> Found {
    let value = value.map(<[u8]>::trim_ascii).filter(|value| !value.is_empty());
    value.map_or(Found::Nothing, |value| Found::Client(Key::of_value(value)))
}

fn parameter<'a>(target: &'a str, name: &str) -> Option<&'a [u8]> {
    let (_, query) = target.split_once('?')?;
    let query = query.split_once('#').map_or(query, |(query, _)| query);
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(other, _)| *other == name).map(|(_, value)| value.as_bytes())
}

fn cookie<'a>(field: &'a [u8], name: &str) -> Option<&'a [u8]> {
    field.split(|byte| *byte == b';').find_map(|pair| {
        let pair = pair.trim_ascii();
        let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop};
    use proptest::proptest;

    use super::{Found, Key, StickyBy, find};

    const HEAD: &[u8] = b"GET /socket.io/?EIO=4&sid=abc%20d&t=1 HTTP/1.1\r\nHost: x\r\nX-User:  joe \r\n\
        Cookie: a=1; b=2\r\ncookie: sid=\"q7\"; c=3\r\n\r\nbody";

    fn by(text: &str) -> StickyBy {
        text.parse().unwrap()
    }

    #[test]
    fn each_field_is_found_where_it_is() {
        for (text, value) in [
            ("query=sid", &b"abc%20d"[..]),
            ("query=EIO", b"4"),
            ("header=x-user", b"joe"),
            ("header=HOST", b"x"),
            ("cookie=a", b"1"),
            ("cookie=sid", b"q7"),
            ("cookie=c", b"3"),
        ] {
            assert_eq!(find(HEAD, &by(text)), Found::Client(Key::of_value(value)), "{text}");
        }
    }

    #[test]
    fn what_is_missing_is_nothing() {
        for text in ["query=id", "query=si", "header=x", "cookie=d", "cookie=si"] {
            assert_eq!(find(HEAD, &by(text)), Found::Nothing, "{text}");
        }
        assert_eq!(find(b"GET /?sid= HTTP/1.1\r\n\r\n", &by("query=sid")), Found::Nothing, "an empty value");
        for garbage in [&b"\x16\x03\x01\x02\x00\x01"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0"] {
            assert_eq!(find(garbage, &by("cookie=sid")), Found::Nothing, "{garbage:?}");
        }
    }

    #[test]
    fn a_head_is_incomplete_until_its_end_and_a_target_until_its_own() {
        let end = HEAD.windows(4).position(|part| part == b"\r\n\r\n").unwrap() + 4;
        let target = HEAD.windows(5).position(|part| part == b" HTTP").unwrap() + 1;
        for length in 0..HEAD.len() {
            let (cookie, query) =
                (find(&HEAD[..length], &by("cookie=a")), find(&HEAD[..length], &by("query=sid")));
            assert_eq!(cookie == Found::Incomplete, length < end, "{length}");
            assert_eq!(query == Found::Incomplete, length < target, "{length}");
        }
    }

    #[test]
    fn more_fields_than_any_client_sends_are_nothing() {
        let mut head = b"GET / HTTP/1.1\r\n".to_vec();
        for _ in 0..200 {
            head.extend_from_slice(b"A: b\r\n");
        }
        head.extend_from_slice(b"\r\n");
        assert_eq!(find(&head, &by("header=A")), Found::Nothing);
    }

    proptest! {
        #[test]
        fn any_bytes_are_looked_at_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            for text in ["cookie=a", "header=a", "query=a"] {
                find(&bytes, &by(text));
            }
        }
    }
}
