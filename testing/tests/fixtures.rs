//! Each fixture server, alone: it starts, and answers its pid. What fails here is no fault of the supervisor's.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use allcores_testing::address;
use allcores_testing::runtimes::{Runtime, require};
use rustix::process::{Pid, Signal, kill_process_group};

/// Generous: a JVM on a busy machine.
const START: Duration = Duration::from_secs(30);

/// A server in its own process group, which is killed with it.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(runtime: Runtime) -> Self {
        let address = address::unused();
        let mut command = runtime.process(address).expect("the runtime is not missing");
        command.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
        Self { child: command.spawn().expect("the command starts"), address }
    }

    fn get(&self, path: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(START))?;
        // At once: `php -S` refuses a head of which it has read no more than a part.
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address);
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// The answer to the first request that finds the server listening.
    ///
    /// Nothing tells when a program that knows nothing of us listens, so this asks until it does.
    fn first_answer(&mut self) -> String {
        let deadline = Instant::now() + START;
        loop {
            match self.get("/") {
                Ok(answer) => return answer,
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    let exit = self.child.try_wait().expect("our own child can be asked after");
                    assert!(exit.is_none(), "the server has exited: {exit:?}");
                    assert!(Instant::now() < deadline, "the server does not listen");
                    thread::sleep(Duration::from_millis(5));
                }
                Err(error) => panic!("the server does not answer: {error}"),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let group = Pid::from_child(&self.child);
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.child.wait();
    }
}

/// The pid in an answer, after a look at the rest of it.
fn pid(answer: &str) -> u32 {
    let (head, body) = answer.split_once("\r\n\r\n").expect("the answer has a head and a body");
    assert_eq!(head.split(' ').nth(1), Some("200"), "{answer}");
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { body.split("\r\n").nth(1).expect("a chunk follows its size") } else { body };
    body.strip_suffix('\n').and_then(|pid| pid.parse().ok()).expect("the body is a pid and a newline")
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it stands in parentheses and may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn answers_its_pid(runtime: Runtime) {
    let Some(runtime) = require(runtime) else { return };
    let mut server = Server::start(runtime);
    let pid = pid(&server.first_answer());
    let started = server.child.id();
    match runtime {
        // A launcher or a master stands above the process that answers.
        Runtime::Npm | Runtime::Gunicorn => {
            let descends = std::iter::successors(parent(pid), |pid| parent(*pid)).any(|pid| pid == started);
            assert!(descends, "{pid} descends from {started}");
        }
        _ => assert_eq!(pid, started),
    }
}

fn takes_time(runtime: Runtime, path: &str) {
    let Some(runtime) = require(runtime) else { return };
    let mut server = Server::start(runtime);
    let expected = pid(&server.first_answer());
    let start = Instant::now();
    let answer = server.get(path).expect("the server answers");
    assert!(start.elapsed() >= Duration::from_millis(50));
    assert_eq!(pid(&answer), expected);
}

fn burns(runtime: Runtime) {
    takes_time(runtime, "/burn?ms=50");
}

fn sleeps(runtime: Runtime) {
    takes_time(runtime, "/sleep?ms=50");
}

macro_rules! each {
    ($check:ident: $($name:ident => $runtime:ident,)+) => {
        $(#[test]
        fn $name() {
            $check(Runtime::$runtime);
        })+
    };
}

each! { answers_its_pid:
    python_answers_its_pid => Python,
    node_answers_its_pid => Node,
    node22_answers_its_pid => Node22,
    node24_answers_its_pid => Node24,
    node26_answers_its_pid => Node26,
    npm_answers_its_pid => Npm,
    bun_answers_its_pid => Bun,
    deno_answers_its_pid => Deno,
    go_answers_its_pid => Go,
    java_answers_its_pid => Java,
    puma_answers_its_pid => Puma,
    php_answers_its_pid => Php,
    uvicorn_answers_its_pid => Uvicorn,
    gunicorn_answers_its_pid => Gunicorn,
    axum_answers_its_pid => Axum,
}

each! { burns:
    python_burns => Python,
    node_burns => Node,
    go_burns => Go,
    axum_burns => Axum,
}

each! { sleeps:
    python_sleeps => Python,
}
