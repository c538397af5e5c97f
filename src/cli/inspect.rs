//! `veriscope inspect`: labels, and what is left of them, without networks and decoders.

use std::io::{self, IsTerminal as _};
use std::panic::catch_unwind;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use rayon::prelude::*;

use super::inputs::{self, Input, named_like_media};
use super::scan::{ColorChoice, Format, LabelArgs, Surroundings};
use super::{EXIT_FAILED, EXIT_OK, EXIT_PIPE, complain, fail};
use crate::detect::label_strip;
use crate::provenance::{self, Findings, InspectError, InspectOptions};
use crate::report::inspection::{Inspection, InspectionSink, LabelStrip};
use crate::report::jsonl::JsonLines;
use crate::report::table::InspectionTable;
use crate::report::{SCHEMA_VERSION, Status, path_text};
use crate::verdict::disposition::disposition;

/// Finished inspections that wait to be written.
const WAITING: usize = 64;

/// Read the labels of media (AIGC, C2PA, IPTC, generators' traces) and what shows that one was taken off
///
/// No network is run, nothing is decoded and nothing is fetched: a file's metadata is read, and C2PA
/// signatures are verified, each file in a process of its own. Folders are walked as by `scan`. Files
/// in folders whose container is not known are counted as skipped, unless their name ends like that
/// of media.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Exit codes:
  0    the labels of every file were read
  1    some files could not be read, or only in part; each cause is on stderr and in the output
  2    wrong usage
  141  the reader of stdout went away")]
pub struct InspectArgs {
    /// Files and folders
    #[arg(required = true, value_name = "FILE")]
    paths: Vec<PathBuf>,
    /// table: for people; jsonl: one JSON object a line and file (docs/report.md)
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Files in work at the same time [default: the number of processors]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    #[command(flatten)]
    labels: LabelArgs,
    /// Colours in the table
    #[arg(long, value_enum, default_value_t = ColorChoice::Auto)]
    color: ColorChoice,
    /// Draw the table with ASCII characters only
    #[arg(long)]
    ascii: bool,
}

pub fn run(args: InspectArgs) -> u8 {
    match inspect(&args) {
        Ok(code) => code,
        Err(message) => fail(&message),
    }
}

fn inspect(args: &InspectArgs) -> Result<u8, String> {
    let (options, declared_ai) = args.labels.resolve()?;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(args.jobs.map_or(0, usize::from))
        .thread_name(|n| format!("inspect-{n}"))
        .build()
        .map_err(|e| format!("threads cannot be started: {e}"))?;
    let found = inputs::collect(&args.paths, None);
    for entry in &found.skipped {
        complain(&format!("{}: skipped: {}", entry.path.display(), entry.why));
    }
    if found.files.is_empty() && found.unreadable.is_empty() {
        complain("no files to inspect in what was named");
    }
    let mut sink: Box<dyn InspectionSink> = match args.format {
        Format::Table => {
            let style = Surroundings::real().style(args.color, args.ascii);
            Box::new(InspectionTable::new(io::stdout(), style))
        }
        Format::Jsonl => Box::new(JsonLines::new(io::stdout())),
    };
    let mut tally = Tally::default();
    for entry in &found.unreadable {
        let message = format!("{}: {}", path_text(&entry.path), entry.why);
        let failed = Inspection::failed(path_text(&entry.path), "unreadable", message);
        tally.write(&mut *sink, &failed);
    }
    let stop = AtomicBool::new(false);
    let (send, receive) = crossbeam_channel::bounded(WAITING);
    std::thread::scope(|scope| {
        let (files, stop, options) = (&found.files, &stop, &options);
        scope.spawn(move || {
            pool.install(|| {
                files.par_iter().for_each(|file| {
                    if !stop.load(Ordering::Relaxed) {
                        // Nobody takes it any more where writing failed.
                        let _ = send.send(one(file, options, declared_ai));
                    }
                });
            });
        });
        for inspection in receive {
            match inspection {
                Some(inspection) => tally.write(&mut *sink, &inspection),
                None => tally.skipped += 1,
            }
            if tally.broken.is_some() {
                stop.store(true, Ordering::Relaxed);
            }
        }
    });
    if tally.skipped > 0 {
        complain(&format!("{} files in folders skipped: not media known here", tally.skipped));
    }
    match tally.broken {
        Some(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(EXIT_PIPE),
        Some(e) => Err(format!("stdout: {e}")),
        None if tally.failed => Ok(EXIT_FAILED),
        None => Ok(EXIT_OK),
    }
}

#[derive(Default)]
struct Tally {
    failed: bool,
    skipped: usize,
    /// Why nothing more can be written.
    broken: Option<io::Error>,
}

impl Tally {
    fn write(&mut self, sink: &mut dyn InspectionSink, inspection: &Inspection) {
        if self.broken.is_some() {
            return;
        }
        if let Some(error) = &inspection.error {
            self.failed = true;
            // On a terminal the table above says it.
            if !(io::stdout().is_terminal() && io::stderr().is_terminal()) {
                complain(&error.message);
            }
        }
        self.broken = sink.inspection(inspection).err();
    }
}

/// None: a file of a folder that is no media of a kind that is known here.
fn one(file: &Input, options: &InspectOptions, declared_ai: bool) -> Option<Inspection> {
    let path = path_text(&file.path);
    // A defect that one file brings out costs that file.
    let inspected = catch_unwind(|| provenance::inspect_with(&file.path, options));
    let findings = match inspected {
        Err(_) => {
            let message = format!("{path}: a defect in this program");
            return Some(Inspection::failed(path, "internal_error", message));
        }
        Ok(Ok(findings)) => findings,
        Ok(Err(error)) => {
            let code = match error {
                InspectError::NotAFile { .. } => "not_a_file",
                InspectError::Io { .. } => "unreadable",
            };
            return Some(Inspection::failed(path, code, error.to_string()));
        }
    };
    if findings.container.is_none() && !file.named && !named_like_media(&file.path) {
        return None;
    }
    Some(inspection(path, file.bytes, findings, declared_ai))
}

fn inspection(path: String, bytes: u64, findings: Findings, declared_ai: bool) -> Inspection {
    let (_, segments) = label_strip::judge(&findings, None);
    let judged = segments.into_iter().next();
    let disposition = disposition(&findings.labels, &findings.strip_evidence, &[], declared_ai);
    let reasons = judged.as_ref().map(|s| s.reasons.clone()).unwrap_or_default();
    let container = findings.container.map(str::to_owned);
    // What holds for the file comes first: that nothing, or not all of it, could be read.
    let failed = |status, code: &str, what: &str| {
        let failed = Inspection::failed(path.clone(), code, format!("{path}: {what}"));
        (status, failed.error)
    };
    let (status, error) = match (&container, reasons.first()) {
        (None, _) if bytes == 0 => failed(Status::Failed, "empty", "no bytes"),
        (None, _) => {
            let what = "the labels of this kind of file are not read";
            failed(Status::Failed, "unread_container", what)
        }
        (_, Some(reason)) => failed(Status::Partial, "partly_read", &reason.detail),
        _ => (Status::Ok, None),
    };
    Inspection {
        schema_version: SCHEMA_VERSION,
        status,
        error,
        path,
        bytes: Some(bytes),
        container,
        labels: findings.labels,
        strip_evidence: findings.strip_evidence,
        label_strip: judged.map(|segment| LabelStrip {
            probability: segment.probability,
            uncertainty: segment.uncertainty,
            verdict: segment.verdict,
        }),
        disposition,
        reasons,
    }
}
