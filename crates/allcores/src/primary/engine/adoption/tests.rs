//! What becomes of callers whom nobody hears any more.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use allcores_core::worker::Slot;
use tokio::sync::mpsc;

use super::super::notify::tests::settings;
use super::*;
use crate::sys::Watch;

#[tokio::test]
async fn a_listener_is_closed_when_nothing_is_received_from_it_and_that_is_said_of_who_lives() {
    let said = Arc::new(Mutex::new(Vec::new()));
    let ear = Arc::clone(&said);
    let observe = Box::new(move |event: Event<'_>| {
        if let Event::Notice { text } = event {
            ear.lock().unwrap().push(text.to_owned());
        }
    });
    let mut engine = Engine::new(settings(None), None, mpsc::channel(1).0, observe).unwrap();
    for (error, has_said) in [
        (io::Error::from(io::ErrorKind::BrokenPipe), false),
        (io::Error::from_raw_os_error(libc::ENOMEM), true),
    ] {
        let id = WorkerId(1);
        let nothing = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let mut worker = Worker::new(Slot(0), id, 1, std::process::id(), nothing);
        let (listener, callers) = rustix::pipe::pipe().unwrap();
        worker.listener = Some(Arc::new(Watch::readable(listener).unwrap()));
        engine.workers.insert(id, worker);
        engine.close_listener(id, &error);
        // Nobody has it, so who waits is told.
        assert_eq!(rustix::io::write(&callers, b"x").unwrap_err(), rustix::io::Errno::PIPE);
        assert_eq!(said.lock().unwrap().iter().any(|text| text.contains("can't be received")), has_said);
    }
}
