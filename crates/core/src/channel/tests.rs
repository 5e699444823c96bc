//! What node workers say and are told, by example.

use super::*;

mod fixed;
mod framing;
mod hostile;
mod round_trip;
mod texts;

fn parse(line: &[u8]) -> Result<Incoming, BadLine> {
    Message::parse(line, &mut Texts::default())
}

fn parse_from_primary(line: &[u8]) -> Result<FromPrimary, BadLine> {
    Message::parse(line, &mut Texts::default())
}

fn query_of(line: &str) -> Query {
    match parse(line.as_bytes()) {
        Ok(Incoming::Query(query)) => *query,
        other => panic!("not a query: {other:?}"),
    }
}

#[test]
fn a_query_of_node_20_is_understood() {
    let query = query_of(
        r#"{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,"address":null,"port":8123,"addressType":4,"backlog":false,"seq":1}"#,
    );
    assert_eq!((query.seq, query.port, query.kind, query.backlog), (1, 8123, AddressKind::Tcp4, 511));
    assert_eq!((query.address, query.data, query.fd), (None, None, None));
}

#[test]
fn queries_for_paths_descriptors_and_datagrams_are_told_apart() {
    let line =
        |fields: &str| format!(r#"{{"cmd":"NODE_CLUSTER","act":"queryServer","seq":3,"index":1,{fields}}}"#);
    let unix = query_of(&line(r#""address":"/a/b.sock","port":-1,"addressType":-1,"writableAll":true"#));
    assert_eq!(
        (unix.kind, unix.is_writable_by_all, unix.is_readable_by_all),
        (AddressKind::Unix, true, false)
    );
    let fd = query_of(&line(r#""address":null,"port":null,"addressType":null,"fd":7"#));
    assert_eq!((fd.kind, fd.fd), (AddressKind::Descriptor, Some(7)));
    let udp = query_of(&line(r#""address":"127.0.0.1","port":0,"addressType":"udp4","fd":-1,"flags":4"#));
    assert_eq!((udp.kind, udp.fd, udp.flags), (AddressKind::Udp4, None, 4));
}

#[test]
fn only_names_longer_than_node_are_internal() {
    for user in [
        r#"{"cmd":"NODE_"}"#,
        r#"{"cmd":5}"#,
        r#"{"cmd":"fooNODE_x"}"#,
        "null",
        "[1]",
        r#""x""#,
        r#"{"a":"\ud800"}"#,
    ] {
        assert_eq!(parse(user.as_bytes()).unwrap(), Incoming::User(user.into()), "{user}");
    }
    assert_eq!(parse(br#"{"cmd":"NODE_FOO"}"#).unwrap(), Incoming::Ignored);
    assert_eq!(parse(br#"{"cmd":"NODE_CLUSTER","ack":-1,"act":"nonsense"}"#).unwrap(), Incoming::Ignored);
    assert_eq!(parse(br#"{"cmd":"NODE_CLUSTER","act":"nonsense"}"#).unwrap(), Incoming::Ignored);
}

#[test]
fn garbage_is_an_error() {
    for garbage in ["", "1 2", "{", "\u{c}1", "\u{0}", "\u{2}{}", r#"{"cmd":"NODE_CLUSTER","act":7}"#] {
        assert!(parse(garbage.as_bytes()).is_err(), "{garbage:?}");
    }
    assert!(parse(b"\"\xff\"").is_err());
}

#[test]
fn answers_carry_what_node_needs() {
    let query = query_of(
        r#"{"cmd":"NODE_CLUSTER","act":"queryServer","seq":4,"index":0,"data":{"ticketKeys":"ab"},"address":null,"port":443,"addressType":4}"#,
    );
    let mut speaker = Speaker::default();
    assert_eq!(
        speaker.refuse_listener(&query, "k", 98),
        r#"{"cmd":"NODE_CLUSTER","errno":-98,"key":"k","ack":4,"data":{"ticketKeys":"ab"},"seq":0}"#
    );
    assert_eq!(
        speaker.give_listener(&query, "k"),
        r#"{"cmd":"NODE_HANDLE","type":"net.Native","msg":{"cmd":"NODE_CLUSTER","errno":0,"key":"k","ack":4,"data":{"ticketKeys":"ab"},"seq":1},"socketType":1,"nativeKind":"tcp"}"#
    );
    assert_eq!(speaker.disconnect(), r#"{"cmd":"NODE_CLUSTER","act":"disconnect","seq":2}"#);
    assert_eq!(speaker.acknowledge(9), r#"{"cmd":"NODE_CLUSTER","ack":9,"seq":3}"#);
    let (seq, line) = speaker.hand_over("k");
    assert_eq!(seq, 4);
    assert!(line.contains(r#""act":"newconn","key":"k","seq":4}"#));
}

#[test]
fn what_may_be_taken_for_one_of_nodes_own_is_seen_however_it_is_written() {
    for own in [
        r#"{"cmd":"NODE_CLUSTER"}"#,
        r#" {"a": [1], "cmd" : "NODE_x"}"#,
        r#"{"cmd":"\u004eODE_HANDLE"}"#,
        r#"{"\u0063md":"NODE_HANDLE"}"#,
        r#"{"cmd":1,"cmd":"NODE_HANDLE_ACK","cmd":2}"#,
        // What JSON.parse of JavaScript takes, and a `String`, an `f64` or a recursion does not.
        "{\"\\ud800\":0,\"cmd\":\"NODE_CLUSTER\"}",
        "{\"cmd\":1e999,\"cmd\":\"NODE_CLUSTER\"}",
        "{\"cmd\":\"NODE_\\ud800\"}",
        &format!("{{\"cmd\":{}{},\"cmd\":\"NODE_CLUSTER\"}}", "[".repeat(200), "]".repeat(200)),
    ] {
        assert!(is_own(own.as_bytes()), "{own}");
    }
    for users in [
        r#""NODE_CLUSTER""#,
        r#"["cmd","NODE_CLUSTER"]"#,
        r#"{"cmd":"NODE_"}"#,
        r#"{"cmd":"fooNODE_x","\u0063":"\u004e"}"#,
        r#"{"cmd":["NODE_x"],"command":"NODE_x","a":{"cmd":"NODE_x"}}"#,
        r#"{"cmd":5}"#,
        r#"{"\ud800":"\udc00","cmd":"NODE"}"#,
    ] {
        assert!(!is_own(users.as_bytes()), "{users}");
    }
}
