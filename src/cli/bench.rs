//! `veriscope bench`: metrics of any detector's scores.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};

use super::{EXIT_OK, EXIT_USAGE, bench_run, complain, fail};
use crate::bench::evaluate::{self, Scale, evaluate, evaluate_localization, evaluate_sasv};
use crate::bench::hints::{Setting, hints};
use crate::bench::metrics::bootstrap::Units;
use crate::bench::metrics::localization::Localization;
use crate::bench::metrics::tandem::{AsvRates, SasvClass, SasvTrials, asv_rates};
use crate::bench::metrics::{Metric, Ranked, operating, paired};
use crate::bench::output::{Bootstrap, Counts, Drawn, Entries, Level, Output, Transfers, Versus};
use crate::bench::protocol::table::{self, Benchmark, Columns};
use crate::bench::protocol::{Direction, Reading, Trials, av_deepfake1m, deepfakebench};

/// Judge any detector by its scores
#[derive(Debug, Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    Metrics(Box<MetricsArgs>),
    Run(bench_run::RunArgs),
}

/// Compute metrics over a score file and print them as JSON
///
/// AUC, AP, EER (ASVspoof's and the convex hull's), TPR at 1 % and 0.1 % FPR, rates at a threshold
/// that was fixed beforehand, minDCF, actDCF, Cllr, min Cllr, min t-DCF, a-DCF, Brier score, ECE, risk and
/// coverage, AP@IoU and AR@N; with 95 % bootstrap intervals over speakers, identities or videos where
/// they are known, else over files. The same seed gives the same numbers. A metric without a meaning
/// for these scores is absent, with a code and a sentence, never a number. docs/bench.md defines all of
/// them, the protocols' files and the errors.
///
/// Files may be gzipped. Hints go to stderr; one is loud: an AUC below 0.5 mostly means that the sign
/// is wrong.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  veriscope bench metrics --protocol asvspoof2019-la --scores scores.txt --asv-scores asv.txt
  veriscope bench metrics --protocol asvspoof2021-df --scores scores.txt --key trial_metadata.txt
  veriscope bench metrics --protocol csv --scores s.tsv --direction higher-is-fake --groups identity
  veriscope bench metrics --protocol av-deepfake1m --scores proposals.json --key val_metadata.json

Exit codes:
  0    the metrics are on stdout
  1    a file cannot be evaluated; file, line and cause are on stderr
  2    wrong usage
  141  the reader of stdout went away")]
struct MetricsArgs {
    /// What the files are
    #[arg(long, value_name = "NAME")]
    protocol: Protocol,
    /// The detector's scores
    #[arg(long, value_name = "FILE")]
    scores: PathBuf,
    /// The truth, where the score file does not hold it
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// A speaker verifier's scores, for min t-DCF: three columns, the second target, nontarget or spoof
    #[arg(long, value_name = "FILE")]
    asv_scores: Option<PathBuf>,
    /// Which end of a score means fake [default: higher-is-real for ASVspoof, higher-is-fake for
    /// DeepfakeBench; a CSV has none and must say]
    #[arg(long)]
    direction: Option<DirectionArg>,
    /// What scores are. Cllr and actDCF need llr (natural logarithm of a likelihood ratio) or
    /// probability (at equal prior odds), ECE and Brier need probability [default: llr for
    /// ASVspoof 5, probability for DeepfakeBench, else raw]
    #[arg(long)]
    scale: Option<ScaleArg>,
    /// A threshold that was fixed beforehand, in the file's direction: fake is what lies at it or beyond
    #[arg(long, value_name = "T", allow_negative_numbers = true, value_parser = finite)]
    threshold: Option<f64>,
    /// Column of a CSV whose groups the bootstrap draws; `file`: single files whatever is known
    #[arg(long, value_name = "COLUMN")]
    groups: Option<String>,
    /// Part of the key that counts [default: eval for ASVspoof 2021, test for DeepfakeBench]
    #[arg(long, value_name = "NAME")]
    subset: Option<String>,
    /// Bootstrap rounds; 0: no intervals
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(..=100_000))]
    rounds: u32,
    /// Seed of the bootstrap
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Another detector's scores of the same files: does it differ? (DeLong, paired bootstrap)
    #[arg(long, value_name = "FILE")]
    versus: Option<PathBuf>,
    /// Scores of other files, to fix thresholds on that are then used here
    #[arg(long, value_name = "FILE")]
    threshold_from: Option<PathBuf>,
    /// The truth to --threshold-from
    #[arg(long, value_name = "FILE", requires = "threshold_from")]
    threshold_key: Option<PathBuf>,
    /// CSV: column of names [default: file, path, filename or name]
    #[arg(long, value_name = "COLUMN")]
    file_column: Option<String>,
    /// CSV: column of scores; an empty one is a file that was not judged
    #[arg(long, value_name = "COLUMN", default_value = "score")]
    score_column: String,
    /// CSV: column of labels
    #[arg(long, value_name = "COLUMN", default_value = "label")]
    label_column: String,
    /// CSV: the label that means fake; the one other label means real [default: fake, spoof, … and real,
    /// bonafide, …]
    #[arg(long, value_name = "LABEL")]
    fake_label: Option<String>,
    /// AV-Deepfake1M: proposals' units of time a second (25 where they are frames)
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = positive)]
    proposal_fps: f32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Protocol {
    /// ASVspoof 2019: `file score` with the CM protocol as key, or `file attack key score`
    #[value(name = "asvspoof2019-la")]
    Asvspoof2019La,
    /// ASVspoof 2019 PA, likewise
    #[value(name = "asvspoof2019-pa")]
    Asvspoof2019Pa,
    /// ASVspoof 2021 LA: `file score`, key trial_metadata.txt
    #[value(name = "asvspoof2021-la")]
    Asvspoof2021La,
    /// ASVspoof 2021 PA
    #[value(name = "asvspoof2021-pa")]
    Asvspoof2021Pa,
    /// ASVspoof 2021 DF
    #[value(name = "asvspoof2021-df")]
    Asvspoof2021Df,
    /// ASVspoof 5, track 1: `filename cm-score` or `speaker file score key`
    #[value(name = "asvspoof5")]
    Asvspoof5,
    /// a-DCF (ASVspoof 5, track 2): `speaker file score target|nontarget|spoof`
    Sasv,
    /// Frame scores as JSON, key a data set's JSON
    #[value(name = "deepfakebench")]
    DeepfakeBench,
    /// Proposals in time as JSON, key the metadata
    #[value(name = "av-deepfake1m")]
    AvDeepfake1m,
    /// Commas or tabs, a header: file, score, label
    Csv,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum DirectionArg {
    HigherIsFake,
    HigherIsReal,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ScaleArg {
    Raw,
    Llr,
    Probability,
}

fn finite(text: &str) -> Result<f64, String> {
    text.parse::<f64>().ok().filter(|t| t.is_finite()).ok_or_else(|| "no finite number".to_owned())
}

fn positive(text: &str) -> Result<f32, String> {
    let positive = |t: &f32| t.is_finite() && *t > 0.0;
    text.parse::<f32>().ok().filter(positive).ok_or_else(|| "no positive number".to_owned())
}

pub fn run(args: &BenchArgs) -> u8 {
    let args = match &args.command {
        BenchCommand::Metrics(args) => args,
        BenchCommand::Run(args) => return bench_run::run(args),
    };
    let output = match args.misused() {
        Some(usage) => {
            complain(&usage);
            return EXIT_USAGE;
        }
        None => metrics(args),
    };
    let output = match output {
        Ok(output) => output,
        Err(message) => return fail(&message),
    };
    for hint in &output.hints {
        complain(hint);
    }
    match serde_json::to_string_pretty(&output) {
        Ok(json) => super::print(&format!("{json}\n"), EXIT_OK),
        Err(e) => fail(&format!("the metrics cannot be written as JSON: {e}")),
    }
}

impl MetricsArgs {
    /// What does not go together.
    fn misused(&self) -> Option<String> {
        let protocol = self.protocol;
        let scored = !matches!(protocol, Protocol::Sasv | Protocol::AvDeepfake1m);
        let given = [
            (self.direction.is_some(), "--direction", scored),
            (self.scale.is_some(), "--scale", scored),
            (self.threshold.is_some(), "--threshold", scored),
            (self.versus.is_some(), "--versus", scored),
            (self.threshold_from.is_some(), "--threshold-from", scored),
            (self.key.is_some(), "--key", protocol != Protocol::Sasv),
            (
                self.asv_scores.is_some(),
                "--asv-scores",
                self.benchmark().is_some() && protocol != Protocol::Csv,
            ),
            (self.subset.is_some(), "--subset", self.default_subset().is_some()),
            (self.file_column.is_some(), "--file-column", protocol == Protocol::Csv),
            (self.score_column != "score", "--score-column", protocol == Protocol::Csv),
            (self.label_column != "label", "--label-column", protocol == Protocol::Csv),
            (self.fake_label.is_some(), "--fake-label", protocol == Protocol::Csv),
            (self.proposal_fps != 1.0, "--proposal-fps", protocol == Protocol::AvDeepfake1m),
        ];
        if let Some((_, name, _)) = given.iter().find(|(given, _, fits)| *given && !fits) {
            return Some(format!("{name} has no meaning for this protocol"));
        }
        if protocol == Protocol::Csv && self.direction.is_none() {
            return Some(
                "a CSV needs --direction higher-is-fake or higher-is-real: nothing else says which \
                 end of a score means fake"
                    .to_owned(),
            );
        }
        if protocol == Protocol::AvDeepfake1m && self.key.is_none() {
            return Some("av-deepfake1m needs --key, the data set's metadata".to_owned());
        }
        match self.groups.as_deref() {
            Some(groups) if groups != "file" && protocol != Protocol::Csv => {
                Some("--groups takes a column of a CSV; of other protocols only `file`".to_owned())
            }
            _ => None,
        }
    }

    fn benchmark(&self) -> Option<Benchmark> {
        match self.protocol {
            Protocol::Asvspoof2019La | Protocol::Asvspoof2019Pa => Some(Benchmark::Asvspoof2019),
            Protocol::Asvspoof2021La => Some(Benchmark::Asvspoof2021La),
            Protocol::Asvspoof2021Pa => Some(Benchmark::Asvspoof2021Pa),
            Protocol::Asvspoof2021Df => Some(Benchmark::Asvspoof2021Df),
            Protocol::Asvspoof5 => Some(Benchmark::Asvspoof5),
            Protocol::Csv => Some(Benchmark::Csv),
            Protocol::Sasv | Protocol::DeepfakeBench | Protocol::AvDeepfake1m => None,
        }
    }

    fn default_subset(&self) -> Option<&'static str> {
        match self.protocol {
            Protocol::Asvspoof2021La | Protocol::Asvspoof2021Pa | Protocol::Asvspoof2021Df => {
                Some("eval")
            }
            Protocol::DeepfakeBench => Some("test"),
            _ => None,
        }
    }

    fn reading(&self) -> Reading {
        let direction = match (self.direction, self.protocol) {
            (Some(DirectionArg::HigherIsFake), _) | (None, Protocol::DeepfakeBench) => {
                Direction::HigherIsFake
            }
            (Some(DirectionArg::HigherIsReal), _) | (None, _) => Direction::HigherIsReal,
        };
        let scale = match (self.scale, self.protocol) {
            (Some(ScaleArg::Llr), _) | (None, Protocol::Asvspoof5) => Scale::Llr,
            (Some(ScaleArg::Probability), _) | (None, Protocol::DeepfakeBench) => {
                Scale::Probability
            }
            (Some(ScaleArg::Raw), _) | (None, _) => Scale::Raw,
        };
        Reading { direction, scale }
    }

    /// Reads one file of scores with its key.
    fn read(&self, scores: &Path, key: Option<&Path>) -> Result<Trials, String> {
        let subset = self.subset.as_deref().or(self.default_subset());
        let trials = match self.benchmark() {
            Some(benchmark) => {
                let options = table::Options {
                    benchmark,
                    reading: self.reading(),
                    subset: subset.map(str::to_owned),
                    columns: Columns {
                        file: self.file_column.clone(),
                        score: self.score_column.clone(),
                        label: self.label_column.clone(),
                        fake_label: self.fake_label.clone(),
                    },
                    groups: self.groups.clone(),
                };
                table::read(scores, key, &options)
            }
            None => deepfakebench::read(scores, key, subset.unwrap_or("test"), self.reading()),
        };
        trials.map_err(|e| e.to_string())
    }

    fn output(&self) -> Output {
        let name = self.protocol.to_possible_value();
        Output {
            protocol: name.map(|n| n.get_name().to_owned()).unwrap_or_default(),
            scores: self.scores.display().to_string(),
            key: self.key.as_ref().map(|k| k.display().to_string()),
            direction: None,
            scale: None,
            threshold: self.threshold,
            not_judged: 0,
            outside_subset: 0,
            bootstrap: Bootstrap::new(self.rounds, self.seed),
            asv: None,
            levels: Vec::new(),
            versus: None,
            transfer: None,
            hints: Vec::new(),
        }
    }
}

fn metrics(args: &MetricsArgs) -> Result<Output, String> {
    match args.protocol {
        Protocol::Sasv => sasv(args),
        Protocol::AvDeepfake1m => localization(args),
        _ => detection(args),
    }
}

fn detection(args: &MetricsArgs) -> Result<Output, String> {
    let mut output = args.output();
    let reading = args.reading();
    let trials = args.read(&args.scores, args.key.as_deref())?;
    let asv = args.asv_scores.as_deref().map(verifier).transpose()?;
    output.direction = Some(reading.direction);
    output.scale = Some(reading.scale);
    output.asv = asv;
    output.not_judged = trials.not_judged;
    output.outside_subset = trials.outside_subset;
    if trials.not_judged > 0 {
        output.hints.push(format!(
            "{}: {} files have no score and are in no metric",
            args.scores.display(),
            trials.not_judged
        ));
    }
    // Levels of the same scores, the one that others are compared on last.
    let levels = if args.protocol == Protocol::DeepfakeBench {
        let videos = deepfakebench::videos(&trials);
        vec![("frame", trials), ("video", videos)]
    } else {
        vec![("file", trials)]
    };
    let options = evaluate::Options {
        scale: reading.scale,
        threshold: args.threshold.map(|t| reading.turn(t)),
        asv,
        rounds: args.rounds,
        seed: args.seed,
    };
    for (name, trials) in &levels {
        let ranked = rank(trials, &args.scores)?;
        let (units, kind) = trials.units();
        // A video that stands for its frames is what is drawn.
        let kind = if *name == "video" { "video" } else { kind };
        let evaluation = evaluate(&ranked, &units, &options)
            .map_err(|absent| format!("{}, {name} level: {absent}", args.scores.display()))?;
        let counts = Counts::Classes {
            fake: ranked.fakes(),
            real: ranked.reals(),
            distinct_scores: ranked.distinct() as u64,
        };
        let level = Level::of(name, counts, drawn(&units, kind), evaluation, reading);
        let file = args.scores.display().to_string();
        let setting = Setting::Argument;
        output.hints.extend(hints(&file, &level, &ranked, reading, args.rounds, setting));
        output.levels.push(level);
    }
    let Some((level, trials)) = levels.into_iter().next_back() else { return Ok(output) };
    let ranked = rank(&trials, &args.scores)?;
    if let Some(path) = &args.versus {
        let other = pooled(args, args.read(path, args.key.as_deref())?);
        output.versus = Some(versus(args, path, level, &trials, &ranked, &other)?);
    }
    if let Some(path) = &args.threshold_from {
        let there = pooled(args, args.read(path, args.threshold_key.as_deref())?);
        let there = rank(&there, path)?;
        output.transfer = Some(transfers(path, reading, &there, &ranked));
    }
    Ok(output)
}

/// Videos of DeepfakeBench's frames; else what it was.
fn pooled(args: &MetricsArgs, trials: Trials) -> Trials {
    match args.protocol {
        Protocol::DeepfakeBench => deepfakebench::videos(&trials),
        _ => trials,
    }
}

fn rank(trials: &Trials, path: &Path) -> Result<Ranked, String> {
    // Readers let finite scores through only, and fewer than 2³².
    Ranked::new(&trials.scores, &trials.fake)
        .ok_or_else(|| format!("{}: scores cannot be ranked", path.display()))
}

fn drawn(units: &Units, kind: &str) -> Drawn {
    Drawn { kind: kind.to_owned(), count: units.count() as u64 }
}

fn verifier(path: &Path) -> Result<AsvRates, String> {
    let asv = table::read_asv(path).map_err(|e| e.to_string())?;
    asv_rates(&asv.targets, &asv.nontargets, &asv.spoofs)
        .map_err(|absent| format!("{}: {absent}", path.display()))
}

fn versus(
    args: &MetricsArgs,
    path: &Path,
    level: &str,
    trials: &Trials,
    ranked: &Ranked,
    other: &Trials,
) -> Result<Versus, String> {
    let (a, b) = (args.scores.display(), path.display());
    let mut places: std::collections::HashMap<&str, usize> = std::collections::HashMap::new();
    for (i, name) in other.names.iter().enumerate() {
        places.insert(name, i);
    }
    let mut scores = Vec::with_capacity(trials.names.len());
    for (i, name) in trials.names.iter().enumerate() {
        let Some(&at) = places.get(name.as_ref()) else {
            return Err(format!("{b}: has no score of '{name}', which {a} has"));
        };
        if other.fake[at] != trials.fake[i] {
            return Err(format!("{b}: '{name}' has another label than in {a}"));
        }
        scores.push(other.scores[at]);
    }
    if other.names.len() != trials.names.len() {
        return Err(format!(
            "{b}: has {} scores and {a} {}: a paired test needs the same files",
            other.names.len(),
            trials.names.len()
        ));
    }
    let other = Ranked::new(&scores, &trials.fake)
        .ok_or_else(|| format!("{b}: scores cannot be ranked"))?;
    let (units, _) = trials.units();
    Ok(Versus {
        scores: b.to_string(),
        level: level.to_owned(),
        delong: paired::delong(ranked, &other),
        bootstrap: paired::paired_bootstrap(ranked, &other, &units, args.rounds, args.seed),
    })
}

fn transfers(path: &Path, reading: Reading, there: &Ranked, here: &Ranked) -> Transfers {
    let taken = |threshold: Metric| {
        let mut transfer = operating::transfer(threshold?, there, here)?;
        transfer.threshold = reading.turn(transfer.threshold);
        Ok(transfer)
    };
    Transfers {
        from: path.display().to_string(),
        eer_asvspoof: taken(operating::eer_threshold(there)),
        fpr_1pct: taken(operating::threshold_at(there, 100)),
    }
}

fn sasv(args: &MetricsArgs) -> Result<Output, String> {
    let mut output = args.output();
    let sasv = table::read_sasv(&args.scores).map_err(|e| e.to_string())?;
    let trials = SasvTrials::new(&sasv.scores, &sasv.classes)
        .ok_or_else(|| format!("{}: scores cannot be ranked", args.scores.display()))?;
    let count = |class| sasv.classes.iter().filter(|&&c| c == class).count() as u64;
    let (units, kind) = if args.groups.is_some() {
        (Units::Trials(sasv.scores.len()), "trial")
    } else {
        let units = Units::Groups { of: sasv.groups.of, count: sasv.groups.count };
        (units, "speaker")
    };
    output.levels.push(Level {
        level: "trial".to_owned(),
        counts: Counts::Sasv {
            target: count(SasvClass::Target),
            nontarget: count(SasvClass::Nontarget),
            spoof: count(SasvClass::Spoof),
        },
        units: drawn(&units, kind),
        metrics: Entries(evaluate_sasv(&trials, &units, args.rounds, args.seed)),
        thresholds: None,
        reliability: None,
        risk_coverage: None,
    });
    Ok(output)
}

fn localization(args: &MetricsArgs) -> Result<Output, String> {
    let mut output = args.output();
    let Some(key) = &args.key else { return Err("av-deepfake1m needs --key".to_owned()) };
    let found =
        av_deepfake1m::read(&args.scores, key, args.proposal_fps).map_err(|e| e.to_string())?;
    let file = args.scores.display();
    let table = Localization::new(&found.files).map_err(|absent| format!("{file}: {absent}"))?;
    let (units, kind) = match &found.groups {
        Some(groups) if args.groups.is_none() => {
            let units = Units::Groups { of: groups.of.clone(), count: groups.count };
            (units, groups.kind.as_str())
        }
        _ => (table.units(), "file"),
    };
    let metrics = evaluate_localization(&table, &units, args.rounds, args.seed)
        .map_err(|absent| format!("{file}: {absent}"))?;
    output.not_judged = found.not_judged;
    if found.not_judged > 0 {
        output.hints.push(format!(
            "{file}: {} files of the key are not there and in no metric",
            found.not_judged
        ));
    }
    if found.unsorted > 0 {
        output.hints.push(format!(
            "{file}: proposals of {} files did not come by falling confidence and were sorted; the \
             data set's own package takes them as they come",
            found.unsorted
        ));
    }
    if found.empty > 0 {
        output.hints.push(format!(
            "{file}: {} files with forged stretches have no proposals; ar@N leaves them out, as the \
             data set's own package does, ar@N_complete counts them as missed",
            found.empty
        ));
    }
    output.levels.push(Level {
        level: "file".to_owned(),
        counts: Counts::Located {
            files: found.files.len() as u64,
            stretches: found.files.iter().map(|f| f.truth.len() as u64).sum(),
            proposals: found.files.iter().map(|f| f.proposals.len() as u64).sum(),
        },
        units: drawn(&units, kind),
        metrics: Entries(metrics),
        thresholds: None,
        reliability: None,
        risk_coverage: None,
    });
    Ok(output)
}
