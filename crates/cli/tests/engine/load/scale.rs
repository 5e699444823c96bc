//! Another number of workers under load: nobody notices.

use allcores_testing::runtimes::{Runtime, require};
use allcores_testing::{address, machine};

use super::{let_pass, start};
use crate::app;

fn loses_nothing(runtime: Runtime, policy: &str) {
    let Some(runtime) = require(runtime) else { return };
    let _turn = machine::alone();
    let address = address::unused();
    let app = app::server(runtime, address).workers(4).policy(policy).start().unwrap();
    app.wait_ready(4).unwrap();
    let load = start(address);
    for workers in [1, 4, 2] {
        let_pass(&load, 300);
        app::scale(&app, workers);
    }
    let_pass(&load, 300);
    let report = load.stop();
    eprint!("{runtime}, {policy}, 4 → 1 → 4 → 2: {report}");
    assert!(report.is_clean(), "{report}");
    assert_eq!(app.stop().unwrap().code(), Some(0), "{:#?}", app.lines());
}

macro_rules! each {
    ($($name:ident: $runtime:ident, $policy:literal,)+) => {
        $(#[test]
        fn $name() {
            loses_nothing(Runtime::$runtime, $policy);
        })+
    };
}

each! {
    scaling_python_loses_nothing: Python, "lanes",
    scaling_python_on_one_listener_loses_nothing: Python, "shared",
    scaling_node_loses_nothing: Node, "lanes",
    scaling_node_on_one_listener_loses_nothing: Node, "shared",
    scaling_node26_loses_nothing: Node26, "lanes",
    scaling_go_loses_nothing: Go, "lanes",
    scaling_go_on_one_listener_loses_nothing: Go, "shared",
}
