//! `veriscope weights`: what networks there are, and whether their weights are whole.

use std::fmt::Display;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use unicode_width::UnicodeWidthStr as _;

use super::{EXIT_FAILED, EXIT_OK, fail, print};
use crate::models::weights::{WeightStore, WeightsError};

/// List or verify the networks' weights
#[derive(Debug, Args)]
pub struct WeightsArgs {
    #[command(subcommand)]
    command: WeightsCommand,
}

#[derive(Debug, Subcommand)]
enum WeightsCommand {
    /// What the manifest says of each network's weights
    List {
        /// Folder with the weights and their manifest [default: the one that came with the program]
        #[arg(long, value_name = "DIR")]
        weights: Option<PathBuf>,
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
    /// Check each file's sha256 and shapes; exit code 1 where one is missing or altered
    Verify {
        /// Folder with the weights and their manifest [default: the one that came with the program]
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
    let dir = match &args.command {
        WeightsCommand::List { weights, .. } | WeightsCommand::Verify { weights } => weights,
    };
    let store = match WeightStore::open(dir.as_deref()) {
        Ok(store) => store,
        Err(error) => return fail(&error.to_string()),
    };
    match args.command {
        WeightsCommand::List { format: Format::Json, .. } => {
            match serde_json::to_string_pretty(&store.entries()) {
                Ok(text) => print(&(text + "\n"), EXIT_OK),
                Err(error) => fail(&format!("weights list: {error}")),
            }
        }
        WeightsCommand::List { format: Format::Table, .. } => {
            let mut rows = vec![
                ["NAME", "NETWORK", "SIZE", "SHA256", "LICENCE", "FILE"].map(String::from).to_vec(),
            ];
            rows.extend(store.entries().iter().map(|e| {
                vec![
                    e.name.to_string(),
                    e.network.to_string(),
                    size(e.bytes),
                    e.sha256.chars().take(12).collect(),
                    e.licence.to_string(),
                    std::path::Path::new(&e.file).display().to_string(),
                ]
            }));
            print(&columns(&rows), EXIT_OK)
        }
        WeightsCommand::Verify { .. } => {
            let names: Vec<String> = store.entries().iter().map(|e| e.name.to_string()).collect();
            if names.is_empty() {
                return fail("the manifest names no weights");
            }
            let (text, whole) = check(&names, |name| verify(&store, name));
            print(&text, if whole { EXIT_OK } else { EXIT_FAILED })
        }
    }
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
fn columns(rows: &[Vec<String>]) -> String {
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
