//! Tests that cannot run here say so: one line `skipped: TEST: why` for each.
//!
//! The line goes to standard error, and to the file named by [`LOG`] if that is set, because a test runner shows the
//! output of failed tests only. `cargo xtask test` sets it and counts the lines. Nothing here decides what is missing.

use std::fs::OpenOptions;
use std::io::Write;
use std::{env, thread};

/// The environment variable that names the file to which skipped tests are appended.
pub const LOG: &str = "ALLCORES_SKIP_LOG";

/// Says why the test cannot run here, and returns from it.
///
/// # Examples
///
/// ```no_run
/// fn steers_by_ebpf() {
///     let may_load_ebpf = false;
///     if !may_load_ebpf {
///         allcores_testing::skip!("eBPF programs may not be loaded here");
///     }
///     unreachable!("the macro has returned");
/// }
/// steers_by_ebpf();
/// ```
#[macro_export]
macro_rules! skip {
    ($($why:tt)+) => {{
        $crate::skip::report(&format!($($why)+));
        return;
    }};
}

/// Records that the running test is skipped. [`skip!`](crate::skip!) also returns from the test.
///
/// # Panics
///
/// Panics if the log cannot be written: a skip that nobody counts would pass for a success.
pub fn report(why: &str) {
    let line = format!("skipped: {}: {}\n", test_name(), why.replace('\n', " "));
    eprint!("{line}");
    if let Some(path) = env::var_os(LOG) {
        let log = OpenOptions::new().create(true).append(true).open(&path);
        // One write for the whole line: several tests append at the same time.
        log.and_then(|mut log| log.write_all(line.as_bytes())).expect("the skip log can be written");
    }
}

/// The name of the test binary and, since test runners name a test's thread after it, of the test.
fn test_name() -> String {
    let binary = env::current_exe().ok();
    let stem = binary.as_deref().and_then(|path| path.file_stem()?.to_str()).unwrap_or("test");
    // Cargo appends `-` and a hash to the names of test binaries.
    let target = stem.rsplit_once('-').map_or(stem, |(target, _)| target);
    format!("{target}::{}", thread::current().name().unwrap_or("unnamed"))
}
