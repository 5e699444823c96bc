//! What needs a primary in a process of its own: its death, its rights, its folder, what it inherits.

use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use allcores::Policy;
use allcores_parity::node::fixture;
use allcores_parity::{Run, client, on_each_node, process};
use allcores_testing::process::Process;
use allcores_testing::skip;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(15);

/// A primary with one worker or more, which plays `part`.
struct Primary {
    arguments: Value,
}

impl Primary {
    fn new(run: &Run, script: &str, part: &str, parameters: &Value) -> Self {
        let words = [
            run.program().to_str().unwrap(),
            fixture(script).to_str().unwrap(),
            part,
            &parameters.to_string(),
        ]
        .map(str::to_owned);
        let arguments = json!({ "command": words, "workers": 1, "policy": run.policy.to_string() });
        Self { arguments }
    }

    fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.arguments[name] = value.into();
        self
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_parity-primary"));
        command.arg(self.arguments.to_string());
        command
    }
}

/// What a worker said, as the primary tells it.
fn message(primary: &Process) -> Value {
    primary.wait_count("message", 1, PATIENCE).unwrap()[0].value["message"].clone()
}

/// A primary that ends when its two workers listen: they go as well.
fn ends(run: &Run, how: &str, code: i32) {
    let primary = Primary::new(run, "life.js", "listens", &json!({})).with("workers", 2).with("ends", how);
    let process = Process::spawn(&mut primary.command()).unwrap();
    let events = process.wait_count("listening", 2, PATIENCE).unwrap();
    let pids: Vec<_> = events.iter().map(|event| event.worker_pid().unwrap()).collect();
    assert_eq!(process.wait(PATIENCE).unwrap().code(), Some(code));
    for pid in pids {
        assert!(process::ends(pid), "worker {pid} lives on");
    }
}

on_each_node!(primary_error);
/// cluster-primary-error
async fn primary_error(run: Run) {
    ends(&run, "panic", 101);
}

on_each_node!(primary_kill);
/// cluster-primary-kill
async fn primary_kill(run: Run) {
    ends(&run, "exit", 0);
}

on_each_node!(relative_path: round_robin, shared);
/// cluster-net-listen-relative-path
async fn relative_path(run: Run) {
    let folder = tempfile::tempdir().unwrap();
    let name = "n".repeat(101);
    let parameters = json!({ "folder": folder.path(), "name": name });
    let primary = Primary::new(&run, "listening.js", "relative_path", &parameters);
    let process = Process::spawn(primary.command().current_dir(folder.path())).unwrap();
    process.wait_count("listening", 1, PATIENCE).unwrap();
    assert_eq!(message(&process), json!({ "exists": true }));
    assert!(folder.path().join(&name).exists());
    process.stop().unwrap();
    assert!(!folder.path().join(&name).exists(), "the socket's file is left");
}

on_each_node!(privileged_port: round_robin, shared, lanes);
/// cluster-bind-privileged-port, cluster-shared-handle-bind-privileged-port
async fn privileged_port(run: Run) {
    let first_free = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    if first_free.trim().parse::<u16>().unwrap() <= 42 {
        skip!("every port is free for all here");
    }
    let options = json!({ "port": 42, "host": "127.0.0.1" });
    let primary = Primary::new(&run, "listening.js", "leaves_on_error", &options);
    let mut command = primary.command();
    if rustix::process::geteuid().is_root() {
        command.uid(65_534).gid(65_534);
    }
    let process = Process::spawn(&mut command).unwrap();
    assert_eq!(message(&process)["code"], "EACCES");
    let exit = process.wait_count("exit", 1, PATIENCE).unwrap().remove(0);
    assert_eq!(exit.value["code"], 0);
}

on_each_node!(listen_fd: round_robin, shared);
/// listen-fd-cluster: the number means the primary's descriptor, which is the worker's channel.
async fn listen_fd(run: Run) {
    let listener = TcpListener::bind(client::local(0)).unwrap();
    let address = listener.local_addr().unwrap();
    let primary = Primary::new(&run, "listening.js", "options", &json!({ "fd": 3 }));
    let program = primary.command();
    // As standard input to the shell, which makes it number 3.
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" \"$@\" 3<&0 </dev/null"]);
    command.arg(program.get_program()).args(program.get_args());
    command.stdin(std::os::fd::OwnedFd::from(listener));
    let process = Process::spawn(&mut command).unwrap();
    process.wait_count("listening", 1, PATIENCE).unwrap();
    assert_eq!(client::ask(address).unwrap(), "hello");
}

on_each_node!(tls_tickets: round_robin, shared, lanes);
/// tls-ticket-cluster: a session that one worker began is resumed by any.
async fn tls_tickets(run: Run) {
    const CONNECTIONS: u32 = 16;
    let builder = run.builder("tls.js", "serve", &json!({}));
    let mut stage = allcores_parity::Stage::open(builder).await;
    let mut port = 0;
    for worker in stage.fork_many(4).await {
        port = stage.listening(&worker).await.port;
    }
    let mut client = Command::new(run.program());
    client.arg(fixture("tls.js")).args(["client", &port.to_string(), &CONNECTIONS.to_string()]);
    if run.policy == Policy::Shared {
        // The same worker may always be the first to accept.
        client.arg("stop");
    }
    let output = client.output().unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["resumed"], CONNECTIONS - 1, "{told}");
    assert!(told["pids"].as_array().unwrap().len() > 1, "one worker had them all: {told}");
}
