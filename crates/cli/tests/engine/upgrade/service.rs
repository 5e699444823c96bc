//! What a service manager is told of upgrades: what systemd wants to hear under `Type=notify-reload` (systemd.service(5)).

use std::os::unix::net::UnixDatagram;
use std::path::Path;

use allcores_testing::machine;
use rustix::time::ClockId;

use super::{PATIENCE, SERVER, node_script, program, somewhere, upgrade, upgrade_to};

/// A service manager, as far as it listens.
struct Manager {
    socket: UnixDatagram,
}

impl Manager {
    fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket }
    }

    /// What it is told until it is told a word.
    #[track_caller]
    fn hears(&self, last: &str) -> Vec<String> {
        let mut words: Vec<String> = Vec::new();
        while !words.iter().any(|word| word == last) {
            let mut bytes = [0; 4096];
            let length = self.socket.recv(&mut bytes).unwrap_or_else(|error| panic!("{error}: {words:#?}"));
            let text = std::str::from_utf8(&bytes[..length]).unwrap();
            words.extend(text.lines().map(str::to_owned));
        }
        words
    }
}

/// The monotonic clock in microseconds.
fn now() -> u128 {
    std::time::Duration::try_from(rustix::time::clock_gettime(ClockId::Monotonic)).unwrap().as_micros()
}

/// That it is told a reload begins, when, and only then that it is over.
#[track_caller]
fn is_a_reload(words: &[String], since: u128) {
    let begins = words.iter().position(|word| word == "RELOADING=1").expect("it begins");
    let times: Vec<u128> = words
        .iter()
        .filter_map(|word| word.strip_prefix("MONOTONIC_USEC="))
        .map(|time| time.parse().unwrap())
        .collect();
    assert!(matches!(times[..], [time] if (since..=now()).contains(&time)), "{words:#?}");
    let ends: Vec<usize> = (0..words.len()).filter(|at| words[*at] == "READY=1").collect();
    assert!(matches!(ends[..], [end] if end > begins), "{words:#?}");
    assert!(!words.iter().any(|word| word.starts_with("MAINPID=") || word == "STOPPING=1"), "{words:#?}");
}

#[test]
fn a_service_manager_is_told_of_an_upgrade_as_of_a_reload_of_the_same_process() {
    let _turn = machine::together();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = Manager::at(&path);
    let Some(app) = node_script(folder.path(), SERVER) else { return };
    let app = somewhere(app.workers(1)).env("NOTIFY_SOCKET", path.as_os_str()).env("WATCHDOG_USEC", "200000");
    let app = app.start().unwrap();
    manager.hears("READY=1");
    for _ in 0..2 {
        let since = now();
        upgrade(&app);
        let words = manager.hears("READY=1");
        is_a_reload(&words, since);
        assert!(words.iter().any(|word| word.starts_with("STATUS=upgraded from allcores")), "{words:#?}");
        // Signs of life go on, from the new program.
        manager.hears("WATCHDOG=1");
    }
    let since = now();
    let broken = folder.path().join("broken");
    program(&broken, "exit 1");
    assert_eq!(upgrade_to(&app, &broken, &[]).0, Some(12));
    let words = manager.hears("READY=1");
    is_a_reload(&words, since);
    assert!(words.iter().any(|word| word.starts_with("STATUS=upgrade refused")), "{words:#?}");
    assert_eq!(app.status().unwrap()["pid"], app.pid());
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
    manager.hears("STOPPING=1");
}
