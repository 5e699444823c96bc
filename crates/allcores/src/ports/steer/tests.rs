use allcores_core::worker::Slot;

use super::*;
use crate::address::Address;
use crate::ports::{Applicant, Profile};
use crate::primary::Policy;

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A worker that listens and can be handed connections.
fn listening(policy: Policy) -> (Ports, WorkerId, LaneId) {
    let mut ports = Ports::new(policy, 1024, Tuning { tick: at(1), is_on: true }).unwrap();
    let any = Address::Tcp { socket: "127.0.0.1:0".parse().unwrap(), is_only_v6: false };
    let worker = WorkerId(1);
    let applicant = Applicant {
        worker,
        slot: Slot(0),
        replaces: None,
        is_by_channel: true,
        policy: None,
        is_on_trial: false,
    };
    let lane = ports.obtain(&applicant, &any, 0, &Profile::default(), |_, _| true).unwrap();
    ports.set_handed(lane);
    ports.listen(lane, 64).unwrap();
    ports.serve(worker, true, at(0));
    (ports, worker, lane)
}

#[tokio::test]
async fn who_does_not_answer_is_looked_at_only_where_it_can_be_steered_away_from() {
    for (policy, is_steered) in [(Policy::Lanes, true), (Policy::Shared, false), (Policy::RoundRobin, false)]
    {
        let (mut ports, worker, _) = listening(policy);
        ports.distrust(worker, at(0));
        assert_eq!(ports.is_hot(), is_steered, "{:?}", ports.policy);
        ports.tick(at(1));
        assert_eq!(ports.is_hot(), is_steered, "{:?}", ports.policy);
        ports.tick(at(100));
        assert!(!ports.is_hot(), "{:?}", ports.policy);
    }
}

#[tokio::test]
async fn what_is_gone_or_not_steered_is_not_looked_at_for_ever() {
    let (mut ports, worker, lane) = listening(Policy::RoundRobin);
    // As an earlier version may have left it.
    ports.steering.hot.insert(lane);
    ports.tick(at(1));
    assert!(!ports.is_hot());
    ports.give_up(worker, lane, at(2));
    ports.steering.hot.insert(lane);
    ports.tick(at(3));
    assert!(!ports.is_hot());
}
