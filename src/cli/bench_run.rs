//! `veriscope bench run`: data sets × detectors × degradations.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use clap::Args;

use super::progress::Steps;
use super::signals::Signals;
use super::{EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, complain, fail};
use crate::bench::run::results::Results;
use crate::bench::run::{METRICS, Observer, Options, Outcome, run as run_suite};
use crate::engine::DeviceChoice;

/// Let detectors judge data sets, as they are and degraded, and write scores, metrics and a report
///
/// A suite (TOML) names data sets by manifest, detectors (ours, imported published networks, any program
/// that writes a table of scores, score files) and degradations (JPEG, H.264, blur, MP3, noise, …).
/// DIR gets scores.jsonl, one line a judged or skipped file, metrics.json and report.html. A run that
/// was cut short goes on where it was when it is started again; the same suite, data and weights give the same
/// numbers. docs/bench.md describes the suite, every degradation with its arguments, and the files.
///
/// Degraded copies are made by the program ffmpeg and lie in DIR/.veriscope-work while they are judged.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Example:
  veriscope bench run --suite datasets/suites/demo.toml --out results

Exit codes:
  0    everything was judged
  1    something failed, which stderr names; or more than 5 % of the files of a combination have no
       score: metrics are written all the same
  2    wrong usage
  130  interrupted: what was judged is kept")]
pub struct RunArgs {
    /// What to run
    #[arg(long, value_name = "FILE")]
    suite: PathBuf,
    /// Folder of the results; is made
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Throw away what an earlier run left in DIR
    #[arg(long)]
    fresh: bool,
    /// Where networks run: auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto", value_parser = super::scan::parse_device)]
    device: DeviceChoice,
    /// Files in work at the same time [default: chosen by the number of processors]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Folder with the weights and their manifest [default: the one that came with the program, and
    /// imported weights]
    #[arg(long, value_name = "DIR")]
    weights: Option<PathBuf>,
}

pub fn run(args: &RunArgs) -> u8 {
    match bench(args) {
        Ok(code) => code,
        Err(message) => fail(&message),
    }
}

fn bench(args: &RunArgs) -> Result<u8, String> {
    let options = Options {
        suite: args.suite.clone(),
        out: args.out.clone(),
        fresh: args.fresh,
        device: args.device,
        jobs: args.jobs.map_or(0, usize::from),
        weights: args.weights.clone(),
    };
    let signals = Signals::catch()?;
    let bar = Bar(Mutex::new(None));
    let outcome = run_suite(&options, &bar, &signals.stop);
    bar.clear();
    let results = match outcome? {
        Outcome::Finished(results) => results,
        Outcome::Stopped => return Ok(EXIT_INTERRUPTED),
    };
    for hint in &results.hints {
        complain(hint);
    }
    Ok(finished(&results, args))
}

fn finished(results: &Results, args: &RunArgs) -> u8 {
    let cells = results.cells.len();
    let failed = results.cells.iter().filter(|cell| cell.too_many_skipped).count();
    let metrics = args.out.join(METRICS);
    if failed == 0 {
        tracing::info!("{cells} combinations: {}", metrics.display());
        return EXIT_OK;
    }
    complain(&format!(
        "{failed} of {cells} combinations have no score for more than 5 % of their files; metrics of \
         the rest are in {}",
        metrics.display()
    ));
    EXIT_FAILED
}

/// The progress bar, once it is known how much there is to do.
struct Bar(Mutex<Option<(Steps, String)>>);

impl Bar {
    fn clear(&self) {
        if let Some((steps, _)) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            steps.clear();
        }
    }
}

impl Observer for Bar {
    fn begins(&self, all: u64, done: u64) {
        tracing::info!("{all} judgements, {done} of them done before");
        let mut bar = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *bar = Some((Steps::new(all, done), String::new()));
    }

    fn judged(&self, detector: &str, data_set: &str, degradation: &str) {
        let mut bar = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((steps, last)) = &mut *bar else { return };
        let of = format!("{detector} on {data_set}, {degradation}");
        steps.step(&of);
        if *last != of {
            tracing::info!("{of}");
            *last = of;
        }
    }
}
