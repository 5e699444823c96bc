//! Workers that do not go when they are asked to.

use std::time::Duration;

use allcores_testing::runtimes::{Runtime, require};
use allcores_testing::{address, machine};
use rustix::process::Signal;

use crate::app;
use crate::client::Client;

const PATIENCE: Duration = Duration::from_secs(20);

/// Who is to be killed is given the chance to end between two answers, and not in the middle of one.
#[test]
fn clients_of_one_that_ignores_the_stop_signal_have_their_answers_whole() {
    let Some(python) = require(Runtime::Python) else { return };
    let _turn = machine::together();
    let address = address::unused();
    let app = app::script(python, "python-stubborn/server.py").workers(1);
    let app = app.address(address);
    let app = app.option("--drain-timeout=100ms").option("--kill-timeout=2s").start().unwrap();
    app.wait_ready(1).unwrap();
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let mut client = Client::connect(address, PATIENCE);
            client.ask("/");
            std::thread::spawn(move || {
                // Each has the next request at once, until its connection is closed: not within an answer.
                loop {
                    client.send("/");
                    if !client.has_begun() {
                        break;
                    }
                    client.read();
                }
            })
        })
        .collect();
    app.signal(Signal::TERM).unwrap();
    for client in clients {
        client.join().unwrap();
    }
    assert_eq!(app.wait(PATIENCE).unwrap().code(), Some(0), "{:#?}", app.lines());
}
