//! The project's own tasks.

mod bench;

use clap::Parser;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "The project's own tasks")]
enum Task {
    /// Compares allcores with itself and with others, side by side
    Bench(bench::Arguments),
}

fn main() -> anyhow::Result<()> {
    match Task::parse() {
        Task::Bench(arguments) => bench::run(&arguments),
    }
}
