//! Every error of a command: what is on the screen, and the exit code.
//!
//! An error says what was tried, on what, why it failed, and what to do next. What takes workers is tested beside them:
//! `faults::bad_input`, `engine::load::reload`, `engine::upgrade`.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;
use std::time::Duration;

use allcores_testing::app::App;
use allcores_testing::runtimes::Runtime;
use allcores_testing::skip;

use crate::program::{Program, Run};

/// A command line that fails, and what its error is made of.
type Case = (&'static str, i32, &'static [&'static str]);

/// Errors in which the program itself says what to do next.
const OWN: [Case; 85] = [
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
    ("start wib", 5, &["start wib: there is no such app in allcores.toml", "did you mean `web`?"]),
    ("start none.toml", 10, &["read the config file none.toml: No such file", "name a file"]),
    ("start two.toml nope", 5, &["start nope", "two.toml"]),
    ("start server.js", 5, &["start server.js", "to run a command: allcores start -- node server.js"]),
    (
        "start ./server.js",
        2,
        &["start ./server.js: that is no config file", "allcores start -- node ./server.js"],
    ),
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
    ("check binary.toml", 10, &["read the config file binary.toml: line 2 is not UTF-8", "save it as UTF-8"]),
    (
        "check large.toml",
        10,
        &["read the config file large.toml: it has more than 4194304 bytes", "name a file"],
    ),
    ("check folder.toml", 10, &["folder.toml:3:", "/no/such", "No such file"]),
    (
        "check watch.toml",
        10,
        &["watch.toml:3:1: watch = \"/no/such\": No such file", "a folder or a file that exists"],
    ),
    (
        "check log.toml",
        10,
        &["log.toml:3:1: log-file = ", "no/x.log\": No such file", "mkdir -p", "--log-file"],
    ),
    ("startup none", 10, &["allcores.toml: there is no app none", "`web`, `api`"]),
    (
        "startup --output-folder /no/such",
        1,
        &[
            "write the unit /no/such/allcores-",
            "No such file",
            "make its folder: mkdir -p /no/such; or",
            "--print",
        ],
    ),
    // Files of others'.
    ("import", 10, &["the ecosystem file ecosystem.config.js: No such file", "allcores import FILE"]),
    ("import bad.json", 10, &["the ecosystem file bad.json: it is no plain JSON (EOF", "line 1"]),
    ("import empty.toml", 10, &["the ecosystem file empty.toml: its name does not say", ".json"]),
    ("import bad.yml", 10, &["the ecosystem file bad.yml: ", "correct it"]),
    ("import good.json -o bad.json/x", 1, &["write bad.json/x: Not a directory", "--output"]),
    ("import none.json", 10, &["none.json: No such file", "allcores import FILE"]),
    ("import object.json", 10, &["import object.json: it has no `apps`", "an array"]),
    ("import good.json -o two.toml", 1, &["write two.toml: File exists", "--force"]),
    ("import good.json -o /no/such", 1, &["write /no/such: No such file", "mkdir -p /no;", "--output"]),
    // Options that this machine does not have.
    ("run --cwd /no/such x", 2, &["--cwd /no/such: No such file", "a folder that exists"]),
    ("run --watch /no/such x", 2, &["--watch /no/such: No such file", "a folder or a file that exists"]),
    ("start --watch /no/such -- x", 2, &["--watch /no/such: No such file", "a folder or a file that exists"]),
    ("run --uid nobody-such x", 2, &["--uid nobody-such: no user", "/etc/passwd", "by number"]),
    ("run --gid nobody-such x", 2, &["--gid nobody-such: no group", "/etc/group", "by number"]),
    ("run --uid 54321 x", 2, &["--uid 54321", "its primary group", "--gid"]),
    ("run --env-file none x", 2, &["--env-file none: No such file", "KEY=VALUE"]),
    ("run --env-file bad.json x", 2, &["--env-file bad.json: line 1 has no `=`", "KEY=VALUE"]),
    ("run --env-file open.env x", 2, &["open.env: line 1: a quote is not closed", "KEY=VALUE"]),
    ("run --env-file behind.env x", 2, &["line 1: there is something behind the closing quote", "KEY=VALUE"]),
    ("run --env-file nameless.env x", 2, &["line 2 has no name before its `=`", "KEY=VALUE"]),
    ("run --env-file nul x", 2, &["--env-file nul: line 1 has a NUL in it", "KEY=VALUE"]),
    ("run --env-file binary.toml x", 2, &["--env-file binary.toml: it is not UTF-8", "KEY=VALUE"]),
    ("run --secret A=nul x", 2, &["--secret A=nul: there is a NUL in it", "can read"]),
    ("run --secret A=large.toml x", 2, &["large.toml: it has more than 131072 bytes", "can read"]),
    ("run --secret A=. x", 2, &["--secret A=.: is a directory", "can read"]),
    ("run --secret A=none x", 2, &["--secret A=none: No such file", "can read"]),
    ("run --secret A=credential:x x", 2, &["credential:x", "CREDENTIALS_DIRECTORY", "LoadCredential="]),
    ("run --log-file /no/such/log x", 11, &["open the log /no/such/log: No such file", "--log-file"]),
    ("run --metrics 192.0.2.1:9 x", 6, &["serve metrics on 192.0.2.1:9", "--metrics"]),
    ("run --log-file . x", 11, &["open the log ", "Is a directory", "--log-file"]),
    ("start --log-file /no/x -- x", 11, &["open the log /no/x: No such file", "mkdir -p /no", "--log-file"]),
    ("man nothing", 2, &["man nothing: there is no such command", "allcores help"]),
    // Commands that can't be run.
    ("run -w 1 -- no-such-server", 127, &["can't run no-such-server", "PATH"]),
    ("run -w 1 -- server.js", 127, &["can't run server.js", "allcores run -- node server.js"]),
    ("run -w 1 -- ./server.js", 126, &["can't run ./server.js", "allcores run -- node ./server.js"]),
    ("run -w 1 -- ./empty.toml", 126, &["can't run ./empty.toml", "Permission denied", "chmod +x"]),
];

/// Errors of the command line itself: the library that reads it says what would do, or where to read on.
const TYPED: [Case; 34] = [
    ("frobnicate", 2, &["'frobnicate'"]),
    ("stats web", 2, &["'stats'", "'status'"]),
    ("status", 2, &["<NAME>"]),
    ("status a/b", 2, &["'a/b'", "'/' can't be in a name", "letters, digits"]),
    ("status web --jsno", 2, &["'--jsno'", "'--json'"]),
    ("run", 2, &["<COMMAND>"]),
    ("start --config allcores.toml --app web", 2, &["--config", "allcores start FILE APP"]),
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
    ("run --max-memory 5 x", 2, &["'5'", "less than 1 MiB", "5M is meant, perhaps"]),
    ("run --max-memory 900K x", 2, &["less than 1 MiB"]),
    ("run --cgroup memory=1 x", 2, &["`memory`", "memory.max"]),
    ("run --cron-restart often x", 2, &["'often'", "--cron-restart"]),
    ("run --watch-ignore a[ x", 2, &["'a['", "--watch-ignore"]),
    ("run --log-format xml x", 2, &["'xml'", "pretty, json, raw"]),
    ("scale web 0", 2, &["'0'", "from 1 to 256", "+N or -N"]),
    ("signal FOO web", 2, &["FOO", "TERM, HUP or SIGUSR1"]),
    ("logs --since lately", 2, &["'lately'", "10m"]),
    ("reload", 2, &["<NAME>"]),
];

/// A command in a folder where there are files of all kinds.
fn program(line: &str) -> Program {
    plain_program(line)
        .file("log.toml", "[apps.web]\ncommand = \"true\"\nlog-file = \"no/x.log\"\n")
        .file("open.env", "A='open\nB=2\n")
        .file("behind.env", "A='x' y\n")
        .file("nameless.env", "A=1\n=2\n")
        .file("nul", "A=\0\n")
        .file("binary.toml", b"[apps.web]\n\xff\n")
        .file("large.toml", "#".repeat(if line.contains("large") { (4 << 20) + 1 } else { 0 }))
        .file("bad.yml", "apps: [\n")
}

fn plain_program(line: &str) -> Program {
    let words: Vec<&str> = line.split(' ').collect();
    let two = "[apps.web]\ncommand = \"true\"\n[apps.api]\ncommand = \"true\"\n";
    Program::new(&words)
        .file("allcores.toml", two)
        .file("two.toml", two)
        .file("empty.toml", "")
        .file("server.js", "")
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
fn on_a_terminal_no_error_is_wider_than_it_or_broken_within_a_word() {
    for (line, code, parts) in OWN.into_iter().chain(TYPED) {
        let (status, lines) = program(line).run_on_terminal(80);
        assert_eq!(status, Some(code), "{line}: {lines:#?}");
        let is_one_word = |line: &str| line.trim().split(' ').count() == 1;
        for shown in &lines {
            assert!(shown.chars().count() <= 80 || is_one_word(shown), "{line}: {shown}");
        }
        let text = lines.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
        for part in parts {
            assert!(text.contains(part), "{line} says nothing of {part}: {lines:#?}");
        }
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
fn a_folder_of_ours_that_others_may_write_to_and_a_file_that_makes_no_sense_are_refused() {
    for (path, line, code, parts) in [
        ("", "run true", 7, &["use the runtime folder", "others have access to it (mode 777, not 700)"][..]),
        (".state", "save", 11, &["use the state folder", "others may write to it (mode 777, not 700)"]),
    ] {
        let mut program = program(line);
        let folder = program.runtime().join(path);
        fs::create_dir_all(&folder).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
        assert_says(program.run().code(code), line, parts, "  next: set ALLCORES_");
    }
    for (file, line) in
        [("apps/old.json", "start old"), ("apps/old.json", "logs old"), ("saved.json", "resurrect")]
    {
        let mut program = program(line);
        let path = program.runtime().join(".state").join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "{").unwrap();
        assert_says(program.run().code(11), line, &["understand ", file, "EOF"], "  next: remove the file");
    }
}

#[test]
fn folders_that_nothing_names_and_one_whose_path_is_too_long_are_told() {
    let long = format!("/tmp/{}", "x".repeat(100));
    let run = program("run --name web true").env("ALLCORES_RUNTIME_DIR", &long).run().code(7);
    let parts = ["use the runtime folder /tmp/xx", "its control socket's path would have", "can have 107"];
    assert_says(run, "run", &parts, "  next: set ALLCORES_RUNTIME_DIR");
    let _ = fs::remove_dir(long);

    if !rustix::process::geteuid().is_root() {
        skip!("a second user: only root can be one");
    }
    // Who has no home by any name.
    let homeless = |line: &str| program(line).env_remove("HOME").env_remove("XDG_CONFIG_HOME").user(54321);
    let run = homeless("startup --user").run().code(1);
    let parts =
        ["startup --user: neither XDG_CONFIG_HOME nor HOME nor /etc/passwd says where your units are"];
    assert_says(run, "startup --user", &parts, "  next: say where: --output-folder");

    // Root has a folder without a home.
    let stateless = |line: &str| homeless(line).env_remove("ALLCORES_STATE_DIR").env_remove("XDG_STATE_HOME");
    let run = stateless("save").run().code(11);
    assert_says(run, "save", &["find the state folder: HOME is not set"], "  next: set ALLCORES_STATE_DIR");
    // What runs can be looked at all the same.
    stateless("ls").run().code(0).stderr_has("no app is running");
    for line in ["logs web", "logs all", "describe web"] {
        stateless(line).run().code(5);
    }
    let list = program("ls").env_remove("HOME").env_remove("ALLCORES_STATE_DIR").env_remove("XDG_STATE_HOME");
    let app = list.app("web");
    fs::write(app.join("lock"), "4242").unwrap();
    let _socket = UnixListener::bind(app.join("control.sock")).unwrap();
    fs::set_permissions(&app, Permissions::from_mode(0o755)).unwrap();
    list.user(54321).run().code(0).stdout_has("web").stdout_has("4242");
    // A user who has one without HOME: what is below it is not to be had for other reasons.
    let daemon = program("save --force").env_remove("HOME").env_remove("ALLCORES_STATE_DIR");
    let run = daemon.env_remove("XDG_STATE_HOME").user(1).run().code(11);
    let parts = ["make the state folder /", "/.local/state/allcores"];
    assert_says(run, "save", &parts, "  next: set ALLCORES_STATE_DIR");
    let run = stateless("startup").run().code(1);
    assert_says(
        run,
        "startup",
        &["startup: only root can write to /etc/systemd"],
        "  next: run it as root: sudo ",
    );
    let mut others = program("save").user(54321);
    let folder = others.runtime().join(".state");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
    let parts = ["use the state folder", "it belongs to user 0 and this is user 54321"];
    assert_says(others.run().code(11), "save", &parts, "  next: set ALLCORES_STATE_DIR");
}

#[test]
fn a_disk_that_is_full_and_a_folder_that_is_gone_are_told() {
    for line in ["schema", "check two.toml", "ls --json", "completions bash", "man run"] {
        let run = program(line).run_into(File::options().write(true).open("/dev/full").unwrap()).code(1);
        assert_says(run, line, &["write to stdout: No space left on device"], "  next: ");
    }
    for (line, what) in
        [("run true", "to name the app after it"), ("start -- true", "find the present folder")]
    {
        let run = plain_program(line).run_where_nothing_is().code(1);
        assert_says(run, line, &["find the present folder", what, "No such file"], "  next: ");
    }
}

#[test]
fn an_ecosystem_file_that_node_cannot_run_or_that_there_is_no_node_for_is_refused() {
    let node = Runtime::Node.missing().is_none();
    let path = if node { node_path() } else { String::new() };
    for (text, path, parts) in [
        ("throw new Error('oops')", path.as_str(), &["node can't run it: Error: oops", "as JSON"][..]),
        ("module.exports = () => 1", path.as_str(), &["read what it exports", "as JSON"]),
        ("module.exports = {}", "/no/such", &["run it by node: No such file", "install that", "as JSON"]),
    ] {
        if path.is_empty() {
            continue;
        }
        let line = "import eco.config.js";
        let run = program(line).file("eco.config.js", text).env("PATH", path).run().code(10);
        assert_says(run, line, parts, "  next: ");
    }
}

/// A path on which `node` is.
fn node_path() -> String {
    let program = Runtime::Node.program().unwrap();
    Path::new(&program).parent().unwrap().display().to_string()
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
        let _held = program.held_app("web");
        let run = program.run().code(4);
        assert_says(run, line, &["web", "4242", "already runs an app of this name"], "  next: ");
    }
}

#[test]
fn an_app_that_gives_no_answer_is_named_with_its_process() {
    let silent = |line: &str| {
        let mut program = program(line);
        let (folder, _lock) = program.held_app("web");
        let _deaf = UnixListener::bind(folder.join("control.sock")).unwrap();
        let run = program.run().code(1);
        assert_says(run, line, &["web", "has not answered for 2s", "look at process 4242"], "  next: ");
    };
    // Each takes the whole of its patience, so all have theirs at once.
    thread::scope(|scope| {
        for line in [
            "status web",
            "describe web",
            "stop web",
            "signal HUP web",
            "send web x",
            "logs web",
            "reload web",
            "reload web --prove",
            "restart web",
            "events web",
            "scale web +1 --timeout 2s",
            "upgrade web --timeout 2s",
        ] {
            scope.spawn(move || silent(line));
        }
    });
}

#[test]
fn an_app_that_speaks_no_http_is_named_with_its_process() {
    for line in ["describe web", "scale web 2", "events web", "reload web", "upgrade web"] {
        let mut program = program(line);
        let (folder, _lock) = program.held_app("web");
        let socket = UnixListener::bind(folder.join("control.sock")).unwrap();
        // Ends with the process of this test, which nextest has for it alone.
        thread::spawn(move || socket.incoming().for_each(drop));
        let run = program.run().code(1);
        assert_says(run, line, &["web", "over the control socket", "process 4242"], "  next: ");
    }
}

#[test]
fn an_app_whose_answer_makes_no_sense_is_named_with_its_process() {
    for line in ["describe web", "scale web 2", "signal HUP web", "send web x"] {
        let mut program = program(line);
        let (folder, _lock) = program.held_app("web");
        let socket = UnixListener::bind(folder.join("control.sock")).unwrap();
        // Ends with the process of this test, which nextest has for it alone.
        thread::spawn(move || {
            for stream in socket.incoming() {
                let mut stream = stream.unwrap();
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nwhat").unwrap();
            }
        });
        let run = program.run().code(1);
        assert_says(run, line, &["web", "answer of the control socket as JSON", "process 4242"], "  next: ");
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
fn a_patience_that_ends_says_that_the_app_goes_on_and_where_to_look() {
    // It never listens, so that nothing is ever done.
    let app = App::new(["sleep", "1000"]).binary(env!("CARGO_BIN_EXE_allcores")).name("web").workers(1);
    let app = app.start().unwrap();
    app.wait_count("online", 1, Duration::from_secs(30)).unwrap();
    for (line, part, next) in [
        ("scale web 2 --timeout 300ms", "scale web to 2: not done after 300ms", "allcores status web"),
        ("reload web --timeout 300ms", "reload web: not done after 300ms", "allcores status web"),
        ("upgrade web --timeout 300ms", "upgrade web: not done after 300ms", "allcores status web"),
        ("reload web --prove", "reload web: --prove: it listens on no TCP address", "without --prove"),
    ] {
        let output = app.run(line.split(' ')).unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{line}: {error}");
        assert!(
            error.contains(part) && error.contains("  next: ") && error.contains(next),
            "{line}: {error}"
        );
    }
    app.stop().unwrap();
}

#[test]
fn an_app_that_does_not_go_in_time_says_how_to_make_it() {
    let address = allcores_testing::address::unused();
    let program = env!("CARGO_BIN_EXE_allcores");
    let server = [program, "demo-worker", &address.to_string()];
    let app = App::new(server).binary(program).name("web").workers(1).option("--drain-timeout=10m");
    let app = app.start().unwrap();
    app.wait_ready(1).unwrap();
    // One that it has, and that asks for nothing, so that it does not end.
    let mut kept = TcpStream::connect(address).unwrap();
    kept.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let _ = kept.read(&mut [0; 1024]).unwrap();
    for (line, next) in [
        ("stop web --timeout 300ms", "allcores stop web --now"),
        ("delete web --timeout 300ms", "allcores stop web --now"),
    ] {
        let output = app.run(line.split(' ')).unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{line}: {error}");
        let part = "stop web: it has accepted, and is still there after 300ms";
        assert!(
            error.contains(part) && error.contains("  next: ") && error.contains(next),
            "{line}: {error}"
        );
    }
    let output = app.run(["stop", "web", "--now"]).unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn every_exit_code_of_the_page_has_a_test() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/exit-codes.md");
    let page = fs::read_to_string(page).unwrap();
    let first = |line: &str| line.strip_prefix("| ")?.split(' ').next()?.parse::<i32>().ok();
    let listed: BTreeSet<i32> = page.lines().filter_map(first).collect();
    let mut tested: BTreeSet<i32> = OWN.iter().chain(&TYPED).map(|(_, code, _)| *code).collect();
    // By tests of this file that are not in a table; 9 by `engine::load::reload`, as it takes an app that loses requests, and
    // 130 by `operate::background`, as it takes one that somebody waits for.
    tested.extend([0, 3, 4, 6, 7, 8, 12, 9, 130]);
    assert_eq!(listed, tested);
}
