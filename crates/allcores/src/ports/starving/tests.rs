use std::net::{SocketAddr, TcpListener, TcpStream};

use allcores_core::worker::{Slot, WorkerId};

use super::*;
use crate::address::Address;
use crate::ports::lane::set_nonblocking;
use crate::ports::{Applicant, LaneId, Profile, Tuning};
use crate::primary::Policy;

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Two workers with a lane each, of which only the first serves, and a client who waits for it: at 0.
fn waiting() -> (Ports, [LaneId; 2], SocketAddr, TcpStream) {
    waiting_at(&Profile::default())
}

fn waiting_at(profile: &Profile) -> (Ports, [LaneId; 2], SocketAddr, TcpStream) {
    let mut ports =
        Ports::new(Policy::Lanes, 1024, Tuning { tick: Duration::from_millis(1), is_on: true }).unwrap();
    let any = Address::Tcp { socket: "127.0.0.1:0".parse().unwrap(), is_only_v6: false };
    let lanes = [1, 2].map(|worker| {
        let slot = Slot(worker - 1);
        let worker = WorkerId(worker.into());
        let applicant = Applicant {
            worker,
            slot,
            replaces: None,
            is_by_channel: false,
            policy: None,
            is_on_trial: false,
        };
        let lane = ports.obtain(&applicant, &any, 0, profile, |_, _| true).unwrap();
        ports.listen(lane, 64).unwrap();
        lane
    });
    ports.serve(WorkerId(1), true, at(0));
    let listener = TcpListener::from(ports.socket(lanes[0]).unwrap().try_clone_to_owned().unwrap());
    let address = listener.local_addr().unwrap();
    let client = TcpStream::connect(address).unwrap();
    ports.tick(at(0));
    ports.tick(at(1));
    (ports, lanes, address, client)
}

#[tokio::test]
async fn what_is_for_addresses_that_are_not_ours_is_left_where_it_is() {
    // Whether we may set it or not.
    let options = vec![(libc::IPPROTO_IP, libc::IP_TRANSPARENT, 1)];
    let (mut ports, ..) = waiting_at(&Profile { options, ..Profile::default() });
    ports.serve(WorkerId(2), true, at(2100));
    ports.tick(at(2100));
    assert!(ports.take_starving(at(2100)).is_empty());
    ports.release(WorkerId(1), at(2100));
    assert!(ports.take_strays(at(9000)).is_empty());
}

#[tokio::test]
async fn what_stands_still_for_long_is_taken_out_for_who_has_time() {
    let (mut ports, lanes, address, client) = waiting();
    ports.tick(at(2100));
    assert!(ports.take_starving(at(2100)).is_empty(), "nobody else serves");
    ports.serve(WorkerId(2), true, at(2100));
    ports.tick(at(2100));
    let taken = ports.take_starving(at(2100));
    assert_eq!(taken.len(), 1);
    let peer = TcpStream::from(taken[0].connection.try_clone().unwrap()).peer_addr().unwrap();
    assert_eq!((peer, taken[0].address), (client.local_addr().unwrap(), address));
    assert_eq!(ports.strays(), 1);

    // The worker is left alone for as long as it took nothing.
    let depths = |ports: &Ports| lanes.map(|lane| ports.lane(lane).unwrap().1.depth().unwrap());
    let mut clients: Vec<_> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
    assert_eq!(depths(&ports), [0, 20]);
    ports.maintain(at(4000));
    clients.extend((0..20).map(|_| TcpStream::connect(address).unwrap()));
    assert_eq!(depths(&ports), [0, 40]);
    ports.maintain(at(4300));
    clients.extend((0..40).map(|_| TcpStream::connect(address).unwrap()));
    assert!(depths(&ports)[0] > 0, "and then tried again");
}

#[tokio::test]
async fn what_has_not_waited_for_long_is_left() {
    let (mut ports, ..) = waiting();
    ports.serve(WorkerId(2), true, at(1));
    ports.tick(at(1900));
    assert!(ports.take_starving(at(1900)).is_empty());
}

#[tokio::test]
async fn each_that_has_time_is_given_one_at_a_time() {
    let (mut ports, _, address, _client) = waiting();
    let _more: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
    ports.serve(WorkerId(2), true, at(1));
    ports.tick(at(2100));
    for _ in 0..4 {
        assert_eq!(ports.take_starving(at(2100)).len(), 1);
    }
    assert!(ports.take_starving(at(2100)).is_empty(), "there are no more");
}

/// `accept` could wait there for ever, if the worker were quicker.
#[tokio::test]
async fn what_can_only_be_taken_by_waiting_is_left() {
    let (mut ports, lanes, ..) = waiting();
    set_nonblocking(ports.socket(lanes[0]).unwrap(), false).unwrap();
    ports.serve(WorkerId(2), true, at(1));
    ports.tick(at(2100));
    assert!(ports.take_starving(at(2100)).is_empty());
}

/// A health check is about this worker, and another's answer would be none.
#[tokio::test]
async fn what_waits_while_we_ask_a_worker_ourselves_is_left() {
    let (mut ports, lanes, ..) = waiting();
    ports.serve(WorkerId(2), true, at(1));
    ports.tick(at(2100));
    let asked = ports.open_passage(lanes[0], false).unwrap();
    assert!(ports.take_starving(at(2100)).is_empty());
    ports.close_passage(asked.from.unwrap());
    assert_eq!(ports.take_starving(at(2100)).len(), 1);
}
