//! The `aneforge` command. Everything is in the library, so that its reference page can be generated.

fn main() -> std::process::ExitCode {
    aneforge_cli::main()
}
