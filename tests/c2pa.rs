//! C2PA manifests: what the verifier says of public test files, and what a verifier that misbehaves
//! costs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

use veriscope::detect::label_strip;
use veriscope::provenance::c2pa::{TrustAnchors, Worker};
use veriscope::provenance::{Findings, InspectOptions, inspect, inspect_with};
use veriscope::report::{Label, LabelVerdict, ReasonCode, SegmentVerdict};

const PROGRAM: &str = env!("CARGO_BIN_EXE_veriscope");
const AI: Option<bool> = Some(true);

/// The folder of the test files; none where they are not on this machine.
fn files() -> Option<PathBuf> {
    let root = std::env::var_os("VERISCOPE_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let folder = root.join("data/provenance");
    let there = folder.join("c2pa-C.jpg").is_file();
    if !there {
        println!("skipped: no C2PA test files at {}", folder.display());
    }
    there.then_some(folder)
}

fn with(worker: Worker) -> InspectOptions {
    InspectOptions { c2pa: Some(worker) }
}

fn options() -> InspectOptions {
    // The machine that runs the tests may be busy; what is slow is tested elsewhere.
    with(Worker { deadline: Duration::from_secs(60), ..Worker::new(PROGRAM.into(), None) })
}

fn look(path: &Path) -> Findings {
    inspect_with(path, &options()).unwrap()
}

fn c2pa(found: &Findings) -> &Label {
    let mut labels = found.labels.iter().filter(|l| l.system == "c2pa");
    let label = labels.next().unwrap_or_else(|| panic!("no C2PA label: {found:?}"));
    assert!(labels.next().is_none(), "{found:?}");
    label
}

fn content(label: &Label) -> serde_json::Value {
    serde_json::from_str(&label.content).unwrap_or_else(|e| panic!("{e}: {}", label.content))
}

fn kinds(found: &Findings) -> Vec<&str> {
    found.strip_evidence.iter().map(|e| e.kind.as_str()).collect()
}

fn strip_verdict(found: &Findings) -> SegmentVerdict {
    label_strip::judge(found, None).1[0].verdict
}

/// The state that each test file was made to have, and what its failures are called.
#[test]
fn public_test_files_have_the_states_that_they_were_made_for() {
    use LabelVerdict::{Compliant, Noncompliant};
    let Some(files) = files() else { return };
    type Row = (&'static str, LabelVerdict, &'static [&'static str], Option<bool>, bool);
    let rows: [Row; 11] = [
        ("c2pa-C.jpg", Compliant, &[], None, false),
        ("c2pa-CA.jpg", Compliant, &[], None, false),
        ("c2pa-CAI.jpg", Compliant, &[], None, false),
        ("c2pa-CI.jpg", Compliant, &[], None, false),
        ("c2pa-CICA.jpg", Compliant, &[], None, false),
        (
            "c2pa-E-clm-CAICAI.jpg",
            Noncompliant,
            &[
                "ingredient.manifest.missing",
                "assertion.hashedURI.mismatch",
                "ingredient:ingredient.manifest.missing",
            ],
            None,
            false,
        ),
        ("c2pa-E-dat-CA.jpg", Noncompliant, &["assertion.dataHash.mismatch"], None, true),
        ("c2pa-E-sig-CA.jpg", Noncompliant, &["claimSignature.mismatch"], None, false),
        ("c2pa-E-uri-CA.jpg", Noncompliant, &["assertion.hashedURI.mismatch"], None, false),
        ("c2pa-XCA.jpg", Noncompliant, &["assertion.dataHash.mismatch"], None, true),
        ("firefly.png", Compliant, &[], AI, false),
    ];
    for (name, verdict, deviations, ai, broken) in rows {
        let found = look(&files.join(name));
        let label = c2pa(&found);
        assert_eq!((label.verdict, label.ai), (verdict, ai), "{name}: {label:?}");
        assert_eq!(label.deviations, deviations, "{name}");
        assert!(label.place.contains('@'), "{label:?}");
        let told = content(label);
        let state = if verdict == Compliant { "valid" } else { "invalid" };
        assert_eq!(told["state"], state, "{name}: {told}");
        assert!(told["generator"].is_string() && told["issuer"].is_string(), "{name}: {told}");
        let want: &[&str] = if broken { &["broken_hard_binding"] } else { &[] };
        assert_eq!(kinds(&found), want, "{name}");
        assert_eq!(strip_verdict(&found), SegmentVerdict::Bonafide, "{name}");
        assert_eq!((found.unverified.as_deref(), found.unread.len()), (None, 0), "{name}");
    }
    let plain = look(&files.join("c2pa-A.jpg"));
    assert!(plain.labels.iter().all(|l| l.system != "c2pa"), "{plain:?}");

    // One whose certificate ended on 2026-10-04, which changes nothing in what it says.
    let found = look(&files.join("flux.jpg"));
    let (label, told) = (c2pa(&found), content(c2pa(&found)));
    let expired = UNIX_EPOCH.elapsed().unwrap().as_secs() > 1_791_138_287;
    assert_eq!(label.ai, AI);
    if expired {
        assert_eq!(label.verdict, Noncompliant);
        assert_eq!(label.deviations, ["signingCredential.expired"]);
        assert_eq!(told["says"], "manifest whole, only the signer's certificate is expired");
    } else {
        assert_eq!(label.verdict, Compliant);
    }
    assert_eq!(told["source_types"][0], "c2pa.created: trainedAlgorithmicMedia");
    assert_eq!(told["issuer"], "Black Forest Labs Inc.");
    assert_eq!(told["signed_at"], "2026-06-19T16:29:47+00:00");
}

/// The certificates that a file carries, in PEM.
fn certificates(file: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut pem = String::new();
    // In CBOR a byte string of two bytes' length (0x59), in it a DER sequence of the same.
    for at in 3..file.len() - 4 {
        let len = usize::from(u16::from_be_bytes([file[at + 2], file[at + 3]])) + 4;
        let stated = usize::from(u16::from_be_bytes([file[at - 2], file[at - 1]]));
        if file[at - 3] != 0x59 || file[at..at + 2] != [0x30, 0x82] || stated != len {
            continue;
        }
        let text: String = file[at..at + len]
            .chunks(3)
            .flat_map(|c| {
                let n =
                    c.iter().chain(&[0, 0]).take(3).fold(0usize, |n, b| n << 8 | usize::from(*b));
                let sign = move |i: usize| ALPHABET[n >> (18 - 6 * i) & 63] as char;
                (0..4).map(move |i| if i <= c.len() { sign(i) } else { '=' })
            })
            .collect();
        let lines: Vec<String> =
            text.as_bytes().chunks(64).map(|c| String::from_utf8(c.to_vec()).unwrap()).collect();
        pem += &format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            lines.join("\n")
        );
    }
    pem
}

#[test]
fn a_signer_on_the_list_is_trusted_and_another_is_told() {
    let Some(files) = files() else { return };
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("anchors.pem");
    fs::write(&list, certificates(&fs::read(files.join("c2pa-C.jpg")).unwrap())).unwrap();
    let anchors = TrustAnchors::open(&list).unwrap();
    let worker = Worker::new(PROGRAM.into(), Some(anchors));
    let options = with(Worker { deadline: Duration::from_secs(60), ..worker });
    let found = inspect_with(&files.join("c2pa-C.jpg"), &options).unwrap();
    let label = c2pa(&found);
    assert_eq!((label.verdict, label.deviations.len()), (LabelVerdict::Compliant, 0), "{label:?}");
    assert_eq!(content(label)["state"], "trusted");
    let found = inspect_with(&files.join("firefly.png"), &options).unwrap();
    let label = c2pa(&found);
    assert_eq!(label.verdict, LabelVerdict::Compliant);
    assert_eq!(label.deviations, ["signingCredential.untrusted"]);
    assert_eq!(content(label)["says"], "signature whole, signer not on the trust list");
}

/// A worker that runs a shell script in place of the verifier.
fn script(script: &str, deadline: Duration) -> Worker {
    Worker {
        program: "/bin/sh".into(),
        arguments: vec!["-c".into(), script.into()],
        trust_anchors: None,
        deadline,
    }
}

fn gone(pid: &str) -> bool {
    !Path::new("/proc").join(pid).exists()
}

#[test]
fn a_verifier_that_hangs_costs_its_deadline_and_is_gone() {
    let Some(files) = files() else { return };
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    // One that sleeps, with a child of its own; one that loops; one that has said all and stays.
    for work in ["sleep 600 & echo $! >> PIDS; wait", "while :; do :; done", "exec >&-; sleep 600"]
    {
        let text = format!("echo $$ > PIDS; {work}").replace("PIDS", pids.to_str().unwrap());
        let started = Instant::now();
        let worker = script(&text, Duration::from_secs(2));
        let found = inspect_with(&files.join("c2pa-C.jpg"), &with(worker)).unwrap();
        let took = started.elapsed();
        assert!((2..20).contains(&took.as_secs()), "{work}: {took:?}");
        let label = c2pa(&found);
        assert_eq!((label.verdict, label.ai), (LabelVerdict::Inconclusive, None));
        assert!(label.content.contains("more than 2 s"), "{}", label.content);
        assert!(label.deviations.is_empty());
        // It is told, and nothing is claimed of stripping.
        assert!(found.unverified.as_ref().is_some_and(|why| why.contains("more than 2 s")));
        let segment = &label_strip::judge(&found, None).1[0];
        assert_eq!(segment.verdict, SegmentVerdict::Undetermined);
        assert_eq!(segment.reasons[0].code, ReasonCode::ManifestNotVerified);
        let pids = fs::read_to_string(&pids).unwrap();
        assert!(!pids.is_empty());
        // Neither running nor a zombie. A grandchild is reaped by init, which may take a moment.
        for pid in pids.lines() {
            let patience = Instant::now();
            while !gone(pid) && patience.elapsed() < Duration::from_secs(5) {
                std::thread::sleep(Duration::from_millis(20));
            }
            let state = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let ours = state.contains(&format!("PPid:\t{}\n", std::process::id()));
            assert!(state.is_empty() || (!ours && state.contains("Z (zombie)")), "{work}: {state}");
        }
    }
}

#[test]
fn a_verifier_that_breaks_is_told_with_its_cause() {
    let Some(files) = files() else { return };
    let deadline = Duration::from_secs(30);
    for (worker, why) in [
        (script("exit 3", deadline), "exit code 3"),
        (script("kill -SEGV $$", deadline), "signal 11"),
        (script("kill -ABRT $$", deadline), "memory"),
        (script("kill -XCPU $$", deadline), "CPU time"),
        (script("echo nonsense", deadline), "cannot be read"),
        (script("echo '{\"answer\":\"store\"}'", deadline), "cannot be read"),
        (Worker { program: "/nonexistent/veriscope".into(), ..script("", deadline) }, "started"),
    ] {
        let found = inspect_with(&files.join("c2pa-C.jpg"), &with(worker)).unwrap();
        let label = c2pa(&found);
        assert_eq!(label.verdict, LabelVerdict::Inconclusive);
        assert!(label.content.contains(why), "{why}: {}", label.content);
        assert!(found.unverified.is_some());
    }
    // Output without end is cut off, and its writer ends by the closed pipe.
    let endless = script("while :; do echo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa; done", deadline);
    let started = Instant::now();
    let found = inspect_with(&files.join("c2pa-C.jpg"), &with(endless)).unwrap();
    assert_eq!(c2pa(&found).verdict, LabelVerdict::Inconclusive);
    assert!(started.elapsed() < deadline, "{:?}", started.elapsed());
}

/// The manifest store that a JPEG carries in its APP11 segments.
fn store_of(jpeg: &[u8]) -> Vec<u8> {
    let (mut at, mut store) = (2, Vec::new());
    while jpeg[at] == 0xFF && jpeg[at + 1] != 0xDA {
        let len = usize::from(u16::from_be_bytes([jpeg[at + 2], jpeg[at + 3]]));
        let body = &jpeg[at + 4..at + 2 + len];
        if jpeg[at + 1] == 0xEB && body.starts_with(b"JP") {
            // Instance and number stand before the box, whose header each further piece repeats.
            store.extend_from_slice(&body[if store.is_empty() { 8 } else { 16 }..]);
        }
        at += 2 + len;
    }
    store
}

fn wav_with(store: &[u8]) -> Vec<u8> {
    let mut chunks = b"WAVE".to_vec();
    let format = [1, 0, 1, 0, 0x40, 0x1F, 0, 0, 0x80, 0x3E, 0, 0, 2, 0, 16, 0];
    for (id, body) in [(b"fmt ", &format[..]), (b"C2PA", store), (b"data", &[0; 16000])] {
        chunks.extend_from_slice(id);
        chunks.extend((body.len() as u32).to_le_bytes());
        chunks.extend_from_slice(body);
        chunks.resize(chunks.len() + body.len() % 2, 0);
    }
    [&b"RIFF"[..], &(chunks.len() as u32).to_le_bytes(), &chunks].concat()
}

fn mp3_with(store: &[u8]) -> Vec<u8> {
    let object = [&b"\0application/c2pa\0c2pa\0c2pa manifest store\0"[..], store].concat();
    let frame = [b"GEOB", &(object.len() as u32).to_be_bytes()[..], &[0, 0], &object].concat();
    let len = frame.len() as u32;
    let size = [21, 14, 7, 0].map(|shift| (len >> shift & 0x7F) as u8);
    // A frame of silence: MPEG 1 layer III, 128 kbit/s, 44.1 kHz.
    let silence = [&[0xFF, 0xFB, 0x90, 0][..], &[0; 413]].concat();
    [b"ID3\x03\0\0", &size[..], &frame, &silence.repeat(20)].concat()
}

/// A manifest that was moved into another file is whole and does not fit it.
#[test]
fn a_manifest_moved_to_another_file_does_not_verify() {
    let Some(files) = files() else { return };
    let dir = tempfile::tempdir().unwrap();
    let store = store_of(&fs::read(files.join("c2pa-C.jpg")).unwrap());
    for (name, bytes) in [("moved.wav", wav_with(&store)), ("moved.mp3", mp3_with(&store))] {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        let found = look(&path);
        let label = c2pa(&found);
        assert_eq!(label.verdict, LabelVerdict::Noncompliant, "{name}: {label:?}");
        assert_eq!(label.deviations, ["assertion.dataHash.mismatch"], "{name}");
        assert_eq!(kinds(&found), ["broken_hard_binding"], "{name}");
    }
}

/// A TIFF of 320 KB whose directory names one other directory 20,000 times, with 20,000 entries in
/// it: 400 million entries to be read. In a tag of its own are the first bytes of a store.
fn looping_tiff() -> Vec<u8> {
    const TIMES: u32 = 20_000;
    let store = [&b"\0\0\0\x50jumb\0\0\0\x28jumdc2pa"[..], &[0; 60]].concat();
    let list = 8 + 2 + 2 * 12 + 4;
    let (store_at, inner) = (list + 4 * TIMES, list + 4 * TIMES + store.len() as u32);
    let entry = |tag: u16, kind: u16, count: u32, value: u32| {
        let (tag, kind) = (tag.to_le_bytes(), kind.to_le_bytes());
        [&tag[..], &kind, &count.to_le_bytes(), &value.to_le_bytes()].concat()
    };
    let mut tiff = b"II\x2A\0\x08\0\0\0\x02\0".to_vec();
    tiff.extend(entry(0x014A, 4, TIMES, list));
    tiff.extend(entry(0xCD41, 7, store.len() as u32, store_at));
    tiff.extend([0; 4]);
    tiff.extend(inner.to_le_bytes().repeat(TIMES as usize));
    tiff.extend(store);
    tiff.extend((TIMES as u16).to_le_bytes());
    tiff.extend(entry(0x0100, 4, 1, 1).repeat(TIMES as usize));
    tiff.extend([0; 4]);
    tiff
}

#[test]
fn a_file_that_loops_is_ended_by_the_system() {
    use std::os::unix::process::ExitStatusExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("loop.tif");
    fs::write(&path, looping_tiff()).unwrap();
    let output = std::process::Command::new(PROGRAM)
        .args(["c2pa-worker", "--format", "tif", "--seconds", "1", "--memory", "2000000000"])
        .stdin(fs::File::open(&path).unwrap())
        .output()
        .unwrap();
    assert_eq!(output.status.signal(), Some(libc::SIGXCPU), "{output:?}");

    // And an inspection of it ends with what our own reader saw.
    let started = Instant::now();
    let worker = Worker { deadline: Duration::from_secs(1), ..Worker::new(PROGRAM.into(), None) };
    let found = inspect_with(&path, &with(worker)).unwrap();
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    assert_eq!(found.container, Some("tiff"));
    assert_eq!(kinds(&found), ["orphaned_jumbf"]);
    assert!(found.unverified.as_ref().is_some_and(|why| why.contains("ended")), "{found:?}");
}

/// The worker keeps to its limits whatever the file is.
#[test]
fn the_worker_is_confined() {
    let Some(files) = files() else { return };
    // So little address space that nothing can be allocated: it says so, or is aborted.
    let file = fs::File::open(files.join("c2pa-CAI.jpg")).unwrap();
    let output = std::process::Command::new(PROGRAM)
        .args(["c2pa-worker", "--format", "jpg", "--seconds", "10", "--memory", "1000000"])
        .stdin(file)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(!output.status.success() || said.contains("out of memory"), "{said}");
    // What is no file cannot be searched; that is told and does not wait.
    let output = std::process::Command::new(PROGRAM)
        .args(["c2pa-worker", "--format", "jpg", "--seconds", "10", "--memory", "2000000000"])
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("\"answer\""), "{said}");
}

#[test]
fn without_a_verifier_a_manifest_stays_inconclusive() {
    let Some(files) = files() else { return };
    let found = inspect(&files.join("c2pa-E-sig-CA.jpg")).unwrap();
    let label = c2pa(&found);
    assert_eq!(label.verdict, LabelVerdict::Inconclusive);
    assert!(label.content.contains("not verified: no verifier was given"), "{}", label.content);
    // That is no failure.
    assert_eq!(found.unverified, None);
    assert_eq!(strip_verdict(&found), SegmentVerdict::Bonafide);
}

/// Files without a manifest cost no process.
#[test]
fn the_verifier_is_not_started_for_ordinary_files() {
    let broken = with(Worker::new("/nonexistent/veriscope".into(), None));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/label-intact.png");
    let found = inspect_with(&file, &broken).unwrap();
    assert_eq!(found.unverified, None);
    assert!(found.labels.iter().all(|l| l.system != "c2pa"), "{found:?}");
}

#[test]
fn a_changed_picture_breaks_the_binding_and_is_no_removal() {
    let Some(files) = files() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = fs::read(files.join("c2pa-C.jpg")).unwrap();
    let at = bytes.len() - 1000;
    bytes[at] ^= 1;
    let path = dir.path().join("changed.jpg");
    fs::write(&path, &bytes).unwrap();
    let found = look(&path);
    let label = c2pa(&found);
    assert_eq!(label.verdict, LabelVerdict::Noncompliant);
    assert!(label.deviations.iter().any(|d| d == "assertion.dataHash.mismatch"), "{label:?}");
    assert_eq!(kinds(&found), ["broken_hard_binding"]);
    assert_eq!(found.strip_evidence[0].place, label.place);
    assert_eq!(strip_verdict(&found), SegmentVerdict::Bonafide);
}

/// Cut anywhere or altered anywhere: an answer, no panic, and no verdict of a whole manifest.
#[test]
fn damaged_files_are_answered() {
    let Some(files) = files() else { return };
    let dir = tempfile::tempdir().unwrap();
    let whole = fs::read(files.join("c2pa-C.jpg")).unwrap();
    let path = dir.path().join("damaged.jpg");
    let look_at = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        look(&path)
    };
    let mut answered = 0;
    for n in 0..24 {
        let found = look_at(&whole[..whole.len() * n / 24]);
        for label in found.labels.iter().filter(|l| l.system == "c2pa") {
            assert_ne!(label.verdict, LabelVerdict::Compliant, "cut at {n}/24: {label:?}");
            answered += 1;
        }
    }
    // Bytes of the manifest, which lies at the head of this file.
    for n in 0..24 {
        let mut bytes = whole.clone();
        bytes[100 + n * 401] ^= 0x55;
        let found = look_at(&bytes);
        for label in found.labels.iter().filter(|l| l.system == "c2pa") {
            assert_ne!(label.verdict, LabelVerdict::Compliant, "byte {}", 100 + n * 401);
            answered += 1;
        }
        assert_eq!(found.unverified, None, "byte {}: {found:?}", 100 + n * 401);
    }
    assert!(answered > 24, "{answered}");
}
