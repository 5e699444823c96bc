//! The program from outside: what it prints, and how it ends. No test here needs a worker to run.

mod errors;
mod program;
mod security;

use std::fs;
use std::os::unix::net::UnixListener;

use program::Program;

#[test]
fn nothing_asked_shows_the_help_and_is_a_usage_error() {
    Program::new(&[]).run().code(2).stderr_has("Usage: allcores <COMMAND>");
}

#[test]
fn usage_errors_end_with_2_and_say_what_would_do() {
    for (arguments, part) in [
        (&["run"][..], "COMMAND"),
        (&["run", "-w", "0", "x"], "at least one worker"),
        (&["run", "--listen", "localhost:80", "x"], "127.0.0.1:80"),
        (&["run", "--env", "X", "x"], "KEY=VALUE"),
        (&["run", "--name", "a/b", "x"], "letters, digits"),
        (&["run", "--kill-timeout", "5", "x"], "500ms, 5s"),
        (&["run", "--cwd", "/no/such", "x"], "next:"),
        (&["run", "--uid", "no-such-user", "x"], "/etc/passwd"),
        (&["run", "--wrokers", "2", "x"], "--workers"),
        (&["scale", "web", "0"], "from 1 to 256"),
        (&["man", "nothing"], "no such command"),
    ] {
        Program::new(arguments).run().code(2).stdout_is("").stderr_has(part);
    }
}

#[test]
fn a_format_from_the_environment_is_checked_too() {
    Program::new(&["run", "x"]).env("ALLCORES_LOG_FORMAT", "xml").run().code(2).stderr_has("pretty");
}

#[test]
fn help_shows_examples_and_exit_codes() {
    let help = Program::new(&["run", "--help"]).run().code(0).stdout;
    for part in
        ["Examples:", "allcores run -- node server.js", "Exit codes:", "127  the command was not found"]
    {
        assert!(help.contains(part), "{help}");
    }
    let top = Program::new(&["--help"]).run().code(0).stdout;
    assert!(!top.contains("demo-worker") && !top.contains(" man "), "{top}");
}

#[test]
fn every_option_of_the_help_is_in_the_manual() {
    let help = Program::new(&["run", "--help"]).run().code(0).stdout;
    let manual = Program::new(&["man", "run"]).run().code(0).stdout.replace('\\', "");
    let lines = help.lines().filter_map(|line| line.trim_start().strip_prefix('-').map(|_| line));
    let options: Vec<&str> =
        lines.flat_map(|line| line.split([' ', ',', '.'])).filter(|word| word.starts_with("--")).collect();
    assert!(options.len() > 18, "{options:?}");
    for option in options {
        assert!(manual.contains(&format!("fB{option}fR")), "{option}\n{manual}");
    }
}

#[test]
fn the_manual_of_the_program_lists_its_commands() {
    Program::new(&["man"]).run().code(0).stdout_has(".TH allcores 1").stdout_has("allcores\\-scale(1)");
}

#[test]
fn there_is_a_completion_script_for_each_shell() {
    for shell in ["bash", "zsh", "fish"] {
        Program::new(&["completions", shell]).run().code(0).stdout_has("ALLCORES_COMPLETE");
    }
}

#[test]
fn a_variable_of_somebody_elses_asks_for_no_completions() {
    Program::new(&["ls"]).env("COMPLETE", "1").run().code(0).stderr_has("no app is running");
}

#[test]
fn nobody_waits_for_longer_than_a_clock_goes_on() {
    for line in ["start", "scale web 2", "upgrade web", "reload web", "stop web", "restart web"] {
        let words: Vec<&str> = line.split(' ').chain(["--timeout", "500000000000y"]).collect();
        Program::new(&words).run().code(2).stderr_has("more than 100 years");
    }
}

#[test]
fn an_empty_list_is_no_failure() {
    Program::new(&["ls"]).run().code(0).stdout_is("").stderr_has("no app is running");
    Program::new(&["ls", "--json"]).run().code(0).stdout_is("[]\n");
}

#[test]
fn what_a_dead_primary_left_is_not_listed() {
    let mut program = Program::new(&["ls", "--json"]);
    let folder = program.app("web");
    fs::write(folder.join("lock"), "1").unwrap();
    drop(UnixListener::bind(folder.join("control.sock")).unwrap());
    program.run().code(0).stdout_is("[]\n");
}

#[test]
fn an_app_that_does_not_answer_is_listed_as_such() {
    let mut program = Program::new(&["ls"]);
    let folder = program.app("web");
    fs::write(folder.join("lock"), "4242").unwrap();
    let _socket = UnixListener::bind(folder.join("control.sock")).unwrap();
    program.run().code(0).stdout_has("web").stdout_has("4242").stdout_has("no answer within 2s");
}

#[test]
fn an_unknown_app_ends_with_5() {
    for arguments in [&["status", "web"][..], &["stop", "web"], &["scale", "web", "2"]] {
        Program::new(arguments).run().code(5).stdout_is("").stderr_has("web").stderr_has("allcores ls");
    }
}

#[test]
fn a_name_in_use_is_refused_with_its_holder() {
    let mut program = Program::new(&["run", "--name", "web", "true"]);
    let (folder, _lock) = program.held_app("web");
    program.run().code(4).stdout_is("").stderr_has("4242").stderr_has("allcores stop web");
    assert!(folder.join("lock").exists());
}

#[test]
fn a_runtime_folder_that_cannot_be_is_refused() {
    Program::new(&["run", "true"])
        .env("ALLCORES_RUNTIME_DIR", "/etc/passwd/allcores")
        .run()
        .code(7)
        .stdout_is("")
        .stderr_has("/etc/passwd/allcores")
        .stderr_has("set ALLCORES_RUNTIME_DIR");
}

#[test]
fn a_runtime_folder_that_is_too_deep_for_a_socket_is_refused() {
    let program = Program::new(&["run", "true"]);
    let deep = program.runtime().join("x".repeat(110));
    program.env("ALLCORES_RUNTIME_DIR", deep.to_str().unwrap()).run().code(7).stderr_has("107");
}
