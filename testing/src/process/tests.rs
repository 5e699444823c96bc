use std::os::unix::process::ExitStatusExt;

use super::*;

const LONG: Duration = Duration::from_secs(10);

fn shell(script: &str) -> Process {
    Process::spawn(Command::new("sh").arg("-c").arg(script)).unwrap()
}

#[test]
fn events_are_told_from_other_lines() {
    let process =
        shell(r#"echo hello; echo '{"event":"ready","worker":{"id":3,"slot":1,"pid":77}}'; echo '[]'; cat"#);
    let event = process.wait_for(|event| event.kind() == "ready", LONG).unwrap();
    assert_eq!((event.worker_id(), event.slot(), event.worker_pid()), (Some(3), Some(1), Some(77)));
    assert_eq!(process.events().len(), 1);
}

#[test]
fn an_event_is_found_on_either_stream() {
    let process = shell(r#"echo '{"event":"a"}' >&2; exec sleep 100"#);
    process.wait_for(|event| event.kind() == "a", LONG).unwrap();
}

#[test]
fn waiting_since_a_position_passes_over_what_was_before() {
    let process = shell(
        r#"echo '{"event":"a","n":1}'; trap "echo '{\"event\":\"a\",\"n\":2}'" HUP;
        echo '{"event":"up"}'; while :; do sleep 0.01; done"#,
    );
    process.wait_for(|event| event.kind() == "up", LONG).unwrap();
    let position = process.position();
    process.signal(Signal::HUP).unwrap();
    let event = process.wait_for_since(position, |event| event.kind() == "a", LONG).unwrap();
    assert_eq!(event.value["n"], 2);
}

#[test]
fn waiting_fails_at_once_when_the_process_has_ended() {
    let process = shell("echo why; exit 3");
    let started = Instant::now();
    let error = process.wait_for(|_| false, LONG).unwrap_err().to_string();
    assert!(started.elapsed() < LONG, "{error}");
    assert!(error.contains("why") && error.contains("exit status: 3"), "{error}");
}

#[test]
fn as_many_events_are_waited_for_as_are_asked_for() {
    let process = shell(r#"for n in 1 2 3; do echo '{"event":"ready"}'; done; exec sleep 100"#);
    assert_eq!(process.wait_count("ready", 3, LONG).unwrap().len(), 3);
    let error = process.wait_count("ready", 4, Duration::from_millis(50)).unwrap_err();
    assert!(error.to_string().starts_with("3 of 4"), "{error}");
}

#[test]
fn stopping_tells_how_it_ended() {
    let process = shell(r#"trap 'exit 5' TERM; echo '{"event":"up"}'; while :; do sleep 0.01; done"#);
    process.wait_for(|event| event.kind() == "up", LONG).unwrap();
    assert_eq!(process.stop().unwrap().code(), Some(5));
}

#[test]
fn a_dropped_process_is_gone_and_reaped() {
    let process = shell("exec sleep 100");
    let pid = process.pid();
    let log = Arc::clone(&process.log);
    drop(process);
    assert_eq!(log.state().status.unwrap().signal(), Some(15));
    assert!(!std::path::Path::new(&format!("/proc/{pid}/stat")).exists());
}

#[test]
fn free_ports_differ() {
    assert_ne!(free_port().unwrap(), free_port().unwrap());
}
