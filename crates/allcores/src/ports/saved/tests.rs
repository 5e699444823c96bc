//! A table that goes on as another program would have it: nothing of the first is dropped, as nothing is by exec.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::Duration;

use allcores_core::worker::Slot;
use rustix::net::SocketFlags;
use serde_json::Value;

use super::*;
use crate::ports::{Applicant, LaneId, Looked, Profile};

const NOW: Duration = Duration::from_secs(5);

fn tuning() -> Tuning {
    Tuning { tick: Duration::from_millis(1), is_on: true }
}

fn table(policy: Policy) -> Ports {
    let mut ports = Ports::new(policy, 1024, tuning()).unwrap();
    ports.set_target(4);
    ports
}

fn applicant(id: u32, is_by_channel: bool) -> Applicant {
    let slot = Slot(u16::try_from(id - 1).unwrap());
    Applicant { worker: WorkerId(id), slot, replaces: None, is_by_channel, policy: None, is_on_trial: false }
}

fn listen(ports: &mut Ports, id: u32, is_by_channel: bool, address: &Address) -> LaneId {
    let profile = Profile { is_nonblocking: Some(true), ..Profile::default() };
    let lane = ports.obtain(&applicant(id, is_by_channel), address, 0, &profile, |_, _| true).unwrap();
    ports.dress(lane, &profile);
    if is_by_channel {
        ports.set_handed(lane);
    }
    ports.listen(lane, 128).unwrap();
    if is_by_channel {
        ports.join(lane, WorkerId(id), Slot(u16::try_from(id - 1).unwrap()));
    }
    ports.serve(WorkerId(id), true, NOW);
    lane
}

fn any() -> Address {
    Address::Tcp { socket: "127.0.0.1:0".parse().unwrap(), is_only_v6: false }
}

/// Goes on as the next program: from the text, and from descriptors that have lost their owner.
fn go_on(ports: Ports, policy: Policy) -> (Ports, Value) {
    let mut manifest = Manifest::default();
    let saved = ports.save(&mut manifest);
    saved.check().unwrap();
    manifest.set_carried(true).unwrap();
    std::mem::forget(ports);
    let text = serde_json::to_string(&saved).unwrap();
    let mut inherited = Inherited::claim(&manifest.all()).unwrap();
    let read = serde_json::from_str(&text).unwrap();
    let restored =
        Ports::restore(policy, 1024, tuning(), read, &mut inherited, (NOW, Duration::ZERO)).unwrap();
    (restored, serde_json::from_str(&text).unwrap())
}

fn value(ports: &Ports) -> Value {
    serde_json::to_value(ports.save(&mut Manifest::default())).unwrap()
}

fn accept(ports: &Ports, lane: LaneId) -> OwnedFd {
    let socket = ports.socket(lane).unwrap();
    let mut ready = [rustix::event::PollFd::from_borrowed_fd(socket, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut ready, None).unwrap();
    rustix::net::accept_with(socket, SocketFlags::CLOEXEC).unwrap()
}

#[tokio::test]
async fn lanes_go_on_with_what_waits_in_them_and_get_company() {
    let mut ports = table(Policy::Lanes);
    let first = listen(&mut ports, 1, false, &any());
    let address = ports.describe(first).unwrap().address;
    let second = listen(&mut ports, 2, false, &address);
    ports.serve(WorkerId(2), false, NOW);
    let socket = address.socket().unwrap();
    let mut waiting = TcpStream::connect(socket).unwrap();
    ports.note_copies(first, true);

    let (mut ports, before) = go_on(ports, Policy::Lanes);
    assert_eq!(value(&ports), before);
    let mut came = std::fs::File::from(accept(&ports, first));
    came.write_all(b"x").unwrap();
    assert_eq!(waiting.read(&mut [0]).unwrap(), 1);
    assert!(ports.cares_for_copies(first), "what is known of copies is forgotten");
    // The kernel picks as before, and lanes that come take the next numbers.
    let third = listen(&mut ports, 3, false, &address);
    for serving in [second, third] {
        for id in 1..=3 {
            ports.serve(WorkerId(id), (serving == second && id == 2) || (serving == third && id == 3), NOW);
        }
        let _client = TcpStream::connect(socket).unwrap();
        drop(accept(&ports, serving));
    }
    let _client = TcpStream::connect(socket).unwrap();
    let ready = std::future::poll_fn(|context| ports.poll_ready(context)).await;
    ports.note_ready(&ready, NOW);
    assert_eq!(ports.hot_lanes(), [third], "the reactor tells of lanes again");
}

#[tokio::test]
async fn how_a_socket_that_was_passed_is_served_is_still_up_to_the_first_who_asks() {
    let mut ports = table(Policy::RoundRobin);
    let passed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = passed.local_addr().unwrap();
    let address = Address::Tcp { socket, is_only_v6: false };
    ports.take_in(&address, passed.into(), Some("web".into())).unwrap();

    let (mut ports, before) = go_on(ports, Policy::RoundRobin);
    assert_eq!(value(&ports), before);
    let lane = listen(&mut ports, 1, true, &address);
    assert!(ports.is_handoff(lane));
    // And from then on it is decided.
    let (ports, _) = go_on(ports, Policy::RoundRobin);
    assert!(ports.is_handoff(lane));
}

#[tokio::test]
async fn connections_that_were_handed_or_wait_go_on_with_their_tickets() {
    let mut ports = table(Policy::RoundRobin);
    let lane = listen(&mut ports, 1, true, &any());
    let socket = ports.describe(lane).unwrap().address.socket().unwrap();
    let mut clients: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(socket).unwrap()).collect();
    let ready = std::future::poll_fn(|context| ports.poll_ready(context)).await;
    ports.note_ready(&ready, NOW);
    // One is handed over; the others are taken in as time passes, and wait.
    let handed = ports.hand_off(NOW);
    assert_eq!(handed.len(), 1);
    assert!(ports.hand_off(NOW + Duration::from_millis(6)).is_empty());
    assert_eq!(ports.addresses().next().unwrap().pending, Some(3));

    let (mut ports, before) = go_on(ports, Policy::RoundRobin);
    assert_eq!(value(&ports), before);
    let now = NOW + Duration::from_millis(8);
    ports.accepted(lane, handed[0].worker, handed[0].ticket, now);
    let next = ports.hand_off(now);
    assert!(!next.is_empty() && next[0].ticket > handed[0].ticket);
    let mut served = std::fs::File::from(next[0].connection.try_clone().unwrap());
    served.write_all(b"second").unwrap();
    let mut text = [0; 6];
    clients[1].read_exact(&mut text).unwrap();
    assert_eq!(&text, b"second");
}

#[tokio::test]
async fn a_head_that_is_being_read_is_given_back_and_read_by_the_next() {
    let policy: Policy = "sticky:cookie=sid".parse().unwrap();
    let mut ports = table(policy.clone());
    let lane = listen(&mut ports, 1, true, &any());
    let socket = ports.describe(lane).unwrap().address.socket().unwrap();
    let mut client = TcpStream::connect(socket).unwrap();
    let ready = std::future::poll_fn(|context| ports.poll_ready(context)).await;
    ports.note_ready(&ready, NOW);
    assert!(ports.hand_off(NOW).is_empty());
    let unread = ports.take_unread().pop().unwrap();
    assert!(!ports.has_all_back());
    let Looked::Back(unread) = unread.read(std::future::ready(())).await else { panic!("nothing was sent") };
    ports.give_back(unread);
    assert!(ports.has_all_back());

    let (mut ports, _) = go_on(ports, policy);
    assert!(ports.hand_off(NOW).is_empty());
    client.write_all(b"GET / HTTP/1.1\r\nCookie: sid=1\r\n\r\n").unwrap();
    let unread = ports.take_unread().pop().unwrap();
    let Looked::Known(read) = unread.read(std::future::pending()).await else { panic!("not called back") };
    ports.take_read(read);
    assert_eq!(ports.hand_off(NOW).len(), 1);
}

#[test]
fn a_unix_socket_keeps_its_two_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sock");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _context = runtime.enter();
    let mut ports = table(Policy::Shared);
    let address = Address::Unix(path.as_os_str().as_encoded_bytes().to_vec());
    listen(&mut ports, 1, true, &address);
    assert_eq!(folder.path().read_dir().unwrap().count(), 2);
    let (mut ports, before) = go_on(ports, Policy::Shared);
    assert_eq!(value(&ports), before);
    std::fs::remove_file(&path).unwrap();
    ports.obtain(&applicant(2, false), &address, 0, &Profile::default(), |_, _| true).unwrap();
    assert!(path.exists(), "it is put back");
    std::fs::remove_file(&path).unwrap();
    while !path.exists() {
        // Also when nobody asks for it.
        let touched = runtime.block_on(ports.next_touched());
        assert_eq!(ports.put_back(&touched), None);
    }
    ports.close();
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
}

#[test]
fn a_table_that_contradicts_itself_is_refused() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _context = runtime.enter();
    let mut ports = table(Policy::Lanes);
    let lane = listen(&mut ports, 1, false, &any());
    let address = ports.describe(lane).unwrap().address;
    listen(&mut ports, 2, false, &address);
    for (path, wrong) in [
        ("/groups/0/lanes/1/id", serde_json::json!(0)),
        ("/groups/0/lanes/1/id", serde_json::json!(1_u64 << 40)),
        ("/groups/0/next_lane", serde_json::json!(1)),
        ("/groups/0/key", serde_json::json!(2)),
        ("/last_group", serde_json::json!(0)),
        ("/groups/0/order/0", serde_json::json!(9)),
        ("/groups/0/order/0", serde_json::json!((1_u64 << 28) + 1)),
        ("/groups/0/policy", serde_json::json!("auto")),
        ("/groups/0/policy", serde_json::json!("fair")),
        ("/groups/0/lanes", serde_json::json!([])),
    ] {
        let mut value = value(&ports);
        *value.pointer_mut(path).unwrap() = wrong.clone();
        let saved: PortsSaved = serde_json::from_value(value).unwrap();
        assert!(saved.check().is_err(), "{path}: {wrong}");
    }
}
