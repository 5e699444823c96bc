//! Every error of a command: what is on the screen, and the exit code.
//!
//! An error says what was tried, on what, why it failed, and what to do next. What takes workers is tested beside them:
//! `faults::bad_input`, `engine::load::reload`, `engine::upgrade`.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;

use allcores_testing::app::App;
use rustix::fs::{FlockOperation, flock};

use crate::program::{Program, Run};

/// A command line that fails, and what its error is made of.
type Case = (&'static str, i32, &'static [&'static str]);

/// Errors in which the program itself says what to do next.
const OWN: [Case; 65] = [
    // Apps that are not there.
    ("status web", 5, &["status of web: no app of this name is running", "allcores ls"]),
    ("describe web", 5, &["describe web: no app of this name", "allcores ls"]),
    ("reload web", 5, &["reload web: no app of this name", "allcores ls"]),
    ("restart web", 5, &["restart web: no app of this name", "allcores ls"]),
    ("restart web --hard", 5, &["restart web: no app of this name", "allcores ls"]),
    ("scale web 2", 5, &["scale web: no app of this name", "allcores ls"]),
    ("scale web +1", 5, &["scale web: no app of this name", "allcores ls"]),
    ("upgrade web", 5, &["upgrade web: no app of this name", "allcores ls"]),
    ("stop web", 5, &["stop web: no app of this name", "allcores ls"]),
    ("delete web", 5, &["delete web: no app of this name", "allcores ls"]),
    ("signal USR2 web", 5, &["signal web: no app of this name", "allcores ls"]),
    ("send web hi", 5, &["send to web: no app of this name", "allcores ls"]),
    ("events web", 5, &["events of web: no app of this name", "allcores ls"]),
    ("logs web", 5, &["logs of web: no app of this name", "allcores ls"]),
    ("stop web api", 5, &["stop web: no app", "stop api: no app"]),
    // All of none.
    ("stop all", 5, &["stop all: no app is running", "allcores start"]),
    ("reload all", 5, &["reload all: no app is running", "allcores start"]),
    ("restart all", 5, &["restart all: no app is running", "allcores start"]),
    ("signal HUP all", 5, &["signal all: no app is running", "allcores start"]),
    ("events", 5, &["events of all: no app is running", "allcores start"]),
    ("logs", 5, &["logs: no app has one", "--log-file"]),
    ("save", 1, &["save: no app runs in the background", "--force"]),
    ("resurrect", 1, &["resurrect: no list was saved", "allcores save"]),
    // What to start.
    ("start nope", 5, &["start nope: there is no such app in allcores.toml", "allcores start -- nope"]),
    ("start none.toml", 10, &["read the config file none.toml: No such file", "name a file"]),
    ("start two.toml nope", 5, &["start nope", "two.toml"]),
    ("start x:y", 2, &["start x:y: ':' can't be in a name", "allcores start -- x:y"]),
    ("start web -- x", 2, &["start web: there is a command too", "--name"]),
    ("start --name x", 2, &["start --name: there are 2 apps", "one at a time"]),
    ("start --env-name live -- x", 2, &["start --env-name: a command has no environments", "allcores.toml"]),
    // Files of ours.
    ("run --config none.toml", 10, &["read the config file none.toml: No such file", "name a file"]),
    ("run --config .", 10, &["read the config file .: Is a directory", "name a file"]),
    ("run --config two.toml", 10, &["two.toml: there are several apps in it: web, api", "--app"]),
    ("run --config two.toml --app wed", 10, &["no app wed", "did you mean `web`", "[apps.NAME]"]),
    (
        "run --config two.toml --app web --env-name live",
        10,
        &["two.toml: there is no environment live", "[apps.web.environments.live]"],
    ),
    ("check none.toml", 10, &["read the config file none.toml: No such file", "name a file"]),
    ("check empty.toml", 10, &["empty.toml:1:1: there is no app in this file", "[apps.NAME]"]),
    ("check syntax.toml", 10, &["syntax.toml:1:10: unclosed table", "1 | [apps.web"]),
    (
        "check wrong.toml",
        10,
        &["wrong.toml has 2 mistakes", "2:1: unknown key `commnd`; did you mean `command`?", "no `command`"],
    ),
    ("check folder.toml", 10, &["folder.toml:3:", "/no/such", "No such file"]),
    (
        "check watch.toml",
        10,
        &["watch.toml:3:1: watch = \"/no/such\": No such file", "a folder or a file that exists"],
    ),
    ("startup none", 10, &["allcores.toml: there is no app none", "`web`, `api`"]),
    ("startup --output-folder /no/such", 1, &["write the unit /no/such/", "No such file", "--print"]),
    // Files of others'.
    ("import", 10, &["the ecosystem file ecosystem.config.js: No such file", "allcores import FILE"]),
    ("import bad.json", 10, &["the ecosystem file bad.json: EOF", "line 1", "correct it"]),
    ("import empty.toml", 10, &["the ecosystem file empty.toml: its name does not say", ".json"]),
    ("import none.json", 10, &["none.json: No such file", "allcores import FILE"]),
    ("import object.json", 10, &["import object.json: it has no `apps`", "an array"]),
    ("import good.json -o two.toml", 1, &["write two.toml: File exists", "--force"]),
    ("import good.json -o /no/such", 1, &["write /no/such", "--output"]),
    // Options that this machine does not have.
    ("run --cwd /no/such x", 2, &["--cwd /no/such: No such file", "a folder that exists"]),
    ("run --watch /no/such x", 2, &["--watch /no/such: No such file", "a folder or a file that exists"]),
    ("start --watch /no/such -- x", 2, &["--watch /no/such: No such file", "a folder or a file that exists"]),
    ("run --uid nobody-such x", 2, &["--uid nobody-such: no user", "/etc/passwd", "by number"]),
    ("run --gid nobody-such x", 2, &["--gid nobody-such: no group", "/etc/group", "by number"]),
    ("run --uid 54321 x", 2, &["--uid 54321", "its primary group", "--gid"]),
    ("run --env-file none x", 2, &["--env-file none: No such file", "KEY=VALUE"]),
    ("run --env-file bad.json x", 2, &["--env-file bad.json: line 1 has no `=`", "KEY=VALUE"]),
    ("run --secret A=none x", 2, &["--secret A=none: No such file", "can read"]),
    ("run --secret A=credential:x x", 2, &["credential:x", "CREDENTIALS_DIRECTORY", "LoadCredential="]),
    ("run --log-file /no/such/log x", 11, &["open the log /no/such/log: No such file", "--log-file"]),
    ("run --metrics 192.0.2.1:9 x", 6, &["serve metrics on 192.0.2.1:9", "--metrics"]),
    ("man nothing", 2, &["man nothing: there is no such command", "allcores help"]),
    // Commands that can't be run.
    ("run -w 1 -- no-such-server", 127, &["can't run no-such-server", "PATH"]),
    ("run -w 1 -- ./empty.toml", 126, &["can't run ./empty.toml", "Permission denied", "chmod +x"]),
];

/// Errors of the command line itself: the library that reads it says what would do, or where to read on.
const TYPED: [Case; 32] = [
    ("frobnicate", 2, &["'frobnicate'"]),
    ("stats web", 2, &["'stats'", "'status'"]),
    ("status", 2, &["<NAME>"]),
    ("status a/b", 2, &["'a/b'", "'/' can't be in a name", "letters, digits"]),
    ("status web --jsno", 2, &["'--jsno'", "'--json'"]),
    ("run", 2, &["<COMMAND>"]),
    ("run -w 0 x", 2, &["'0'", "at least one worker", "1 or more"]),
    ("run -w many x", 2, &["'many'", "`auto`, a number like 4"]),
    ("run -w 1000 x", 2, &["'1000'", "more than 256"]),
    ("run --policy fastest x", 2, &["fastest", "round-robin"]),
    ("run --policy sticky:ip x", 2, &["sticky:ip", "cookie=NAME"]),
    ("run --pending 0 x", 2, &["'0'", "from 1 to"]),
    ("run --listen localhost:80 x", 2, &["localhost:80", "127.0.0.1:80"]),
    ("run --listen 0 x", 2, &["port 0", "from 1 to 65535"]),
    ("run --listen ::1:80 x", 2, &["needs brackets: [::1]:80"]),
    ("run --env X x", 2, &["'X'", "KEY=VALUE"]),
    ("run --secret X x", 2, &["'X'", "DB_PASSWORD=/run/secrets/db"]),
    ("run --stop-signal STOP x", 2, &["'STOP'", "give TERM, INT"]),
    ("run --kill-timeout 5 x", 2, &["'5'", "500ms, 5s"]),
    ("run --hang-timeout 0s x", 2, &["'0s'", "zero", "30s"]),
    ("run --health-http healthz x", 2, &["'healthz'", "/healthz"]),
    ("run --health-tcp --health-http / x", 2, &["--health-tcp", "--health-http"]),
    ("run --max-memory big x", 2, &["'big'", "512M"]),
    ("run --cgroup memory=1 x", 2, &["`memory`", "memory.max"]),
    ("run --cron-restart often x", 2, &["'often'", "--cron-restart"]),
    ("run --watch-ignore a[ x", 2, &["'a['", "--watch-ignore"]),
    ("run --log-format xml x", 2, &["'xml'", "pretty, json, raw"]),
    ("scale web 0", 2, &["'0'", "from 1 to 256", "+N or -N"]),
    ("signal FOO web", 2, &["FOO", "TERM, HUP or SIGUSR1"]),
    ("logs --since lately", 2, &["'lately'", "10m"]),
    ("logs --out --err", 2, &["--out", "--err"]),
    ("reload", 2, &["<NAME>"]),
];

/// A command in a folder where there are files of all kinds.
fn program(line: &str) -> Program {
    let words: Vec<&str> = line.split(' ').collect();
    let two = "[apps.web]\ncommand = \"true\"\n[apps.api]\ncommand = \"true\"\n";
    Program::new(&words)
        .file("allcores.toml", two)
        .file("two.toml", two)
        .file("empty.toml", "")
        .file("syntax.toml", "[apps.web")
        .file("wrong.toml", "[apps.web]\ncommnd = \"true\"\n")
        .file("folder.toml", "[apps.web]\ncommand = \"true\"\ncwd = \"/no/such\"\n")
        .file("watch.toml", "[apps.web]\ncommand = \"true\"\nwatch = [\"/no/such\"]\n")
        .file("bad.json", "{")
        .file("object.json", "{}")
        .file("good.json", "{\"apps\": [{\"name\": \"web\", \"script\": \"./server\"}]}")
}

#[track_caller]
fn assert_says(run: Run, line: &str, parts: &[&str], next: &str) {
    let run = run.stdout_is("");
    assert!(run.stderr.contains(next), "{line} says nothing of what to do next: {run:#?}");
    for part in parts {
        assert!(run.stderr.contains(part), "{line} says nothing of {part}: {run:#?}");
    }
    assert!(!run.stderr.contains('\u{1b}'), "{line} has colours where there is no terminal: {run:#?}");
}

#[test]
fn every_error_says_what_was_tried_on_what_why_and_what_next() {
    for (line, code, parts) in OWN {
        let run = program(line).run().code(code);
        assert_says(run, line, parts, "  next: ");
    }
}

#[test]
fn a_command_line_that_cannot_be_meant_is_refused_with_what_would_do() {
    for (line, code, parts) in TYPED {
        let run = program(line).run().code(code);
        assert!(run.stderr.starts_with("error: "), "{line}: {run:#?}");
        assert_says(run, line, parts, "--help");
    }
}

#[test]
fn folders_that_cannot_be_used_are_named_with_the_variable_that_says_another() {
    for (variable, line, code) in [
        ("ALLCORES_RUNTIME_DIR", "run true", 7),
        ("ALLCORES_RUNTIME_DIR", "start -- true", 7),
        ("ALLCORES_STATE_DIR", "start -- true", 11),
        ("ALLCORES_STATE_DIR", "save", 11),
    ] {
        let run = program(line).env(variable, "/etc/passwd/x").run().code(code);
        assert_says(run, line, &["/etc/passwd/x", &format!("set {variable}")], "  next: ");
    }
}

#[test]
fn a_start_without_anything_to_start_says_what_could_be_named() {
    let run = Program::new(&["start"]).run().code(2);
    assert_says(
        run,
        "start",
        &["start: there is no allcores.toml", "allcores start -- node server.js"],
        "  next: ",
    );
}

#[test]
fn a_name_that_another_primary_has_is_refused_in_the_foreground_and_in_the_background() {
    for line in ["run --name web true", "start --name web -- true"] {
        let mut program = program(line);
        let folder = program.app("web");
        let lock = File::create(folder.join("lock")).unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        fs::write(folder.join("lock"), "4242").unwrap();
        let run = program.run().code(4);
        assert_says(run, line, &["web", "4242", "already runs an app of this name"], "  next: ");
    }
}

#[test]
fn an_app_that_gives_no_answer_is_named_with_its_process() {
    let silent = |line: &str| {
        let mut program = program(line);
        let folder = program.app("web");
        let lock = File::create(folder.join("lock")).unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        fs::write(folder.join("lock"), "4242").unwrap();
        let _deaf = UnixListener::bind(folder.join("control.sock")).unwrap();
        let run = program.run().code(1);
        assert_says(run, line, &["web", "has not answered for 2s", "look at process 4242"], "  next: ");
    };
    // Each takes the whole of its patience, so all have theirs at once.
    thread::scope(|scope| {
        for line in ["status web", "describe web", "stop web", "signal HUP web", "send web x", "logs web"] {
            scope.spawn(move || silent(line));
        }
    });
}

#[test]
fn an_app_that_speaks_no_http_is_named_with_its_process() {
    for line in ["describe web", "scale web 2", "events web", "reload web", "upgrade web"] {
        let mut program = program(line);
        let folder = program.app("web");
        let lock = File::create(folder.join("lock")).unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        fs::write(folder.join("lock"), "4242").unwrap();
        let socket = UnixListener::bind(folder.join("control.sock")).unwrap();
        // Ends with the process of this test, which nextest has for it alone.
        thread::spawn(move || socket.incoming().for_each(drop));
        let run = program.run().code(1);
        assert_says(run, line, &["web", "over the control socket", "process 4242"], "  next: ");
    }
}

#[test]
fn a_command_that_never_serves_ends_with_3_and_one_without_its_address_with_6() {
    let run = program("run -w 1 --backoff 1ms --log-format json true").run().code(3);
    assert!(run.stdout.contains("none ever listened"), "{run:#?}");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let run = Program::new(&["run", "-w", "1", "--listen", &address, "sleep", "1000"]).run().code(6);
    assert_says(run, "run --listen", &[&address, "held by process"], "  next: ");
}

#[test]
fn a_running_app_refuses_with_a_reason_what_it_cannot_do() {
    let address = allcores_testing::address::unused();
    let program = env!("CARGO_BIN_EXE_allcores");
    let server = [program, "demo-worker", &address.to_string()];
    let app = App::new(server).binary(program).name("web").workers(1).start().unwrap();
    app.wait_ready(1).unwrap();
    for (line, code, parts) in [
        ("reload web -- /no/such", 8, &["reload web", "/no/such", "serves"][..]),
        ("upgrade web --executable /bin/false", 12, &["upgrade web: refused", "/bin/false"]),
        ("upgrade web --executable /no/such", 12, &["upgrade web: refused", "/no/such"]),
        ("signal HUP web --slot 7", 1, &["signal web: refused", "slot 7"]),
        ("send web hi", 1, &["send to web: refused", "channel"]),
        ("restart web --hard", 1, &["restart web --hard: it was not started in the background"]),
        ("logs web", 1, &["logs of web: it has none", "--log-file"]),
        ("scale web -1", 2, &["scale web: it has 1", "allcores scale web 1"]),
        ("reload web api -- x", 2, &["reload: a command is for one app", "one at a time"]),
        ("reload web --prove --prove-path a{b", 2, &["--prove-path a{b", "/healthz"]),
    ] {
        let output = app.run(line.split(' ')).unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{line}: {error}");
        for part in parts.iter().chain(&["  next: "]) {
            assert!(error.contains(part), "{line} says nothing of {part}: {error}");
        }
    }
    app.stop().unwrap();
}

#[test]
fn every_exit_code_of_the_page_has_a_test() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/exit-codes.md");
    let page = fs::read_to_string(page).unwrap();
    let first = |line: &str| line.strip_prefix("| ")?.split(' ').next()?.parse::<i32>().ok();
    let listed: BTreeSet<i32> = page.lines().filter_map(first).collect();
    let mut tested: BTreeSet<i32> = OWN.iter().chain(&TYPED).map(|(_, code, _)| *code).collect();
    // By tests of this file that are not in a table; 9 by `engine::load::reload`, as it takes an app that loses requests.
    tested.extend([0, 3, 4, 6, 7, 8, 12, 9]);
    assert_eq!(listed, tested);
}
