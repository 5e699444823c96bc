use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::*;
use crate::address::Address;
use crate::ports::{Applicant, LaneId, Profile, Tuning};
use crate::primary::Policy;

/// Workers that share a listener and can be handed connections.
fn sharing(workers: u16) -> (Ports, LaneId) {
    sharing_at("127.0.0.1:0".parse().unwrap(), workers)
}

fn sharing_at(socket: SocketAddr, workers: u16) -> (Ports, LaneId) {
    let tuning = Tuning { tick: Duration::from_millis(1), is_on: true };
    let mut ports = Ports::new(Policy::Shared, 1024, tuning).unwrap();
    let any = Address::Tcp { socket, is_only_v6: false };
    let obtain = |slot: u16| {
        let (worker, slot) = (WorkerId(u32::from(slot) + 1), Slot(slot));
        let applicant =
            Applicant { worker, slot, replaces: None, is_by_channel: true, policy: None, is_on_trial: false };
        let lane = ports.obtain(&applicant, &any, 0, &Profile::default(), |_, _| true).unwrap();
        ports.set_handed(lane);
        ports.listen(lane, 64).unwrap();
        ports.join(lane, worker, slot);
        ports.serve(worker, true, Duration::ZERO);
        lane
    };
    let lanes: Vec<LaneId> = (0..workers).map(obtain).collect();
    (ports, lanes[0])
}

#[tokio::test]
async fn what_comes_is_led_elsewhere_from_the_moment_that_somebody_leaves_and_until_he_is_back_or_gone() {
    let (mut ports, lane) = sharing(2);
    let (key, _) = ports.locate(lane).unwrap();
    let address = ports.describe(lane).unwrap().address.socket().unwrap();
    let depths =
        |ports: &Ports| -> Vec<Option<u32>> { ports.groups[key].lanes.iter().map(Lane::depth).collect() };
    let is_led_past = |ports: &Ports, worker: u32| ports.groups[key].is_diverted_from(WorkerId(worker));
    ports.serve(WorkerId(1), false, Duration::ZERO);
    let _led = TcpStream::connect(address).unwrap();
    assert_eq!(depths(&ports), [Some(0), Some(1)]);
    assert!(is_led_past(&ports, 1) && !is_led_past(&ports, 2));
    ports.serve(WorkerId(1), true, Duration::ZERO);
    let _back = TcpStream::connect(address).unwrap();
    assert_eq!(depths(&ports), [Some(1), Some(1)]);
    assert!(!is_led_past(&ports, 1));
    ports.serve(WorkerId(1), false, Duration::ZERO);
    ports.release(WorkerId(1), Duration::ZERO);
    let _gone = TcpStream::connect(address).unwrap();
    assert_eq!(depths(&ports), [Some(2), Some(1)]);
}

#[tokio::test]
async fn what_comes_is_the_workers_again_when_their_listener_was_shut_down_beside_the_other() {
    // Named: a port that the kernel has chosen is gone with the listener.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (mut ports, lane) = sharing_at(address, 2);
    let (key, _) = ports.locate(lane).unwrap();
    ports.serve(WorkerId(1), false, Duration::ZERO);
    ports.serve(WorkerId(1), true, Duration::ZERO);
    // A worker does so with the socket that is everybody's.
    rustix::net::shutdown(ports.socket(lane).unwrap(), rustix::net::Shutdown::Both).unwrap();
    ports.maintain(Duration::ZERO);
    let depths =
        |ports: &Ports| -> Vec<Option<u32>> { ports.groups[key].lanes.iter().map(Lane::depth).collect() };
    let _client = TcpStream::connect(address).unwrap();
    assert_eq!(depths(&ports), [Some(1), Some(0)]);
    ports.serve(WorkerId(1), false, Duration::ZERO);
    let _led = TcpStream::connect(address).unwrap();
    assert_eq!(depths(&ports), [Some(1), Some(1)]);
}

#[tokio::test]
async fn nobody_is_led_past_before_the_kernel_was_told() {
    let (mut ports, lane) = sharing(2);
    let (key, _) = ports.locate(lane).unwrap();
    ports.add_room(key).unwrap();
    let group = &mut ports.groups[key];
    group.leaving.insert(WorkerId(1));
    assert!(!group.is_diverted_from(WorkerId(1)));
    group.redirect();
    assert!(group.is_diverted_from(WorkerId(1)));
}
