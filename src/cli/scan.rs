//! `veriscope scan`: what was typed → what is meant → the engine.

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, ValueEnum};

use super::session::{Outcome, Session};
use super::signals::Signals;
use super::{EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, EXIT_PIPE, complain, fail, inputs};
use crate::detect::Tier;
use crate::engine::{DeviceChoice, Engine, ScanOptions};
use crate::models::weights::{PrecisionChoice, WeightStore};
use crate::nn::Precision;
use crate::provenance::InspectOptions;
use crate::provenance::c2pa::{TrustAnchors, Worker};
use crate::report::jsonl::JsonLines;
use crate::report::store::Store;
use crate::report::table::{Style, Table};
use crate::report::{DetectorKind, Sink};

/// Scan media and say for every stretch of time what is fake, what is not, and what cannot be told
///
/// Folders are walked, symbolic links followed; every regular file in them is tried by its
/// content. A file in a folder that turns out to be no media is counted as skipped and fails
/// nothing, unless its name ends like that of media (.mp4, .wav, .png, …). A file that is named
/// on the command line fails where it is no media. Each file is scanned once, however many names
/// lead to it; each gets a report as soon as it is finished.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Exit codes:
  0    every file was scanned from start to end
  1    some files failed or broke off in the middle, or the scan could not run at all; each
       cause is on stderr, and in the file's report
  2    wrong usage
  130  interrupted (Ctrl-C, SIGTERM); what was finished is reported and kept in the store
  141  the reader of stdout went away")]
pub struct ScanArgs {
    /// Files and folders
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// table: timelines for people; jsonl: one JSON object a line and file (see `veriscope schema`)
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    labels: LabelArgs,
    /// Keep results in this SQLite file and take from it what was scanned before with the same
    /// content, weights and options; a scan that was cut short goes on where it was
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
    /// Colours in the table
    #[arg(long, value_enum, default_value_t = ColorChoice::Auto)]
    color: ColorChoice,
    /// Draw the table with ASCII characters only
    #[arg(long)]
    ascii: bool,
}

/// What judges, and where; `scan` and `serve` have these.
#[derive(Debug, Args)]
pub(super) struct EngineArgs {
    /// Detectors to run, with commas between them [default: all]
    #[arg(long, value_delimiter = ',', value_parser = detector_parser(), value_name = "LIST")]
    detectors: Vec<DetectorKind>,
    /// Where networks run: auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto", value_parser = parse_device)]
    device: DeviceChoice,
    /// In what numbers networks calculate on the CPU: auto (bf16 where it moves a network's AUC by
    /// less than 0.001 and the processor has instructions for it), f32 or bf16
    #[arg(long, default_value = "auto", value_parser = parse_precision)]
    precision: PrecisionChoice,
    /// Which networks judge: fast (the light ones), or accurate (a larger one beside each: better,
    /// several times slower) [default: accurate where scripts/setup could install its base, else fast]
    #[arg(long, value_parser = tier_parser())]
    tier: Option<Tier>,
    /// Pictures a second that are looked at
    #[arg(long, default_value_t = crate::engine::DEFAULT_FPS, value_parser = parse_fps)]
    fps: f64,
    /// Files in work at the same time [default: chosen by the number of processors]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Folder with the weights and their manifest [default: the one that came with the program]
    #[arg(long, value_name = "DIR")]
    weights: Option<PathBuf>,
}

impl EngineArgs {
    /// With nothing left open, save for labels.
    pub(super) fn options(&self) -> ScanOptions {
        let mut detectors = self.detectors.clone();
        if detectors.is_empty() {
            detectors = DetectorKind::ALL.to_vec();
        }
        // In one order and each once, so that equal requests have equal fingerprints.
        detectors.sort();
        detectors.dedup();
        ScanOptions {
            detectors,
            fps: self.fps,
            jobs: self.jobs.map_or(0, usize::from),
            device: self.device,
            tier: self.tier,
            ..ScanOptions::default()
        }
    }

    /// The weights that the networks are made of.
    pub(super) fn open_weights(&self) -> Result<WeightStore, String> {
        let weights = WeightStore::open(self.weights.as_deref()).map_err(|e| e.to_string())?;
        Ok(weights.with_precision(self.precision))
    }
}

/// How labels are judged; `scan` and `inspect` have these.
#[derive(Debug, Args)]
pub(super) struct LabelArgs {
    /// Certificates (PEM) whose C2PA signatures are trusted; none are built in, and without them no
    /// signer is checked
    #[arg(long, value_name = "FILE")]
    trust_anchors: Option<PathBuf>,
    /// Whoever uploaded the files declared them to be made by AI
    #[arg(long)]
    declared_ai: bool,
}

impl LabelArgs {
    /// How labels are read, and whether the content was declared.
    ///
    /// # Errors
    /// Trust anchors that cannot be read, or the program that cannot find itself.
    pub(super) fn resolve(&self) -> Result<(InspectOptions, bool), String> {
        let anchors = self.trust_anchors.as_deref().map(TrustAnchors::open).transpose();
        let anchors = anchors.map_err(|e| format!("--trust-anchors {e}"))?;
        let program = std::env::current_exe()
            .map_err(|e| format!("where this program is cannot be told: {e}"))?;
        let options = InspectOptions { c2pa: Some(Worker::new(program, anchors)) };
        Ok((options, self.declared_ai))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Table,
    Jsonl,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ColorChoice {
    Auto,
    Always,
    Never,
}

pub(super) fn detector_parser() -> impl clap::builder::TypedValueParser<Value = DetectorKind> {
    PossibleValuesParser::new(DetectorKind::ALL.map(DetectorKind::name)).try_map(|name| {
        DetectorKind::ALL.into_iter().find(|d| d.name() == name).ok_or("unknown detector")
    })
}

pub(super) fn tier_parser() -> impl clap::builder::TypedValueParser<Value = Tier> {
    PossibleValuesParser::new(Tier::ALL.map(Tier::name)).try_map(|name| {
        Tier::ALL.into_iter().find(|tier| tier.name() == name).ok_or("unknown tier")
    })
}

pub(super) fn parse_device(text: &str) -> Result<DeviceChoice, String> {
    match text {
        "auto" => Ok(DeviceChoice::Auto),
        "cpu" => Ok(DeviceChoice::Cpu),
        "cuda" => Ok(DeviceChoice::Cuda(0)),
        _ => text
            .strip_prefix("cuda:")
            .filter(|n| n.chars().all(|c| c.is_ascii_digit()))
            .and_then(|n| n.parse::<u16>().ok())
            .map(|n| DeviceChoice::Cuda(n.into()))
            .ok_or_else(|| "give auto, cpu, cuda or cuda:N".to_string()),
    }
}

pub(super) fn parse_precision(text: &str) -> Result<PrecisionChoice, String> {
    match text {
        "auto" => Ok(PrecisionChoice::Auto),
        "f32" => Ok(PrecisionChoice::F32),
        "bf16" if Precision::Bf16.here() == Precision::Bf16 => Ok(PrecisionChoice::Bf16),
        "bf16" => Err("this processor has no instructions for bf16 (AVX512-BF16)".to_string()),
        _ => Err("give auto, f32 or bf16".to_string()),
    }
}

pub(super) fn parse_fps(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        // Faster than any camera that these detectors were made for.
        Ok(fps) if (0.01..=240.0).contains(&fps) => Ok(fps),
        _ => Err("give a number from 0.01 to 240".to_string()),
    }
}

/// What the terminal and the environment say.
pub(super) struct Surroundings {
    stdout_is_terminal: bool,
    /// Columns of the terminal behind stdout.
    terminal_width: Option<usize>,
    /// The variable COLUMNS.
    columns: Option<String>,
    /// NO_COLOR is set and not empty, or TERM is `dumb`.
    no_color: bool,
}

impl Surroundings {
    pub(super) fn real() -> Self {
        let var = |name| std::env::var(name).ok().filter(|v| !v.is_empty());
        Self {
            stdout_is_terminal: io::stdout().is_terminal(),
            terminal_width: terminal_size::terminal_size_of(io::stdout())
                .map(|(width, _)| usize::from(width.0)),
            columns: var("COLUMNS"),
            no_color: var("NO_COLOR").is_some() || var("TERM").as_deref() == Some("dumb"),
        }
    }

    pub(super) fn style(&self, color: ColorChoice, ascii: bool) -> Style {
        let color = match color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => self.stdout_is_terminal && !self.no_color,
        };
        let columns = self.columns.as_ref().and_then(|c| c.trim().parse().ok());
        let width = columns.or(self.terminal_width).unwrap_or(Style::PIPE_WIDTH);
        Style { width: width.min(400), color, ascii }
    }
}

/// What a scan is asked to do, with nothing left open.
#[derive(Debug)]
struct Plan {
    paths: Vec<PathBuf>,
    output: Output,
    options: ScanOptions,
    labels: LabelArgs,
    store: Option<PathBuf>,
    engine: EngineArgs,
}

#[derive(Debug, PartialEq, Eq)]
enum Output {
    Table(Style),
    Jsonl,
}

impl ScanArgs {
    fn resolve(self, around: &Surroundings) -> Plan {
        let style = around.style(self.color, self.ascii);
        Plan {
            paths: self.paths,
            output: match self.format {
                Format::Table => Output::Table(style),
                Format::Jsonl => Output::Jsonl,
            },
            options: self.engine.options(),
            labels: self.labels,
            store: self.store,
            engine: self.engine,
        }
    }
}

/// Scans and gives the exit code.
pub fn run(args: ScanArgs) -> u8 {
    let plan = args.resolve(&Surroundings::real());
    match scan(plan) {
        Ok(code) => code,
        Err(message) => fail(&message),
    }
}

fn scan(mut plan: Plan) -> Result<u8, String> {
    (plan.options.inspect, plan.options.declared_ai) = plan.labels.resolve()?;
    // The store first: a mistake there should not wait for networks to be loaded.
    let store = match &plan.store {
        Some(path) => Store::open(path),
        None => Store::temporary(),
    }
    .map_err(|e| e.to_string())?;
    let weights = plan.engine.open_weights()?;
    let engine = Engine::new(plan.options, &weights).map_err(|e| e.to_string())?;
    let found = inputs::collect(&plan.paths, plan.store.as_deref());
    for entry in &found.skipped {
        complain(&format!("{}: skipped: {}", entry.path.display(), entry.why));
    }
    if found.files.is_empty() && found.unreadable.is_empty() {
        complain("no files to scan in what was named");
    }
    let sink: Box<dyn Sink + Send> = match plan.output {
        Output::Table(style) => Box::new(Table::new(io::stdout(), style)),
        Output::Jsonl => Box::new(JsonLines::new(io::stdout())),
    };
    let signals = Signals::catch()?;
    let fingerprint = engine.fingerprint();
    let session = Session::new(found.files, store, &fingerprint, sink, &signals.stop);
    for entry in &found.unreadable {
        let path = entry.path.display();
        session.add_failure(&entry.path, "unreadable", format!("{path}: {}", entry.why));
    }
    let outcome = session.run(&engine);
    if outcome.totals.not_media > 0 {
        let n = outcome.totals.not_media;
        complain(&format!("{n} files in folders skipped: not media (-v names them)"));
    }
    Ok(exit_code(&outcome, signals.caught()))
}

fn exit_code(outcome: &Outcome, interrupted: bool) -> u8 {
    if outcome.broken {
        EXIT_FAILED
    } else if interrupted {
        EXIT_INTERRUPTED
    } else if outcome.broken_pipe {
        EXIT_PIPE
    } else if outcome.totals.failed + outcome.totals.partial > 0 {
        EXIT_FAILED
    } else {
        EXIT_OK
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Totals;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Test {
        #[command(flatten)]
        scan: ScanArgs,
    }

    fn pipe() -> Surroundings {
        Surroundings {
            stdout_is_terminal: false,
            terminal_width: None,
            columns: None,
            no_color: false,
        }
    }

    fn plan(args: &[&str], around: &Surroundings) -> Plan {
        let all = ["scan"].iter().chain(args);
        Test::try_parse_from(all).unwrap().scan.resolve(around)
    }

    fn style(args: &[&str], around: &Surroundings) -> Style {
        match plan(args, around).output {
            Output::Table(style) => style,
            Output::Jsonl => panic!("jsonl"),
        }
    }

    #[test]
    fn defaults() {
        let plan = plan(&["a.mp4"], &pipe());
        assert_eq!(plan.output, Output::Table(Style { width: 100, color: false, ascii: false }));
        assert_eq!(plan.options.detectors, DetectorKind::ALL);
        assert_eq!(plan.options.device, DeviceChoice::Auto);
        assert_eq!((plan.options.fps, plan.options.jobs), (4.0, 0));
        assert!(plan.labels.trust_anchors.is_none() && !plan.labels.declared_ai);
        assert_eq!((plan.store, plan.engine.weights), (None, None));
        assert_eq!((plan.engine.precision, plan.options.tier), (PrecisionChoice::Auto, None));
    }

    #[test]
    fn values_are_resolved() {
        let plan = plan(
            &[
                "--detectors",
                "label-strip,face-swap,label-strip",
                "--device",
                "cuda:2",
                "--fps",
                "12.5",
                "--jobs",
                "3",
                "--tier",
                "accurate",
                "--format",
                "jsonl",
                "a",
                "b",
            ],
            &pipe(),
        );
        assert_eq!(plan.options.detectors, [DetectorKind::FaceSwap, DetectorKind::LabelStrip]);
        assert_eq!(plan.options.device, DeviceChoice::Cuda(2));
        assert_eq!((plan.options.fps, plan.options.jobs), (12.5, 3));
        assert_eq!(plan.options.tier, Some(Tier::Accurate));
        assert_eq!(plan.output, Output::Jsonl);
        assert_eq!(plan.paths.len(), 2);
    }

    #[test]
    fn wrong_values_are_usage_errors() {
        for args in [
            &[][..],
            &["a", "--format", "xml"],
            &["a", "--detectors", "face-swap,mood"],
            &["a", "--detectors", ""],
            &["a", "--device", "cuda:"],
            &["a", "--device", "cuda:-1"],
            &["a", "--device", "cuda:+1"],
            &["a", "--device", "gpu"],
            &["a", "--fps", "0"],
            &["a", "--fps", "NaN"],
            &["a", "--fps", "inf"],
            &["a", "--fps", "-3"],
            &["a", "--jobs", "0"],
            &["a", "--jobs", "many"],
            &["a", "--color", "red"],
            &["a", "--tier", "slow"],
            &["a", "--nonsense"],
        ] {
            let error = Test::try_parse_from(["scan"].iter().chain(args)).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{args:?}");
        }
    }

    #[test]
    fn colour_and_width_follow_the_terminal_unless_told() {
        let terminal = Surroundings {
            stdout_is_terminal: true,
            terminal_width: Some(132),
            columns: None,
            no_color: false,
        };
        assert!(style(&["a"], &terminal).color);
        assert_eq!(style(&["a"], &terminal).width, 132);
        assert!(!style(&["a", "--color", "never"], &terminal).color);
        assert!(style(&["a", "--color", "always"], &pipe()).color);
        let quiet = Surroundings { no_color: true, columns: Some("80".into()), ..terminal };
        assert!(!style(&["a"], &quiet).color);
        assert_eq!(style(&["a"], &quiet).width, 80);
        let odd = Surroundings { columns: Some("wide".into()), ..pipe() };
        assert_eq!(style(&["a"], &odd).width, 100);
    }

    #[test]
    fn exit_codes() {
        let outcome = |ok, partial, failed| Outcome {
            totals: Totals { ok, partial, failed, not_media: 5, ..Totals::default() },
            ..Outcome::default()
        };
        assert_eq!(exit_code(&outcome(3, 0, 0), false), 0);
        assert_eq!(exit_code(&outcome(3, 1, 0), false), 1);
        assert_eq!(exit_code(&outcome(3, 0, 1), false), 1);
        assert_eq!(exit_code(&outcome(3, 0, 1), true), 130);
        let pipe = Outcome { broken_pipe: true, ..outcome(1, 0, 0) };
        assert_eq!(exit_code(&pipe, false), 141);
        let broken = Outcome { broken: true, ..outcome(1, 0, 0) };
        assert_eq!(exit_code(&broken, true), 1);
    }
}
