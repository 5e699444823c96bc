use std::collections::HashMap;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use allcores_core::worker::Slot;

use super::super::{Applicant, Profile, Tuning};
use super::*;
use crate::primary::Policy;

const WORKERS: u32 = 4;

/// A table whose workers each have a lane on one address.
fn table(address: &str) -> (Ports, Vec<LaneId>, SocketAddr) {
    let mut ports =
        Ports::new(Policy::Lanes, 1024, Tuning { tick: Duration::from_millis(1), is_on: true }).unwrap();
    ports.set_target(4);
    let address = Address::Tcp { socket: address.parse().unwrap(), is_only_v6: false };
    let mut lanes = Vec::new();
    for id in 1..=WORKERS {
        let worker = WorkerId(id);
        let slot = Slot(u16::try_from(id - 1).unwrap());
        let applicant = Applicant {
            worker,
            slot,
            replaces: None,
            is_by_channel: false,
            policy: None,
            is_on_trial: false,
        };
        let profile = Profile { is_nonblocking: Some(false), ..Profile::default() };
        let lane = ports.obtain(&applicant, &address, 0, &profile, |_, _| true).unwrap();
        ports.dress(lane, &profile);
        ports.listen(lane, 1024).unwrap();
        assert_eq!(ports.reach(worker), Some(Reach::Own(lane)));
        lanes.push(lane);
    }
    let bound = ports.describe(lanes[0]).unwrap().address.socket().unwrap();
    (ports, lanes, near(bound, false))
}

/// Accepts from each lane, and remembers who came to which.
struct Servers {
    came: Arc<Mutex<HashMap<SocketAddr, usize>>>,
    counts: Arc<[AtomicU64; WORKERS as usize]>,
    is_over: Arc<AtomicBool>,
}

impl Servers {
    fn start(ports: &Ports, lanes: &[LaneId]) -> Self {
        let servers = Self { came: Arc::default(), counts: Arc::default(), is_over: Arc::default() };
        for (number, lane) in lanes.iter().enumerate() {
            let socket = ports.socket(*lane).unwrap().as_fd().try_clone_to_owned().unwrap();
            let (came, counts) = (Arc::clone(&servers.came), Arc::clone(&servers.counts));
            std::thread::spawn(move || {
                for connection in TcpListener::from(socket).incoming() {
                    let Ok(peer) = connection.as_ref().unwrap().peer_addr() else { continue };
                    came.lock().unwrap().insert(canonical(peer), number);
                    counts[number].fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        servers
    }

    fn load(&self, address: SocketAddr) -> std::thread::JoinHandle<()> {
        let is_over = Arc::clone(&self.is_over);
        std::thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                let _ = TcpStream::connect(address).and_then(|mut stream| stream.read(&mut [0]));
            }
        })
    }
}

fn connect(ports: &mut Ports, lane: LaneId) -> TcpStream {
    let passage = ports.open_passage(lane, false).unwrap();
    let from = passage.from.unwrap();
    let stream = TcpStream::from(passage.socket);
    let mut ready = [rustix::event::PollFd::new(&stream, rustix::event::PollFlags::OUT)];
    rustix::event::poll(&mut ready, None).unwrap();
    assert!(stream.take_error().unwrap().is_none());
    ports.note_connected(from);
    stream.set_nonblocking(false).unwrap();
    stream
}

/// A thousand passages under load, each to a lane that chance names.
fn passages_reach_their_lanes(listen: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let (mut ports, lanes, address) = table(listen);
    for id in 1..=WORKERS {
        ports.serve(WorkerId(id), true, Duration::ZERO);
    }
    let servers = Servers::start(&ports, &lanes);
    let clients: Vec<_> = (0..2).map(|_| servers.load(address)).collect();
    let mut missed = 0;
    for number in 0..1000_usize {
        let expected = number * 7 % lanes.len();
        let mut stream = connect(&mut ports, lanes[expected]);
        let from = stream.local_addr().unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "it is closed once it was accepted");
        missed += usize::from(servers.came.lock().unwrap()[&from] != expected);
        ports.close_passage(from);
    }
    servers.is_over.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().unwrap();
    }
    assert_eq!(missed, 0, "passages that reached another lane");
    let counts: Vec<u64> = servers.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
    assert!(least * 5 > most * 4, "what comes otherwise is spread as ever: {counts:?}");
}

#[test]
fn passages_reach_their_lanes_by_ipv4() {
    passages_reach_their_lanes("127.0.0.1:0");
}

#[test]
fn passages_reach_their_lanes_on_every_address() {
    passages_reach_their_lanes("0.0.0.0:0");
}

#[test]
fn passages_reach_their_lanes_by_ipv6() {
    if std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        passages_reach_their_lanes("[::1]:0");
        passages_reach_their_lanes("[::]:0");
    }
}

#[test]
fn a_worker_that_gets_nothing_otherwise_is_reached_all_the_same() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let (mut ports, lanes, address) = table("127.0.0.1:0");
    ports.serve(WorkerId(1), true, Duration::ZERO);
    let servers = Servers::start(&ports, &lanes);
    let mut stream = connect(&mut ports, lanes[3]);
    let from = stream.local_addr().unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    for _ in 0..200 {
        let _ = TcpStream::connect(address).unwrap().read(&mut [0]);
    }
    let counts: Vec<u64> = servers.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    assert_eq!(counts[1..], [0, 0, 1]);
    ports.close_passage(from);
}

#[test]
fn while_nobody_is_ready_only_our_own_connections_get_through() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let (mut ports, lanes, address) = table("127.0.0.1:0");
    ports.set_gated();
    ports.refresh(lanes[0].group());
    let servers = Servers::start(&ports, &lanes);
    let attempt = || TcpStream::connect_timeout(&address, Duration::from_millis(100));
    for (number, lane) in lanes.iter().enumerate() {
        assert_eq!(attempt().unwrap_err().kind(), io::ErrorKind::TimedOut);
        let mut stream = connect(&mut ports, *lane);
        let from = stream.local_addr().unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        assert_eq!(servers.came.lock().unwrap()[&from], number);
        ports.close_passage(from);
    }
    assert_eq!(attempt().unwrap_err().kind(), io::ErrorKind::TimedOut);
    ports.serve(WorkerId(2), true, Duration::ZERO);
    for _ in 0..20 {
        assert_eq!(attempt().unwrap().read(&mut [0]).unwrap(), 0);
    }
    assert_eq!(servers.counts[1].load(Ordering::Relaxed), 21);
    ports.serve(WorkerId(2), false, Duration::ZERO);
    assert_eq!(attempt().unwrap_err().kind(), io::ErrorKind::TimedOut);
}

#[test]
fn what_another_may_have_answered_since_it_came_to_the_lane_is_not_believed() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let (mut ports, lanes, _) = table("127.0.0.1:0");
    let before = connect(&mut ports, lanes[0]).local_addr().unwrap();
    let besides = connect(&mut ports, lanes[1]).local_addr().unwrap();
    let address = ports.describe(lanes[0]).unwrap().address.clone();
    let newcomer = Applicant {
        worker: WorkerId(WORKERS + 1),
        slot: Slot(0),
        replaces: Some(WorkerId(1)),
        is_by_channel: false,
        policy: None,
        is_on_trial: false,
    };
    let profile = Profile { is_nonblocking: Some(false), ..Profile::default() };
    assert_eq!(ports.obtain(&newcomer, &address, 0, &profile, |_, _| true).unwrap(), lanes[0]);
    let since = connect(&mut ports, lanes[0]).local_addr().unwrap();
    assert_eq!([before, besides, since].map(|from| ports.close_passage(from)), [false, true, true]);
}

/// A table of two, the second of whom can be handed connections and is free, with a passage to `to` that nobody accepts and
/// that has waited for long. Returns the passage's source, and when that is.
fn with_one_that_waits(to: usize) -> (Ports, Vec<LaneId>, TcpStream, Duration) {
    let (mut ports, lanes, _) = table("127.0.0.1:0");
    for (id, lane) in (1..).zip(&lanes).take(2) {
        rustix::io::ioctl_fionbio(ports.socket(*lane).unwrap(), true).unwrap();
        ports.serve(WorkerId(id), true, Duration::ZERO);
    }
    ports.set_handed(lanes[1]);
    ports.join(lanes[1], WorkerId(2), Slot(1));
    let stream = connect(&mut ports, lanes[to]);
    let mut now = Duration::from_millis(100);
    for _ in 0..12 {
        now += Duration::from_millis(1);
        ports.tick(now);
        if to == 0 {
            ports.note_life(WorkerId(2), now);
        }
    }
    (ports, lanes, stream, now)
}

#[test]
fn what_is_about_a_worker_that_can_be_handed_nothing_is_left_in_its_lane() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let (mut ports, _, stream, now) = with_one_that_waits(0);
    assert!(ports.relieve(now).is_empty(), "another worker's answer would be taken for this one's");
    // Once it is over it is a connection that waits, like any.
    ports.close_passage(stream.local_addr().unwrap());
    let taken: Vec<WorkerId> = ports.relieve(now).iter().map(|delivery| delivery.worker).collect();
    assert_eq!(taken, [WorkerId(2)]);
}

#[test]
fn what_is_about_a_worker_that_refuses_it_is_offered_to_nobody_else() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let (mut ports, lanes, mut stream, now) = with_one_that_waits(1);
    ports.set_handed(lanes[0]);
    ports.join(lanes[0], WorkerId(1), Slot(0));
    ports.note_life(WorkerId(1), now);
    let mut taken = ports.relieve(now);
    assert_eq!(taken.iter().map(|delivery| delivery.worker).collect::<Vec<_>>(), [WorkerId(2)]);
    let delivery = taken.remove(0);
    ports.refused(delivery.lane, delivery.worker, delivery.ticket, now);
    assert!(ports.hand_off(now).is_empty());
    drop(delivery);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "who asked is told that there is no answer");
}
