//! `veriscope c2pa-worker`: the process in which C2PA manifests are parsed. Started by `scan` and
//! `inspect`, not by people.

use std::fs::File;
use std::io::{self, BufReader};
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use clap::Args;

use super::{EXIT_OK, fail, print};
use crate::provenance::c2pa::{TrustAnchors, answer, confine};

/// Verify the C2PA manifest of the file at stdin and print what it says as JSON
#[derive(Debug, Args)]
pub struct WorkerArgs {
    /// The container, as the ending of a file's name
    #[arg(long)]
    format: String,
    /// CPU time after which the system ends this process
    #[arg(long)]
    seconds: u64,
    /// Bytes of address space that it may have
    #[arg(long)]
    memory: u64,
    /// Certificates (PEM) whose signatures are trusted
    #[arg(long)]
    trust_anchors: Option<PathBuf>,
}

pub fn run(args: &WorkerArgs) -> u8 {
    match work(args) {
        Ok(text) => print(&text, EXIT_OK),
        Err(message) => fail(&message),
    }
}

fn work(args: &WorkerArgs) -> Result<String, String> {
    confine(args.seconds, args.memory).map_err(|e| format!("limits: {e}"))?;
    let anchors = args.trust_anchors.as_deref().map(TrustAnchors::read).transpose()?;
    let stdin = io::stdin().as_fd().try_clone_to_owned().map_err(|e| format!("stdin: {e}"))?;
    let file = BufReader::new(File::from(stdin));
    let answer = answer(file, &args.format, anchors.as_deref());
    serde_json::to_string(&answer).map_err(|e| e.to_string())
}
