//! A primary in a process of its own, for tests of its death, its rights and what it inherits.
//!
//! Takes what to do as JSON in its first argument, and tells what happens as lines of JSON.

use allcores::{Builder, Event, ExitStatus, WorkerHandle};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Deserialize)]
struct Order {
    /// What workers run.
    command: Vec<String>,
    /// How many of them.
    workers: usize,
    policy: String,
    /// `exit` or `panic`, when all listen.
    ends: Option<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let order = std::env::args().nth(1).expect("an order");
    let order: Order = serde_json::from_str(&order).expect("an order that we understand");
    let policy = order.policy.parse().expect("a policy");
    let builder = Builder::new().exec(&order.command[0]).args(&order.command[1..]).policy(policy);
    let mut cluster = builder.workers(order.workers).start().await.expect("it starts");
    let mut listening = 0;
    let mut terminate = signal(SignalKind::terminate()).expect("a signal");
    loop {
        let event = tokio::select! {
            event = cluster.next_event() => event,
            _ = terminate.recv() => break,
        };
        match event.expect("it runs until it is stopped") {
            Event::Listening { worker, .. } => {
                tell("listening", &worker, &json!(null));
                listening += 1;
                if listening == order.workers {
                    end(order.ends.as_deref());
                }
            }
            Event::Message { worker, message, .. } => {
                tell("message", &worker, &message.parse().expect("JSON"));
            }
            Event::Exit { worker, status, .. } => {
                let code = if let ExitStatus::Code(code) = status { json!(code) } else { json!(null) };
                println!("{}", json!({ "event": "exit", "worker": { "pid": worker.pid() }, "code": code }));
            }
            _ => {}
        }
    }
    cluster.stop().await.expect("it stops");
}

fn tell(event: &str, worker: &WorkerHandle, message: &Value) {
    let worker = json!({ "id": worker.id().0, "pid": worker.pid() });
    println!("{}", json!({ "event": event, "worker": worker, "message": message }));
}

fn end(how: Option<&str>) {
    match how {
        Some("exit") => std::process::exit(0),
        Some("panic") => panic!("as ordered"),
        _ => {}
    }
}
