//! systemd's descriptor store, played by the test: what is put in, and what a primary does that is given it again.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::process::Child;
use std::thread;
use std::time::Duration;

use allcores_testing::load::Load;
use allcores_testing::runtimes::{Runtime, require};

use crate::activation::{PYTHON, Server, answer, assert_served, kill, start};
use crate::folder::Folder;
use crate::systemd::Manager;

const NODE: Server = (Runtime::Node, "node-http/server.js");
const AGAIN: Server = (Runtime::Node, "operate/again.js");

/// What is stored for an address is called this.
fn name(address: SocketAddr) -> String {
    format!("allcores_{}", address.to_string().replace(':', "_"))
}

fn stop(folder: &Folder, manager: &Manager, mut app: Child) {
    folder.allcores(&["stop", "web"]).code(0);
    // Once when it begins to, and once when it has.
    manager.hear("STOPPING=1");
    manager.hear("STOPPING=1");
    assert!(app.wait().unwrap().success());
}

#[test]
fn who_connects_while_the_primary_is_dead_waits_in_the_store_for_the_next_one() {
    for (server, policy) in [(PYTHON, "lanes"), (PYTHON, "shared"), (NODE, "auto"), (NODE, "round-robin")] {
        if require(server.0).is_none() {
            continue;
        }
        let (folder, manager) = (Folder::new(), Manager::new());
        let given = (server, folder.address, policy);
        let mut first = start(&folder, &manager, None, given);
        let (stored, socket) = manager.stored();
        assert_eq!(stored, name(folder.address), "{policy}");
        manager.hear("READY=1");
        let old = kill(&folder, &mut first);
        // No more than the queue that the python server asks for has room for.
        let waiting: Vec<TcpStream> = (0..5).map(|_| TcpStream::connect(folder.address).unwrap()).collect();
        // It is not stored again, as it is there.
        let second = start(&folder, &manager, Some((&stored, &socket)), given);
        manager.hear("READY=1");
        assert_served(&folder, waiting, &old);
        let status = folder.status("web");
        let expected = if policy == "auto" { "lanes" } else { policy };
        assert_eq!(status["addresses"][0]["policy"], expected, "{status}");
        stop(&folder, &manager, second);
        assert!(TcpStream::connect_timeout(&folder.address, Duration::from_millis(50)).is_err());
    }
}

#[test]
fn an_app_that_is_restarted_under_load_loses_no_connection() {
    let (folder, manager) = (Folder::new(), Manager::new());
    let given = (PYTHON, folder.address, "lanes");
    let mut app = start(&folder, &manager, None, given);
    let (stored, socket) = manager.stored();
    manager.hear("READY=1");
    // Nobody answers a client while there is no primary, and its system asks again after a second.
    let load = Load::new(folder.address).clients(4).during(Duration::from_secs(6));
    let load = thread::spawn(move || load.run_blocking());
    for _ in 0..3 {
        stop(&folder, &manager, app);
        app = start(&folder, &manager, Some((&stored, &socket)), given);
        manager.hear("READY=1");
    }
    let report = load.join().unwrap();
    assert!(report.is_clean() && report.ok > 100, "{report}");
    stop(&folder, &manager, app);
}

#[test]
fn a_stored_socket_that_no_worker_uses_any_more_is_given_up() {
    let (folder, manager) = (Folder::new(), Manager::new());
    let mut first = start(&folder, &manager, None, (PYTHON, folder.address, "lanes"));
    let (stored, socket) = manager.stored();
    manager.hear("READY=1");
    kill(&folder, &mut first);
    let second = start(&folder, &manager, Some((&stored, &socket)), (PYTHON, folder.other, "lanes"));
    let (other, _other_socket) = manager.stored();
    assert_eq!(other, name(folder.other));
    manager.hear("READY=1");
    let lines = manager.hear("FDSTOREREMOVE=1");
    assert!(lines.contains(&format!("FDNAME={stored}")), "{lines:?}");
    drop::<OwnedFd>(socket);
    let refused = TcpStream::connect(folder.address).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "nobody is left to hang there");
    stop(&folder, &manager, second);
}

#[test]
fn an_address_that_all_workers_close_is_given_up_and_can_be_had_again_at_once() {
    if require(Runtime::Node).is_none() {
        return;
    }
    for policy in ["auto", "round-robin"] {
        let (folder, manager) = (Folder::new(), Manager::new());
        let app = start(&folder, &manager, None, (AGAIN, folder.address, policy));
        // As long as it is here, it is as if systemd had not come to closing it.
        let (_, _kept) = manager.stored();
        manager.hear("READY=1");
        folder.allcores(&["signal", "USR2", "web"]).code(0);
        manager.hear("FDSTOREREMOVE=1");
        let refused = TcpStream::connect(folder.address).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{policy}");
        folder.allcores(&["signal", "WINCH", "web"]).code(0);
        manager.stored();
        assert!(answer(TcpStream::connect(folder.address).unwrap()).parse::<u32>().is_ok(), "{policy}");
        stop(&folder, &manager, app);
    }
}

#[test]
fn what_an_upgraded_primary_has_is_stored_by_the_next_program_too() {
    let (folder, manager) = (Folder::new(), Manager::new());
    let app = start(&folder, &manager, None, (PYTHON, folder.address, "lanes"));
    let (stored, _) = manager.stored();
    manager.hear("READY=1");
    folder.allcores(&["upgrade", "web"]).code(0);
    manager.hear("RELOADING=1");
    // The program before may have known nothing of it. What is there already, systemd leaves as it is.
    assert_eq!(manager.stored().0, stored);
    manager.hear("READY=1");
    stop(&folder, &manager, app);
}
