//! Against a stand-in for the program: what it is given, and what is made of what it tells.

use super::*;

/// A file of the repository rather than one written here: a file that was just written can't always be run while other
/// threads fork (`ETXTBSY`).
fn stand_in() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/app/stand-in.sh")
}

#[test]
fn an_app_is_started_as_the_command_line_says_and_stopped() {
    let app = App::new(["node", "server.js"]).binary(stand_in()).name("x").workers(2).policy("lanes");
    let app = app.option("--surge=2").start().unwrap();
    let ready = app.wait_ready(2).unwrap();
    assert_eq!(ready.iter().filter_map(Event::slot).collect::<Vec<_>>(), [0, 1]);
    let expected =
        "arguments: run --log-format json --name x -w 2 --policy lanes --surge=2 -- node server.js";
    assert!(app.lines().iter().any(|line| line == expected), "{:?}", app.lines());
    assert!(app.stop().unwrap().success());
    app.wait_for(|event| event.kind() == "stopped", Duration::from_secs(10)).unwrap();
}

#[test]
fn status_is_asked_of_the_same_runtime_folder() {
    let app = App::new(["true"]).binary(stand_in()).name("x").start().unwrap();
    let status = app.status().unwrap();
    assert_eq!(status["name"], "x");
    assert_eq!(status["dir"].as_str(), app.runtime_folder().to_str());
}
