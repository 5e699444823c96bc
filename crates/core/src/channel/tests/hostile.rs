//! Nothing that the other side may write makes a parser panic, recurse or take it for what it is not.

use proptest::prelude::*;

use super::*;

/// Both parsers, told apart by nothing but whether they took it.
fn take(line: &[u8]) -> (Result<Incoming, BadLine>, Result<FromPrimary, BadLine>) {
    (parse(line), parse_from_primary(line))
}

#[test]
fn fields_of_the_wrong_types_are_errors_or_ignored() {
    let acts =
        ["online", "queryServer", "listening", "close", "exitedAfterDisconnect", "newconn", "disconnect"];
    let values =
        ["null", "true", "-1", "1.5", "1e400", "99999999999999999999999", "\"x\"", "[]", "{}", "[[[{}]]]"];
    let fields = [
        "seq",
        "ack",
        "accepted",
        "key",
        "index",
        "address",
        "port",
        "addressType",
        "fd",
        "flags",
        "backlog",
        "data",
        "readableAll",
        "policy",
        "allcores",
        "errno",
        "sockname",
    ];
    for act in acts {
        for field in fields {
            for value in values {
                let line = format!(r#"{{"cmd":"NODE_CLUSTER","act":"{act}","{field}":{value}}}"#);
                let (incoming, from_primary) = take(line.as_bytes());
                assert!(!matches!(incoming, Ok(Incoming::User(_))), "{line}");
                assert!(!matches!(from_primary, Ok(FromPrimary::User(_))), "{line}");
            }
        }
    }
}

#[test]
fn an_answer_with_a_useless_sockname_has_none() {
    for sockname in ["null", "7", r#"{"address":"nowhere","port":1}"#, r#"{"address":"::1","port":70000}"#] {
        let line =
            format!(r#"{{"cmd":"NODE_CLUSTER","ack":1,"key":"k","errno":null,"sockname":{sockname}}}"#);
        let answer = parse_from_primary(line.as_bytes()).unwrap();
        assert!(matches!(answer, FromPrimary::Answer { sockname: None, errno: 0, .. }), "{line}");
    }
}

#[test]
fn depth_costs_no_stack() {
    for (open, close) in
        [("[", "]"), (r#"{"a":"#, "}"), (r#"{"cmd":"#, "}"), (r#"{"cmd":"NODE_CLUSTER","data":"#, "}")]
    {
        let line = format!("{}1{}", open.repeat(50_000), close.repeat(50_000));
        let _ = take(line.as_bytes());
    }
}

#[test]
fn wrappers_in_wrappers_are_opened_no_further_than_node_wraps() {
    let open = r#"{"cmd":"NODE_HANDLE","type":"net.Native","msg":"#;
    let nested = |depth: usize| format!("{}{{}}{}", open.repeat(depth), "}".repeat(depth));
    let user = Box::new(Incoming::User("{}".into()));
    let handle = |message| Incoming::Handle { kind: HandleKind::NetNative, message, key: None };
    assert_eq!(parse(nested(1).as_bytes()).unwrap(), handle(user.clone()));
    assert_eq!(parse(nested(2).as_bytes()).unwrap(), handle(user));
    for depth in [3, 4, 20_000] {
        assert_eq!(parse(nested(depth).as_bytes()).unwrap(), handle(Box::new(Incoming::Ignored)), "{depth}");
    }
    let acknowledged = format!("{open}{HANDLE_ACK}}}");
    assert_eq!(parse(acknowledged.as_bytes()).unwrap(), handle(Box::new(Incoming::Ignored)));
}

#[test]
fn a_wrapper_may_lack_everything() {
    let (incoming, from_primary) = take(br#"{"cmd":"NODE_HANDLE"}"#);
    let kind = HandleKind::Unknown;
    let message = Box::new(Incoming::User("null".into()));
    assert_eq!(incoming.unwrap(), Incoming::Handle { kind, message, key: None });
    let message = Box::new(FromPrimary::User("null".into()));
    assert_eq!(from_primary.unwrap(), FromPrimary::Handle { kind, message, key: None });
}

#[test]
fn garbage_is_an_error() {
    for garbage in [
        "",
        " ",
        "1 2",
        "{",
        "\u{0}",
        "\u{2}{}",
        "{}{}",
        "nul",
        r#"{"cmd":"NODE_CLUSTER""#,
        r#"{"cmd":"NODE_CLUSTER","act":7}"#,
    ] {
        let (incoming, from_primary) = take(garbage.as_bytes());
        assert!(incoming.is_err(), "{garbage:?}");
        // Who reads it will see.
        let is_left =
            from_primary.is_ok_and(|message| message == FromPrimary::User(garbage.trim_ascii().into()));
        assert_ne!(is_left, garbage.contains("NODE_"), "{garbage:?}");
    }
    for bytes in [&b"\"\xff\""[..], b"{\"a\":\"\xc3\"}", b"\xed\xa0\x80"] {
        let (incoming, from_primary) = take(bytes);
        assert!(incoming.is_err() && from_primary.is_err(), "{bytes:?}");
    }
}

/// Pieces of which messages are made, to be put together at random.
fn pieces() -> impl Strategy<Value = String> {
    let words = [
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"",
        "\\",
        "null",
        "1",
        "-",
        "1e9999",
        "\"cmd\":",
        "\"NODE_CLUSTER\"",
        "\"NODE_HANDLE\"",
        "\"NODE_HANDLE_ACK\"",
        "\"NODE_SOCKET_COUNT\"",
        "\"msg\":",
        "\"act\":",
        "\"queryServer\"",
        "\"newconn\"",
        "\"seq\":",
        "\"ack\":",
        "\"key\":",
        "\"accepted\":true",
        " ",
        "\u{0}",
        "\u{ffff}",
        "\\ud800",
    ];
    prop::collection::vec(prop::sample::select(words.to_vec()), 0..24).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn parsing_bytes_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = take(&bytes);
    }

    #[test]
    fn parsing_pieces_never_panics(text in pieces()) {
        let _ = take(text.as_bytes());
    }

    #[test]
    fn a_user_message_is_the_text_that_was_sent(text in pieces()) {
        if let (Ok(Incoming::User(incoming)), Ok(FromPrimary::User(from_primary))) = take(text.as_bytes()) {
            prop_assert_eq!(&incoming, text.trim_ascii());
            prop_assert_eq!(&from_primary, text.trim_ascii());
        }
    }
}
