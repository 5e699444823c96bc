//! Addresses: what is asked for, what is got, and what is refused.

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use allcores::{AddressType, ExitStatus};
use allcores_parity::{Node, Run, client, on_each_node};
use allcores_testing::process::free_port;
use allcores_testing::skip;
use serde_json::{Value, json};

fn in_use() -> Value {
    json!({ "code": "EADDRINUSE", "syscall": "bind" })
}

/// The code of an error that a worker reported.
fn code(problem: &Value) -> &str {
    problem["code"].as_str().unwrap_or_else(|| panic!("no error: {problem}"))
}

on_each_node!(listening_port: round_robin, shared, lanes);
/// cluster-listening-port
async fn listening_port(run: Run) {
    let mut stage = run.stage("listening.js", "port_0").await;
    let worker = stage.fork().await;
    let address = stage.listening(&worker).await;
    assert!(address.port > 0, "{address:?}");
    assert_eq!(client::ask(client::at(&address)).unwrap(), "hello");
}

on_each_node!(net_listen: round_robin, lanes);
/// cluster-net-listen
async fn net_listen(run: Run) {
    let mut stage = run.stage("listening.js", "without_a_port").await;
    let worker = stage.fork().await;
    let address = stage.listening(&worker).await;
    assert_eq!(address.address, None);
    assert!(stage.message(&worker).await["address"]["port"].as_u64() > Some(0));
    assert_eq!(client::ask(client::at(&address)).unwrap(), "hello");
}

on_each_node!(net_listen_backlog: round_robin, shared, lanes);
/// cluster-net-listen-backlog: the kernel's own word on it.
async fn net_listen_backlog(run: Run) {
    let options = json!({ "port": 0, "host": "127.0.0.1", "backlog": 127 });
    let mut stage = run.stage_with("listening.js", "options", &options).await;
    let worker = stage.fork().await;
    let port = stage.listening(&worker).await.port;
    let output = Command::new("ss").args(["-ltnH", "sport", "=", &format!(":{port}")]).output();
    let Ok(output) = output else { skip!("ss is not installed") };
    let text = String::from_utf8(output.stdout).unwrap();
    let limits: Vec<_> = text.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    assert!(!limits.is_empty() && limits.iter().all(|limit| *limit == "127"), "{text}");
}

on_each_node!(pipe_readable_writable: round_robin, shared);
/// cluster-listen-pipe-readable-writable
async fn pipe_readable_writable(run: Run) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let options = json!({ "path": path, "readableAll": true, "writableAll": true });
    let mut stage = run.stage_with("listening.js", "options", &options).await;
    let worker = stage.fork().await;
    stage.listening(&worker).await;
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o777);
    drop(worker.disconnect());
    assert_eq!(stage.gone(&worker).await, ExitStatus::Code(0));
}

on_each_node!(http_pipe: round_robin, shared);
/// cluster-http-pipe
async fn http_pipe(run: Run) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket").display().to_string();
    let mut stage = run.stage_with("listening.js", "http_path", &json!({ "path": path })).await;
    let worker = stage.fork().await;
    let address = stage.listening(&worker).await;
    assert_eq!((address.address.as_deref(), address.port), (Some(path.as_str()), -1));
    let (head, body) = client::get_at_path(&path).unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && body.contains("OK"), "{head}\n{body}");
    let addresses = json!({ "remoteAddress": "undefined", "localAddress": "undefined" });
    assert_eq!(stage.message(&worker).await, addresses);
}

on_each_node!(ipv6only_false: round_robin, lanes);
/// cluster-net-listen-ipv6only-false
async fn ipv6only_false(run: Run) {
    if !client::has_ipv6() {
        skip!("no IPv6 here");
    }
    let options = json!({ "host": "::", "port": 0 });
    let mut stage = run.stage_with("listening.js", "options", &options).await;
    let workers = stage.fork_many(3).await;
    let mut addresses = Vec::new();
    for worker in &workers {
        addresses.push(stage.listening(worker).await);
    }
    assert!(addresses.iter().all(|address| *address == addresses[0]), "{addresses:?}");
    assert_eq!(addresses[0].address_type, AddressType::Tcp6);
    assert_eq!(client::ask(client::at(&addresses[0])).unwrap(), "hello");
}

on_each_node!(ipv6only: round_robin, shared, lanes);
/// cluster-net-listen-ipv6only-rr and -none
async fn ipv6only(run: Run) {
    if !client::has_ipv6() {
        skip!("no IPv6 here");
    }
    let port = free_port().unwrap();
    let options = json!({ "host": "::", "port": port, "ipv6Only": true });
    let mut stage = run.stage_with("listening.js", "options", &options).await;
    let workers = stage.fork_many(3).await;
    for worker in &workers {
        let address = stage.listening(worker).await;
        let shown = (address.address_type, address.address.as_deref(), address.port);
        assert_eq!(shown, (AddressType::Tcp6, Some("::"), port.into()));
    }
    // IPv4 is free for others.
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
    let six = (Ipv6Addr::LOCALHOST, port).into();
    assert_eq!(client::ask(six).unwrap(), "hello");
}

on_each_node!(bind_twice: round_robin, shared, lanes);
/// cluster-bind-twice
async fn bind_twice(run: Run) {
    let options = json!({ "port": free_port().unwrap(), "host": "127.0.0.1" });
    let mut first = run.stage_with("listening.js", "options", &options).await;
    let holder = first.fork().await;
    first.listening(&holder).await;
    let mut second = run.stage_with("listening.js", "options", &options).await;
    let refused = second.fork().await;
    assert_eq!(code(&second.message(&refused).await), "EADDRINUSE");
}

on_each_node!(eaddrinuse: round_robin, shared, lanes);
/// cluster-eaddrinuse
async fn eaddrinuse(run: Run) {
    let (listener, port) = client::listener();
    let options = json!({ "port": port, "host": "127.0.0.1" });
    let mut stage = run.stage_with("listening.js", "again", &options).await;
    let worker = stage.fork().await;
    assert_eq!(code(&stage.message(&worker).await), "EADDRINUSE");
    drop(listener);
    worker.send("again").unwrap();
    assert_eq!(stage.message(&worker).await["address"]["port"], port);
}

on_each_node!(eaccess: round_robin, shared);
/// cluster-eaccess
async fn eaccess(run: Run) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let _holder = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let mut stage = run.stage_with("listening.js", "options", &json!({ "path": path })).await;
    let worker = stage.fork().await;
    assert_eq!(code(&stage.message(&worker).await), "EADDRINUSE");
}

on_each_node!(shared_handle_bind_error: shared, lanes);
/// cluster-shared-handle-bind-error
async fn shared_handle_bind_error(run: Run) {
    let (_listener, port) = client::listener();
    let options = json!({ "port": port, "host": "127.0.0.1" });
    let mut stage = run.stage_with("listening.js", "leaves_on_error", &options).await;
    let worker = stage.fork().await;
    assert_eq!(stage.message(&worker).await, in_use());
    assert_eq!(stage.gone(&worker).await, ExitStatus::Code(0));
}

on_each_node!(ipc_throw: round_robin);
/// cluster-ipc-throw
async fn ipc_throw(run: Run) {
    let (_listener, port) = client::listener();
    let options = json!({ "port": port, "host": "127.0.0.1" });
    let mut stage = run.stage_with("listening.js", "throws_on_error", &options).await;
    let worker = stage.fork().await;
    assert_eq!(stage.message(&worker).await, in_use());
    assert_eq!(stage.gone(&worker).await, ExitStatus::Code(42));
}

on_each_node!(child_index_net: round_robin, shared, lanes);
/// cluster-child-index-net
async fn child_index_net(run: Run) {
    let mut stage = run.stage("listening.js", "child_index_net").await;
    let worker = stage.fork().await;
    assert_eq!(stage.gone(&worker).await, ExitStatus::Code(0));
}

on_each_node!(child_index_dgram: round_robin);
/// cluster-child-index-dgram
async fn child_index_dgram(run: Run) {
    let mut stage = run.stage("listening.js", "child_index_dgram").await;
    let worker = stage.fork().await;
    assert_eq!(stage.gone(&worker).await, ExitStatus::Code(0));
}

on_each_node!(port_reuse_between_workers: round_robin, shared, lanes);
/// cluster-port-reuse-between-workers
async fn port_reuse_between_workers(run: Run) {
    let port = free_port().unwrap();
    let mut stage = run.stage_with("listening.js", "on_command", &json!({ "port": port })).await;
    let (one, two) = (stage.fork().await, stage.fork().await);
    for worker in [&one, &two] {
        assert_eq!(stage.message(worker).await, "ready");
    }
    one.send(&json!({ "listen": "a" })).unwrap();
    assert_eq!(stage.message(&one).await["address"]["port"], port);
    one.send(&json!({ "listen": "b" })).unwrap();
    assert_eq!(code(&stage.message(&one).await), "EADDRINUSE");
    one.send(&json!({ "close": "a" })).unwrap();
    assert_eq!(stage.message(&one).await, "closed");
    two.send(&json!({ "listen": "a" })).unwrap();
    assert_eq!(stage.message(&two).await["address"]["port"], port);
    one.send(&json!({ "listen": "c" })).unwrap();
    assert_eq!(stage.message(&one).await["address"]["port"], port);
    assert_eq!(client::ask(client::local(port)).unwrap(), "hello");
}

on_each_node!(listen_twice_same_port: round_robin, shared, lanes);
/// cluster-listen-twice-same-port
async fn listen_twice_same_port(run: Run) {
    let mut stage = run.stage("listening.js", "twice_same_port").await;
    let worker = stage.fork().await;
    assert_eq!(code(&stage.message(&worker).await), "EADDRINUSE");
    assert_eq!(stage.gone(&worker).await, ExitStatus::Code(0));
}

/// What two that share a port tell: node 20 does not know the option, and asks the primary.
async fn reuses(run: Run, part: &str) {
    let mut stage = run.stage("listening.js", part).await;
    let worker = stage.fork().await;
    let told = stage.message(&worker).await;
    if run.node == Node::V20 {
        assert_eq!(told["asked"], 2, "{told}");
    } else {
        assert_eq!((&told["asked"], &told["how"]), (&json!(0), &json!("both")), "{told}");
        assert!(!stage.kinds(&worker).contains(&"listening"), "it never asked");
    }
}

on_each_node!(net_reuseport: round_robin, lanes);
/// cluster-net-reuseport
async fn net_reuseport(run: Run) {
    reuses(run, "reuse_port").await;
}

on_each_node!(dgram_reuseport: round_robin);
/// cluster-dgram-reuseport
async fn dgram_reuseport(run: Run) {
    reuses(run, "reuse_port_udp").await;
}

on_each_node!(net_listen_twice: round_robin, shared, lanes);
/// net-listen-twice
async fn net_listen_twice(run: Run) {
    let mut stage = run.stage("listening.js", "listen_twice").await;
    let worker = stage.fork().await;
    let mut told = stage.message(&worker).await;
    if told["code"] == "ERR_SERVER_ALREADY_LISTEN" {
        told = stage.message(&worker).await;
    }
    assert_eq!(told, json!({ "times": 1 }));
    assert_eq!(stage.gone(&worker).await, ExitStatus::Code(0));
}

on_each_node!(exclusive_random_ports: round_robin, lanes);
/// net-listen-exclusive-random-ports
async fn exclusive_random_ports(run: Run) {
    let mut stage = run.stage("listening.js", "exclusive_random").await;
    let workers = stage.fork_many(2).await;
    let mut ports = Vec::new();
    for worker in &workers {
        ports.push(stage.message(worker).await["address"]["port"].as_u64().unwrap());
    }
    assert_ne!(ports[0], ports[1]);
}

on_each_node!(shared_ports: round_robin, lanes);
/// net-listen-shared-ports
async fn shared_ports(run: Run) {
    let options = json!({ "shared": free_port().unwrap(), "exclusive": free_port().unwrap() });
    let mut stage = run.stage_with("listening.js", "shared_then_exclusive", &options).await;
    let first = stage.fork().await;
    assert_eq!(stage.message(&first).await["address"]["port"], options["exclusive"]);
    let second = stage.fork().await;
    assert_eq!(code(&stage.message(&second).await), "EADDRINUSE");
    assert_eq!(stage.listening(&second).await.port, options["shared"]);
}
