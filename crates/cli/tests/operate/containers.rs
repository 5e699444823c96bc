//! The example of a container: its very command is run, as its user would have it, and the probes are those that it answers.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use allcores_testing::address;
use allcores_testing::process::Process;
use allcores_testing::runtimes::{Runtime, require, workspace};
use rustix::process::Signal;

use crate::folder::Folder;

const LONG: Duration = Duration::from_secs(30);

fn example(name: &str) -> String {
    fs::read_to_string(workspace().join("examples/deploy").join(name)).unwrap()
}

/// The words of an instruction of the Dockerfile.
fn words(instruction: &str) -> Vec<String> {
    let text = example("Dockerfile");
    let line = text.lines().find_map(|line| line.strip_prefix(instruction)).unwrap();
    serde_json::from_str(line.trim()).unwrap()
}

/// What is answered there, once somebody listens.
fn status(address: SocketAddr, path: &str) -> u16 {
    let deadline = Instant::now() + LONG;
    loop {
        match TcpStream::connect(address) {
            Ok(mut stream) => {
                write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).unwrap();
                return answer.split(' ').nth(1).unwrap().parse().unwrap();
            }
            Err(error) => assert!(Instant::now() < deadline, "{address}: {error}"),
        }
    }
}

#[test]
fn the_command_of_the_image_serves_answers_the_probes_and_ends_when_it_is_told() {
    let Some(node) = require(Runtime::Node) else { return };
    let (folder, metrics) = (Folder::new(), address::unused());
    let mut entry = words("ENTRYPOINT");
    assert_eq!((entry.remove(0).as_str(), words("HEALTHCHECK CMD")[0].as_str()), ("allcores", "allcores"));
    let port = entry.iter_mut().find(|word| *word == "0.0.0.0:9145").unwrap();
    *port = metrics.to_string();
    entry.splice(1..1, ["--log-format", "json", "-w", "2"].map(str::to_owned));
    let mut command = words("CMD");
    command[0] = node.program().unwrap().into_string().unwrap();
    let arguments: Vec<&str> = entry.iter().chain(&command).map(String::as_str).collect();
    let mut command = folder.command(&arguments);
    command
        .current_dir(workspace().join("examples/deploy"))
        .env("PORT", folder.address.port().to_string())
        .env("HOST", folder.address.ip().to_string());
    // As there: no home, and nothing of a login.
    command.env_remove("HOME").env_remove("XDG_RUNTIME_DIR");
    let app = Process::spawn(&mut command).unwrap();
    app.wait_count("ready", 2, LONG).unwrap();

    let manifest = example("kubernetes.yaml");
    let probes: Vec<&str> =
        manifest.lines().filter_map(|line| line.trim().strip_prefix("httpGet: { path: ")).collect();
    assert_eq!(probes.len(), 3, "{probes:?}");
    for probe in probes {
        let (path, port) = probe.split_once(", port: ").unwrap();
        assert_eq!((status(metrics, path), port), (200, "metrics }"), "{path}");
    }
    assert_eq!(status(folder.address, "/"), 200);
    let health = words("HEALTHCHECK CMD");
    let health: Vec<&str> = health[1..].iter().map(String::as_str).collect();
    folder.allcores(&health).code(0);
    app.signal(Signal::TERM).unwrap();
    assert!(app.wait(LONG).unwrap().success());
}
