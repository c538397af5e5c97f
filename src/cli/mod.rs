//! One file a command. Here: arguments to command, logging, exit codes.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{ArgAction, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

mod bench;
mod bench_run;
mod c2pa_worker;
mod datasets;
mod doctor;
mod inputs;
mod inspect;
mod label;
mod progress;
mod scan;
mod score;
mod serve;
mod session;
mod signals;
mod tenants;
mod weights;

/// Everything was done.
const EXIT_OK: u8 = 0;
/// Something failed; stderr names it.
const EXIT_FAILED: u8 = 1;
/// Wrong usage that only shows once the arguments are read together; clap ends with the same code.
const EXIT_USAGE: u8 = 2;
/// Ended by a signal: 128 + SIGINT, as shells write it.
const EXIT_INTERRUPTED: u8 = 130;
/// The reader of stdout went away: 128 + SIGPIPE.
const EXIT_PIPE: u8 = 141;

/// Says for every stretch of time how likely it is that a face was swapped, a voice was cloned,
/// or a label saying "made by AI" was taken off.
#[derive(Debug, Parser)]
#[command(name = "veriscope", version, about, long_about = None)]
struct Cli {
    /// Say more on stderr: -v what is done, -vv in detail. RUST_LOG, where set, decides instead.
    #[arg(short, long, action = ArgAction::Count, global = true)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Scan(scan::ScanArgs),
    Inspect(inspect::InspectArgs),
    Score(score::ScoreArgs),
    Serve(serve::ServeArgs),
    Tenants(tenants::TenantsArgs),
    Label(label::LabelArgs),
    Bench(bench::BenchArgs),
    Datasets(datasets::DatasetsArgs),
    Weights(weights::WeightsArgs),
    Doctor(doctor::DoctorArgs),
    /// Print the JSON Schema of the report (one JSONL line of scan)
    Schema,
    #[command(hide = true)]
    C2paWorker(c2pa_worker::WorkerArgs),
}

/// Runs the program and says how it went: 0 all well, 1 something failed (named on stderr), 2
/// wrong usage, 130 interrupted, 141 the reader of stdout went away.
pub fn main() -> ExitCode {
    // Wrong usage ends here with code 2.
    let cli = Cli::parse();
    log_to_stderr(cli.verbose);
    ExitCode::from(match cli.command {
        Command::Scan(args) => scan::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Score(args) => score::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Tenants(args) => tenants::run(args),
        Command::Label(args) => label::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Datasets(args) => datasets::run(&args),
        Command::Weights(args) => weights::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Schema => print(crate::report::SCHEMA, EXIT_OK),
        Command::C2paWorker(args) => c2pa_worker::run(&args),
    })
}

fn log_to_stderr(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(format!("warn,veriscope={level}")));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
        .without_time()
        .with_writer(|| progress::Stderr)
        .init();
}

/// Writes to stdout; gives `code`, or the code of a failed write.
fn print(text: &str, code: u8) -> u8 {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => code,
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => EXIT_PIPE,
        Err(e) => fail(&format!("stdout: {e}")),
    }
}

/// Says what went wrong in one line on stderr.
fn complain(message: &str) {
    use io::Write as _;
    // Nothing is left to tell it to where stderr is gone.
    let _ = writeln!(progress::Stderr, "veriscope: {message}");
}

fn fail(message: &str) -> u8 {
    complain(message);
    EXIT_FAILED
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }
}
