//! The command that looks at this machine.

use std::ffi::OsString;

/// Say what this machine, container and user allow
///
/// Tries what can be tried: two workers of a small server are run for a moment. Given a command, says what it will be run
/// by. Exit code 1 says that something stands in the way.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "allcores doctor [--json] [-- COMMAND [ARGS]...]",
    after_help = "\
Examples:
  allcores doctor
  allcores doctor -- node server.js      and what will be used for it
  docker run IMAGE allcores doctor       what the container allows"
)]
pub(crate) struct DoctorArgs {
    /// Print JSON: an array of findings
    #[arg(long)]
    pub(crate) json: bool,

    /// A command that is to be run; it is not started
    #[arg(trailing_var_arg = true, num_args = 0.., value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}
