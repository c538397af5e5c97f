//! `veriscope label`: writes the implicit label of GB 45438 into a copy of a file.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::provenance::write::{
    Producer, Propagator, WriteError, WriteOptions, Written, add, propagate,
};

/// Write an AIGC label (GB 45438) into a copy of a file, whose pictures and sound stay as they are
#[derive(Debug, Args)]
pub struct LabelArgs {
    #[command(subcommand)]
    command: LabelCommand,
}

#[derive(Debug, Subcommand)]
enum LabelCommand {
    Add(AddArgs),
    Propagate(PropagateArgs),
}

/// Write a label into a file that has none
#[derive(Debug, Args)]
struct AddArgs {
    #[command(flatten)]
    files: Files,
    /// 1 the content is AI-made, 2 possibly, 3 suspected
    #[arg(long, value_name = "1|2|3")]
    label: String,
    /// ContentProducer: 001, 1, a unified social credit code of 18 characters, 5 digits
    #[arg(long, value_name = "CODE")]
    producer: String,
    /// ProduceID: the producer's number of this content
    #[arg(long, value_name = "ID")]
    produce_id: String,
    /// ReservedCode1: the producer's security data
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reserved1: String,
}

/// Add a platform's propagation elements to a file's label
///
/// Every other field keeps its value. Where the file has no label and the platform finds it possibly
/// or suspected AI-made, --label 2 or 3 with --producer and --produce-id writes one.
#[derive(Debug, Args)]
struct PropagateArgs {
    #[command(flatten)]
    files: Files,
    /// ContentPropagator: 001, 1, a unified social credit code of 18 characters, 5 digits
    #[arg(long, value_name = "CODE")]
    propagator: String,
    /// PropagateID: the platform's number of this content
    #[arg(long, value_name = "ID")]
    propagate_id: String,
    /// ReservedCode2: the platform's security data
    #[arg(long, value_name = "TEXT")]
    reserved2: Option<String>,
    /// For a file without a label: 2 possibly AI-made, 3 suspected
    #[arg(long, value_name = "2|3", requires = "producer", requires = "produce_id")]
    label: Option<String>,
    /// For a file without a label: its ContentProducer
    #[arg(long, value_name = "CODE", requires = "label")]
    producer: Option<String>,
    /// For a file without a label: its ProduceID
    #[arg(long, value_name = "ID", requires = "label")]
    produce_id: Option<String>,
}

#[derive(Debug, Args)]
struct Files {
    /// The file, which is not changed
    file: PathBuf,
    /// Where the labelled copy goes
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// Replace OUT where it exists
    #[arg(long)]
    force: bool,
    /// Write although the file carries a C2PA manifest, whose hash of the file then no longer matches
    #[arg(long)]
    break_c2pa: bool,
}

impl Files {
    fn options(&self) -> WriteOptions {
        WriteOptions { force: self.force, break_c2pa: self.break_c2pa }
    }
}

pub fn run(args: &LabelArgs) -> u8 {
    let (files, done) = match &args.command {
        LabelCommand::Add(args) => {
            let producer = Producer {
                label: &args.label,
                code: &args.producer,
                id: &args.produce_id,
                reserved: &args.reserved1,
            };
            let files = &args.files;
            (files, add(&files.file, &files.output, &producer, files.options()))
        }
        LabelCommand::Propagate(args) => {
            let propagator = Propagator {
                code: &args.propagator,
                id: &args.propagate_id,
                reserved: args.reserved2.as_deref(),
            };
            // clap sees to it that they come together.
            let producer = match (&args.label, &args.producer, &args.produce_id) {
                (Some(label), Some(code), Some(id)) => {
                    Some(Producer { label, code, id, reserved: "" })
                }
                _ => None,
            };
            let (files, options) = (&args.files, args.files.options());
            let done =
                propagate(&files.file, &files.output, &propagator, producer.as_ref(), options);
            (files, done)
        }
    };
    match done {
        Ok(Written { container, label }) => {
            let text = format!(
                "{}: {container}, {}\n{}\n",
                files.output.display(),
                label.place,
                label.content
            );
            super::print(&text, super::EXIT_OK)
        }
        Err(error) => {
            let hint = match &error {
                WriteError::Exists(_) => " (--force replaces it)",
                WriteError::C2pa(_) => " (--break-c2pa writes all the same)",
                WriteError::NoLabel(_) => " (--label, --producer and --produce-id write one)",
                _ => "",
            };
            super::fail(&format!("{error}{hint}"))
        }
    }
}
