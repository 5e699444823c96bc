//! Lines that are known by their shape are read as JSON's reader reads them, and so are those that are nearly the same.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

/// A blank changes nothing of what a line says, and is in no shape.
fn by_json(line: &[u8]) -> Vec<u8> {
    [b" ", line].concat()
}

#[test]
fn what_goes_with_a_connection_has_its_shape() {
    for number in [0, 7, 10, 4_294_967_296, 999_999_999_999_999_999, u64::MAX / 2] {
        for is_accepted in [true, false] {
            let mut worker = WorkerSpeaker::default();
            let answer = worker.accepted(number, is_accepted);
            assert_eq!(
                answer,
                format!(r#"{{"cmd":"NODE_CLUSTER","ack":{number},"accepted":{is_accepted},"seq":0}}"#)
            );
            let expected = Incoming::Accepted { ack: number, is_accepted };
            assert_eq!(parse(answer.as_bytes()).unwrap(), expected);
            assert_eq!(parse(&by_json(answer.as_bytes())).unwrap(), expected);
        }
    }
    for key in ["1:0", "", "a\"b", "ß", "\u{1}", "~ }"] {
        let (seq, line) = Speaker::default().hand_over(key);
        let message = Box::new(FromPrimary::Connection { seq, key: key.to_owned() });
        let expected = FromPrimary::Handle { kind: HandleKind::NetNative, key: None, message };
        assert_eq!(parse_from_primary(line.as_bytes()).unwrap(), expected);
        assert_eq!(parse_from_primary(&by_json(line.as_bytes())).unwrap(), expected);
    }
}

/// Lines of those shapes with other bytes in some places.
fn spoiled() -> impl Strategy<Value = Vec<u8>> {
    let number = prop_oneof![0_u64..12, any::<u64>()];
    let lines = prop_oneof![
        (number.clone(), any::<bool>(), number.clone()).prop_map(|(ack, is_accepted, seq)| format!(
            r#"{{"cmd":"NODE_CLUSTER","ack":{ack},"accepted":{is_accepted},"seq":{seq}}}"#
        )),
        ("[ -~]{0,4}", number).prop_map(|(key, seq)| {
            let line = Speaker::default().hand_over(&key).1;
            line.replace("\"seq\":0", &format!("\"seq\":{seq}"))
        }),
        Just(HANDLE_ACK.to_owned()),
    ];
    let bytes = prop_oneof![Just(b'0'), Just(b'"'), Just(b'\\'), Just(b' '), Just(b'}'), any::<u8>()];
    let change = (any::<Index>(), 0_u8..3, bytes);
    (lines, vec(change, 0..3)).prop_map(|(line, changes)| {
        let mut line = line.into_bytes();
        for (at, how, byte) in changes {
            let at = at.index(line.len());
            match how {
                0 => line[at] = byte,
                1 => line.insert(at, byte),
                _ => drop(line.remove(at)),
            }
        }
        line
    })
}

proptest! {
    #[test]
    fn a_line_says_the_same_whether_its_shape_is_known_or_not(line in spoiled()) {
        let other = by_json(&line);
        prop_assert_eq!(parse(&line).ok(), parse(&other).ok());
        prop_assert_eq!(parse_from_primary(&line).ok(), parse_from_primary(&other).ok());
    }
}
