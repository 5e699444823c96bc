//! Datagrams.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use allcores::{AddressType, Policy};
use allcores_parity::client;
use allcores_testing::skip;
use serde_json::{Value, json};

use crate::{POLICIES, in_use, play, port, stage, stage_by};

fn bind(at: &str) -> Value {
    json!({ "bind_udp": { "at": at } })
}

/// Who answers a datagram of a client of its own.
fn answer(address: SocketAddr) -> String {
    let client = UdpSocket::bind(client::local(0)).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    client.send_to(b"hello", address).unwrap();
    let mut buffer = [0; 16];
    let length = client.recv(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

/// cluster-dgram-1: all workers have one port. Where each has a socket of its own for it, all of them get something.
#[test]
fn dgram_1() {
    play(async {
        for policy in POLICIES {
            let mut stage = stage_by(&policy, json!([bind("127.0.0.1:0")])).await;
            let mut ports = BTreeSet::new();
            for worker in stage.fork_many(4).await {
                let address = stage.listening(&worker).await;
                assert_eq!((address.address_type, address.fd), (AddressType::Udp4, Some(-1)));
                ports.insert(address.port);
            }
            let address = client::local(u16::try_from(*ports.first().unwrap()).unwrap());
            assert_eq!(ports.len(), 1);
            let workers: BTreeSet<_> = (0..100).map(|_| answer(address)).collect();
            assert!(
                policy != Policy::Lanes || workers.len() == 4,
                "of 100 clients none reached others than {workers:?}"
            );
        }
    });
}

/// cluster-dgram-ipv6only
#[test]
fn ipv6only() {
    if !client::has_ipv6() {
        skip!("there is no IPv6");
    }
    play(async {
        for policy in POLICIES {
            let mut stage =
                stage_by(&policy, json!([{ "bind_udp": { "at": "[::]:0", "only_v6": true } }])).await;
            let worker = stage.fork().await;
            let port = port(stage.message(&worker).await);
            worker.send(&bind(&format!("0.0.0.0:{port}"))).unwrap();
            assert_eq!(stage.message(&worker).await, json!({ "listening": port }));
        }
    });
}

/// known_issues/dgram-bind-shared-ports-after-port-0: what the kernel chose can be asked for by its number.
#[test]
fn shared_after_port_0() {
    play(async {
        let mut stage = stage(json!([])).await;
        let (first, second) = (stage.fork().await, stage.fork().await);
        first.send(&bind("127.0.0.1:0")).unwrap();
        let port = port(stage.message(&first).await);
        second.send(&bind(&format!("127.0.0.1:{port}"))).unwrap();
        assert_eq!(stage.message(&second).await, json!({ "listening": port }));
    });
}

/// dgram-bind-shared-ports, as far as it is about what is taken: a socket that another program has bound.
#[test]
fn taken() {
    play(async {
        let ours = UdpSocket::bind(client::local(0)).unwrap();
        let at = ours.local_addr().unwrap().to_string();
        let mut stage = stage(json!([bind(&at)])).await;
        let worker = stage.fork().await;
        assert_eq!(stage.message(&worker).await, in_use());
    });
}
