//! Addresses: who gets which, and what is said of those that can't be had.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use allcores::{AddressType, Policy};
use allcores_parity::{Stage, client};
use allcores_testing::{address, skip};
use rustix::net::sockopt;
use serde_json::json;

use crate::{POLICIES, builder, in_use, listen, listen_on, play, port, stage, stage_by, text};

/// cluster-listening-port
#[test]
fn listening_port() {
    play(async {
        for policy in POLICIES {
            let mut stage = stage_by(&policy, json!([listen()])).await;
            let worker = stage.fork().await;
            let address = stage.listening(&worker).await;
            assert_eq!((address.address_type, address.fd), (AddressType::Tcp4, None));
            assert_eq!(i32::from(port(stage.message(&worker).await)), address.port);
            assert_ne!(address.port, 0);
        }
    });
}

/// cluster-net-listen-backlog: it reaches the kernel, which shows it as the size of the queue.
#[test]
fn net_listen_backlog() {
    play(async {
        for policy in POLICIES {
            let script = json!([{ "listen": { "at": "127.0.0.1:0", "backlog": 127 } }]);
            let mut stage = stage_by(&policy, script).await;
            let worker = stage.fork().await;
            let port = port(stage.message(&worker).await);
            let listening =
                std::process::Command::new("ss").args(["-Hltn", &format!("sport = :{port}")]).output();
            let Ok(listening) = listening else { skip!("there is no ss") };
            let table = String::from_utf8_lossy(&listening.stdout).into_owned();
            let queues: Vec<_> = table.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
            assert!(queues.contains(&"127"), "{policy}: {table}");
        }
    });
}

/// cluster-net-listen-ipv6only-false, and cluster-net-listen-ipv6only-rr and -none.
#[test]
fn ipv6only() {
    if !client::has_ipv6() {
        skip!("there is no IPv6");
    }
    play(async {
        for policy in POLICIES {
            for only_v6 in [false, true] {
                let script = json!([{ "listen": { "at": "[::]:0", "only_v6": only_v6 } }]);
                let mut stage = stage_by(&policy, script).await;
                let mut addresses = Vec::new();
                for worker in stage.fork_many(3).await {
                    addresses.push(stage.listening(&worker).await);
                }
                assert!(addresses.iter().all(|address| *address == addresses[0]), "{addresses:?}");
                assert_eq!(addresses[0].address_type, AddressType::Tcp6);
                let port = u16::try_from(addresses[0].port).unwrap();
                client::ask((Ipv6Addr::LOCALHOST, port).into()).unwrap();
                let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                assert_eq!(client::ask(v4).is_ok(), !only_v6);
                // On a host that no other test has.
                let bound = TcpListener::bind((address::unused().ip(), port));
                assert_eq!(bound.is_ok(), only_v6, "IPv4 is left to others: {bound:?}");
            }
        }
    });
}

/// cluster-bind-twice
#[test]
fn bind_twice() {
    play(async {
        for policy in POLICIES {
            let mut first = stage_by(&policy, json!([listen()])).await;
            let holder = first.fork().await;
            let taken = port(first.message(&holder).await);
            let mut second = stage_by(&policy, json!([listen_on(taken)])).await;
            let worker = second.fork().await;
            assert_eq!(second.message(&worker).await, in_use());
        }
    });
}

/// cluster-eaddrinuse, cluster-shared-handle-bind-error: a port that another holds, or the primary itself; and the same
/// again when it is free.
#[test]
fn eaddrinuse() {
    play(async {
        for policy in POLICIES {
            let (ours, taken) = client::listener();
            let mut stage = stage_by(&policy, json!([listen_on(taken)])).await;
            let worker = stage.fork().await;
            assert_eq!(stage.message(&worker).await, in_use());
            drop(ours);
            worker.send(&listen_on(taken)).unwrap();
            assert_eq!(port(stage.message(&worker).await), taken);
            assert_eq!(client::ask(client::local(taken)).unwrap(), "1");
        }
    });
}

/// cluster-bind-privileged-port and cluster-shared-handle-bind-privileged-port, as what a Rust program sees of it: an
/// address that is not this machine's fails in the same place, and needs no other user.
#[test]
fn not_ours() {
    play(async {
        for policy in POLICIES {
            let script = json!([{ "listen": { "at": "203.0.113.1:0" } }]);
            let mut stage = stage_by(&policy, script).await;
            let worker = stage.fork().await;
            let said = stage.message(&worker).await;
            let expected = format!("{:?}", ErrorKind::AddrNotAvailable);
            assert_eq!(said, json!({ "error": "AddressUnavailable", "cause": expected }));
        }
    });
}

/// sequential/cluster-port-reuse-between-workers
#[test]
fn port_reuse_between_workers() {
    play(async {
        for policy in POLICIES {
            let fixed = address::unused();
            let listen = json!({ "listen": { "at": fixed } });
            let close = json!({ "close": fixed.port() });
            let listening = json!({ "listening": fixed.port() });
            let closed = json!({ "closed": fixed.port() });
            let mut stage = stage_by(&policy, json!([listen, listen])).await;
            let first = stage.fork().await;
            assert_eq!(stage.message(&first).await, listening);
            assert_eq!(stage.message(&first).await, in_use(), "it has it already");
            first.send(&close).unwrap();
            assert_eq!(stage.message(&first).await, closed);
            let second = stage.fork().await;
            assert_eq!(stage.message(&second).await, listening);
            first.send(&listen).unwrap();
            assert_eq!(stage.message(&first).await, listening, "it joins the second");
            second.send(&close).unwrap();
            stage.message(&second).await;
            stage.message(&second).await;
            assert_eq!(client::ask(fixed).unwrap(), "1", "{policy}");
        }
    });
}

/// sequential/cluster-listen-twice-same-port, and cluster-child-index-net: again and again on port 0.
#[test]
fn listens_again() {
    play(async {
        for policy in POLICIES {
            let mut stage = stage_by(&policy, json!([listen(), listen()])).await;
            let worker = stage.fork().await;
            let ports = [port(stage.message(&worker).await), port(stage.message(&worker).await)];
            assert_ne!(ports[0], ports[1]);
            for taken in ports {
                worker.send(&listen_on(taken)).unwrap();
                assert_eq!(stage.message(&worker).await, in_use(), "{policy}");
                worker.send(&json!({ "close": taken })).unwrap();
                assert_eq!(stage.message(&worker).await, json!({ "closed": taken }));
                worker.send(&listen()).unwrap();
                let again = port(stage.message(&worker).await);
                assert_eq!(client::ask(client::local(again)).unwrap(), "1");
            }
        }
    });
}

/// A worker that comes late, and listens on less, or in another order: in Node, it gets EADDRINUSE for it.
#[test]
fn uneven() {
    play(async {
        for policy in POLICIES {
            let (one, other) = (address::unused(), address::unused());
            let listen = |at: SocketAddr| json!({ "listen": { "at": at } });
            let mut stage = stage_by(&policy, json!([])).await;
            let (early, late) = (stage.fork().await, stage.fork().await);
            for at in [one, other] {
                early.send(&listen(at)).unwrap();
                assert_eq!(stage.message(&early).await, json!({ "listening": at.port() }));
            }
            late.send(&listen(other)).unwrap();
            assert_eq!(stage.message(&late).await, json!({ "listening": other.port() }));
            late.send(&listen(one)).unwrap();
            assert_eq!(stage.message(&late).await, json!({ "listening": one.port() }));
        }
    });
}

/// cluster-http-pipe, of a Unix socket: workers share it, and its file goes with the last of them.
#[test]
fn unix_socket() {
    play(async {
        for policy in POLICIES {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("socket");
            let mut stage = stage_by(&policy, json!([{ "listen_unix": path }])).await;
            for worker in stage.fork_many(2).await {
                let address = stage.listening(&worker).await;
                assert_eq!((address.address_type, address.port), (AddressType::Unix, -1));
                assert_eq!(address.address.as_deref(), Some(text(&path)));
            }
            let stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
            assert!(["1", "2"].contains(&client::rest(stream).unwrap().as_str()));
            stage.cluster.disconnect().await;
            assert!(!path.exists(), "{policy}");
        }
    });
}

/// known_issues/cluster-import-scheduling-policy: the policy is a setting, and a listener may have its own.
#[test]
fn policy_of_a_listener() {
    play(async {
        let sticky = json!({ "listen": { "at": "127.0.0.1:0", "policy": "sticky" } });
        let mut stage = Stage::open(builder(json!([sticky])).policy(Policy::RoundRobin)).await;
        let mut ports = Vec::new();
        for worker in stage.fork_many(3).await {
            ports.push(port(stage.message(&worker).await));
        }
        let answers: Vec<_> = (0..6).map(|_| client::ask(client::local(ports[0])).unwrap()).collect();
        assert!(answers.iter().all(|answer| *answer == answers[0]), "one client, one worker: {answers:?}");
    });
}

/// cluster-accept-fail, as far as it can be brought about: a client that has gone before it is accepted.
#[test]
fn accept_fail() {
    play(async {
        for policy in POLICIES {
            let mut stage = stage_by(&policy, json!([listen()])).await;
            let worker = stage.fork().await;
            let address = client::local(port(stage.message(&worker).await));
            for _ in 0..50 {
                let gone = client::connect(address).unwrap();
                sockopt::set_socket_linger(&gone, Some(std::time::Duration::ZERO)).unwrap();
            }
            assert_eq!(client::ask(address).unwrap(), "1");
            assert!(stage.seen().iter().all(|seen| !matches!(seen, allcores_parity::stage::Seen::Wrong(_))));
            worker.disconnect().await;
        }
    });
}

/// A worker that has been told to go gets no listener any more, as in Node, which does not even answer.
#[test]
fn a_worker_that_leaves_may_not_listen() {
    play(async {
        let mut stage = stage(json!({ "now": [], "at_end": [listen()] })).await;
        let worker = stage.fork().await;
        stage.online(&worker).await;
        drop(worker.disconnect());
        assert_eq!(stage.message(&worker).await, json!({ "error": "Disconnected", "cause": "NotConnected" }));
        stage.gone(&worker).await;
    });
}
