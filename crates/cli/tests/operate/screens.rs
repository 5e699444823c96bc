//! What people read, on real terminals: no line is wider than the terminal, and none is broken within a word.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use allcores_testing::terminal::Terminal;
use rustix::process::{Pid, Signal, kill_process};

use crate::folder::Folder;

const LONG: Duration = Duration::from_secs(30);

/// The one that everybody has, and a wide one.
const COLUMNS: [u16; 2] = [80, 200];

const WEB: &str = "
[apps.a-shop-with-quite-a-long-name]
command = $COMMAND
workers = 2
kill-timeout = \"1s\"
env = { HOST = \"$HOST\", PORT = $PORT, A_VARIABLE_OF_THE_SHOP = \"1\", ANOTHER_VARIABLE_OF_THE_SHOP = \"2\" }
";

const SHOP: &str = "a-shop-with-quite-a-long-name";

/// What a command writes to a terminal, line by line.
#[track_caller]
fn screen(command: &mut Command, columns: u16) -> Vec<String> {
    let (_, lines) = Terminal::spawn(command, columns).unwrap().finish().unwrap();
    assert_fits(&lines, columns);
    lines
}

#[track_caller]
fn assert_fits(lines: &[String], columns: u16) {
    assert!(!lines.is_empty());
    for line in lines {
        // A path may be longer than what is left of any terminal, and then it is alone in its column: two
        // spaces or none are before it, where one is between words.
        let may_be = line.trim().rsplit_once(' ').is_none_or(|(before, _)| before.ends_with(' '));
        let shown = lines.join("\n");
        assert!(may_be || line.chars().count() <= columns.into(), "{columns} columns: {line}\nof\n{shown}");
    }
}

fn words(text: &str) -> BTreeSet<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn what_is_told_of_files_and_of_the_machine_is_broken_between_words() {
    let folder = Folder::new();
    folder.write("allcores.toml", &format!("{WEB}[apps.{SHOP}.environments.production]\nworkers = 4\n"));
    folder.write("wrong.toml", "[apps.web]\ncommnd = \"a command that is rather long, so that its line does not fit into a terminal\"\nwrkers = 1\n");
    folder.write("eco.json", "{\"apps\": [{\"name\": \"web\", \"script\": \"./server\", \"instances\": 2, \"namespace\": \"shop\", \"watch_options\": {}, \"cron_restart\": \"0 4 * * *\"}], \"deploy\": {}}");
    for line in [
        "doctor -- node server.js",
        "check",
        "check wrong.toml",
        "import eco.json",
        "import eco.json -o made.toml --force",
        "start nope",
        "start --name one -- no-such-program-anywhere",
    ] {
        let arguments: Vec<&str> = line.split(' ').collect();
        let piped = folder.allcores(&arguments);
        let piped = words(&format!("{}\n{}", piped.out, piped.err));
        for columns in COLUMNS {
            let lines = screen(&mut folder.command(&arguments), columns);
            let cut: Vec<String> = words(&lines.join("\n")).difference(&piped).cloned().collect();
            // Times and process ids are others each time.
            let cut: Vec<&String> =
                cut.iter().filter(|word| !word.contains(|char: char| char.is_ascii_digit())).collect();
            assert!(cut.is_empty(), "{line}: {cut:?} in\n{}", lines.join("\n"));
        }
    }
}

#[test]
fn what_is_told_of_an_app_fits() {
    let folder = Folder::new();
    folder.write("allcores.toml", WEB);
    folder.allcores(&["start"]).code(0);
    for line in [
        "ls",
        "status SHOP",
        "describe SHOP",
        "logs SHOP",
        "logs SHOP --time",
        "scale SHOP 2",
        "signal WINCH SHOP",
        "save",
        "start SHOP",
    ] {
        let line = line.replace("SHOP", SHOP);
        let arguments: Vec<&str> = line.split(' ').collect();
        let piped = folder.allcores(&arguments);
        let piped = words(&format!("{}\n{}", piped.out, piped.err));
        for columns in COLUMNS {
            let lines = screen(&mut folder.command(&arguments), columns);
            // Where a column has no room, what is left of a word shows that something is missing.
            let is_meant =
                |word: &String| word.ends_with('…') || word.contains(|char: char| char.is_ascii_digit());
            let cut: Vec<String> =
                words(&lines.join("\n")).difference(&piped).filter(|word| !is_meant(word)).cloned().collect();
            assert!(cut.is_empty(), "{line}: {cut:?} in\n{}", lines.join("\n"));
        }
    }
}

#[test]
fn what_an_app_in_the_foreground_tells_fits_and_is_one_line_each_in_a_file() {
    let folder = Folder::new();
    let program = env!("CARGO_BIN_EXE_allcores");
    let address = folder.address.to_string();
    let arguments =
        ["run", "--name", SHOP, "-w", "1", "--log-file", "log", "--", program, "demo-worker", &address];
    for columns in COLUMNS {
        let app = Terminal::spawn(&mut folder.command(&arguments), columns).unwrap();
        app.wait_for("1 worker ready on", LONG).unwrap();
        kill_process(Pid::from_raw(app.pid().try_into().unwrap()).unwrap(), Signal::INT).unwrap();
        let (status, lines) = app.finish().unwrap();
        assert!(status.success());
        assert_fits(&lines, columns);
        let listens = format!("listening on {address} (adopted, lanes)");
        let shown = lines.join("\n").split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(shown.contains(&listens), "{shown}");
        let is_whole = lines.iter().any(|line| line.contains("worker 1") && line.contains(&listens));
        assert_eq!(is_whole, columns == 200, "{lines:#?}");
        let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
        assert!(log.lines().any(|line| line.contains("worker 1") && line.contains(&listens)), "{log}");
    }
}

#[test]
fn an_interrupt_that_leaves_connections_says_how_long_and_what_ends_them_now() {
    let folder = Folder::new();
    let program = env!("CARGO_BIN_EXE_allcores");
    let address = folder.address.to_string();
    let arguments = ["run", "-w", "1", "--drain-timeout", "1h", "--", program, "demo-worker", &address];
    let app = Terminal::spawn(&mut folder.command(&arguments), 200).unwrap();
    app.wait_for("1 worker ready on", LONG).unwrap();
    let mut client = TcpStream::connect(folder.address).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    let interrupt =
        || kill_process(Pid::from_raw(app.pid().try_into().unwrap()).unwrap(), Signal::INT).unwrap();
    interrupt();
    app.wait_for("connections may take 1h to end; Ctrl-C again stops now", LONG).unwrap();
    interrupt();
    let (status, lines) = app.finish().unwrap();
    assert!(status.success(), "{lines:?}");
}

#[test]
fn the_help_of_each_command_fits() {
    let folder = Folder::new();
    let all = folder.allcores(&["--help"]).code(0).out;
    let list = all.lines().skip_while(|line| *line != "Commands:").take_while(|line| *line != "Options:");
    let names: Vec<&str> = list.filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
    assert!(names.len() > 20, "{names:?}");
    for columns in COLUMNS {
        for name in &names {
            screen(&mut folder.command(&[name, "-h"]), columns);
            screen(&mut folder.command(&[name, "--help"]), columns);
        }
        screen(&mut folder.command(&["-h"]), columns);
    }
}
