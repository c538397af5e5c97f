//! `veriscope score`: one row a file, for evaluations on anybody's own set.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;

use super::{EXIT_FAILED, EXIT_OK, EXIT_PIPE, EXIT_USAGE, complain, fail};
use crate::detect::Tier;
use crate::detect::imported_face::ImportedFace;
use crate::detect::imported_voice::ImportedVoice;
use crate::engine::score::{ImportedFaces, Scored, score_imported};
use crate::engine::{DeviceChoice, Engine, ScanOptions};
use crate::models::weights::{PrecisionChoice, WeightStore};
use crate::report::DetectorKind;

/// Score the files of a list with one detector and write TSV: path, score, probability, reasons
///
/// One row a file, in the list's order; for a video or a sound it is its strongest track's pooled
/// score. Higher means fake. A file that could not be judged has empty score and probability, and
/// its reasons say why; exit code 1 where a file could not be read.
///
/// With --network a published network judges, as its authors' evaluation does: voices by the first
/// 4.04 s of the first stream of sound, silence included, shorter sound repeated; faces turned upright
/// and with a margin, or with --precropped as they are. It is not calibrated: the score is minus its
/// logit for bona fide, the probability stays empty.
#[derive(Debug, Args)]
pub struct ScoreArgs {
    #[arg(long, value_parser = super::scan::detector_parser())]
    detector: DetectorKind,
    /// Paths, one a line, or TSV whose first column is headed `path`; `-` is stdin
    #[arg(long, value_name = "FILE")]
    list: PathBuf,
    /// Every picture already is one face, framed from forehead to chin (face-swap only)
    #[arg(long)]
    precropped: bool,
    /// Pictures a second that are looked at in videos
    #[arg(long, default_value_t = crate::engine::DEFAULT_FPS, value_parser = super::scan::parse_fps)]
    fps: f64,
    /// Where networks run: auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto", value_parser = super::scan::parse_device)]
    device: DeviceChoice,
    /// In what numbers networks calculate on the CPU: auto, f32 or bf16 (see `veriscope scan`)
    #[arg(long, default_value = "auto", value_parser = super::scan::parse_precision)]
    precision: PrecisionChoice,
    /// Which networks judge: fast (the light ones), or accurate (a larger one beside each: better,
    /// several times slower) [default: accurate where scripts/setup could install its base, else fast]
    #[arg(long, value_parser = super::scan::tier_parser())]
    tier: Option<Tier>,
    /// Weights of a published network that are to judge instead of ours, on the CPU; see
    /// `veriscope weights import`
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// Folder with the weights and their manifest [default: the one that came with the program, and
    /// imported weights]
    #[arg(long, value_name = "DIR")]
    weights: Option<PathBuf>,
}

pub fn run(args: &ScoreArgs) -> u8 {
    match score(args) {
        Ok(code) => code,
        Err(message) => fail(&message),
    }
}

/// What gives the scores.
enum Judge {
    Ours(Box<Engine>),
    Voices(Box<ImportedVoice>),
    Faces(Box<ImportedFaces>),
}

fn score(args: &ScoreArgs) -> Result<u8, String> {
    if args.precropped && args.detector != DetectorKind::FaceSwap {
        complain("--precropped goes with --detector face-swap only");
        return Ok(EXIT_USAGE);
    }
    if args.network.is_some() && args.detector == DetectorKind::LabelStrip {
        complain("--network goes with --detector face-swap or voice-clone only");
        return Ok(EXIT_USAGE);
    }
    if args.network.is_some() && args.tier.is_some() {
        complain("--tier is a choice among our networks; --network names another");
        return Ok(EXIT_USAGE);
    }
    if args.network.is_some() && matches!(args.device, DeviceChoice::Cuda(_)) {
        complain("--network: published networks run on the CPU only");
        return Ok(EXIT_USAGE);
    }
    let name = args.list.display();
    let paths = if args.list.as_os_str() == "-" {
        read(io::stdin().lock())
    } else {
        File::open(&args.list).and_then(|file| read(BufReader::new(file)))
    }
    .map_err(|e| format!("{name}: cannot be read: {e}"))?;
    let weights = WeightStore::open(args.weights.as_deref())
        .map_err(|e| e.to_string())?
        .with_precision(args.precision);
    let judge = match &args.network {
        Some(name) => {
            let network = &weights.entry(name).map_err(|e| e.to_string())?.network;
            let faces = args.detector == DetectorKind::FaceSwap;
            let knows = if faces { ImportedFace::knows } else { ImportedVoice::knows };
            if !knows(network) {
                let kind = args.detector.name();
                complain(&format!("--network {name}: {network} is no published {kind} network"));
                return Ok(EXIT_USAGE);
            }
            if faces {
                let engine = ImportedFaces::new(&weights, name, args.fps);
                Judge::Faces(Box::new(engine.map_err(|e| e.to_string())?))
            } else {
                let network = ImportedVoice::load(&weights, name).map_err(|e| e.to_string())?;
                Judge::Voices(Box::new(network))
            }
        }
        None => {
            let options = ScanOptions {
                detectors: vec![args.detector],
                fps: args.fps,
                jobs: 0,
                device: args.device,
                tier: args.tier,
                ..ScanOptions::default()
            };
            let engine = Engine::new(options, &weights).map_err(|e| e.to_string())?;
            Judge::Ours(Box::new(engine))
        }
    };

    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut failed = false;
    let stop = AtomicBool::new(false);
    let mut written = writeln!(out, "path\tscore\tprobability\treasons");
    let mut sink = |path: &Path, row: Scored| {
        if let Some(error) = &row.error {
            failed = true;
            complain(&error.message);
        }
        if written.is_ok() {
            written = writeln!(out, "{}\t{}", path.display(), columns(&row));
        }
        match written {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => {
                stop.store(true, Ordering::Relaxed);
                ControlFlow::Break(())
            }
        }
    };
    match judge {
        Judge::Ours(engine) => {
            engine.score(&paths, args.detector, args.precropped, &stop, &mut sink);
        }
        Judge::Voices(network) => score_imported(&network, &paths, &mut sink),
        Judge::Faces(engine) => engine.score(&paths, args.precropped, &stop, &mut sink),
    }
    match written.and_then(|()| out.flush()) {
        Ok(()) if failed => Ok(EXIT_FAILED),
        Ok(()) => Ok(EXIT_OK),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(EXIT_PIPE),
        Err(e) => Err(format!("stdout: {e}")),
    }
}

/// Score, probability and the codes of the reasons, with commas between them.
fn columns(row: &Scored) -> String {
    let number = |v: Option<f32>| v.map_or_else(String::new, |v| format!("{v:.6}"));
    let mut codes: Vec<String> = row.reasons.iter().map(|r| r.code.name()).collect();
    codes.extend(row.error.as_ref().map(|e| e.code.clone()));
    codes.sort();
    codes.dedup();
    format!("{}\t{}\t{}", number(row.score), number(row.probability), codes.join(","))
}

/// Paths, one a line. A first line that is `path`, alone or before a tab, is a header.
fn read(lines: impl BufRead) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for (i, line) in lines.lines().enumerate() {
        let line = line?;
        let first = line.trim_end_matches('\r').split('\t').next().unwrap_or_default();
        if first.is_empty() || (i == 0 && first == "path") {
            continue;
        }
        paths.push(PathBuf::from(first));
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Reason, ReasonCode};

    #[test]
    fn lists_and_tables_are_read() {
        let want = vec![PathBuf::from("a b.jpg"), PathBuf::from("c.mp4")];
        assert_eq!(read("a b.jpg\nc.mp4\n".as_bytes()).unwrap(), want);
        assert_eq!(read("path\tlabel\na b.jpg\treal\n\nc.mp4\tfake\r\n".as_bytes()).unwrap(), want);
        assert!(read("".as_bytes()).unwrap().is_empty());
    }

    #[test]
    fn what_was_not_judged_has_no_number() {
        let reason = |code| Reason::new(code, String::new());
        let row = Scored {
            score: None,
            probability: None,
            reasons: vec![reason(ReasonCode::NoFace), reason(ReasonCode::NoFace)],
            ..Scored::default()
        };
        assert_eq!(columns(&row), "\t\tno_face");
        let row = Scored { score: Some(-1.5), probability: Some(0.25), ..Scored::default() };
        assert_eq!(columns(&row), "-1.500000\t0.250000\t");
    }
}
