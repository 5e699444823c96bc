//! The versions of node, the policies, and the run of a test with one of each.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use allcores::{Builder, Policy};
use allcores_testing::runtimes::Runtime;
use allcores_testing::{machine, skip};
use serde_json::Value;

use crate::Stage;

/// More than any test takes on a machine that is busy with others.
const LIMIT: Duration = Duration::from_secs(40);

/// A version of node. They are ordered by age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    /// The oldest, as installed on the machine.
    V20,
    /// From npm.
    V22,
    /// From npm.
    V24,
    /// From npm.
    V26,
}

impl Node {
    /// The program, or why it can't be had.
    fn program(self) -> Result<OsString, String> {
        let (runtime, prefix) = match self {
            Self::V20 => (Runtime::Node, "v20."),
            Self::V22 => (Runtime::Node22, "v22."),
            Self::V24 => (Runtime::Node24, "v24."),
            Self::V26 => (Runtime::Node26, "v26."),
        };
        let program = runtime.program().map_err(|error| format!("{self:?}: {error:#}"))?;
        if self == Self::V20 {
            // Whatever version the machine has.
            let output = Command::new(&program).arg("--version").output();
            let version = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
            let version = version.map_err(|error| format!("{self:?}: {error}"))?;
            if !version.starts_with(prefix) {
                return Err(format!("{self:?}: node is {version} here"));
            }
        }
        Ok(program)
    }
}

/// The policies, by the names that test cases have.
pub mod policies {
    use allcores::Policy;

    /// What we do by default.
    pub fn auto() -> Policy {
        Policy::Auto
    }

    /// A listening socket for each worker.
    pub fn lanes() -> Policy {
        Policy::Lanes
    }

    /// Node's `SCHED_NONE`.
    pub fn shared() -> Policy {
        Policy::Shared
    }

    /// Node's `SCHED_RR`.
    pub fn round_robin() -> Policy {
        Policy::RoundRobin
    }
}

/// One run of a test.
#[derive(Clone, Debug)]
pub struct Run {
    /// What the workers are.
    pub node: Node,
    /// How connections reach them.
    pub policy: Policy,
    program: OsString,
}

impl Run {
    /// The program that the workers run.
    pub fn program(&self) -> &OsString {
        &self.program
    }

    /// A builder for workers that play `part` of the script `fixtures/SCRIPT`.
    pub fn builder(&self, script: &str, part: &str, parameters: &Value) -> Builder {
        self.builder_with([], script, part, parameters)
    }

    /// As [`builder`](Self::builder), with options for node itself.
    pub fn builder_with<const N: usize>(
        &self,
        options: [&str; N],
        script: &str,
        part: &str,
        parameters: &Value,
    ) -> Builder {
        let arguments = [fixture(script).into_os_string(), part.into(), parameters.to_string().into()];
        let builder = Builder::new().exec(&self.program).exec_args(options).args(arguments);
        builder.policy(self.policy.clone())
    }

    /// A cluster of workers that will play `part` of the script `fixtures/SCRIPT`. None is forked yet.
    pub async fn stage(&self, script: &str, part: &str) -> Stage {
        self.stage_with(script, part, &Value::Object(serde_json::Map::new())).await
    }

    /// As [`stage`](Self::stage), with parameters for the part.
    pub async fn stage_with(&self, script: &str, part: &str, parameters: &Value) -> Stage {
        Stage::open(self.builder(script, part, parameters)).await
    }
}

/// A file below `fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// Runs a test with this version and policy, or says why it can't.
pub fn play(node: Node, policy: Policy, test: impl AsyncFnOnce(Run)) {
    let program = match node.program() {
        Ok(program) => program,
        Err(why) => return skip::report(&why),
    };
    let _turn = machine::together();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let run = Run { node, policy, program };
    runtime.block_on(async {
        let ended = tokio::time::timeout(LIMIT, test(run)).await;
        assert!(ended.is_ok(), "it took more than {LIMIT:?}");
    });
}
