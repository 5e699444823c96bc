//! What becomes of a connection whose worker has said yes to it.

use std::future::poll_fn;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;

use allcores_core::channel::{Incoming, Message, Serialization, Texts};
use allcores_core::worker::Slot;
use tokio::sync::mpsc;

use super::*;
use crate::channel::{self, Arrival, Carrier, End};
use crate::primary::Settings;
use crate::primary::engine::notify::tests::settings;
use crate::primary::worker::Worker;

const WORKERS: [WorkerId; 2] = [WorkerId(1), WorkerId(2)];

/// An engine whose two workers listen at an address and serve, and both ends of their channels.
fn engine() -> (Engine, SocketAddr, Vec<(Carrier, OwnedFd)>) {
    let settings = Settings { policy: Policy::RoundRobin, pending: 16, ..settings(None) };
    let mut engine = Engine::new(settings, None, mpsc::channel(64).0, Box::new(|_| {})).unwrap();
    let mut ends = Vec::new();
    let mut port = 0;
    for (slot, id) in (0..).zip(WORKERS) {
        let nothing = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let mut worker = Worker::new(Slot(slot), id, 1, std::process::id(), nothing);
        let (sender, carrier, theirs) = channel::open(Serialization::Json).unwrap();
        worker.channel = Some(sender);
        ends.push((carrier, theirs));
        engine.workers.insert(id, worker);
        let asks = format!(
            r#"{{"cmd":"NODE_CLUSTER","act":"queryServer","seq":1,"index":0,"address":"127.0.0.1","port":{port},"addressType":4}}"#
        );
        says(&mut engine, id, &asks);
        let lane = engine.workers[&id].keys.lanes().next().expect("it got a listener");
        port = engine.ports.port(lane).unwrap();
        let listens = format!(
            r#"{{"cmd":"NODE_CLUSTER","act":"listening","address":"127.0.0.1","port":{port},"addressType":4}}"#
        );
        says(&mut engine, id, &listens);
        engine.ports.serve(id, true, Duration::ZERO);
    }
    (engine, SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).unwrap())), ends)
}

fn says(engine: &mut Engine, id: WorkerId, line: &str) {
    let message = Incoming::parse(line.as_bytes(), &mut Texts::default()).unwrap();
    engine.take_arrival(id, Arrival::Message { message, descriptor: None });
}

/// Hands over what comes next; says to whom, and by what number.
async fn hand_over_next(engine: &mut Engine) -> (WorkerId, u64) {
    let lanes = poll_fn(|context| engine.ports.poll_ready(context)).await;
    engine.take_ready(&lanes);
    engine.hand_off();
    let (handed, _) = engine.handoffs.sent.first_key_value().expect("it was handed over");
    *handed
}

#[tokio::test]
async fn what_a_worker_said_yes_to_is_its_own_though_it_leaves_at_once() {
    let (mut engine, address, _ends) = engine();
    let _client = TcpStream::connect(address).unwrap();
    let (worker, ack) = hand_over_next(&mut engine).await;
    assert!(engine.answers.push(Answer { worker, ack, is_accepted: true }));
    engine.take_in(Seen::ChannelEnded(worker, End::Closed));
    engine.hand_off();
    assert!(engine.handoffs.sent.is_empty(), "another worker was handed it, too");
}

#[tokio::test]
async fn what_a_worker_said_nothing_of_is_anothers_when_it_leaves() {
    let (mut engine, address, _ends) = engine();
    let _client = TcpStream::connect(address).unwrap();
    let (worker, _) = hand_over_next(&mut engine).await;
    engine.take_in(Seen::ChannelEnded(worker, End::Closed));
    engine.hand_off();
    let others: Vec<_> = engine.handoffs.sent.keys().map(|(id, _)| *id).collect();
    assert_eq!(others, WORKERS.into_iter().filter(|id| *id != worker).collect::<Vec<_>>());
}
