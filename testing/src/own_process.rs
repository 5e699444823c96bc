//! Tests that change what is a whole process's, such as its limits.

const HERE: &str = "ALLCORES_TEST_IN_OWN_PROCESS";

/// Runs the test of this name, its modules before it, alone in a process of its own. False in there: go on.
///
/// # Panics
///
/// If the test fails there, or there is none of this name.
pub fn is_moved_to_own_process(test: &str) -> bool {
    is_moved_to_own_process_with(test, &[])
}

/// The same, with these variables in its environment.
///
/// # Panics
///
/// As [`is_moved_to_own_process`].
pub fn is_moved_to_own_process_with(test: &str, env: &[(&str, &str)]) -> bool {
    if std::env::var_os(HERE).is_some() {
        return false;
    }
    let own = std::env::current_exe().expect("a test has a file");
    let mut run = std::process::Command::new(own);
    run.args([test, "--exact", "--nocapture"]).env(HERE, "1").envs(env.iter().copied());
    let run = run.output().expect("it can be run again");
    let printed = [run.stdout, run.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(run.status.success() && printed.contains("1 passed"), "{printed}");
    true
}
