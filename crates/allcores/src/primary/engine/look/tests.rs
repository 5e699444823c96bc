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
        let look =
            Look { purpose: Purpose::Suspicion, since: engine.now(), lanes, closed: vec![(pid, socket)] };
        if is_stopping {
            engine.tell(Input::Stop);
        }
        engine.take_look(&look);
        assert_eq!(engine.workers[&id].lanes.contains_key(&lane), is_stopping);
        assert_eq!(engine.ports.socket(lane).is_some(), is_stopping);
    }
}
