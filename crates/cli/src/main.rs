//! The program `allcores`. All of it is in the library beside it.

fn main() -> std::process::ExitCode {
    allcores_cli::main()
}
