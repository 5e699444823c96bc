//! Who is at the control socket when the primary becomes another program is answered by the one or by the other.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use allcores_testing::app::RunningApp;
use allcores_testing::machine;

use super::{PATIENCE, SERVER, node_script, somewhere, upgrade};

fn connect(app: &RunningApp) -> UnixStream {
    let path = app.runtime_folder().join(app.name()).join("control.sock");
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Asks something; the answer, with its head.
fn ask(mut stream: &UnixStream, what: &str, body: &str) -> String {
    let head =
        format!("{what} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all((head + body).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn who_has_connected_and_asked_nothing_is_answered_by_the_next_program() {
    let _turn = machine::together();
    let folder = tempfile::tempdir().unwrap();
    let Some(app) = node_script(folder.path(), SERVER) else { return };
    let app = somewhere(app.workers(1)).start().unwrap();
    app.wait_ready(1).unwrap();
    let streams: Vec<UnixStream> = (0..3).map(|_| connect(&app)).collect();
    for _ in 0..2 {
        upgrade(&app);
    }
    for stream in &streams {
        let answer = ask(stream, "GET /v1/status", "");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"upgrades\":2"), "{answer}");
    }
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

#[test]
fn every_command_is_answered_however_often_the_primary_is_upgraded_meanwhile() {
    let _turn = machine::together();
    let folder = tempfile::tempdir().unwrap();
    let Some(app) = node_script(folder.path(), SERVER) else { return };
    let app = somewhere(app.workers(1)).start().unwrap();
    app.wait_ready(1).unwrap();
    let is_over = AtomicBool::new(false);
    let questions = [
        ("GET /v1/status", ""),
        ("GET /v1/describe", ""),
        ("POST /v1/scale", "{\"workers\": 1}"),
        ("POST /v1/signal", "{\"signal\": \"CONT\"}"),
    ];
    thread::scope(|scope| {
        let commanders = questions.map(|(what, body)| {
            let (app, is_over) = (&app, &is_over);
            scope.spawn(move || {
                let mut answers = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let answer = ask(&connect(app), what, body);
                    assert!(answer.starts_with("HTTP/1.1 200"), "{what}: {answer:?} after {answers}");
                    answers += 1;
                }
                answers
            })
        });
        for _ in 0..5 {
            upgrade(&app);
        }
        is_over.store(true, Ordering::Relaxed);
        let answers = commanders.map(|commander| commander.join().unwrap());
        eprintln!("5 upgrades, answered meanwhile: {answers:?}");
        assert!(answers.iter().all(|answers| *answers > 5), "{answers:?}");
    });
    assert_eq!(app.status().unwrap()["upgrades"], 5);
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}
