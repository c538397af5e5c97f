//! The program as people call it: arguments, exit codes, what goes to stdout and what to stderr.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output, Stdio};

fn veriscope(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_veriscope"));
    command
        .args(args)
        .stdin(Stdio::null())
        .env_remove("RUST_LOG")
        .env_remove("COLUMNS")
        .env_remove("VERISCOPE_WEIGHTS");
    command
}

fn run(args: &[&str]) -> Output {
    veriscope(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn wrong_usage_ends_with_2_and_says_what_is_wrong() {
    for (args, said) in [
        (&[][..], "Usage"),
        (&["scan"], "PATH"),
        (&["scan", "a", "--fps", "0"], "--fps"),
        (&["scan", "a", "--fps", "fast"], "--fps"),
        (&["scan", "a", "--device", "tpu"], "--device"),
        (&["scan", "a", "--detectors", "mood"], "--detectors"),
        (&["scan", "a", "--format", "xml"], "--format"),
        (&["scan", "a", "--jobs", "0"], "--jobs"),
        (&["sing"], "sing"),
        (&["weights"], "Usage"),
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
        assert!(text(&output.stderr).contains(said), "{args:?}: {}", text(&output.stderr));
    }
}

/// No machine has a GPU of this number, whatever the program was built with.
#[test]
fn a_gpu_that_is_not_there_is_an_error_that_says_what_is_missing() {
    let output = run(&["scan", "demo/label-intact.png", "--device", "cuda:60000"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(output.stdout.is_empty());
    let (head, cause) = said.split_once("is not available: ").unwrap();
    assert_eq!(head, "veriscope: device cuda:60000 ");
    let causes = [
        "built without CUDA",
        "cannot be opened",
        "driver does not start",
        "a driver for CUDA",
        "no device 60000",
    ];
    assert!(causes.iter().any(|c| cause.contains(c)) && said.lines().count() == 1, "{said}");
    assert_eq!(cfg!(feature = "cuda"), !cause.contains("built without CUDA"), "{said}");
}

#[test]
fn help_and_version_end_with_0() {
    for args in [&["--help"][..], &["scan", "--help"], &["--version"], &["doctor", "-h"]] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{args:?}");
    }
    let help = text(&run(&["scan", "--help"]).stdout);
    for said in ["--store", "no media", "Exit codes", "130"] {
        assert!(help.contains(said), "{said}: {help}");
    }
}

#[test]
fn schema_prints_the_schema() {
    let output = run(&["schema"]);
    assert_eq!(output.status.code(), Some(0));
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert!(jsonschema::meta::is_valid(&schema));
}

#[test]
fn a_reader_that_went_away_is_no_noise() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = veriscope(&["schema"]).stdout(writer).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(141));
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn a_store_that_is_none_stops_the_scan_and_stays_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("results.sqlite");
    let before = "not a database, but somebody's notes ".repeat(100);
    std::fs::write(&store, &before).unwrap();
    let output = run(&["scan", "a.mp4", "--store", store.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let said = text(&output.stderr);
    assert!(said.contains("results.sqlite") && said.contains("not a store"), "{said}");
    assert_eq!(std::fs::read_to_string(&store).unwrap(), before);
}

#[test]
fn missing_weights_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let weights = dir.path().to_str().unwrap();
    for args in [
        ["weights", "list", "--weights", weights],
        ["weights", "verify", "--weights", weights],
        ["scan", "a.mp4", "--weights", weights],
    ] {
        let output = run(&args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
        assert!(text(&output.stderr).contains("manifest.toml"), "{}", text(&output.stderr));
    }
}

#[test]
fn doctor_says_what_is_there_and_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(&["doctor", "--weights", dir.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stdout);
    for part in [env!("CARGO_PKG_VERSION"), "threads", "libavcodec", "H.264", "cuda"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // What is missing stands beside the command that brings it.
    let missing = said.lines().position(|line| line.starts_with('!')).unwrap();
    assert!(said.lines().nth(missing).unwrap().contains("manifest.toml"), "{said}");
    assert!(said.lines().nth(missing + 1).unwrap().contains("git restore weights"), "{said}");
}

/// A copy of the shipped weights in which one file may be spoiled.
fn weights_copy() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let shipped = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("weights");
    for entry in std::fs::read_dir(shipped).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
        }
    }
    dir
}

#[test]
fn verify_passes_the_shipped_weights_and_names_the_altered_the_short_and_the_missing() {
    let dir = weights_copy();
    let verify = || run(&["weights", "verify", "--weights", dir.path().to_str().unwrap()]);
    let whole = verify();
    let said = text(&whole.stdout);
    assert_eq!(whole.status.code(), Some(0), "{said}{}", text(&whole.stderr));
    // What does not ship need not be there.
    let fine = |line: &str| line.ends_with("  ok") || line.contains("  not installed, scripts/");
    assert!(said.lines().count() > 1 && said.lines().all(fine), "{said}");

    let yunet = dir.path().join("yunet.safetensors");
    let bytes = std::fs::read(&yunet).unwrap();
    let mut altered = bytes.clone();
    *altered.last_mut().unwrap() ^= 1;
    for spoiled in [Some(&altered[..]), Some(&bytes[..bytes.len() / 2]), Some(&[]), None] {
        match spoiled {
            Some(bytes) => std::fs::write(&yunet, bytes).unwrap(),
            None => std::fs::remove_file(&yunet).unwrap(),
        }
        let output = verify();
        let said = text(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{said}");
        let failed: Vec<&str> = said.lines().filter(|line| line.contains("FAILED")).collect();
        assert_eq!(failed.len(), 1, "{said}");
        assert!(
            failed[0].starts_with("yunet ") && failed[0].contains("yunet.safetensors"),
            "{said}"
        );
        // A scan does not start with them either.
        let scan = run(&["scan", "a.mp4", "--weights", dir.path().to_str().unwrap()]);
        assert_eq!(scan.status.code(), Some(1));
        assert!(text(&scan.stderr).contains("yunet.safetensors"), "{}", text(&scan.stderr));
    }
}

#[test]
fn weights_are_listed_for_people_and_for_programs() {
    let output = run(&["weights", "list"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).lines().any(|line| line.starts_with("yunet ")));
    let output = run(&["weights", "list", "--format", "json"]);
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let yunet = list.as_array().unwrap().iter().find(|e| e["name"] == "yunet").unwrap();
    assert_eq!(yunet["sha256"].as_str().unwrap().len(), 64);
}

/// `label` writes beside what is there, and says on stderr why where it does not.
#[test]
fn label_writes_a_copy_or_says_why_not() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("a.wav");
    // One second of silence, 8 kHz, 8 bits, mono.
    let sound = vec![0x80; 8000];
    let fmt = [1, 0, 1, 0, 0x40, 0x1F, 0, 0, 0x40, 0x1F, 0, 0, 1, 0, 8, 0];
    let body = [b"WAVEfmt \x10\0\0\0", &fmt[..], b"data\x40\x1F\0\0", &sound].concat();
    let wav = [b"RIFF", &(body.len() as u32).to_le_bytes()[..], &body].concat();
    std::fs::write(&source, &wav).unwrap();
    let (out, spread) = (dir.path().join("b.wav"), dir.path().join("c.wav"));
    let run = |args: &[&str], files: [&Path; 2]| {
        Command::new(env!("CARGO_BIN_EXE_veriscope"))
            .arg("label")
            .args(args)
            .arg(files[0])
            .arg("--output")
            .arg(files[1])
            .output()
            .unwrap()
    };
    let code = "001191110102MACQD9K64010000";
    let add = ["add", "--label", "1", "--producer", code, "--produce-id", "p-1"];
    let done = run(&add, [&source, &out]);
    assert!(done.status.success(), "{done:?}");
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(text.contains("RIFF(WAVE).AIGC@") && text.contains("\"ProduceID\":\"p-1\""), "{text}");
    let again = run(&add, [&source, &out]);
    let message = String::from_utf8(again.stderr).unwrap();
    assert_eq!(again.status.code(), Some(1));
    assert!(message.contains("b.wav: exists already") && message.contains("--force"), "{message}");
    let propagate = ["propagate", "--propagator", code, "--propagate-id", "q-1"];
    let refused = run(&propagate, [&source, &spread]);
    let message = String::from_utf8(refused.stderr).unwrap();
    assert!(message.contains("no AIGC label") && !spread.exists(), "{message}");
    let done = run(&propagate, [&out, &spread]);
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(text.contains("\"PropagateID\":\"q-1\""), "{text}");
    let wrong =
        run(&["add", "--label", "1", "--producer", "me", "--produce-id", "p"], [&source, &out]);
    let message = String::from_utf8(wrong.stderr).unwrap();
    assert!(message.contains("ContentProducer must be"), "{message}");
    assert_eq!(std::fs::read(&source).unwrap(), wav);
}
