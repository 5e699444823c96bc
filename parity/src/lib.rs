//! What the tests of parity with node:cluster share: a cluster whose workers are real node, and what was seen of it.
//!
//! A test is an `async fn` of a [`Run`], and [`on_each_node`] makes a test case of it for every version of node (and
//! policy). What it claims is listed in `docs/node-parity.md` beside the test of Node's that claims the same of Node;
//! `tests/table.rs` sees to it that the list is right.

#![expect(clippy::missing_panics_doc, reason = "what fails here fails a test, by a panic")]

pub mod client;
pub mod node;
pub mod process;
pub mod stage;

pub use node::{Node, Run};
pub use stage::Stage;

/// Makes a test case of `async fn test(run: Run)` for each version of node: `test::node24`; or, with a list of
/// policies, for each policy and version: `test::shared::node24`.
#[macro_export]
macro_rules! on_each_node {
    ($test:ident) => {
        mod $test {
            $crate::on_each_node!(@versions super::$test, auto);
        }
    };
    ($test:ident: $($policy:ident),+) => {
        mod $test {
            $(mod $policy {
                $crate::on_each_node!(@versions super::super::$test, $policy);
            })+
        }
    };
    (@versions $test:path, $policy:ident) => {
        #[test]
        fn node20() {
            $crate::node::play($crate::Node::V20, $crate::node::policies::$policy(), $test);
        }
        #[test]
        fn node22() {
            $crate::node::play($crate::Node::V22, $crate::node::policies::$policy(), $test);
        }
        #[test]
        fn node24() {
            $crate::node::play($crate::Node::V24, $crate::node::policies::$policy(), $test);
        }
        #[test]
        fn node26() {
            $crate::node::play($crate::Node::V26, $crate::node::policies::$policy(), $test);
        }
    };
}
