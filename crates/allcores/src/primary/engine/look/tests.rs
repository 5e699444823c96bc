//! What becomes of what was found closed.

use std::os::fd::OwnedFd;

use allcores_core::pool::Input;
use allcores_core::worker::Slot;
use tokio::sync::mpsc;

use super::*;
use crate::address::Address;
use crate::ports::Profile;
use crate::primary::engine::notify::tests::settings;
use crate::primary::worker::Worker;

#[tokio::test]
async fn what_workers_close_while_the_app_stops_is_left_to_whoever_is_next() {
    let (id, pid) = (WorkerId(1), std::process::id());
    let any = Address::Tcp { socket: "127.0.0.1:0".parse().unwrap(), is_only_v6: false };
    for is_stopping in [false, true] {
        let mut engine = Engine::new(settings(None), None, mpsc::channel(1).0, Box::new(|_| {})).unwrap();
        let nothing = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let mut worker = Worker::new(Slot(0), id, 1, pid, nothing);
        let lane = engine.ports.obtain_named(&worker.applicant(false), &any, &Profile::default()).unwrap();
        worker.adopt(lane, false, Duration::ZERO);
        engine.workers.insert(id, worker);
        let socket = engine.ports.inode(lane).unwrap();
        let lanes = vec![Looked { worker: id, pid, lane, socket }];
        let closed = HashSet::from([(pid, socket)]);
        let look = Look { purpose: Purpose::Suspicion, since: engine.now(), lanes, closed };
        if is_stopping {
            engine.tell(Input::Stop);
        }
        engine.take_look(&look);
        assert_eq!(engine.workers[&id].lanes.contains_key(&lane), is_stopping);
        assert_eq!(engine.ports.socket(lane).is_some(), is_stopping);
    }
}

/// Has a worker, whose process this is, listen on so many lanes, which all settle before anything has been seen of them. Tells at
/// how many of them each look was, and how many the worker was found to have.
async fn looks_at_settled(pid: u32, count: usize) -> (Vec<usize>, usize) {
    let id = WorkerId(1);
    let any = Address::Tcp { socket: "127.0.0.1:0".parse().unwrap(), is_only_v6: false };
    let (seen, mut sightings) = mpsc::channel(count);
    let mut engine = Engine::new(settings(None), None, seen, Box::new(|_| {})).unwrap();
    let nothing = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let mut worker = Worker::new(Slot(0), id, 1, pid, nothing);
    let mut lanes = Vec::new();
    for index in 0..u64::try_from(count).unwrap() {
        let applicant = worker.applicant(false);
        let lane = engine.ports.obtain(&applicant, &any, index, &Profile::default(), |_, _| true).unwrap();
        engine.ports.listen(lane, 1).unwrap();
        worker.adopt(lane, false, Duration::ZERO);
        lanes.push(lane);
    }
    engine.workers.insert(id, worker);
    for lane in lanes {
        engine.settled(id, lane);
    }
    let mut looks = Vec::new();
    while looks.iter().sum::<usize>() < count {
        let Some(Seen::LookedAt(look)) = sightings.recv().await else { panic!("nothing else is seen") };
        looks.push(look.lanes.len());
        engine.take_look(&look);
    }
    (looks, engine.workers[&id].announced.len())
}

#[tokio::test]
async fn what_settles_during_a_look_is_looked_at_together_by_the_next() {
    assert_eq!(looks_at_settled(std::process::id(), 300).await, (vec![1, 299], 300));
}

#[tokio::test]
async fn one_that_closes_what_it_listens_on_is_looked_at_once_at_a_time() {
    let mut child = std::process::Command::new("setsid").args(["sleep", "60"]).spawn().unwrap();
    let found = looks_at_settled(child.id(), 300).await;
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(found, (vec![1, 299], 0));
}
