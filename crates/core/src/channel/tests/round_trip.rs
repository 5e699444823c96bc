//! What one side writes, the other reads.

use super::*;

fn asks() -> Vec<Ask> {
    let tls = Ask {
        index: 2,
        data: Some(r#"{"ticketKeys":"ab\"c"}"#.to_owned()),
        fd: None,
        flags: FLAG_IPV6_ONLY,
        backlog: 33,
        policy: Some("sticky:cookie=\"a\"".to_owned()),
        ..Ask::new(AddressKind::Tcp6, Some("::1".to_owned()), 443)
    };
    let unix = Ask {
        is_readable_by_all: true,
        is_writable_by_all: true,
        ..Ask::new(AddressKind::Unix, Some("/tmp/a \\\"ß\n.sock".to_owned()), -1)
    };
    let descriptor = Ask { fd: Some(7), ..Ask::new(AddressKind::Descriptor, None, -1) };
    let any = Ask::new(AddressKind::Tcp4, None, 0);
    let udp4 = Ask { flags: 4, ..Ask::new(AddressKind::Udp4, Some("127.0.0.1".to_owned()), 53) };
    let udp6 = Ask::new(AddressKind::Udp6, None, 0);
    vec![tls, unix, descriptor, any, udp4, udp6]
}

#[test]
fn a_wish_to_listen_arrives_as_it_was_asked() {
    let mut speaker = WorkerSpeaker::default();
    assert_eq!(parse(speaker.online().as_bytes()).unwrap(), Incoming::Online);
    for ask in asks() {
        let (seq, line) = speaker.query(&ask);
        let query = query_of(&line);
        let backlog = if ask.backlog == 0 { 511 } else { ask.backlog };
        let expected = Query {
            seq,
            index: ask.index,
            data: ask.data.clone(),
            address: ask.address.clone(),
            port: ask.port,
            kind: ask.kind,
            fd: ask.fd,
            flags: ask.flags,
            backlog,
            is_readable_by_all: ask.is_readable_by_all,
            is_writable_by_all: ask.is_writable_by_all,
            policy: ask.policy.clone(),
            is_crate: true,
        };
        assert_eq!(query, expected);
        let listening = parse(speaker.listening(&ask, 8123).as_bytes()).unwrap();
        let Ask { address, kind, fd, index, .. } = ask;
        assert_eq!(listening, Incoming::Listening { address, port: 8123, kind, fd, index });
    }
}

#[test]
fn what_a_worker_says_besides_arrives() {
    let mut speaker = WorkerSpeaker::default();
    let close = speaker.close("a\"b\n");
    assert_eq!(parse(close.as_bytes()).unwrap(), Incoming::Close { key: "a\"b\n".to_owned() });
    let (seq, leave) = speaker.leave();
    assert_eq!((seq, parse(leave.as_bytes()).unwrap()), (1, Incoming::Leaving { seq: 1 }));
    let accepted = speaker.accepted(9, true);
    assert_eq!(parse(accepted.as_bytes()).unwrap(), Incoming::Accepted { ack: 9, is_accepted: true });
    let refused = speaker.accepted(u64::from(u32::MAX), false);
    let expected = Incoming::Accepted { ack: u64::from(u32::MAX), is_accepted: false };
    assert_eq!(parse(refused.as_bytes()).unwrap(), expected);
}

#[test]
fn answers_arrive_with_their_data_and_address() {
    let mut speaker = Speaker::default();
    for ask in asks() {
        let (ack, line) = WorkerSpeaker::default().query(&ask);
        let query = query_of(&line);
        let expected = |errno, sockname| FromPrimary::Answer {
            ack,
            errno,
            key: "k\"1".to_owned(),
            data: ask.data.clone(),
            sockname,
        };
        let refused = speaker.refuse_listener(&query, "k\"1", 98);
        assert_eq!(parse_from_primary(refused.as_bytes()).unwrap(), expected(-98, None));
        for sockname in [None, Some("127.0.0.1:38003".parse().unwrap()), Some("[::1]:443".parse().unwrap())] {
            let leave = speaker.listen_by_handoff(&query, "k\"1", sockname);
            assert_eq!(parse_from_primary(leave.as_bytes()).unwrap(), expected(0, sockname));
        }
        let given = speaker.give_listener(&query, "k\"1");
        let kind = if query.kind.is_udp() { HandleKind::DgramNative } else { HandleKind::NetNative };
        let handle = FromPrimary::Handle { kind, message: Box::new(expected(0, None)), key: None };
        assert_eq!(parse_from_primary(given.as_bytes()).unwrap(), handle);
    }
}

#[test]
fn what_a_primary_says_besides_arrives() {
    let mut speaker = Speaker::default();
    let (seq, newconn) = speaker.hand_over("k1");
    let message = Box::new(FromPrimary::Connection { seq, key: "k1".to_owned() });
    let handle = FromPrimary::Handle { kind: HandleKind::NetNative, message, key: None };
    assert_eq!(parse_from_primary(newconn.as_bytes()).unwrap(), handle);
    assert_eq!(parse_from_primary(speaker.disconnect().as_bytes()).unwrap(), FromPrimary::Disconnect);
    let acknowledged = parse_from_primary(speaker.acknowledge(5).as_bytes()).unwrap();
    assert_eq!(acknowledged, FromPrimary::Acknowledged { ack: 5 });
}

#[test]
fn nodes_own_answers_are_understood() {
    let read = |line: &str| parse_from_primary(line.as_bytes()).unwrap();
    let answer =
        |errno, sockname| FromPrimary::Answer { ack: 1, errno, key: "K".to_owned(), data: None, sockname };
    assert_eq!(
        read(
            r#"{"cmd":"NODE_CLUSTER","errno":null,"key":"K","ack":1,"data":null,"sockname":{"address":"127.0.0.1","family":"IPv4","port":38003},"seq":0}"#
        ),
        answer(0, Some("127.0.0.1:38003".parse().unwrap()))
    );
    assert_eq!(
        read(r#"{"cmd":"NODE_CLUSTER","errno":-98,"key":"K","ack":1,"data":null,"seq":0}"#),
        answer(-98, None)
    );
    assert_eq!(
        read(
            r#"{"cmd":"NODE_HANDLE","type":"net.Native","msg":{"cmd":"NODE_CLUSTER","act":"newconn","key":"K","seq":3}}"#
        ),
        FromPrimary::Handle {
            kind: HandleKind::NetNative,
            message: Box::new(FromPrimary::Connection { seq: 3, key: "K".to_owned() }),
            key: None
        }
    );
}

#[test]
fn a_users_message_with_a_descriptor_arrives_with_kind_and_key() {
    for kind in [
        HandleKind::NetNative,
        HandleKind::DgramNative,
        HandleKind::NetSocket,
        HandleKind::NetServer,
        HandleKind::NetBoundSocket,
        HandleKind::DgramSocket4,
        HandleKind::DgramSocket6,
    ] {
        for (json, key) in [("null", None), (r#"{"a":[1,"ß"]}"#, Some("4:127.0.0.1:80")), ("7", Some("\""))]
        {
            let line = user_with_handle(kind, json, key);
            let key = key.map(str::to_owned);
            let message = Box::new(Incoming::User(json.into()));
            let expected = Incoming::Handle { kind, message, key: key.clone() };
            assert_eq!(parse(line.as_bytes()).unwrap(), expected);
            let message = Box::new(FromPrimary::User(json.into()));
            assert_eq!(
                parse_from_primary(line.as_bytes()).unwrap(),
                FromPrimary::Handle { kind, message, key }
            );
        }
    }
}

#[test]
fn a_socket_that_node_sends_again_is_unwrapped() {
    let line = r#"{"cmd":"NODE_HANDLE","type":"net.Native","msg":{"cmd":"NODE_HANDLE","type":"net.Socket","msg":{"a":1},"key":"4:::80"}}"#;
    let message = Box::new(Incoming::User(r#"{"a":1}"#.into()));
    let expected = Incoming::Handle { kind: HandleKind::NetSocket, message, key: Some("4:::80".to_owned()) };
    assert_eq!(parse(line.as_bytes()).unwrap(), expected);
}

#[test]
fn what_is_said_about_sockets_arrives() {
    let key = "4:::80\"".to_owned();
    for message in [
        SocketMessage::NotifyClose { key: key.clone() },
        SocketMessage::AllClosed { key: key.clone() },
        SocketMessage::GetCount { key: key.clone() },
        SocketMessage::Count { key, count: 3 },
    ] {
        let line = message.line();
        assert_eq!(parse(line.as_bytes()).unwrap(), Incoming::Socket(message.clone()));
        assert_eq!(parse_from_primary(line.as_bytes()).unwrap(), FromPrimary::Socket(message));
    }
}

#[test]
fn acknowledgements_and_user_messages_arrive_on_both_sides() {
    assert_eq!(parse(HANDLE_ACK.as_bytes()).unwrap(), Incoming::HandleAck);
    assert_eq!(parse(HANDLE_NACK.as_bytes()).unwrap(), Incoming::HandleNack);
    assert_eq!(parse_from_primary(HANDLE_ACK.as_bytes()).unwrap(), FromPrimary::HandleAck);
    assert_eq!(parse_from_primary(HANDLE_NACK.as_bytes()).unwrap(), FromPrimary::HandleNack);
    let arrays = [r#"["NODE_ENV"]"#, r#"["NODE_CLUSTER"]"#, r#"["NODE_HANDLE"]"#, r#"["NODE_HANDLE_ACK"]"#];
    for json in arrays {
        assert_eq!(parse(json.as_bytes()).unwrap(), Incoming::User(json.into()), "to Node it has no cmd");
    }
    for json in ["null", "1", "\"x\"", "[]", r#"{"cmd":"NODE_"}"#, r#"{"cmd":5,"cmd":6}"#] {
        assert_eq!(parse_from_primary(json.as_bytes()).unwrap(), FromPrimary::User(json.into()));
    }
}
