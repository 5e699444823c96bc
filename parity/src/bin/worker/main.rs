//! A worker that does as it is told: by the script in its first argument, and by messages from then on.
//!
//! Both are [`Order`]s, so that a test reads as what its worker does. It says over the channel what has become of each.

mod order;
mod serve;

use std::collections::VecDeque;
use std::io::Write;

use allcores::{Message, Role, Worker};
use serde_json::{Value, json};

use crate::order::{Order, Script};
use crate::serve::Servers;

/// What an order means for what is to be done next.
enum Next {
    Go,
    End,
}

struct Player {
    worker: Worker,
    servers: Servers,
    /// Messages are sent back.
    is_echo: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let Ok(Role::Worker(worker)) = allcores::role() else { panic!("it is to be started as a worker") };
    let script = std::env::args().nth(1).unwrap_or_else(|| "[]".into());
    let Script { orders, at_end } = serde_json::from_str(&script).expect("a script that we understand");
    let servers = Servers::new(worker.clone());
    let mut player = Player { worker, servers, is_echo: false };
    player.play(orders).await;
    player.obey().await;
    player.servers.close_all();
    player.play(at_end).await;
    player.worker.disconnect().await;
}

impl Player {
    async fn play(&mut self, orders: VecDeque<Order>) {
        for order in orders {
            if let Next::End = self.perform(order, None).await {
                return;
            }
        }
    }

    /// Does what messages say, until it is time to go.
    async fn obey(&mut self) {
        let shutdown = self.worker.shutdown();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let message = tokio::select! {
                biased;
                message = self.worker.next_message() => message,
                () = &mut shutdown => return,
            };
            let Some(message) = message else { return shutdown.await };
            if self.is_echo {
                self.echo(&message);
            } else if let Next::End = self.obey_one(&message).await {
                return;
            }
        }
    }

    async fn obey_one(&mut self, message: &Message) -> Next {
        if let Ok(order) = message.parse::<Order>() {
            return self.perform(order, Some(message)).await;
        }
        let heard: Value = message.parse().expect("JSON");
        self.say(&json!({ "heard": heard }));
        Next::Go
    }

    fn echo(&self, message: &Message) {
        let value: Value = message.parse().expect("JSON");
        match message.take_handle() {
            Some(handle) => drop(self.worker.send_with_handle(&value, handle)),
            None => self.say(&value),
        }
    }

    /// Nobody may be there to hear it.
    fn say(&self, value: &Value) {
        let _ = self.worker.send(value);
    }

    async fn perform(&mut self, order: Order, message: Option<&Message>) -> Next {
        match order {
            Order::Listen(listen) => {
                let said = self.servers.listen(listen).await;
                self.say(&said);
            }
            Order::ListenUnix(path) => {
                let said = self.servers.listen_unix(&path).await;
                self.say(&said);
            }
            Order::BindUdp { at, only_v6 } => {
                let said = self.servers.bind_udp(&at, only_v6).await;
                self.say(&said);
            }
            Order::Close(port) => {
                self.servers.close(port);
                self.say(&json!({ "closed": port }));
            }
            Order::Serve => self.servers.serve(message.and_then(Message::take_handle)),
            Order::Connect { to, and_write } => self.send_connection(&to, and_write.as_deref()),
            Order::SendListener => {
                let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
                let port = listener.local_addr().expect("an address").port();
                self.worker.send_with_handle(&port, listener).expect("it is sent");
            }
            Order::SendUdp => {
                let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
                let port = socket.local_addr().expect("an address").port();
                self.worker.send_with_handle(&port, socket).expect("it is sent");
            }
            Order::Ready => self.worker.ready().expect("it is said"),
            Order::Say(value) => self.say(&value),
            Order::SayNumbers(count) => (0..count).for_each(|number| self.say(&json!(number))),
            Order::SayLong(bytes) => {
                let is_little = self.worker.send(&"x".repeat(bytes)).expect("it is sent");
                self.worker.drained().await;
                let is_little_then = self.worker.send("drained").expect("it is sent");
                self.say(&json!([is_little, is_little_then]));
            }
            Order::Print(text) => println!("{text}"),
            Order::Complain(text) => eprintln!("{text}"),
            Order::Tell => self.say(&self.about()),
            Order::Variable(name) => self.say(&json!(std::env::var(name).ok())),
            Order::Arguments => self.say(&json!(std::env::args().skip(2).collect::<Vec<_>>())),
            Order::Folder => self.say(&json!(std::env::current_dir().expect("a folder"))),
            Order::Pipe(number) => self.say(&serve::talk_over(number)),
            Order::Inherited(number) => self.servers.serve(Some(serve::inherited_listener(number))),
            Order::Grandchild => self.say(&grandchild()),
            Order::Nest => self.say(&nested().await),
            Order::Echo => self.is_echo = true,
            Order::Disconnect => self.worker.disconnect().await,
            Order::Kill => self.worker.kill(),
            Order::UntilShutdown => self.worker.shutdown().await,
            Order::Exit(code) => std::process::exit(code),
            Order::Spin => loop {
                std::hint::spin_loop();
            },
            Order::End => return Next::End,
        }
        Next::Go
    }

    /// Who this worker is, as it sees itself.
    fn about(&self) -> Value {
        json!({
            "id": self.worker.id().0,
            "slot": self.worker.slot().0,
            "pid": std::process::id(),
            "is_connected": self.worker.is_connected(),
            "is_alone": self.worker.is_alone(),
            "exited_after_disconnect": self.worker.exited_after_disconnect(),
        })
    }

    /// Connects, and sends the connection to the primary.
    fn send_connection(&self, to: &str, and_write: Option<&str>) {
        let mut stream = std::net::TcpStream::connect(to).expect("somebody listens there");
        let sent = stream.try_clone().expect("a copy");
        self.worker.send_with_handle("connection", sent).expect("it is sent");
        if let Some(text) = and_write {
            stream.write_all(text.as_bytes()).expect("it is written");
        }
    }
}

/// Why this program can't start a cluster of itself, of which each worker would start one in its turn.
async fn nested() -> Value {
    match allcores::Builder::new().workers(1).start().await {
        Ok(_) => json!({ "error": null }),
        Err(error) => json!({ "error": error.to_string() }),
    }
}

/// What a program of this crate that a worker starts takes itself for: this one's own first line says so.
fn grandchild() -> Value {
    let program = std::env::current_exe().expect("we have a program");
    let output = std::process::Command::new(program).stderr(std::process::Stdio::piped()).output();
    let output = output.expect("it runs");
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    json!({ "is_worker": !complaint.contains("it is to be started as a worker"), "is_success": output.status.success() })
}
