//! `veriscope weights`: what networks there are, and whether their weights are whole.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand, ValueEnum};
use unicode_width::UnicodeWidthStr as _;

use super::{EXIT_FAILED, EXIT_OK, fail, print};
use crate::detect::imported_voice::ImportedVoice;
use crate::models::import::{Described, Family, import};
use crate::models::weights::{WeightStore, WeightsError, named_by_environment, user_folder};
use crate::report::DetectorKind;

/// List, verify or import networks' weights
#[derive(Debug, Args)]
pub struct WeightsArgs {
    #[command(subcommand)]
    command: WeightsCommand,
}

#[derive(Debug, Subcommand)]
enum WeightsCommand {
    /// What the manifest says of each network's weights
    List {
        /// Folder with the weights and their manifest [default: the one that came with the program,
        /// and imported weights]
        #[arg(long, value_name = "DIR")]
        weights: Option<PathBuf>,
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
    /// Import a published detector's own checkpoint, to run it beside ours (`score --network`)
    ///
    /// The checkpoint is a state dict saved by PyTorch 1.6 or later (AASIST, RawGAT-ST), nothing in
    /// which is executed, or weights that Keras saved as HDF5 (MesoNet). It is refused where a tensor
    /// is missing, too many, of another shape or not finite.
    Import {
        /// Whose checkpoint it is; AASIST and AASIST-L are told apart by their shapes
        #[arg(long = "as", value_name = "FAMILY", value_parser = family_parser())]
        family: Family,
        /// The checkpoint, such as AASIST.pth
        file: PathBuf,
        /// The name that the weights get [default: the network's]
        #[arg(long)]
        name: Option<String>,
        /// The checkpoint's licence, for the manifest [default: not stated]
        #[arg(long)]
        licence: Option<String>,
        /// Where the checkpoint comes from, for the manifest; its file name and sha256 are added
        #[arg(long)]
        origin: Option<String>,
        /// Folder that the weights go to, made where it is missing [default: the folder that
        /// VERISCOPE_WEIGHTS names, else veriscope/weights in the user's folder for data]
        #[arg(long, value_name = "DIR")]
        weights: Option<PathBuf>,
    },
    /// Check each file's sha256 and shapes; exit code 1 where one is missing or altered
    Verify {
        /// Folder with the weights and their manifest [default: the one that came with the program,
        /// and imported weights]
        #[arg(long, value_name = "DIR")]
        weights: Option<PathBuf>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

pub fn run(args: &WeightsArgs) -> u8 {
    match &args.command {
        WeightsCommand::List { weights, format } => match WeightStore::open(weights.as_deref()) {
            Ok(store) => list(&store, *format),
            Err(error) => fail(&error.to_string()),
        },
        WeightsCommand::Verify { weights } => match WeightStore::open(weights.as_deref()) {
            Ok(store) => verify_all(&store),
            Err(error) => fail(&error.to_string()),
        },
        WeightsCommand::Import { family, file, name, licence, origin, weights } => {
            let described =
                Described { name: name.clone(), licence: licence.clone(), origin: origin.clone() };
            match import_to(weights.as_deref(), *family, file, &described) {
                Ok(said) => print(&said, EXIT_OK),
                Err(message) => fail(&message),
            }
        }
    }
}

fn list(store: &WeightStore, format: Format) -> u8 {
    match format {
        Format::Json => match serde_json::to_string_pretty(&store.entries()) {
            Ok(text) => print(&(text + "\n"), EXIT_OK),
            Err(error) => fail(&format!("weights list: {error}")),
        },
        Format::Table => {
            let mut rows = vec![
                ["NAME", "NETWORK", "SIZE", "SHA256", "LICENCE", "FILE"].map(String::from).to_vec(),
            ];
            rows.extend(store.entries().iter().map(|e| {
                // That of imported weights in full, because it lies elsewhere.
                let file = if e.folder == store.folder() {
                    e.file.clone()
                } else {
                    e.path().display().to_string()
                };
                vec![
                    e.name.to_string(),
                    e.network.to_string(),
                    size(e.bytes),
                    e.sha256.chars().take(12).collect(),
                    e.licence.to_string(),
                    file,
                ]
            }));
            print(&columns(&rows), EXIT_OK)
        }
    }
}

fn verify_all(store: &WeightStore) -> u8 {
    let names: Vec<String> = store.entries().iter().map(|e| e.name.to_string()).collect();
    if names.is_empty() {
        return fail("the manifest names no weights");
    }
    let (text, whole) = check(&names, |name| verify(store, name));
    print(&text, if whole { EXIT_OK } else { EXIT_FAILED })
}

fn family_parser() -> impl TypedValueParser<Value = Family> {
    PossibleValuesParser::new(Family::ALL.map(Family::name))
        .try_map(|name| Family::ALL.into_iter().find(|f| f.name() == name).ok_or("unknown family"))
}

/// Imports a checkpoint; what to say of it.
fn import_to(
    explicit: Option<&Path>,
    family: Family,
    file: &Path,
    described: &Described,
) -> Result<String, String> {
    let named = explicit.map(Path::to_path_buf).or_else(named_by_environment);
    // The names of all weights that it will stand beside; in a folder that was named, only those.
    let beside = match &named {
        Some(_) => None,
        None => Some(WeightStore::open(None).map_err(|e| e.to_string())?),
    };
    let entries = beside.as_ref().map_or(&[][..], WeightStore::entries);
    let taken: Vec<&str> = entries.iter().map(|e| e.name.as_str()).collect();
    let folder =
        named.or_else(user_folder).ok_or("no home folder: name a folder with --weights")?;
    let entry = import(family, file, described, &folder, &taken).map_err(|e| e.to_string())?;
    let voice = ImportedVoice::knows(&entry.network);
    let detector = if voice { DetectorKind::VoiceClone } else { DetectorKind::FaceSwap }.name();
    // Where only the option named the folder, only the option finds it again.
    let named = explicit.map_or_else(String::new, |f| format!(" --weights {}", f.display()));
    Ok(format!(
        "{}: {} ({}), {}\nveriscope score --detector {detector} --network {}{named} --list FILE\n",
        entry.path().display(),
        entry.network,
        entry.licence,
        size(entry.bytes),
        entry.name
    ))
}

/// Checks one network's file. `Some`: it does not ship and this command would install it.
pub fn verify(store: &WeightStore, name: &str) -> Result<Option<String>, WeightsError> {
    match store.verify(name) {
        Ok(()) => Ok(None),
        Err(WeightsError::NotInstalled { command, .. }) => Ok(Some(command)),
        Err(error) => Err(error),
    }
}

/// One line a network: `ok`, what is wrong, or the command that [`verify`] gave; and whether all
/// that are there are whole.
pub fn check<E: Display>(
    names: &[String],
    verify: impl Fn(&str) -> Result<Option<String>, E>,
) -> (String, bool) {
    let width = names.iter().map(|n| n.width()).max().unwrap_or(0);
    let mut text = String::new();
    let mut whole = true;
    for name in names {
        let said = match verify(name) {
            Ok(None) => "ok".to_string(),
            Ok(Some(command)) => format!("not installed, {command} installs it"),
            Err(error) => {
                whole = false;
                format!("FAILED  {error}")
            }
        };
        text += &format!("{name:width$}  {said}\n");
    }
    (text, whole)
}

/// Bytes in binary units.
pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} GiB")
}

/// Rows with their columns aligned.
pub fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count)
        .map(|n| rows.iter().filter_map(|r| r.get(n)).map(|c| c.width()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line += cell;
            line.extend(std::iter::repeat_n(' ', width + 2 - cell.width().min(*width)));
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bad_file_fails_the_check_and_is_named() {
        let names = ["face", "voice-lite"].map(String::from);
        let (text, whole) = check(&names, |_| Ok::<_, String>(None));
        assert!(whole);
        assert_eq!(text, "face        ok\nvoice-lite  ok\n");
        let (text, whole) = check(&names, |name| {
            if name == "face" { Err("face.safetensors: sha256 differs") } else { Ok(None) }
        });
        assert!(!whole);
        assert_eq!(text, "face        FAILED  face.safetensors: sha256 differs\nvoice-lite  ok\n");
        let (text, whole) = check(&names[..1], |_| Ok::<_, String>(Some("bring".to_string())));
        assert!(whole);
        assert_eq!(text, "face  not installed, bring installs it\n");
    }

    #[test]
    fn sizes_and_columns() {
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(5 << 30), "5.0 GiB");
        let rows = [vec!["a".to_string(), "b".into()], vec!["long".into(), "c".into()]];
        assert_eq!(columns(&rows), "a     b\nlong  c\n");
    }
}
