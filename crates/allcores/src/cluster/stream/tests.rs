//! Streams that are full, dropped, and asked for late.

use std::os::fd::OwnedFd;

use allcores_core::channel::Serialization;
use allcores_core::exit::ExitStatus;
use allcores_core::policy::Policy;
use allcores_core::pool::PoolSettings;
use allcores_core::worker::{Slot, WorkerId};

use super::*;
use crate::primary::{Host, Link, Output, Primary, Settings, Stream, Upkeep, WorkerRef};

/// A worker that does nothing.
fn worker() -> WorkerHandle {
    let settings = Settings {
        name: "test".into(),
        command: Vec::new(),
        cwd: None,
        mark: None,
        env: Vec::new(),
        uid: None,
        gid: None,
        policy: Policy::Auto,
        pending: 1,
        listen: Vec::new(),
        given: Vec::new(),
        pass_given: false,
        adopt: false,
        output: Output::Inherit,
        stop_signal: crate::Signal::TERM,
        host: Host::Program,
        serialization: Serialization::Json,
        inspect_port: None,
        pool: PoolSettings::default(),
        upkeep: Upkeep::default(),
    };
    let about = WorkerRef { id: WorkerId(1), slot: Slot(0), pid: std::process::id() };
    let pidfd = Arc::new(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
    let link = Link { pidfd, channel: None, flow: Arc::default() };
    WorkerHandle::new(about, link, Primary::new(settings).handle())
}

fn line(worker: &WorkerHandle, bytes: usize) -> Event {
    Event::Output { worker: worker.clone(), stream: Stream::Stdout, line: vec![b'x'; bytes] }
}

/// All that a stream has, which must have come to its end.
async fn all(mut events: Events) -> Vec<Event> {
    let mut all = Vec::new();
    while let Some(event) = events.next().await {
        all.push(event);
    }
    all
}

#[tokio::test]
async fn a_full_stream_holds_back_until_it_is_read_or_dropped() {
    let (worker, flow) = (worker(), Arc::new(Flow::default()));
    let hub = Hub::new(Arc::clone(&flow));
    let (mut one, mut other) = (hub.subscribe(), hub.subscribe());
    for events in [&mut one, &mut other] {
        hub.push(Event::Stopping);
        events.next().await;
    }
    hub.push(line(&worker, MOST_BYTES));
    assert!(!flow.is_open());
    drop(one);
    assert!(!flow.is_open());
    while let Some(Event::Stopping) = other.next().await {}
    assert!(flow.is_open());
}

#[tokio::test]
async fn a_stream_that_is_dropped_while_it_is_told_something_holds_back_nobody() {
    let (worker, flow) = (worker(), Arc::new(Flow::default()));
    let hub = Hub::new(Arc::clone(&flow));
    let mut events = hub.subscribe();
    hub.push(Event::Stopping);
    events.next().await;
    // As the hub has it when it has looked who is there, and has not told them yet.
    let queue = Arc::clone(&events.queue);
    drop(events);
    queue.push(std::iter::once(line(&worker, MOST_BYTES)));
    assert!(flow.is_open());
    drop(queue);
    assert!(flow.is_open());
}

#[tokio::test]
async fn who_asks_first_hears_all_though_the_worker_is_gone() {
    let worker = worker();
    worker.push(Event::Fork { worker: worker.clone() });
    worker.push(line(&worker, 3));
    worker.push(Event::Exit { worker: worker.clone(), status: ExitStatus::Code(7) });
    worker.end();
    let told = all(worker.events()).await;
    assert!(matches!(&told[..], [Event::Fork { .. }, Event::Output { .. }, Event::Exit { .. }]), "{told:?}");
    assert!(told.iter().all(|event| event.worker() == Some(&worker)), "of another handle");
    assert_eq!(all(worker.events()).await.len(), 0, "it was told once");
}

#[tokio::test]
async fn who_asked_in_time_hears_the_end_and_others_do_not_hear_the_beginning() {
    let worker = worker();
    worker.push(Event::Fork { worker: worker.clone() });
    let (first, second) = (worker.events(), worker.events());
    worker.push(Event::Disconnect { worker: worker.clone() });
    worker.end();
    assert_eq!((all(first).await.len(), all(second).await.len()), (2, 1));
    assert_eq!(all(worker.events()).await.len(), 0);
}

#[test]
fn a_worker_whose_events_nobody_wants_is_forgotten_with_its_last_handle() {
    let worker = worker();
    let commands = Arc::downgrade(worker.flow());
    worker.push(Event::Fork { worker: worker.clone() });
    worker.end();
    assert!(commands.upgrade().is_some());
    drop(worker);
    assert!(commands.upgrade().is_none(), "it is kept by what was told of it");
}

#[tokio::test]
async fn what_was_dropped_before_anybody_asked_is_told_first() {
    let worker = worker();
    let said = |bytes| worker.push(line(&worker, bytes));
    worker.push(Event::Fork { worker: worker.clone() });
    said(1);
    said(2);
    said(KEPT_BYTES - 2);
    let mut events = worker.events();
    let missed = events.next().await;
    assert!(matches!(missed, Some(Event::Missed { events: 1, handles: 0 })), "{missed:?}");
    // Of what is there now nothing is dropped.
    said(KEPT_BYTES);
    worker.end();
    let rest = all(events).await;
    let lengths: Vec<usize> = rest.iter().filter_map(weight).collect();
    assert!(matches!(rest[0], Event::Fork { .. }), "{:?}", rest[0]);
    assert_eq!(lengths, [2, KEPT_BYTES - 2, KEPT_BYTES]);
}

#[tokio::test]
async fn what_a_worker_that_is_gone_could_not_be_heard_saying_is_told_first() {
    let worker = worker();
    for _ in 0..=MOST {
        worker.push(line(&worker, 1));
    }
    worker.push(Event::Exit { worker: worker.clone(), status: ExitStatus::Code(0) });
    worker.end();
    let told = all(worker.events()).await;
    assert!(matches!(told[0], Event::Missed { events: 2, .. }), "{:?}", told[0]);
    assert_eq!(told.len(), 1 + MOST);
    assert!(matches!(told[MOST], Event::Exit { .. }));
}

#[tokio::test]
async fn of_a_stream_that_was_asked_for_nothing_is_dropped_before_it_is_read() {
    let (worker, flow) = (worker(), Arc::new(Flow::default()));
    let hub = Hub::new(Arc::clone(&flow));
    let events = hub.subscribe();
    for _ in 0..MOST {
        assert!(flow.is_open());
        hub.push(line(&worker, 1));
    }
    assert!(!flow.is_open(), "nobody is held back");
    hub.end();
    assert_eq!(all(events).await.len(), MOST);
}

/// A message with a socket, and the socket's other end.
fn socket(worker: &WorkerHandle) -> (Event, std::os::unix::net::UnixStream) {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    let message = Message::new("1".into(), Some(ours.into()));
    (Event::Message { worker: worker.clone(), message }, theirs)
}

fn is_closed(mut theirs: &std::os::unix::net::UnixStream) -> bool {
    std::io::Read::read(&mut theirs, &mut [0]).is_ok()
}

/// As the cluster tells of a worker.
fn tell(worker: &WorkerHandle, hub: &Hub, event: Event) {
    worker.push(event.clone());
    hub.push(event);
}

#[tokio::test]
async fn a_socket_that_was_not_wanted_is_not_kept_by_a_stream_that_nobody_has_asked_for() {
    for is_asked_before in [true, false] {
        for is_of_the_worker in [true, false] {
            let (worker, hub) = (worker(), Hub::new(Arc::default()));
            let mut clusters = hub.subscribe_ahead();
            let ((first, its_end), (second, other_end)) = (socket(&worker), socket(&worker));
            if !is_asked_before {
                tell(&worker, &hub, first.clone());
            }
            let mut workers = is_of_the_worker.then(|| worker.events());
            let read = workers.as_mut().unwrap_or(&mut clusters);
            if is_asked_before {
                read.take_some();
                tell(&worker, &hub, first);
            } else {
                drop(first);
            }
            tell(&worker, &hub, second);
            let (_, dropped) = read.next_message().await.unwrap();
            let (_, taken) = read.next_message().await.unwrap();
            assert!(dropped.has_handle() && !is_closed(&its_end));
            let (clone, handle) = (dropped.clone(), taken.take_handle());
            drop((dropped, taken));
            assert!(clone.has_handle() && !is_closed(&its_end), "somebody has it still");
            drop(clone);
            assert!(is_closed(&its_end) && !is_closed(&other_end));
            drop(handle);
            assert!(is_closed(&other_end));
            // And who asks late hears the rest of it.
            let mut late = if is_of_the_worker { clusters } else { worker.events() };
            let (_, message) = late.next_message().await.unwrap();
            assert!(!message.has_handle() && message.take_handle().is_none());
        }
    }
}

#[tokio::test]
async fn a_socket_that_nobody_was_told_of_is_there_for_who_asks_first() {
    let (worker, hub) = (worker(), Hub::new(Arc::default()));
    let clusters = hub.subscribe_ahead();
    let (event, its_end) = socket(&worker);
    tell(&worker, &hub, event);
    worker.end();
    drop(clusters);
    assert!(!is_closed(&its_end));
    let (_, message) = worker.events().next_message().await.unwrap();
    assert!(message.has_handle());
    drop(message);
    assert!(is_closed(&its_end));
    let (event, its_end) = socket(&worker);
    drop(event);
    assert!(is_closed(&its_end), "there is no stream");
}
