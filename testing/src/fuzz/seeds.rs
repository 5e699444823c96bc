//! Messages as Node and we write them, to begin with.

use allcores_core::channel::{
    AddressKind, Ask, HANDLE_ACK, HANDLE_NACK, HandleKind, Incoming, Message, SocketMessage, Speaker, Texts,
    WorkerSpeaker, user_with_handle,
};

/// What node 20 to 26 say, of which ours is a part only.
const OF_NODE: [&str; 16] = [
    r#"{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,"address":null,"port":8123,"addressType":4,"backlog":false,"seq":1}"#,
    r#"{"cmd":"NODE_CLUSTER","act":"queryServer","index":3,"data":{"ticketKeys":"a0b1c2"},"address":"::1","port":443,"addressType":6,"fd":-1,"flags":1,"backlog":511,"readableAll":false,"writableAll":true,"seq":18446744073709551615}"#,
    r#"{"cmd":"NODE_CLUSTER","act":"queryServer","index":1,"data":null,"address":"/a/b.sock","port":-1,"addressType":-1,"seq":3}"#,
    r#"{"cmd":"NODE_CLUSTER","act":"queryServer","index":1,"data":null,"address":"127.0.0.1","port":0,"addressType":"udp4","fd":-1,"flags":4,"seq":4}"#,
    r#"{"cmd":"NODE_CLUSTER","act":"listening","index":0,"data":null,"address":"0.0.0.0","port":8123,"addressType":4,"seq":2}"#,
    r#"{"cmd":"NODE_CLUSTER","act":"close","key":"0:::8123:4:undefined","seq":9}"#,
    r#"{"cmd":"NODE_CLUSTER","act":"exitedAfterDisconnect","seq":10}"#,
    r#"{"ack":7,"accepted":true,"cmd":"NODE_CLUSTER","seq":11}"#,
    r#"{"cmd":"NODE_CLUSTER","errno":0,"key":"null:8123:4:undefined:0","ack":1,"data":null,"sockname":{"address":"::","family":"IPv6","port":8123},"seq":0}"#,
    r#"{"cmd":"NODE_HANDLE","type":"net.Native","msg":{"cmd":"NODE_CLUSTER","act":"newconn","key":"k","seq":5}}"#,
    r#"{"cmd":"NODE_HANDLE","type":"net.Socket","msg":"take this","key":"6:::1:8000"}"#,
    r#"{"cmd":"NODE_HANDLE","type":"dgram.Socket","msg":{"deep":[[[[{}]]]]},"dgramType":"udp6"}"#,
    r#"{"cmd":"NODE_HANDLE","type":"net.Server","msg":{"cmd":"NODE_HANDLE","type":"net.Server","msg":1}}"#,
    r#"{"cmd":"NODE_","text":"a user's, \ud83e\udd80 and \ud800"}"#,
    r#"[null,true,1e300,-0,"é\u0000\n"]"#,
    "\u{2}{\"act\":\"newconn\",\"key\":\"k\",\"$hasHandle\":true,\"seq\":1}",
];

/// Real messages of both sides.
pub(super) fn of_channel() -> Vec<Vec<u8>> {
    let mut worker = WorkerSpeaker::default();
    let mut primary = Speaker::default();
    let mut all: Vec<String> = OF_NODE.map(str::to_owned).into();
    all.extend([HANDLE_ACK.to_owned(), HANDLE_NACK.to_owned(), worker.online(), worker.leave().1]);
    all.extend([
        worker.close("1:2"),
        worker.accepted(3, false),
        primary.disconnect(),
        primary.acknowledge(4),
    ]);
    all.push(primary.hand_over("1:2").1);
    for kind in [AddressKind::Tcp4, AddressKind::Udp6, AddressKind::Unix, AddressKind::Descriptor] {
        let ask =
            Ask { policy: Some("sticky:cookie=io".into()), ..Ask::new(kind, Some("127.0.0.1".into()), 0) };
        all.push(worker.listening(&ask, 4000));
        let (_, line) = worker.query(&ask);
        if let Ok(Incoming::Query(query)) = Incoming::parse(line.as_bytes(), &mut Texts::default()) {
            all.push(primary.give_listener(&query, "1:2"));
            all.push(primary.refuse_listener(&query, "1:2", 98));
            all.push(primary.listen_by_handoff(&query, "1:2", Some(([127, 0, 0, 1], 80).into())));
        }
        all.push(line);
    }
    for kind in [HandleKind::NetSocket, HandleKind::NetServer, HandleKind::DgramSocket4] {
        all.push(user_with_handle(kind, r#"{"a":1}"#, Some("k")));
    }
    all.push(SocketMessage::Count { key: "k".into(), count: 3 }.line());
    all.push(SocketMessage::NotifyClose { key: "k".into() }.line());
    all.into_iter().map(String::into_bytes).collect()
}
