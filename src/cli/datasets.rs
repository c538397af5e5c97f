//! `veriscope datasets`: what data sets there are by their manifests, and whether one is whole.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};

use super::weights::columns;
use super::{EXIT_FAILED, EXIT_OK, EXIT_USAGE, complain, fail, print};
use crate::bench::dataset::{DatasetError, Manifest, Request, Verification, verify};

/// Data sets by manifest: list or verify
#[derive(Debug, Args)]
pub struct DatasetsArgs {
    #[command(subcommand)]
    command: DatasetsCommand,
}

#[derive(Debug, Subcommand)]
enum DatasetsCommand {
    /// What manifests say: kind, layout, splits, licence, source, consent
    #[command(after_long_help = "\
Examples:
  veriscope datasets list
  veriscope datasets list my-sets/ datasets/celeb-df-v2.toml --format jsonl

Exit codes:
  0    every manifest is whole
  1    a manifest cannot be used; file, field and cause are on stderr, the others are listed
  2    wrong usage
  141  the reader of stdout went away")]
    List {
        /// Manifests, or folders with manifests (*.toml) [default: those that came with the program]
        #[arg(value_name = "DIR|MANIFEST")]
        paths: Vec<PathBuf>,
        /// jsonl: one JSON object a manifest and line
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
    /// Name what is missing, altered, listed twice, or in two splits at once
    ///
    /// Also an identity, speaker or clip that is in two splits is a fault (a leak), unless the manifest
    /// says under `overlap` why the set is made so. Content is compared where the manifest or the index
    /// has a SHA-256. Files that nothing lists are only counted. At most 1,000 of each fault are named.
    #[command(after_long_help = "\
Examples:
  veriscope datasets verify datasets/celeb-df-v2.toml --root /data/Celeb-DF-v2
  veriscope datasets verify my-set.toml --split test

Exit codes:
  0    nothing is wrong
  1    something is wrong; stdout names it. Or the manifest or a list cannot be read; stderr says why
  2    wrong usage: also a split that the manifest does not have
  141  the reader of stdout went away")]
    Verify {
        manifest: PathBuf,
        /// The folder of the media [default: what the manifest says, else its own folder]
        #[arg(long, value_name = "DIR")]
        root: Option<PathBuf>,
        /// Only this split's files; of layouts with a list a split, only that list is read, so that
        /// what is in two splits cannot be told
        #[arg(long, value_name = "NAME")]
        split: Option<String>,
        /// jsonl: the whole result as one JSON object
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Jsonl,
}

pub fn run(args: &DatasetsArgs) -> u8 {
    match &args.command {
        DatasetsCommand::List { paths, format } => list(paths, *format),
        DatasetsCommand::Verify { manifest, root, split, format } => {
            let request =
                Request { manifest: manifest.clone(), root: root.clone(), split: split.clone() };
            check(&request, *format)
        }
    }
}

fn list(paths: &[PathBuf], format: Format) -> u8 {
    let shipped = [shipped()];
    let paths = if paths.is_empty() { &shipped[..] } else { paths };
    let mut code = EXIT_OK;
    let mut manifests = Vec::new();
    for path in paths {
        match manifests_of(path) {
            Ok(found) => manifests.extend(found),
            Err(error) => code = fail(&error),
        }
    }
    let head = ["NAME", "KIND", "LAYOUT", "SPLITS", "LICENCE", "MANIFEST"];
    let mut rows = vec![head.map(String::from).to_vec()];
    let mut lines = String::new();
    for path in manifests {
        let manifest = match Manifest::read(&path) {
            Ok(manifest) => manifest,
            Err(error) => {
                code = fail(&error.to_string());
                continue;
            }
        };
        match format {
            Format::Jsonl => match serde_json::to_string(&manifest) {
                Ok(line) => lines += &(line + "\n"),
                Err(error) => code = fail(&format!("{}: {error}", path.display())),
            },
            Format::Table => rows.push(vec![
                manifest.name,
                manifest.kind.name().to_owned(),
                manifest.layout.name().to_owned(),
                manifest.splits.into_keys().collect::<Vec<_>>().join(" "),
                cut(&manifest.licence, 48),
                path.display().to_string(),
            ]),
        }
    }
    match format {
        Format::Jsonl => print(&lines, code),
        Format::Table => print(&columns(&rows), code),
    }
}

/// Text short enough for a table.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

/// Where the manifests lie that came with the program: as with weights, beside it, in its `share`,
/// in the folder it was built from.
fn shipped() -> PathBuf {
    let mut folders = Vec::new();
    if let Ok(program) = std::env::current_exe()
        && let Some(beside) = program.parent()
    {
        folders.push(beside.join("datasets"));
        folders.push(beside.join("../share/veriscope/datasets"));
    }
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets");
    folders.into_iter().find(|folder| folder.is_dir()).unwrap_or(built)
}

fn manifests_of(path: &Path) -> Result<Vec<PathBuf>, String> {
    let wrong = |e: std::io::Error| format!("{}: {e}", path.display());
    if !std::fs::metadata(path).map_err(wrong)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(wrong)? {
        let file = entry.map_err(wrong)?.path();
        if file.extension().is_some_and(|e| e == "toml") && file.is_file() {
            found.push(file);
        }
    }
    if found.is_empty() {
        return Err(format!("{}: no manifest (*.toml) in this folder", path.display()));
    }
    found.sort();
    Ok(found)
}

fn check(request: &Request, format: Format) -> u8 {
    let result = match verify(request) {
        Ok(result) => result,
        Err(error) => {
            let usage = request.split.is_some() && no_such_split(&error, request);
            complain(&error.to_string());
            return if usage { EXIT_USAGE } else { EXIT_FAILED };
        }
    };
    let code = if result.whole() { EXIT_OK } else { EXIT_FAILED };
    match format {
        Format::Table => print(&table(&result), code),
        Format::Jsonl => match serde_json::to_string(&result) {
            Ok(line) => print(&(line + "\n"), code),
            Err(error) => fail(&format!("{}: {error}", request.manifest.display())),
        },
    }
}

/// The manifest is whole, and what was asked for is not in it.
fn no_such_split(error: &DatasetError, request: &Request) -> bool {
    error.field.as_deref() == Some("splits")
        && Manifest::read(&request.manifest)
            .is_ok_and(|m| request.split.as_ref().is_some_and(|s| !m.splits.contains_key(s)))
}

fn table(result: &Verification) -> String {
    let mut text = String::new();
    let mut rows: Vec<Vec<String>> = result
        .findings
        .iter()
        .map(|f| vec![f.fault.words().to_owned(), printable(&f.what), printable(&f.detail)])
        .collect();
    for (fault, count) in &result.counts {
        let named = result.findings.iter().filter(|f| f.fault == *fault).count() as u64;
        if *count > named {
            let more = format!("and {} more", count - named);
            rows.push(vec![fault.words().to_owned(), more, String::new()]);
        }
    }
    text += &columns(&rows);
    let split = result.split.as_ref().map_or(String::new(), |s| format!(", split {s}"));
    // Writing to a String does not fail.
    let _ = write!(
        text,
        "{}{split}: {} files listed ({} real, {} fake), {} compared by SHA-256",
        result.name, result.listed, result.real, result.fake, result.compared
    );
    if let Some(extra) = result.extra {
        let _ = write!(text, ", {extra} files that nothing lists");
    }
    if result.overlapping > 0 {
        let _ = write!(
            text,
            ", {} identities in several splits (the manifest says why)",
            result.overlapping
        );
    }
    let faults: Vec<String> =
        result.counts.iter().map(|(fault, n)| format!("{n} {}", fault.words())).collect();
    let verdict = if faults.is_empty() { "nothing is wrong".to_owned() } else { faults.join(", ") };
    let _ = writeln!(text, "\n{verdict}");
    text
}

/// Names come from lists and disks: nothing of them may steer a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
