//! Labels written into files made with the `ffmpeg` command and into bytes laid by hand: read back
//! where they belong, with pictures, sound and times exactly as they were.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;

use veriscope::provenance::write::{
    Producer, Propagator, WriteError, WriteOptions, Written, add, propagate,
};
use veriscope::provenance::{Findings, inspect};
use veriscope::report::{Label, LabelVerdict};

const PRODUCER: Producer<'_> =
    Producer { label: "1", code: "001191110102MACQD9K64010000", id: "made/p-1", reserved: "" };
const PLATFORM: Propagator<'_> =
    Propagator { code: "00119144030008867405X220001", id: "spread:q&<>'2", reserved: None };
const PLAIN: WriteOptions = WriteOptions { force: false, break_c2pa: false };

/// A short file made by ffmpeg.
fn made(folder: &Path, name: &str, args: &[&str]) -> PathBuf {
    let path = folder.join(name);
    let status = Command::new("ffmpeg")
        .args(["-loglevel", "error", "-nostdin", "-y"])
        .args(["-f", "lavfi", "-i", "testsrc=d=1.2:s=64x48:r=10", "-f", "lavfi"])
        .args(["-i", "sine=d=1.2"])
        .args(args)
        .arg(&path)
        .status()
        .unwrap();
    assert!(status.success(), "ffmpeg could not make {name}");
    path
}

/// Every decoded frame with its time, and every packet's bytes with their times.
fn media(path: &Path) -> String {
    let run = |args: &[&str]| {
        let out = Command::new("ffmpeg")
            .args(["-loglevel", "error", "-nostdin", "-i"])
            .arg(path)
            .args(["-map", "0"])
            .args(args)
            .args(["-f", "framemd5", "-"])
            .output()
            .unwrap();
        assert!(out.status.success(), "{}: {out:?}", path.display());
        assert_eq!(String::from_utf8_lossy(&out.stderr), "", "{}", path.display());
        String::from_utf8(out.stdout).unwrap()
    };
    let decoded = run(&["-fps_mode", "passthrough"]);
    assert!(decoded.lines().any(|line| !line.starts_with('#')), "{}", path.display());
    decoded + &run(&["-c", "copy"])
}

/// What a reader that seeks makes of the file: its index still leads to the pictures.
fn sought(path: &Path) -> String {
    let out = Command::new("ffmpeg")
        .args(["-loglevel", "error", "-nostdin", "-ss", "0.6", "-i"])
        .arg(path)
        .args(["-f", "framemd5", "-"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stderr), "", "{}", path.display());
    String::from_utf8(out.stdout).unwrap()
}

fn aigc(found: &Findings) -> Vec<&Label> {
    found.labels.iter().filter(|l| l.system == "aigc" && l.place != "file").collect()
}

/// The one compliant label of a file, at `place`.
fn assert_label(path: &Path, place: &str, propagator: Option<&Propagator<'_>>) {
    let found = inspect(path).unwrap();
    let labels = aigc(&found);
    assert_eq!(labels.len(), 1, "{found:?}");
    assert_eq!(labels[0].verdict, LabelVerdict::Compliant, "{found:?}");
    let (at, _) = labels[0].place.rsplit_once('@').unwrap();
    assert_eq!(at, place, "{}", path.display());
    let content: serde_json::Value = serde_json::from_str(&labels[0].content).unwrap();
    assert_eq!(content["Label"], PRODUCER.label);
    assert_eq!(content["ContentProducer"], PRODUCER.code);
    assert_eq!(content["ProduceID"], PRODUCER.id);
    assert_eq!(content["ContentPropagator"], propagator.map_or("", |p| p.code));
    assert_eq!(content["PropagateID"], propagator.map_or("", |p| p.id));
    assert!(found.unread.is_empty() && found.strip_evidence.is_empty(), "{found:?}");
}

/// Adds, propagates twice, and compares the media each time. Gives the first and the last file.
fn round_trip(source: &Path, place: &str) -> (PathBuf, PathBuf) {
    let folder = source.parent().unwrap();
    let name = source.file_name().unwrap().to_str().unwrap();
    let before = (std::fs::read(source).unwrap(), media(source), sought(source));
    let out = |stage: &str| folder.join(format!("{stage}-{name}"));
    let (labelled, spread, again) = (out("labelled"), out("spread"), out("again"));
    let written: Written = add(source, &labelled, &PRODUCER, PLAIN).unwrap();
    assert!(written.label.content.contains("made/p-1"));
    assert_label(&labelled, place, None);
    // A second label would not comply.
    let second = add(&labelled, &out("twice"), &PRODUCER, PLAIN);
    assert!(matches!(second, Err(WriteError::Labelled { .. })), "{second:?}");
    propagate(&labelled, &spread, &PLATFORM, None, PLAIN).unwrap();
    assert_label(&spread, place, Some(&PLATFORM));
    // Another platform's elements take the place of the first one's, here shorter ones.
    let other = Propagator { id: "2", ..PLATFORM };
    propagate(&spread, &again, &other, None, PLAIN).unwrap();
    assert_label(&again, place, Some(&other));
    assert_eq!(std::fs::read(source).unwrap(), before.0, "{name}: the input was changed");
    for path in [&labelled, &spread, &again] {
        assert_eq!(media(path), before.1, "{}", path.display());
        assert_eq!(sought(path), before.2, "{}", path.display());
    }
    let left: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".part"))
        .collect();
    assert_eq!(left, [""; 0]);
    (labelled, again)
}

/// What ffprobe shows under the key.
fn probed(path: &Path) -> String {
    let out = Command::new("ffprobe")
        .args(["-loglevel", "error", "-show_entries", "format_tags=AIGC:stream_tags=AIGC"])
        .args(["-of", "default=nw=1:nk=1"])
        .arg(path)
        .output()
        .unwrap();
    String::from_utf8(out.stdout).unwrap()
}

const STILL: &[&str] = &["-an", "-frames:v", "1"];

#[test]
fn mp4_of_every_layout() {
    let dir = tempfile::tempdir().unwrap();
    let item = "moov.udta.meta.ilst[AIGC]";
    for (name, args) in [
        // moov behind mdat, and before it: with udta.meta of iTunes' kind, with keys, without udta.
        ("late.mp4", &[][..]),
        ("fast.mp4", &["-movflags", "faststart"]),
        ("keys.mp4", &["-movflags", "use_metadata_tags+faststart", "-metadata", "a=b"]),
        ("bare.mp4", &["-movflags", "faststart", "-fflags", "+bitexact"]),
        ("a.mov", &["-movflags", "faststart"]),
        ("a.m4a", &["-vn", "-movflags", "faststart"]),
        // Fragments, with offsets from the start of the file and with an index of them.
        ("frag.mp4", &["-movflags", "frag_keyframe+empty_moov+default_base_moof", "-g", "3"]),
        ("base.mp4", &["-movflags", "frag_keyframe+empty_moov", "-g", "3"]),
        ("dash.mp4", &["-movflags", "frag_keyframe+empty_moov+dash+global_sidx", "-g", "3"]),
    ] {
        let (labelled, _) = round_trip(&made(dir.path(), name, args), item);
        assert!(probed(&labelled).contains("made/p-1"), "{name}: {}", probed(&labelled));
    }
    // Free space behind moov is used up, and then nothing moves.
    let source = made(dir.path(), "room.mp4", &["-movflags", "faststart"]);
    let mut bytes = std::fs::read(&source).unwrap();
    let moov = find(&bytes, b"moov") - 4;
    let size = u32::from_be_bytes(bytes[moov..moov + 4].try_into().unwrap()) as usize;
    // What ffmpeg leaves there is an empty box.
    let free = [&1000_u32.to_be_bytes()[..], b"free", &[0; 992]].concat();
    let moved = [&bytes[..moov + size], &free, &bytes[moov + size..]].concat();
    bytes = moved;
    shift_chunks(&mut bytes, moov, size, 1000);
    std::fs::write(&source, &bytes).unwrap();
    let (labelled, last) = round_trip(&source, item);
    for path in [labelled, last] {
        assert_eq!(std::fs::metadata(path).unwrap().len(), bytes.len() as u64);
    }
}

fn find(bytes: &[u8], needle: &[u8]) -> usize {
    bytes.windows(needle.len()).position(|w| w == needle).expect("needle is there")
}

/// Moves the chunk offsets of a file whose media the test itself moved.
fn shift_chunks(bytes: &mut [u8], moov: usize, size: usize, by: u32) {
    let mut from = moov;
    while let Some(at) = bytes[from..moov + size].windows(4).position(|w| w == b"stco") {
        let at = from + at + 4;
        let number =
            |at: usize, bytes: &[u8]| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        for index in 0..number(at + 4, bytes) as usize {
            let slot = at + 8 + 4 * index;
            let new = number(slot, bytes) + by;
            bytes[slot..slot + 4].copy_from_slice(&new.to_be_bytes());
        }
        from = at;
    }
}

#[test]
fn matroska() {
    let dir = tempfile::tempdir().unwrap();
    let place = "Segment.Tags.Tag.SimpleTag[AIGC]";
    for (name, args) in [
        ("a.mkv", &["-g", "3", "-cluster_time_limit", "300"][..]),
        ("a.webm", &["-c:v", "libvpx", "-c:a", "libopus"]),
        ("cues.mkv", &["-g", "3", "-cues_to_front", "1", "-reserve_index_space", "4096"]),
        ("plain.mkv", &["-fflags", "+bitexact", "-write_crc32", "0"]),
        ("live.mkv", &["-live", "1"]),
    ] {
        let (labelled, _) = round_trip(&made(dir.path(), name, args), place);
        assert!(probed(&labelled).contains("made/p-1"), "{name}: {}", probed(&labelled));
    }
}

#[test]
fn pictures() {
    let dir = tempfile::tempdir().unwrap();
    let packet = "[TC260:AIGC]";
    for (name, place, args) in [
        ("a.png", "tEXt[AIGC]".to_owned(), STILL),
        ("a.jpg", format!("APP1(XMP){packet}"), STILL),
        ("lossy.webp", format!("RIFF(WEBP).XMP{packet}"), STILL),
        (
            "lossless.webp",
            format!("RIFF(WEBP).XMP{packet}"),
            &["-an", "-frames:v", "1", "-lossless", "1"],
        ),
        ("moving.webp", format!("RIFF(WEBP).XMP{packet}"), &["-an", "-c:v", "libwebp_anim"]),
        ("moving.gif", format!("application(XMP DataXMP){packet}"), &["-an"]),
        ("still.gif", format!("application(XMP DataXMP){packet}"), STILL),
        ("a.tiff", format!("IFD0[XMP]{packet}"), STILL),
    ] {
        // ffmpeg's reader of animated WebP is new; where it is missing there is nothing to compare.
        if name == "moving.webp" && !reads_moving_webp(dir.path()) {
            println!("skipped: this ffmpeg does not read animated WebP");
            continue;
        }
        round_trip(&made(dir.path(), name, args), &place);
    }
}

fn reads_moving_webp(folder: &Path) -> bool {
    let path = made(folder, "probe.webp", &["-an", "-c:v", "libwebp_anim"]);
    let out = Command::new("ffmpeg")
        .args(["-loglevel", "error", "-nostdin", "-i"])
        .arg(path)
        .args(["-f", "null", "-"])
        .output()
        .unwrap();
    out.status.success() && out.stderr.is_empty()
}

#[test]
fn sound() {
    let dir = tempfile::tempdir().unwrap();
    for (name, place, args) in [
        ("a.wav", "RIFF(WAVE).AIGC", &["-vn"][..]),
        ("rf64.wav", "RF64(WAVE).AIGC", &["-vn", "-rf64", "always"]),
        ("a.mp3", "ID3.TXXX[AIGC]", &["-vn"]),
        ("v23.mp3", "ID3.TXXX[AIGC]", &["-vn", "-id3v2_version", "3", "-metadata", "title=t"]),
        ("none.mp3", "ID3.TXXX[AIGC]", &["-vn", "-id3v2_version", "0", "-write_id3v1", "1"]),
        ("a.flac", "VORBIS_COMMENT[AIGC]", &["-vn"]),
        ("vorbis.ogg", "comment header[AIGC]", &["-vn", "-c:a", "libvorbis"]),
        ("a.opus", "comment header[AIGC]", &["-vn", "-c:a", "libopus"]),
        ("flac.ogg", "comment header[AIGC]", &["-vn", "-c:a", "flac"]),
        ("speex.ogg", "comment header[AIGC]", &["-vn", "-c:a", "libspeex", "-ar", "16000"]),
        ("film.ogg", "comment header[AIGC]", &["-c:v", "libtheora", "-c:a", "libvorbis"]),
    ] {
        round_trip(&made(dir.path(), name, args), place);
    }
}

#[test]
fn avi_and_flv() {
    let dir = tempfile::tempdir().unwrap();
    let keyframes = ["-flvflags", "add_keyframe_index", "-g", "3", "-c:v", "flv"];
    for (name, place, args) in [
        ("a.avi", "RIFF(AVI).LIST(INFO).AIGC", &[][..]),
        ("a.flv", "onMetaData[AIGC]", &["-c:v", "flv"]),
        ("index.flv", "onMetaData[AIGC]", &keyframes),
        ("bare.flv", "onMetaData[AIGC]", &["-flvflags", "no_metadata", "-c:v", "flv"]),
    ] {
        let source = made(dir.path(), name, args);
        let (labelled, last) = round_trip(&source, place);
        if name == "index.flv" {
            let size = std::fs::metadata(&last).unwrap().len();
            for (path, size) in
                [(&last, size), (&labelled, std::fs::metadata(&labelled).unwrap().len())]
            {
                let bytes = std::fs::read(path).unwrap();
                let at = find(&bytes, b"filesize\0") + 9;
                let stated = f64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
                assert_eq!(stated, size as f64);
            }
        }
    }
}
