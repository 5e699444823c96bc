//! The project's own tasks: `cargo xtask setup`, `test`, `lint`, `ci`, `bench`, `chaos`, `soak`, `fuzz`, `sanitize`,
//! `release`.

mod bench;
mod chaos;
mod fuzz;
mod lint;
mod release;
mod sanitize;
mod setup;
mod shell;
mod soak;
mod test;

use std::process::ExitCode;

use clap::Parser;

/// The project's own tasks.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Task {
    /// Install and build what the tests need, below target/; Debian packages too, as root.
    Setup,
    /// Set up, then run all tests, or those whose name contains FILTER.
    Test {
        /// A part of the names of the tests to run.
        filter: Option<String>,
    },
    /// Check the formatting, the lints and the documentation.
    Lint,
    /// Lint, then test.
    Ci,
    /// Compare allcores with itself and with others, side by side.
    Bench(bench::Arguments),
    /// Reload, scale, kill, stop and starve workers at random under load, and see what is lost.
    Chaos(chaos::Arguments),
    /// Reload, scale, kill and ask for a long time under a load that leaves room, and see what the primary has more in the end.
    Soak(soak::Arguments),
    /// Try to break what reads the bytes of others, by arbitrary bytes.
    Fuzz(fuzz::Arguments),
    /// Run tests under a sanitizer, which finds what `unsafe` code may do wrong with memory.
    Sanitize(sanitize::Arguments),
    /// Build the one static binary that is given away.
    Release(release::Arguments),
}

fn main() -> ExitCode {
    perform(Task::parse()).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn perform(task: Task) -> anyhow::Result<ExitCode> {
    match task {
        Task::Setup => setup::run()?,
        Task::Lint => lint::run()?,
        Task::Bench(arguments) => bench::run(arguments)?,
        Task::Chaos(arguments) => chaos::run(&arguments)?,
        Task::Soak(arguments) => soak::run(&arguments)?,
        Task::Fuzz(arguments) => fuzz::run(&arguments)?,
        Task::Sanitize(arguments) => sanitize::run(&arguments)?,
        Task::Release(arguments) => release::run(&arguments)?,
        Task::Test { filter } => return test::run(filter.as_deref()),
        Task::Ci => {
            lint::run()?;
            return test::run(None);
        }
    }
    Ok(ExitCode::SUCCESS)
}
