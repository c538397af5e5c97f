//! Arguments → command → exit code; nothing else.

fn main() -> std::process::ExitCode {
    veriscope::cli::main()
}
