//! What is told besides what the pool says.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use allcores_core::worker::Slot;
use tokio::sync::mpsc;

use super::*;
use crate::primary::engine::notify::tests::settings;
use crate::primary::worker::Worker;

#[tokio::test]
async fn the_memory_that_is_told_is_what_was_found_to_be_too_much() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let observed = Arc::clone(&told);
    let observe = move |event: Event<'_>| {
        if let Event::Renewing { reason, memory, .. } = event {
            observed.lock().unwrap().push((reason, memory));
        }
    };
    let mut engine = Engine::new(settings(None), None, mpsc::channel(1).0, Box::new(observe)).unwrap();
    let nothing = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let mut worker = Worker::new(Slot(0), WorkerId(1), 1, std::process::id(), nothing);
    // By now it may have less.
    let excess = Some((u64::MAX, u64::MAX - 1));
    worker.excess = excess;
    engine.workers.insert(WorkerId(1), worker);
    for reason in [Reason::Memory, Reason::Lifetime] {
        engine.announce(Announcement::Renewing { id: WorkerId(1), reason });
    }
    assert_eq!(*told.lock().unwrap(), [(Reason::Memory, excess), (Reason::Lifetime, None)]);
}
