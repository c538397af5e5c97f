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

/// Every decoded frame with its time, and every packet's bytes with their times, the comments of
/// Ogg left out, which ffmpeg hands out beside the first packet. Packets of pictures hold the file's
/// metadata and are not compared.
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
    if path.extension().is_some_and(|e| e == "webp") && is_moving(path) {
        return chunks_of(path);
    }
    let decoded = run(&["-fps_mode", "passthrough"]);
    assert!(decoded.lines().any(|line| !line.starts_with('#')), "{}", path.display());
    let still = ["png", "jpg", "webp", "tiff", "gif", "avif"];
    if path.extension().is_some_and(|e| still.iter().any(|s| e == *s)) {
        return decoded;
    }
    let copied = run(&["-c", "copy"]);
    let plain = copied.lines().map(|line| line.split(", S=").next().unwrap());
    decoded + &plain.collect::<Vec<_>>().join("\n")
}

fn is_moving(path: &Path) -> bool {
    std::fs::read(path).unwrap().windows(4).any(|w| w == b"ANMF")
}

/// The chunks of an animated WebP, which this ffmpeg does not decode, but for the flags of the first
/// one and the XMP.
fn chunks_of(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap();
    let mut at = 12;
    let mut out = String::new();
    while at + 8 <= bytes.len() {
        let size = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
        let id = &bytes[at..at + 4];
        let body = &bytes[at + 8..at + 8 + size];
        match id {
            b"XMP " => {}
            b"VP8X" => out += &format!("VP8X {:?}\n", &body[1..]),
            _ => out += &format!("{id:?} {body:?}\n"),
        }
        at += 8 + size.next_multiple_of(2);
    }
    assert_eq!(u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize + 8, bytes.len());
    out
}

/// What a reader that seeks makes of the file: its index still leads to the pictures.
fn sought(path: &Path) -> String {
    if path.extension().is_some_and(|e| e == "webp") {
        return String::new();
    }
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
        same(path, &media(path), &before.1);
        same(path, &sought(path), &before.2);
    }
    let left: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".part"))
        .collect();
    assert_eq!(left, [""; 0]);
    (labelled, again)
}

fn same(path: &Path, now: &str, before: &str) {
    let other = now.lines().zip(before.lines()).find(|(a, b)| a != b);
    assert!(now == before, "{}: now and before: {other:?}", path.display());
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
const AVIF: &[&str] = &["-an", "-frames:v", "1", "-c:v", "libaom-av1", "-cpu-used", "8"];
const CLEAR_AVIF: &[&str] = &[
    "-filter_complex",
    "[0:v]split[a][b];[b]format=gray[c]",
    "-map",
    "[a]",
    "-map",
    "[c]",
    "-frames:v",
    "1",
    "-c:v",
    "libaom-av1",
    "-cpu-used",
    "8",
];

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
        ("a.avif", format!("meta.item2(application/rdf+xml){packet}"), AVIF),
        // Its second item is the transparency of the first, which iref says.
        ("clear.avif", format!("meta.item3(application/rdf+xml){packet}"), CLEAR_AVIF),
    ] {
        round_trip(&made(dir.path(), name, args), &place);
    }
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

/// A structure that leaves no choice: AVI without free space, WAV whose sound runs to the end,
/// pictures with XMP of their own.
#[test]
fn structures_with_little_room() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    // The free space of an AVI turned into something that is not zero.
    let source = made(dir.path(), "full.avi", &[]);
    let mut bytes = std::fs::read(&source).unwrap();
    let movi = find(&bytes, b"movi");
    let junk = bytes[..movi].windows(4).rposition(|w| w == b"JUNK").unwrap();
    bytes[junk + 20] = 7;
    std::fs::write(&source, &bytes).unwrap();
    let (labelled, _) = round_trip(&source, "RIFF(AVI).LIST(INFO).AIGC");
    let now = std::fs::read(labelled).unwrap();
    // Nothing but the size of the whole is other than it was.
    assert_eq!((&now[..4], &now[8..bytes.len()]), (&bytes[..4], &bytes[8..]));
    // A stream of sound that states no sizes.
    let source = made(dir.path(), "pipe.wav", &["-vn"]);
    let mut bytes = std::fs::read(&source).unwrap();
    let data = find(&bytes, b"data");
    bytes[4..8].fill(0xFF);
    bytes[data + 4..data + 8].fill(0xFF);
    std::fs::write(&source, &bytes).unwrap();
    round_trip(&source, "RIFF(WAVE).AIGC");
    // An Ogg whose comments fill many pages, so that all pages behind them get new numbers.
    let cover = "x".repeat(65_025 * 2 - 300);
    let source = made(
        dir.path(),
        "big.ogg",
        &["-vn", "-c:a", "libvorbis", "-metadata", &format!("c={cover}")],
    );
    round_trip(&source, "comment header[AIGC]");
    // XMP that is there is added to, and the rest of it stays.
    let other = r#"<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/></rdf:RDF></x:xmpmeta><?xpacket end="w"?>"#;
    let jpeg = std::fs::read(made(dir.path(), "plain.jpg", STILL)).unwrap();
    let body = [b"http://ns.adobe.com/xap/1.0/\0", other.as_bytes()].concat();
    let segment = |marker: u8, body: &[u8]| {
        [&[0xFF, marker][..], &(body.len() as u16 + 2).to_be_bytes(), body].concat()
    };
    let source = path("xmp.jpg");
    std::fs::write(&source, [&jpeg[..2], &segment(0xE1, &body), &jpeg[2..]].concat()).unwrap();
    let (_, last) = round_trip(&source, "APP1(XMP)[TC260:AIGC]");
    assert!(inspect(&last).unwrap().labels.iter().any(|l| l.system == "iptc"));
    // Further pictures behind the first one are still found: their index is kept right.
    let index = |size: usize, other: usize| {
        let entry = |size: usize, at: usize| {
            [0_u32, size as u32, at as u32, 0].iter().flat_map(|n| n.to_be_bytes()).collect()
        };
        let entries: Vec<Vec<u8>> = vec![entry(size, 0), entry(jpeg.len(), other)];
        let mut ifd =
            b"MPF\0MM\0*\0\0\0\x08\0\x01\xB0\x02\0\x07\0\0\0\x20\0\0\0\x1A\0\0\0\0".to_vec();
        ifd.extend(entries.concat());
        segment(0xE2, &ifd)
    };
    let one = jpeg.len() + index(0, 0).len();
    let app0 = 4 + u16::from_be_bytes([jpeg[4], jpeg[5]]) as usize;
    let base = app0 + 8;
    let whole = [&jpeg[..app0], &index(one, one - base), &jpeg[app0..], &jpeg].concat();
    let source = path("two.jpg");
    std::fs::write(&source, &whole).unwrap();
    let (labelled, last) = round_trip(&source, "APP1(XMP)[TC260:AIGC]");
    for path in [labelled, last] {
        let now = std::fs::read(path).unwrap();
        let at = find(&now, b"MPF\0") + 4;
        let number = |from: usize| {
            u32::from_be_bytes(now[at + from..at + from + 4].try_into().unwrap()) as usize
        };
        let second = at + number(0x1A + 16 + 8);
        assert_eq!(&now[second..], &jpeg[..]);
        assert_eq!(number(0x1A + 4), second);
    }
}

#[test]
fn what_would_not_comply_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let source = made(dir.path(), "a.png", STILL);
    let out = dir.path().join("out.png");
    for (producer, word) in [
        (Producer { label: "4", ..PRODUCER }, "Label"),
        (Producer { label: "", ..PRODUCER }, "Label"),
        (Producer { code: "doubao", ..PRODUCER }, "ContentProducer"),
        (Producer { code: "", ..PRODUCER }, "ContentProducer"),
        (Producer { id: "", ..PRODUCER }, "ProduceID"),
        (Producer { id: "a b", ..PRODUCER }, "0x21"),
        (Producer { id: "a\"b", ..PRODUCER }, "0x21"),
        (Producer { reserved: "生成", ..PRODUCER }, "0x21"),
    ] {
        let error = add(&source, &out, &producer, PLAIN).unwrap_err();
        assert!(matches!(error, WriteError::Value(_)), "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
    for platform in [
        Propagator { code: "x", ..PLATFORM },
        Propagator { code: "", ..PLATFORM },
        Propagator { id: "", ..PLATFORM },
        Propagator { id: "ä", ..PLATFORM },
        Propagator { reserved: Some("a b"), ..PLATFORM },
    ] {
        let error = propagate(&source, &out, &platform, None, PLAIN).unwrap_err();
        assert!(matches!(error, WriteError::Value(_)), "{error}");
    }
    // No label to add to; a platform's own finding is never "is AI".
    let error = propagate(&source, &out, &PLATFORM, None, PLAIN).unwrap_err();
    assert!(matches!(error, WriteError::NoLabel(_)), "{error}");
    let error = propagate(&source, &out, &PLATFORM, Some(&PRODUCER), PLAIN).unwrap_err();
    assert!(matches!(error, WriteError::Value(_)), "{error}");
    assert!(!out.exists());
    let suspected = Producer { label: "3", ..PRODUCER };
    let written = propagate(&source, &out, &PLATFORM, Some(&suspected), PLAIN).unwrap();
    assert!(
        written.label.content.contains("\"Label\":\"3\"")
            && written.label.content.contains("spread")
    );
    // And where there is a label, none is written over it.
    let error =
        propagate(&out, &dir.path().join("x"), &PLATFORM, Some(&suspected), PLAIN).unwrap_err();
    assert!(matches!(error, WriteError::Labelled { .. }), "{error}");
    // A label that does not comply stays as it is.
    let bad = std::fs::read(&out).unwrap();
    let at = find(&bad, b"tEXtAIGC");
    let size = u32::from_be_bytes(bad[at - 4..at].try_into().unwrap()) as usize;
    let body = b"tEXtAIGC\0{\"Label\":\"AIGC\",\"ContentProducer\":\"doubao\"}";
    let mut crc = flate2::Crc::new();
    crc.update(body);
    let chunk =
        [&(body.len() as u32 - 4).to_be_bytes()[..], body, &crc.sum().to_be_bytes()].concat();
    let file = dir.path().join("bad.png");
    std::fs::write(&file, [&bad[..at - 4], &chunk, &bad[at + size + 8..]].concat()).unwrap();
    let error = propagate(&file, &dir.path().join("x"), &PLATFORM, None, PLAIN).unwrap_err();
    assert!(error.to_string().contains("producer_not_provider_code"), "{error}");
}

#[test]
fn files_are_safe() {
    let dir = tempfile::tempdir().unwrap();
    let source = made(dir.path(), "a.png", STILL);
    let before = std::fs::read(&source).unwrap();
    let path = |name: &str| dir.path().join(name);
    let force = WriteOptions { force: true, ..PLAIN };
    // The input under its own name, another name, and a link.
    std::fs::hard_link(&source, path("hard.png")).unwrap();
    std::os::unix::fs::symlink(&source, path("soft.png")).unwrap();
    for name in ["a.png", "hard.png", "soft.png"] {
        let error = add(&source, &path(name), &PRODUCER, force).unwrap_err();
        assert!(matches!(error, WriteError::IsInput(_)), "{error}");
    }
    std::fs::write(path("old.png"), "old").unwrap();
    let error = add(&source, &path("old.png"), &PRODUCER, PLAIN).unwrap_err();
    assert!(matches!(error, WriteError::Exists(_)), "{error}");
    assert_eq!(std::fs::read(path("old.png")).unwrap(), b"old");
    add(&source, &path("old.png"), &PRODUCER, force).unwrap();
    assert_label(&path("old.png"), "tEXt[AIGC]", None);
    assert_eq!(std::fs::read(&source).unwrap(), before);
    // Neither is a folder or what is in no folder.
    assert!(add(&source, &path("no/such/folder.png"), &PRODUCER, PLAIN).is_err());
    assert!(add(dir.path(), &path("x.png"), &PRODUCER, PLAIN).is_err());
    // A container that is read and not written, and none at all.
    let stream = made(dir.path(), "a.ts", &["-c:v", "mpeg2video", "-f", "mpegts"]);
    let error = add(&stream, &path("x"), &PRODUCER, PLAIN).unwrap_err();
    assert!(matches!(error, WriteError::Container { .. }), "{error}");
    assert!(error.to_string().contains("MPEG-TS"), "{error}");
    // A sequence of pictures.
    let moving = made(dir.path(), "moving.avif", &["-an", "-c:v", "libaom-av1", "-cpu-used", "8"]);
    let error = add(&moving, &path("x"), &PRODUCER, PLAIN).unwrap_err();
    assert!(matches!(error, WriteError::Structure { .. }), "{error}");
    std::fs::write(path("text"), "nothing that is known").unwrap();
    let error = add(&path("text"), &path("x"), &PRODUCER, PLAIN).unwrap_err();
    assert!(matches!(error, WriteError::Container { .. }), "{error}");
    assert!(!path("x").exists());
    let parts = std::fs::read_dir(dir.path()).unwrap();
    assert!(!parts.flatten().any(|entry| entry.path().extension().is_some_and(|e| e == "part")));
}

#[test]
fn c2pa_is_not_broken_unasked() {
    let root = std::env::var_os("VERISCOPE_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let source = root.join("data/provenance/c2pa-C.jpg");
    if !source.is_file() {
        println!("skipped: no shared data at {}", root.display());
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.jpg");
    let error = add(&source, &out, &PRODUCER, PLAIN).unwrap_err();
    assert!(matches!(error, WriteError::C2pa(_)), "{error}");
    let options = WriteOptions { break_c2pa: true, ..PLAIN };
    add(&source, &out, &PRODUCER, options).unwrap();
    let found = inspect(&out).unwrap();
    assert_eq!(found.labels.iter().filter(|l| l.system == "c2pa").count(), 1);
    // Real labels of two services, in XMP; the platform's elements of one were empty, of the other
    // set.
    for name in ["aigc-doubao.png", "aigc-jimeng.png"] {
        let source = root.join("data/provenance").join(name);
        let out = dir.path().join(name);
        let old = inspect(&source).unwrap();
        let written = propagate(&source, &out, &PLATFORM, None, PLAIN).unwrap();
        let fields = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        let (old, new) = (fields(&aigc(&old)[0].content), fields(&written.label.content));
        for (key, value) in old.as_object().unwrap() {
            let expected = match key.as_str() {
                "ContentPropagator" => PLATFORM.code,
                "PropagateID" => PLATFORM.id,
                _ => value.as_str().unwrap(),
            };
            assert_eq!(new[key], expected, "{name} {key}");
        }
        assert_eq!(media(&source), media(&out));
    }
}

/// A short file of every container that is written.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let make = |name: &str, args: &[&str]| made(folder, name, &[&["-t", "0.2"], args].concat());
    vec![
        make("a.mp4", &["-an", "-movflags", "faststart"]),
        make("f.mp4", &["-an", "-movflags", "frag_keyframe+empty_moov"]),
        make("a.mkv", &["-an"]),
        make("a.png", STILL),
        make("a.jpg", STILL),
        make("a.webp", STILL),
        make("a.gif", &["-an"]),
        make("a.tiff", STILL),
        make("a.avif", AVIF),
        make("a.wav", &["-vn", "-ar", "8000"]),
        make("a.avi", &["-an"]),
        make("a.mp3", &["-vn"]),
        make("a.flac", &["-vn", "-ar", "8000"]),
        make("a.ogg", &["-vn", "-c:a", "libvorbis"]),
        make("a.flv", &["-an", "-c:v", "flv"]),
    ]
}

/// Inputs that are cut anywhere give an error or a whole result, and never a panic.
#[test]
fn cut_inputs() {
    let dir = tempfile::tempdir().unwrap();
    let (cut, out) = (dir.path().join("cut"), dir.path().join("out"));
    let force = WriteOptions { force: true, ..PLAIN };
    for source in sources(dir.path()) {
        let bytes = std::fs::read(&source).unwrap();
        let labelled = dir.path().join("labelled");
        add(&source, &labelled, &PRODUCER, force).unwrap();
        let spread = std::fs::read(&labelled).unwrap();
        let mut refused = 0;
        // Every third place in the first 300 bytes, then 60 of the rest.
        let step = (bytes.len() / 60).max(1);
        for len in (0..bytes.len().min(300)).step_by(3).chain((300..bytes.len()).step_by(step)) {
            std::fs::write(&cut, &bytes[..len]).unwrap();
            match add(&cut, &out, &PRODUCER, force) {
                Ok(_) => assert_eq!(aigc(&inspect(&out).unwrap()).len(), 1),
                Err(_) => refused += 1,
            }
            std::fs::write(&cut, &spread[..len]).unwrap();
            if propagate(&cut, &out, &PLATFORM, None, force).is_ok() {
                assert_eq!(aigc(&inspect(&out).unwrap()).len(), 1);
            }
        }
        assert!(refused > 0, "{}", source.display());
    }
}

/// Bits turned over and sizes that are wrong: an error, or a whole result that reads back.
#[test]
fn damaged_inputs() {
    let dir = tempfile::tempdir().unwrap();
    let (damaged, out) = (dir.path().join("damaged"), dir.path().join("out"));
    let labelled = dir.path().join("labelled");
    let force = WriteOptions { force: true, ..PLAIN };
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut below = |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % n as u64) as usize
    };
    for source in sources(dir.path()) {
        add(&source, &labelled, &PRODUCER, force).unwrap();
        for path in [&source, &labelled] {
            let bytes = std::fs::read(path).unwrap();
            for round in 0..60 {
                let mut hurt = bytes.clone();
                for _ in 0..=below(4) {
                    let at = below(bytes.len().min(3000));
                    if round % 2 == 0 {
                        hurt[at] ^= 1 << below(8);
                    } else {
                        let end = (at + 4).min(hurt.len());
                        hurt[at..end].fill([0, 1, 0x7F, 0xFF][below(4)]);
                    }
                }
                std::fs::write(&damaged, &hurt).unwrap();
                let start = std::time::Instant::now();
                let done = if path == &source {
                    add(&damaged, &out, &PRODUCER, force)
                } else {
                    propagate(&damaged, &out, &PLATFORM, None, force)
                };
                if done.is_ok() {
                    assert_eq!(aigc(&inspect(&out).unwrap()).len(), 1);
                }
                assert!(start.elapsed().as_secs() < 5, "{} {round}", source.display());
            }
        }
    }
}

fn json(extra: &str) -> String {
    format!(
        r#"{{"AIGC": {{"Label":"1","ContentProducer":"{}","ProduceID":"{}"{extra}}}}}"#,
        PRODUCER.code, PRODUCER.id
    )
}

/// What others wrote, where others write it: other places than `add` knows, fields left out, keys
/// of their own. Gives the file's label.
fn assert_propagates(path: &Path, place: &str) -> serde_json::Value {
    let out =
        path.with_file_name(format!("spread-{}", path.file_name().unwrap().to_str().unwrap()));
    let force = WriteOptions { force: true, ..PLAIN };
    let before = (media(path), sought(path));
    propagate(path, &out, &PLATFORM, None, force).unwrap();
    assert_label(&out, place, Some(&PLATFORM));
    same(&out, &media(&out), &before.0);
    same(&out, &sought(&out), &before.1);
    let found = inspect(&out).unwrap();
    serde_json::from_str(&aigc(&found)[0].content).unwrap()
}

#[test]
fn labels_that_ffmpeg_wrote_are_propagated() {
    let dir = tempfile::tempdir().unwrap();
    let label = format!("AIGC={}", json(r#","ReservedCode1":"r","Own":[1,{"a":"}"}]"#));
    let keys = ["-movflags", "use_metadata_tags+faststart"];
    for (name, place, args) in [
        ("a.mp4", "moov.udta.meta.ilst[AIGC]", &keys[..]),
        (
            "frag.mp4",
            "moov.udta.meta.ilst[AIGC]",
            &["-movflags", "use_metadata_tags+frag_keyframe+empty_moov"],
        ),
        // Before the clusters: with an index and with checksums, and without.
        ("a.mkv", "Segment.Tags.Tag.SimpleTag[AIGC]", &["-g", "3"]),
        ("plain.mkv", "Segment.Tags.Tag.SimpleTag[AIGC]", &["-write_crc32", "0", "-g", "3"]),
        ("live.mkv", "Segment.Tags.Tag.SimpleTag[AIGC]", &["-live", "1"]),
        ("a.mp3", "ID3.TXXX[AIGC]", &["-vn"]),
        ("v23.mp3", "ID3.TXXX[AIGC]", &["-vn", "-id3v2_version", "3"]),
        ("a.flac", "VORBIS_COMMENT[AIGC]", &["-vn"]),
        ("a.ogg", "comment header[AIGC]", &["-vn", "-c:a", "libvorbis"]),
        ("a.flv", "onMetaData[AIGC]", &["-c:v", "flv"]),
    ] {
        let source = made(dir.path(), name, &[&["-metadata", &label], args].concat());
        let fields = assert_propagates(&source, place);
        assert_eq!(fields["ReservedCode1"], "r");
        // What is no field of the standard is still in the file.
        let out = dir.path().join(format!("spread-{name}"));
        assert!(probed(&out).contains("spread:q"), "{name}: {}", probed(&out));
        let bytes = std::fs::read(out).unwrap();
        let text: Vec<u8> = bytes.into_iter().filter(|b| *b != 0).collect();
        find(&text, br#""Own":[1,{"a":"}"}]"#);
    }
}

#[test]
fn labels_in_other_places_are_propagated() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let label = json("");
    let packet = format!(
        r#"<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" xmlns:T="http://www.tc260.org.cn/ns/AIGC/1.0/"><T:AIGC>{}</T:AIGC></rdf:Description></rdf:RDF></x:xmpmeta>"#,
        label.replace('"', "&quot;")
    );
    // PNG: packed, international, XMP packed.
    let png = std::fs::read(made(dir.path(), "plain.png", STILL)).unwrap();
    let packed = |text: &str| {
        use std::io::Write as _;
        let mut encoder =
            flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    for (name, kind, body, place) in [
        ("z.png", b"zTXt", [b"AIGC\0\0", &packed(&label)[..]].concat(), "zTXt[AIGC]"),
        ("i.png", b"iTXt", [b"AIGC\0\0\0zh\0\0", label.as_bytes()].concat(), "iTXt[AIGC]"),
        (
            "x.png",
            b"iTXt",
            [b"XML:com.adobe.xmp\0\x01\0\0\0", &packed(&packet)[..]].concat(),
            "iTXt[XML:com.adobe.xmp][TC260:AIGC]",
        ),
    ] {
        let mut crc = flate2::Crc::new();
        crc.update(kind);
        crc.update(&body);
        let size = (body.len() as u32).to_be_bytes();
        let chunk = [&size[..], kind, &body, &crc.sum().to_be_bytes()].concat();
        std::fs::write(path(name), [&png[..33], &chunk, &png[33..]].concat()).unwrap();
        assert_propagates(&path(name), place);
    }
    // JPEG: bare in a segment, in a comment.
    let jpeg = std::fs::read(made(dir.path(), "plain.jpg", STILL)).unwrap();
    for (name, marker, body, place) in [
        (
            "bare.jpg",
            0xE9,
            format!("junk AIGC{}", json("").replace("{\"AIGC\": ", "").replace("}}", "}")),
            "APP9",
        ),
        ("com.jpg", 0xFE, label.clone(), "COM"),
    ] {
        let size = (body.len() as u16 + 2).to_be_bytes();
        let segment = [&[0xFF, marker], &size[..], body.as_bytes()].concat();
        std::fs::write(path(name), [&jpeg[..2], &segment, &jpeg[2..]].concat()).unwrap();
        assert_propagates(&path(name), place);
    }
    // MP4: XMP before the media, which then moves; a literal box in udta.
    let boxed = |kind: &[u8], body: &[u8]| {
        [&(body.len() as u32 + 8).to_be_bytes()[..], kind, body].concat()
    };
    let mp4 = std::fs::read(made(dir.path(), "plain.mp4", &["-movflags", "faststart"])).unwrap();
    let moov = find(&mp4, b"moov") - 4;
    let size = u32::from_be_bytes(mp4[moov..moov + 4].try_into().unwrap()) as usize;
    let id = b"\xBE\x7A\xCF\xCB\x97\xA9\x42\xE8\x9C\x71\x99\x94\x91\xE3\xAF\xAC";
    let uuid = boxed(b"uuid", &[id, packet.as_bytes()].concat());
    for (name, at) in [("before.mp4", moov), ("behind.mp4", moov + size)] {
        let mut file = [&mp4[..at], &uuid, &mp4[at..]].concat();
        let moov = find(&file, b"moov") - 4;
        shift_chunks(&mut file, moov, size, uuid.len() as u32);
        std::fs::write(path(name), file).unwrap();
        assert_propagates(&path(name), "uuid(XMP)[TC260:AIGC]");
    }
    let literal = boxed(b"aigc", &[&[0; 4][..], label.as_bytes()].concat());
    let udta = find(&mp4, b"udta") - 4;
    let mut file = [&mp4[..udta + 8], &literal, &mp4[udta + 8..]].concat();
    for at in [moov, udta] {
        let old = u32::from_be_bytes(file[at..at + 4].try_into().unwrap());
        file[at..at + 4].copy_from_slice(&(old + literal.len() as u32).to_be_bytes());
    }
    shift_chunks(&mut file, moov, size + literal.len(), literal.len() as u32);
    std::fs::write(path("literal.mp4"), file).unwrap();
    assert_propagates(&path("literal.mp4"), "moov.udta.aigc");
    // WAV: among the texts of LIST INFO.
    let wav =
        std::fs::read(made(dir.path(), "plain.wav", &["-vn", "-fflags", "+bitexact"])).unwrap();
    let mut child = [b"AIGC", &(label.len() as u32).to_le_bytes()[..], label.as_bytes()].concat();
    child.resize(child.len().next_multiple_of(2), 0);
    let list = [b"LIST", &(child.len() as u32 + 4).to_le_bytes()[..], b"INFO", &child].concat();
    let mut file = [&wav[..12], &list, &wav[12..]].concat();
    let size = (file.len() as u32 - 8).to_le_bytes();
    file[4..8].copy_from_slice(&size);
    std::fs::write(path("info.wav"), file).unwrap();
    assert_propagates(&path("info.wav"), "RIFF(WAVE).LIST(INFO).AIGC");
    // Where a label is read and not written: in a comment of EXIF.
    let text = [b"ASCII\0\0\0", label.as_bytes()].concat();
    let mut tiff =
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x1A\0\0\0\0\0\0\0".to_vec();
    tiff.extend(b"\x01\0\x86\x92\x07\0");
    tiff.extend((text.len() as u32).to_le_bytes());
    tiff.extend(b"\x2C\0\0\0\0\0\0\0");
    tiff.extend(text);
    let segment = [&[0xFF, 0xE1], &(tiff.len() as u16 + 2).to_be_bytes()[..], &tiff].concat();
    std::fs::write(path("exif.jpg"), [&jpeg[..2], &segment, &jpeg[2..]].concat()).unwrap();
    assert_eq!(aigc(&inspect(&path("exif.jpg")).unwrap()).len(), 1);
    let error = propagate(&path("exif.jpg"), &path("x"), &PLATFORM, None, PLAIN).unwrap_err();
    assert!(matches!(error, WriteError::Structure { .. }) && !path("x").exists(), "{error}");
}
