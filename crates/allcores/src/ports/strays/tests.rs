use std::net::TcpStream;

use allcores_core::selector::Chosen;
use allcores_core::worker::{Slot, WorkerId};

use super::*;
use crate::address::Address;
use crate::ports::{Applicant, Profile, Tuning};
use crate::primary::Policy;

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[tokio::test]
async fn what_waits_in_the_waiting_room_is_passed_on_when_nobody_is_left_to_be_handed_it() {
    let tuning = Tuning { tick: at(1), is_on: true };
    let mut ports = Ports::new(Policy::Lanes, 1024, tuning).unwrap();
    let any = Address::Tcp { socket: "127.0.0.1:0".parse().unwrap(), is_only_v6: false };
    // Only the first has a channel.
    let lanes = [1, 2].map(|worker| {
        let (slot, worker) = (Slot(worker - 1), WorkerId(worker.into()));
        let is_by_channel = worker == WorkerId(1);
        let applicant =
            Applicant { worker, slot, replaces: None, is_by_channel, policy: None, is_on_trial: false };
        let lane = ports.obtain(&applicant, &any, 0, &Profile::default(), |_, _| true).unwrap();
        if is_by_channel {
            ports.set_handed(lane);
        }
        ports.listen(lane, 64).unwrap();
        ports.serve(worker, true, at(0));
        lane
    });
    ports.join(lanes[0], WorkerId(1), Slot(0));
    let (key, _) = ports.locate(lanes[0]).unwrap();
    let group = &mut ports.groups[key];
    let room = group.number_of(group.room().unwrap().id).unwrap();
    group.attach(Chosen::one(room));
    let address = group.address.socket().unwrap();
    let client = TcpStream::connect(address).unwrap();

    assert!(ports.take_strays(at(5000)).is_empty(), "there are hands");
    ports.release(WorkerId(1), at(5000));
    let strays = ports.take_strays(at(5000));
    assert_eq!(strays.len(), 1);
    let peer = TcpStream::from(strays[0].connection.try_clone().unwrap()).peer_addr().unwrap();
    assert_eq!((peer, strays[0].address), (client.local_addr().unwrap(), address));
    ports.serve(WorkerId(2), false, at(5000));
    let _client = TcpStream::connect(address).unwrap();
    assert!(ports.take_strays(at(9000)).is_empty(), "nobody serves");
}
