//! Labels and strip evidence over real files, over files made with the `ffmpeg` command, and over
//! bytes laid by hand. What is stripped here is stripped by the test itself.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use veriscope::detect::label_strip;
use veriscope::provenance::{Findings, InspectError, inspect, inspect_bytes};
use veriscope::report::{DispositionState, Label, LabelVerdict, SegmentVerdict};
use veriscope::verdict::disposition::disposition;

const LABEL: &str =
    r#"{"AIGC":{"Label":"1","ContentProducer":"001191110102MACQD9K64010000","ProduceID":"p-1"}}"#;
const BARE: &str =
    r#"{"Label":"1","ContentProducer":"001191110102MACQD9K64010000","ProduceID":"p-1"}"#;

fn shared() -> Option<PathBuf> {
    let root = std::env::var_os("VERISCOPE_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let there = root.join("data").is_dir();
    if !there {
        println!("skipped: no shared data at {}", root.display());
    }
    there.then_some(root)
}

fn look(bytes: &[u8]) -> Findings {
    inspect_bytes(bytes).unwrap()
}

fn of<'a>(found: &'a Findings, system: &str) -> Vec<&'a Label> {
    found.labels.iter().filter(|l| l.system == system && !l.place.eq("file")).collect()
}

fn kinds(found: &Findings) -> Vec<&str> {
    found.strip_evidence.iter().map(|e| e.kind.as_str()).collect()
}

fn verdict(found: &Findings) -> SegmentVerdict {
    label_strip::judge(found, None).1[0].verdict
}

/// A compliant label, read whole, and nothing that speaks of stripping.
fn assert_labelled(found: &Findings, container: &str) {
    assert_eq!(found.container, Some(container), "{found:?}");
    let labels = of(found, "aigc");
    assert_eq!(labels.len(), 1, "{found:?}");
    assert_eq!(labels[0].verdict, LabelVerdict::Compliant, "{:?}", labels[0]);
    assert_eq!(labels[0].ai, Some(true));
    assert!(labels[0].content.contains("p-1"));
    assert_eq!(kinds(found), [""; 0]);
    assert_eq!(verdict(found), SegmentVerdict::Bonafide, "{found:?}");
    let state = disposition(&found.labels, &found.strip_evidence, &[], false).state;
    assert_eq!(state, DispositionState::Confirmed);
}

fn assert_clean(found: &Findings) {
    assert_eq!(of(found, "aigc").len(), 0, "{found:?}");
    assert_eq!(found.labels[0].verdict, LabelVerdict::NotFound, "{found:?}");
    assert_eq!(kinds(found), [""; 0]);
    assert_eq!(verdict(found), SegmentVerdict::Bonafide);
    let state = disposition(&found.labels, &found.strip_evidence, &[], false).state;
    assert_eq!(state, DispositionState::None);
}

fn assert_stripped(found: &Findings, kind: &str) {
    assert!(kinds(found).contains(&kind), "{kind}: {found:?}");
    assert_eq!(verdict(found), SegmentVerdict::Fake, "{found:?}");
    for piece in &found.strip_evidence {
        assert!(piece.place.contains('@') && piece.weight > 0.0, "{piece:?}");
    }
}

/// A short file made by ffmpeg, with the label as metadata or without.
fn made(name: &str, label: Option<&str>, more: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    let mut command = Command::new("ffmpeg");
    command.args(["-loglevel", "error", "-nostdin"]);
    command.args(["-f", "lavfi", "-i", "testsrc=d=0.4:s=64x64:r=10"]);
    command.args(["-f", "lavfi", "-i", "sine=d=0.4"]);
    command.args(more);
    if let Some(label) = label {
        command.arg("-metadata").arg(format!("AIGC={label}"));
    }
    let status = command.arg(&path).status().unwrap();
    assert!(status.success(), "ffmpeg could not make {name}");
    std::fs::read(path).unwrap()
}

const TAGGED: &[&str] = &["-movflags", "use_metadata_tags"];

fn find(bytes: &[u8], needle: &[u8]) -> usize {
    bytes.windows(needle.len()).position(|w| w == needle).expect("needle is there")
}

fn replaced(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    assert_eq!(old.len(), new.len());
    let at = find(bytes, old);
    let mut out = bytes.to_vec();
    out[at..at + old.len()].copy_from_slice(new);
    out
}

fn boxed(kind: &[u8], body: &[u8]) -> Vec<u8> {
    let mut out = (body.len() as u32 + 8).to_be_bytes().to_vec();
    out.extend_from_slice(kind);
    out.extend_from_slice(body);
    out
}

fn xmp(inner: &str) -> Vec<u8> {
    format!(
        r#"<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" xmlns:TC260="http://www.tc260.org.cn/ns/AIGC/1.0/" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:dcterms="http://purl.org/dc/terms/" {inner}</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>"#
    )
    .into_bytes()
}

fn aigc_xmp() -> Vec<u8> {
    xmp(&format!("><TC260:AIGC>{}</TC260:AIGC>", BARE.replace('"', "&quot;")))
}

fn chunk(kind: &[u8], body: &[u8]) -> Vec<u8> {
    let mut crc = flate2::Crc::new();
    crc.update(kind);
    crc.update(body);
    let mut out = (body.len() as u32).to_be_bytes().to_vec();
    out.extend_from_slice(kind);
    out.extend_from_slice(body);
    out.extend_from_slice(&crc.sum().to_be_bytes());
    out
}

/// A PNG of one pixel with chunks before and after the pixels, and bytes after its end.
fn png(before: &[Vec<u8>], after: &[Vec<u8>], trailer: &[u8]) -> Vec<u8> {
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    out.extend(chunk(b"IHDR", &[0, 0, 0, 1, 0, 0, 0, 1, 8, 0, 0, 0, 0]));
    out.extend(before.concat());
    out.extend(chunk(b"IDAT", &deflated(&[0, 0])));
    out.extend(after.concat());
    out.extend(chunk(b"IEND", &[]));
    out.extend_from_slice(trailer);
    out
}

fn deflated(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn text_chunk(key: &str, value: &str) -> Vec<u8> {
    chunk(b"tEXt", &[key.as_bytes(), b"\0", value.as_bytes()].concat())
}

fn jpeg(segments: &[(u8, Vec<u8>)], trailer: &[u8]) -> Vec<u8> {
    let mut out = vec![0xFF, 0xD8];
    for (marker, body) in segments {
        out.extend([0xFF, *marker]);
        out.extend((body.len() as u16 + 2).to_be_bytes());
        out.extend_from_slice(body);
    }
    // A scan with a stuffed zero and a restart marker in its pixels.
    out.extend([0xFF, 0xDA, 0, 2, 1, 2, 0xFF, 0, 3, 0xFF, 0xD0, 4, 0xFF, 0xD9]);
    out.extend_from_slice(trailer);
    out
}

fn app1_xmp(packet: &[u8]) -> (u8, Vec<u8>) {
    (0xE1, [b"http://ns.adobe.com/xap/1.0/\0", packet].concat())
}

/// One little-endian EXIF block with ASCII tags of IFD0 and a UserComment.
fn exif(ascii: &[(u16, &str)], comment: Option<&str>) -> Vec<u8> {
    let count = ascii.len() + usize::from(comment.is_some());
    let mut ifd = (count as u16).to_le_bytes().to_vec();
    let mut heap = Vec::new();
    let heap_at = 8 + 2 + 12 * count + 4;
    for (tag, text) in ascii {
        ifd.extend(tag.to_le_bytes());
        ifd.extend(2_u16.to_le_bytes());
        ifd.extend((text.len() as u32 + 1).to_le_bytes());
        ifd.extend(((heap_at + heap.len()) as u32).to_le_bytes());
        heap.extend(text.as_bytes());
        heap.extend([0; 8]);
    }
    if let Some(text) = comment {
        let sub_at = heap_at + heap.len();
        ifd.extend(0x8769_u16.to_le_bytes());
        ifd.extend(4_u16.to_le_bytes());
        ifd.extend(1_u32.to_le_bytes());
        ifd.extend((sub_at as u32).to_le_bytes());
        heap.extend(1_u16.to_le_bytes());
        heap.extend(0x9286_u16.to_le_bytes());
        heap.extend(7_u16.to_le_bytes());
        heap.extend((text.len() as u32 + 8).to_le_bytes());
        heap.extend((sub_at as u32 + 18).to_le_bytes());
        heap.extend(0_u32.to_le_bytes());
        heap.extend(b"ASCII\0\0\0");
        heap.extend(text.as_bytes());
    }
    ifd.extend(0_u32.to_le_bytes());
    [b"II*\0\x08\0\0\0", ifd.as_slice(), &heap].concat()
}

fn app1_exif(tiff: &[u8]) -> (u8, Vec<u8>) {
    (0xE1, [b"Exif\0\0", tiff].concat())
}

fn riff(form: &[u8], chunks: &[(&[u8], Vec<u8>)]) -> Vec<u8> {
    let mut body = form.to_vec();
    for (id, data) in chunks {
        body.extend_from_slice(id);
        body.extend((data.len() as u32).to_le_bytes());
        body.extend_from_slice(data);
        body.extend(vec![0; data.len() % 2]);
    }
    [b"RIFF", (body.len() as u32).to_le_bytes().as_slice(), &body].concat()
}

fn manifest() -> Vec<u8> {
    let superbox = |kind: &[u8], label: &str, children: &[u8]| {
        let id = b"\0\x11\0\x10\x80\0\0\xaa\08\x9bq";
        let about = [kind, id, b"\x03", label.as_bytes(), b"\0"].concat();
        boxed(b"jumb", &[boxed(b"jumd", &about), children.to_vec()].concat())
    };
    let claim = superbox(b"c2cl", "c2pa.claim", &boxed(b"cbor", b"xyz"));
    superbox(b"c2pa", "c2pa", &superbox(b"c2ma", "urn:c2pa:1", &claim))
}

#[test]
fn ffmpeg_writes_and_we_read() {
    for (name, container, args) in [
        ("a.mp4", "mp4", TAGGED),
        ("a.mov", "mp4", TAGGED),
        ("a.m4a", "mp4", &["-vn", "-movflags", "use_metadata_tags"][..]),
        ("fast.mp4", "mp4", &["-movflags", "use_metadata_tags+faststart"]),
        ("frag.mp4", "mp4", &["-movflags", "use_metadata_tags+frag_keyframe+empty_moov"]),
        ("a.mkv", "matroska", &[]),
        ("a.webm", "matroska", &["-vn", "-c:a", "libopus"]),
        ("live.mkv", "matroska", &["-f", "matroska", "-live", "1"]),
        ("a.flac", "flac", &["-vn"]),
        ("a.ogg", "ogg", &["-vn", "-c:a", "libopus"]),
        ("a.mp3", "mp3", &["-vn"]),
        ("a3.mp3", "mp3", &["-vn", "-id3v2_version", "3"]),
        ("a.flv", "flv", &["-vn"]),
    ] {
        assert_labelled(&look(&made(name, Some(LABEL), args)), container);
        assert_clean(&look(&made(name, None, args)));
    }
    assert_clean(&look(&made("a.wav", None, &["-vn"])));
    assert_clean(&look(&made("a.avi", None, &[])));
    for still in ["a.png", "a.jpg", "a.webp"] {
        assert_clean(&look(&made(still, None, &["-an", "-frames:v", "1"])));
    }
}

#[test]
fn mp4_label_renamed_to_free() {
    for args in [TAGGED, &["-movflags", "use_metadata_tags+faststart"]] {
        let whole = made("a.mp4", Some(LABEL), args);
        for name in [b"udta", b"meta"] {
            let found = look(&replaced(&whole, name, b"free"));
            assert_stripped(&found, "label_box_renamed_free");
            assert_eq!(of(&found, "aigc").len(), 0);
            let state = disposition(&found.labels, &found.strip_evidence, &[], false).state;
            assert_eq!(state, DispositionState::Suspected);
        }
        let found = look(&replaced(&whole, b"ilst", b"free"));
        assert_stripped(&found, "aigc_key_table_entry_without_item");
        assert!(kinds(&found).contains(&"label_bytes_in_free_box"));
    }
    // The very same in-place edits where there was no label are no evidence.
    let whole = made("a.mp4", None, TAGGED);
    for name in [b"udta", b"meta", b"ilst"] {
        assert_eq!(kinds(&look(&replaced(&whole, name, b"free"))), [""; 0]);
    }
}

#[test]
fn blanked_and_shortened_values() {
    let (spaces, zeros) = (" ".repeat(LABEL.len()), "\0".repeat(LABEL.len()));
    let short = &LABEL[..LABEL.len() - 20];
    for (name, args) in [
        ("a.mp4", TAGGED),
        ("a.mkv", &[][..]),
        ("a.flac", &["-vn"]),
        ("a.mp3", &["-vn"]),
        ("a.ogg", &["-vn", "-c:a", "libvorbis"]),
        ("a.flv", &["-vn"]),
    ] {
        let whole = made(name, Some(LABEL), args);
        for blank in [&spaces, &zeros] {
            let found = look(&replaced(&whole, LABEL.as_bytes(), blank.as_bytes()));
            assert_stripped(&found, "aigc_key_without_value");
        }
        let found = look(&made(name, Some(short), args));
        assert_stripped(&found, "label_json_cut_short");
    }
}

#[test]
fn a_file_that_was_cut_is_not_a_label_that_was_stripped() {
    let whole = made("a.mp4", Some(LABEL), TAGGED);
    let at = find(&whole, LABEL.as_bytes());
    let found = look(&whole[..at + 30]);
    assert_eq!(kinds(&found), ["label_json_cut_short"]);
    assert_ne!(verdict(&found), SegmentVerdict::Fake, "{found:?}");
    assert!(!found.unread.is_empty());
    // Pixels cut, the label read before them whole.
    let whole = made("b.mp4", Some(LABEL), &["-movflags", "use_metadata_tags+faststart"]);
    let found = look(&whole[..whole.len() - 50]);
    assert_eq!((of(&found, "aigc").len(), kinds(&found).len()), (1, 0));
}

#[test]
fn mp4_odd_places() {
    let ftyp = boxed(b"ftyp", b"isom\0\0\0\0isom");
    let mdat = boxed(b"mdat", &[7; 100]);
    let xmp_box = boxed(
        b"uuid",
        &[
            &[
                0xBE, 0x7A, 0xCF, 0xCB, 0x97, 0xA9, 0x42, 0xE8, 0x9C, 0x71, 0x99, 0x94, 0x91, 0xE3,
                0xAF, 0xAC,
            ][..],
            &aigc_xmp(),
        ]
        .concat(),
    );
    assert_labelled(&look(&[&ftyp[..], &xmp_box, &mdat].concat()), "mp4");
    let late = look(&[&ftyp[..], &mdat, &xmp_box].concat());
    assert_eq!(of(&late, "aigc")[0].deviations, ["misplaced_after_mdat"]);
    assert_eq!(of(&late, "aigc")[0].verdict, LabelVerdict::Noncompliant);
    // A literal box in udta, with and without the header of a full box.
    for prefix in [&b""[..], &[0; 4]] {
        let aigc = boxed(b"aigc", &[prefix, LABEL.as_bytes()].concat());
        let moov = boxed(b"moov", &boxed(b"udta", &aigc));
        assert_labelled(&look(&[&ftyp[..], &moov, &mdat].concat()), "mp4");
    }
    // A keyless item, in a bare moov.meta with 64-bit sizes.
    let data = boxed(b"data", &[&[0, 0, 0, 1, 0, 0, 0, 0], LABEL.as_bytes()].concat());
    let ilst = boxed(b"ilst", &boxed(b"\xA9cmt", &data));
    let hdlr = boxed(b"hdlr", b"\0\0\0\0\0\0\0\0mdirappl\0\0\0\0\0\0\0\0\0");
    let meta = boxed(b"meta", &[&[0; 4][..], &hdlr, &ilst].concat());
    let mut moov = [&1_u32.to_be_bytes()[..], b"moov"].concat();
    moov.extend((meta.len() as u64 + 16).to_be_bytes());
    moov.extend(&meta);
    assert_labelled(&look(&[&ftyp[..], &moov, &mdat].concat()), "mp4");
    // The last box may state no size.
    let mut open = boxed(b"moov", &meta);
    open[..4].fill(0);
    assert_labelled(&look(&[&ftyp[..], &mdat, &open].concat()), "mp4");
    // Two copies do not comply.
    let two = look(&[&ftyp[..], &xmp_box, &boxed(b"moov", &meta), &mdat].concat());
    assert_eq!(of(&two, "aigc").len(), 2);
    assert!(of(&two, "aigc").iter().all(|l| l.deviations.contains(&"duplicate_label".into())));
    // Beside an intact label, an old one in unused space is the trace of an update.
    let old = boxed(b"free", LABEL.as_bytes());
    let updated = look(&[&ftyp[..], &xmp_box, &old, &mdat].concat());
    assert_eq!(kinds(&updated), ["label_bytes_in_free_box"]);
    assert_eq!(verdict(&updated), SegmentVerdict::Bonafide);
    // C2PA in its own box, and in space marked as unused.
    let id = [
        0xD8, 0xFE, 0xC3, 0xD6, 0x1B, 0x0E, 0x48, 0x3C, 0x92, 0x97, 0x58, 0x28, 0x87, 0x7E, 0xC4,
        0x81,
    ];
    let c2pa =
        boxed(b"uuid", &[&id[..], b"\0\0\0\0manifest\0\0\0\0\0\0\0\0\0", &manifest()].concat());
    let found = look(&[&ftyp[..], &c2pa, &mdat].concat());
    assert_eq!((of(&found, "c2pa").len(), kinds(&found).len()), (1, 0), "{found:?}");
    assert_eq!(of(&found, "c2pa")[0].verdict, LabelVerdict::Inconclusive);
    let found = look(&[&ftyp[..], &replaced(&c2pa, b"uuid", b"free"), &mdat].concat());
    assert_stripped(&found, "orphaned_jumbf");
    let state = disposition(&found.labels, &found.strip_evidence, &[], false).state;
    assert_eq!(state, DispositionState::Undetermined);
}

#[test]
fn matroska_tags_turned_into_void() {
    let whole = made("a.mkv", Some(LABEL), &[]);
    // Tags has a four-byte ID; Void one byte. An in-place edit writes Void, an eight-byte size
    // and leaves the rest.
    let at = whole.windows(4).rposition(|w| w == b"\x12\x54\xC3\x67").unwrap();
    let tail = &whole[at + 4..];
    let len = tail[0].leading_zeros() as usize + 1;
    let size =
        tail[..len].iter().fold(0_u64, |n, b| n << 8 | u64::from(*b)) & ((1 << (7 * len)) - 1);
    let mut edited = whole.clone();
    let total = 4 + len as u64 + size;
    edited[at] = 0xEC;
    edited[at + 1..at + 9].copy_from_slice(&((total - 9) | 1 << 56).to_be_bytes());
    let found = look(&edited);
    assert_stripped(&found, "label_bytes_in_free_box");
    assert!(found.unread.is_empty(), "{found:?}");
}

#[test]
fn png_places() {
    let xmp_chunk =
        |packet: &[u8]| chunk(b"iTXt", &[b"XML:com.adobe.xmp\0\0\0\0\0", packet].concat());
    let packed = |key: &str, value: &str| {
        chunk(b"zTXt", &[key.as_bytes(), b"\0\0", &deflated(value.as_bytes())].concat())
    };
    for before in [
        text_chunk("AIGC", LABEL),
        text_chunk("AIGC", BARE),
        text_chunk("Comment", LABEL),
        packed("AIGC", LABEL),
        xmp_chunk(&aigc_xmp()),
    ] {
        assert_labelled(&look(&png(&[before], &[], b"")), "png");
    }
    let late = look(&png(&[], &[text_chunk("AIGC", LABEL)], b""));
    assert_eq!(of(&late, "aigc")[0].deviations, ["misplaced_after_idat"]);
    for trailer in [text_chunk("AIGC", BARE), packed("AIGC", LABEL), aigc_xmp(), LABEL.into()] {
        let late = look(&png(&[], &[], &trailer));
        assert_eq!(of(&late, "aigc")[0].deviations, ["misplaced_after_iend"], "{late:?}");
    }
    assert_stripped(&look(&png(&[text_chunk("AIGC", "")], &[], b"")), "aigc_key_without_value");
    let c2pa = png(&[chunk(b"caBX", &manifest())], &[], b"");
    assert_eq!(of(&look(&c2pa), "c2pa").len(), 1);
    let mut broken = manifest();
    let end = broken.len() - 40;
    broken.truncate(end);
    assert_stripped(&look(&png(&[chunk(b"caBX", &broken)], &[], b"")), "orphaned_jumbf");
    // As ImageMagick carries a JPEG's over.
    let hex: String = manifest().iter().map(|b| format!("{b:02x}")).collect();
    let profile = format!("\napp11\n{:8}\n{hex}\n", manifest().len());
    let carried = png(&[packed("Raw profile type app11", &profile)], &[], b"");
    assert_stripped(&look(&carried), "orphaned_jumbf");
    // Zeros over all but its head.
    let mut torn = manifest();
    let middle = torn.len() / 2;
    torn[middle..].fill(0);
    assert_stripped(&look(&png(&[chunk(b"caBX", &torn)], &[], b"")), "orphaned_jumbf");
    // A property under another name that still holds a label.
    let renamed = String::from_utf8(aigc_xmp()).unwrap().replace("TC260:AIGC>", "TC260:JUNK>");
    assert_labelled(&look(&png(&[xmp_chunk(renamed.as_bytes())], &[], b"")), "png");
    // EXIF and TIFF tags as ImageMagick keeps them.
    let kept = look(&png(&[text_chunk("tiff:make", "Ideogram AI")], &[], b""));
    assert_eq!(of(&kept, "generator-trace").len(), 1, "{kept:?}");
    // Words are no labels.
    let tiff_alpha = text_chunk("tiff:alpha", "Ideogram AI");
    for innocent in
        [text_chunk("Comment", "all about AIGC"), text_chunk("Title", "{\"a\":1}"), tiff_alpha]
    {
        assert_clean(&look(&png(&[innocent], &[], b"")));
    }
    // A bomb of zeros is unpacked no further than the limit.
    let zeros = deflated(&vec![0; 64 << 20]);
    let bomb = chunk(b"zTXt", &[b"AIGC\0\0", &zeros[..]].concat());
    let start = Instant::now();
    let found = look(&png(&vec![bomb; 500], &[], b""));
    assert!(kinds(&found).iter().all(|kind| *kind == "aigc_key_without_value"));
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[test]
fn jpeg_places() {
    let description = LABEL;
    for segment in [
        app1_xmp(&aigc_xmp()),
        app1_exif(&exif(&[], Some(LABEL))),
        app1_exif(&exif(&[(0x010E, description)], None)),
        (0xE0, [b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0AIGC", BARE.as_bytes()].concat()),
        (0xE9, format!("AIGC{BARE}").into_bytes()),
        (0xFE, LABEL.as_bytes().to_vec()),
    ] {
        assert_labelled(&look(&jpeg(&[segment], b"")), "jpeg");
    }
    let late = look(&jpeg(&[], LABEL.as_bytes()));
    assert_eq!(of(&late, "aigc")[0].deviations, ["misplaced_after_eoi"]);
    // The attribute form is told and complies.
    let attribute = xmp(&format!("TC260:AIGC=\"{}\">", BARE.replace('"', "&quot;")));
    let found = look(&jpeg(&[app1_xmp(&attribute)], b""));
    assert_eq!(of(&found, "aigc")[0].deviations, ["xmp_attribute_form"]);
    assert_eq!(of(&found, "aigc")[0].verdict, LabelVerdict::Compliant);
    // Far behind the picture, where phones keep what they appended.
    let far = [&vec![0; 3 << 20][..], br#"{"genAIType":1}"#].concat();
    let found = look(&jpeg(&[], &far));
    assert!(found.ai_trace().unwrap().content.starts_with("Samsung"), "{found:?}");
    assert_eq!(kinds(&found), ["generator_trace_without_label"]);
    assert_eq!(verdict(&found), SegmentVerdict::Bonafide);
}

#[test]
fn xmp_statements() {
    let source = "http://cv.iptc.org/newscodes/digitalsourcetype/";
    for (value, ai, verdict) in [
        (format!("{source}trainedAlgorithmicMedia"), Some(true), LabelVerdict::Compliant),
        (format!("{source}digitalCapture"), Some(false), LabelVerdict::Compliant),
        (format!("{source}screenCapture"), None, LabelVerdict::Compliant),
        ("trainedAlgorithmicMedia".into(), Some(true), LabelVerdict::Noncompliant),
        (format!("{source}nonsense"), None, LabelVerdict::Noncompliant),
    ] {
        let attribute = xmp(&format!("Iptc4xmpExt:DigitalSourceType=\"{value}\">"));
        let element = xmp(&format!(
            "><Iptc4xmpExt:DigitalSourceType>{value}</Iptc4xmpExt:DigitalSourceType>"
        ));
        for packet in [attribute, element] {
            let found = look(&jpeg(&[app1_xmp(&packet)], b""));
            let labels = of(&found, "iptc");
            assert_eq!(labels.len(), 1, "{value}");
            assert_eq!((labels[0].ai, labels[0].verdict), (ai, verdict), "{value}");
            assert_eq!(kinds(&found), [""; 0]);
        }
    }
    // A pointer to a manifest: gone, there, or kept elsewhere.
    let gone = xmp("dcterms:provenance=\"self#jumbf=/c2pa/urn:c2pa:1/c2pa.claim\">");
    let found = look(&jpeg(&[app1_xmp(&gone)], b""));
    assert_stripped(&found, "xmp_points_to_missing_manifest");
    let store = manifest();
    let packet = [b"JP\x00\x01\x00\x00\x00\x01", &store[..]].concat();
    let found = look(&jpeg(&[(0xEB, packet.clone()), app1_xmp(&gone)], b""));
    assert_eq!((of(&found, "c2pa").len(), kinds(&found).len()), (1, 0), "{found:?}");
    let elsewhere = xmp("dcterms:provenance=\"https://example.com/m.c2pa\">");
    let found = look(&jpeg(&[app1_xmp(&elsewhere)], b""));
    assert_eq!((of(&found, "c2pa").len(), kinds(&found).len()), (1, 0), "{found:?}");
    // Torn over packets: the second one is missing, or the first one.
    let half = store.len() / 2;
    let first = [b"JP\x00\x01\x00\x00\x00\x01", &store[..half]].concat();
    let second = [b"JP\x00\x01\x00\x00\x00\x02", &store[..8], &store[half..]].concat();
    let both = look(&jpeg(&[(0xEB, first.clone()), (0xEB, second.clone())], b""));
    assert_eq!((of(&both, "c2pa").len(), kinds(&both).len()), (1, 0), "{both:?}");
    assert_stripped(&look(&jpeg(&[(0xEB, first)], b"")), "orphaned_jumbf");
    assert_stripped(&look(&jpeg(&[(0xEB, second)], b"")), "orphaned_jumbf");
    // JUMBF that is about something else is neither label nor residue.
    let other = boxed(b"jumb", &boxed(b"jumd", b"jp36\0\x11\0\x10\x80\0\0\xaa\08\x9bq\x03x\0"));
    let other = [b"JP\x00\x01\x00\x00\x00\x01", &other[..]].concat();
    assert_clean(&look(&jpeg(&[(0xEB, other)], b"")));
}

#[test]
fn riff_places() {
    let fmt = || (&b"fmt "[..], vec![1, 0, 1, 0, 0x40, 0x1F, 0, 0, 0x80, 0x3E, 0, 0, 2, 0, 16, 0]);
    let data = || (&b"data"[..], vec![0; 64]);
    let info = |id: &[u8], value: &[u8]| {
        let len = (value.len() as u32).to_le_bytes();
        (&b"LIST"[..], [b"INFO", id, &len, value].concat())
    };
    let label = || LABEL.as_bytes().to_vec();
    for chunk in [(&b"AIGC"[..], label()), info(b"AIGC", LABEL.as_bytes())] {
        assert_labelled(&look(&riff(b"WAVE", &[fmt(), chunk.clone(), data()])), "riff");
        assert_labelled(&look(&riff(b"WAVE", &[fmt(), data(), chunk.clone()])), "riff");
        assert_labelled(&look(&riff(b"AVI ", &[chunk])), "riff");
    }
    let found = look(&riff(b"WAVE", &[fmt(), data(), info(b"AIGC", b"")]));
    assert_stripped(&found, "aigc_key_without_value");
    let found = look(&riff(b"WAVE", &[fmt(), (b"JUNK", label()), data()]));
    assert_stripped(&found, "label_bytes_in_free_box");
    assert_clean(&look(&riff(b"WAVE", &[fmt(), (b"JUNK", vec![0; 999]), data()])));
    let vp8 = || (&b"VP8 "[..], vec![0; 20]);
    for chunk in [
        (&b"XMP "[..], aigc_xmp()),
        (&b"EXIF"[..], exif(&[], Some(LABEL))),
        (&b"EXIF"[..], [b"Exif\0\0", &exif(&[(0x010E, LABEL)], None)[..]].concat()),
    ] {
        assert_labelled(&look(&riff(b"WEBP", &[vp8(), chunk])), "riff");
    }
    let found = look(&riff(b"WEBP", &[vp8(), (b"C2PA", manifest())]));
    assert_eq!(of(&found, "c2pa").len(), 1);
}

/// A GIF of one pixel with blocks before the picture, and bytes after its end.
fn gif(blocks: &[Vec<u8>], trailer: &[u8]) -> Vec<u8> {
    let mut out = b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xFF\xFF\xFF".to_vec();
    out.extend(blocks.concat());
    out.extend(b"\x2C\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0\x3B");
    out.extend_from_slice(trailer);
    out
}

fn gif_xmp(packet: &[u8]) -> Vec<u8> {
    let mut block = [b"\x21\xFF\x0BXMP DataXMP", packet, b"\x01"].concat();
    block.extend((0..=255).rev());
    block.push(0);
    block
}

/// An extension whose content comes in pieces.
fn gif_block(head: &[u8], content: &[u8]) -> Vec<u8> {
    let mut block = [b"\x21", head].concat();
    for piece in content.chunks(255) {
        block.push(piece.len() as u8);
        block.extend_from_slice(piece);
    }
    block.push(0);
    block
}

#[test]
fn gif_places() {
    for block in [
        gif_xmp(&aigc_xmp()),
        gif_block(b"\xFF\x0BXMP DataXMP", &aigc_xmp()),
        // As ImageMagick writes it.
        gif_block(b"\xFF\x0Bxmp dataxmp", &aigc_xmp()),
        gif_block(b"\xFE", LABEL.as_bytes()),
        gif_block(b"\xFF\x0BAIGC LABEL1", LABEL.as_bytes()),
    ] {
        assert_labelled(&look(&gif(std::slice::from_ref(&block), b"")), "gif");
        assert_labelled(&look(&gif(&[gif_block(b"\xFE", b"hi"), block], b"")), "gif");
    }
    assert_clean(&look(&gif(&[gif_block(b"\xFE", b"all about AIGC")], b"")));
    let late = look(&gif(&[], LABEL.as_bytes()));
    assert_eq!(of(&late, "aigc")[0].deviations, ["misplaced_after_trailer"]);
    // Zeros over the label end the block early.
    let mut zeroed = gif(&[gif_xmp(&aigc_xmp())], b"");
    let at = memchr::memmem::find(&zeroed, b"{&quot;").unwrap();
    let end = memchr::memmem::find(&zeroed, b"}</TC260").unwrap();
    zeroed[at..=end].fill(0);
    assert!(kinds(&look(&zeroed)).contains(&"aigc_key_without_value"));
    let c2pa = look(&gif(&[gif_block(b"\xFF\x0BC2PA_GIF\x01\0\0", &manifest())], b""));
    assert_eq!(of(&c2pa, "c2pa").len(), 1, "{c2pa:?}");
    let stray = gif(&[gif_block(b"\xFF\x0Bc2pa_gif\x01\0\0", &manifest())], b"");
    assert_stripped(&look(&stray), "orphaned_jumbf");
    // What ffmpeg writes, with a label before it and cut.
    let real = made("a.gif", None, &["-an"]);
    assert_clean(&look(&real));
    let at = 13 + if real[10] & 0x80 != 0 { 3 << ((real[10] & 7) + 1) } else { 0 };
    let labelled = [&real[..at], &gif_xmp(&aigc_xmp()), &real[at..]].concat();
    assert_labelled(&look(&labelled), "gif");
    assert!(!look(&real[..real.len() - 1]).unread.is_empty());
}

/// A TIFF of bytes and texts in IFD0, with a UserComment in an EXIF directory.
fn tiff(
    big_endian: bool,
    big: bool,
    fields: &[(u16, u16, &[u8])],
    comment: Option<&[u8]>,
) -> Vec<u8> {
    let put = |n: u64, len: usize| -> Vec<u8> {
        if big_endian {
            n.to_be_bytes()[8 - len..].to_vec()
        } else {
            n.to_le_bytes()[..len].to_vec()
        }
    };
    let off = if big { 8 } else { 4 };
    let mut out = if big_endian { b"MM".to_vec() } else { b"II".to_vec() };
    out.extend(put(if big { 43 } else { 42 }, 2));
    if big {
        out.extend([put(8, 2), put(0, 2)].concat());
    }
    let header = out.len() + off;
    out.extend(put(header as u64, off));
    let sized = |n: usize| if big { 8 + 20 * n + 8 } else { 2 + 12 * n + 4 };
    let count = fields.len() + usize::from(comment.is_some());
    let mut heap: Vec<u8> = Vec::new();
    let heap_at = header + sized(count);
    let directory = |entries: &[(u16, u16, u64, u64)]| {
        let mut ifd = put(entries.len() as u64, if big { 8 } else { 2 });
        for (tag, kind, count, value) in entries {
            ifd.extend([put((*tag).into(), 2), put((*kind).into(), 2)].concat());
            ifd.extend([put(*count, off), put(*value, off)].concat());
        }
        [ifd, put(0, off)].concat()
    };
    let mut entries = Vec::new();
    for (tag, kind, value) in fields {
        entries.push((*tag, *kind, value.len() as u64, (heap_at + heap.len()) as u64));
        heap.extend_from_slice(value);
    }
    if let Some(comment) = comment {
        let sub_at = heap_at + heap.len();
        entries.push((0x8769, if big { 18 } else { 4 }, 1, sub_at as u64));
        let text_at = sub_at + sized(1);
        heap.extend(directory(&[(0x9286, 7, comment.len() as u64, text_at as u64)]));
        heap.extend_from_slice(comment);
    }
    [out, directory(&entries), heap].concat()
}

#[test]
fn tiff_places() {
    let comment = [b"ASCII\0\0\0", LABEL.as_bytes()].concat();
    let wide = |big_endian: bool| {
        let units = LABEL.encode_utf16();
        let bytes = units.flat_map(|u| if big_endian { u.to_be_bytes() } else { u.to_le_bytes() });
        [b"UNICODE\0".to_vec(), bytes.collect()].concat()
    };
    let text = [LABEL.as_bytes(), b"\0"].concat();
    for (big_endian, big) in [(false, false), (true, false), (false, true), (true, true)] {
        for bytes in [
            tiff(big_endian, big, &[(0x2BC, 1, &aigc_xmp())], None),
            tiff(big_endian, big, &[(0x10E, 2, &text)], None),
            tiff(big_endian, big, &[], Some(&comment)),
            tiff(big_endian, big, &[], Some(&wide(big_endian))),
        ] {
            assert_labelled(&look(&bytes), "tiff");
        }
        let c2pa = look(&tiff(big_endian, big, &[(0xCD41, 7, &manifest())], None));
        assert_eq!(of(&c2pa, "c2pa").len(), 1, "{c2pa:?}");
        let maker = look(&tiff(big_endian, big, &[(0x10F, 2, b"Ideogram AI\0")], None));
        assert!(maker.ai_trace().unwrap().content.starts_with("Ideogram"), "{maker:?}");
        assert_clean(&look(&tiff(big_endian, big, &[(0x131, 2, b"an editor\0")], None)));
    }
    assert_clean(&look(&made("a.tiff", None, &["-an", "-frames:v", "1"])));
    // A chain of directories that leads back to its start, and one into nowhere.
    let mut looped = tiff(false, false, &[(0x2BC, 1, &aigc_xmp())], None);
    looped[22..26].copy_from_slice(&8_u32.to_le_bytes());
    assert_labelled(&look(&looped), "tiff");
    looped[22..26].copy_from_slice(&0xFFFF_FFF0_u32.to_le_bytes());
    assert!(!look(&looped).unread.is_empty());
    // Every directory names 64 others.
    let mut web = b"II*\0\x08\0\0\0".to_vec();
    for index in 0..4000_u32 {
        web.extend([1, 0, 0x4A, 1, 4, 0, 64, 0, 0, 0]);
        web.extend((8 + 18 * (index * 64 % 3900)).to_le_bytes());
        web.extend((8 + 18 * (index + 1)).to_le_bytes());
    }
    survives(&web, "web of directories");
}

/// A HEIF file with items: type, content type, bytes. `method` 0 puts them into the file, 1 into
/// `idat`.
fn heif(items: &[(&[u8; 4], &str, &[u8])], method: u16, version: u8) -> Vec<u8> {
    let full = |version: u8, body: &[u8]| [&[version, 0, 0, 0], body].concat();
    let be = |n: usize, len: usize| (n as u64).to_be_bytes()[8 - len..].to_vec();
    let mut infos = be(items.len(), 2);
    for (index, (kind, content, _)) in items.iter().enumerate() {
        let mut info = [be(index + 1, 2), be(0, 2), kind.to_vec(), b"\0".to_vec()].concat();
        if *kind == b"mime" {
            info.extend([content.as_bytes(), b"\0"].concat());
        }
        infos.extend(boxed(b"infe", &full(2, &info)));
    }
    let build = |base: usize| {
        let mut loc =
            [b"\x44\0".to_vec(), be(items.len(), if version < 2 { 2 } else { 4 })].concat();
        let mut at = base;
        for (index, (.., bytes)) in items.iter().enumerate() {
            loc.extend(be(index + 1, if version < 2 { 2 } else { 4 }));
            if version > 0 {
                loc.extend(be(method.into(), 2));
            }
            // Two extents, so that they must be joined.
            let half = bytes.len() / 2;
            loc.extend([be(0, 2), be(2, 2), be(at, 4), be(half, 4)].concat());
            loc.extend([be(at + half, 4), be(bytes.len() - half, 4)].concat());
            at += bytes.len();
        }
        let data: Vec<u8> = items.iter().flat_map(|(.., bytes)| bytes.to_vec()).collect();
        let mut parts = boxed(b"hdlr", b"\0\0\0\0\0\0\0\0pict\0\0\0\0\0\0\0\0\0\0\0\0\0");
        parts.extend(boxed(b"iinf", &full(0, &infos)));
        parts.extend(boxed(b"iloc", &full(version, &loc)));
        if method == 1 {
            parts.extend(boxed(b"idat", &data));
        }
        let mut out = boxed(b"ftyp", b"heic\0\0\0\0mif1heic");
        out.extend(boxed(b"meta", &full(0, &parts)));
        let media = out.len() + 8;
        if method == 0 {
            out.extend(boxed(b"mdat", &data));
        }
        (out, media)
    };
    let (_, media) = build(0);
    build(if method == 1 { 0 } else { media }).0
}

#[test]
fn heif_places() {
    let exif_item = |skip: usize| {
        let block = exif(&[(0x010E, "x")], Some(LABEL));
        [&(skip as u32).to_be_bytes()[..], &b"Exif\0\0"[..skip], &block].concat()
    };
    let rdf = "application/rdf+xml";
    for (method, version) in [(0, 0), (0, 1), (1, 1), (1, 2)] {
        for (kind, content, bytes) in [
            (b"mime", rdf, aigc_xmp()),
            (b"Exif", "", exif_item(0)),
            (b"Exif", "", exif_item(6)),
            (b"mime", "application/json", LABEL.into()),
        ] {
            let other: (&[u8; 4], &str, &[u8]) = (b"mime", "text/plain", b"nothing here");
            let file = heif(&[other, (kind, content, &bytes)], method, version);
            let found = look(&file);
            assert_labelled(&found, "heif");
            assert!(of(&found, "aigc")[0].place.starts_with("meta.item2("), "{found:?}");
        }
    }
    // In another item, or nowhere.
    let lost = look(&heif(&[(b"mime", rdf, &aigc_xmp())], 2, 1));
    assert_eq!((of(&lost, "aigc").len(), lost.unread.len()), (0, 1), "{lost:?}");
    let packet = aigc_xmp();
    let file = heif(&[(b"mime", rdf, &packet)], 0, 1);
    let cut = look(&file[..file.len() - packet.len() / 2]);
    assert!(!cut.unread.is_empty(), "{cut:?}");
    assert_clean(&look(&heif(&[(b"mime", rdf, &xmp(">"))], 0, 1)));
    let avif = ["-an", "-frames:v", "1", "-c:v", "libaom-av1", "-cpu-used", "8"];
    let real = look(&made("a.avif", None, &avif));
    assert_eq!(real.container, Some("heif"));
    assert_clean(&real);
}

/// Two packets of MPEG-TS: a table on a PID, filled up.
fn ts_section(pid: u16, table: u8, body: &[u8]) -> Vec<u8> {
    let mut section = vec![table];
    section.extend((0xB000 | (body.len() + 9) as u16).to_be_bytes());
    section.extend([0, 1, 0xC1, 0, 0]);
    section.extend_from_slice(body);
    section.extend([0; 4]);
    let payload = [&[0][..], &section].concat();
    ts_packets(pid, &payload)
}

fn ts_packets(pid: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (index, piece) in payload.chunks(184).enumerate() {
        let begins = if index == 0 { 0x4000 } else { 0 };
        out.push(0x47);
        out.extend((begins | pid).to_be_bytes());
        out.push(0x10 | index as u8 & 15);
        out.extend_from_slice(piece);
        out.resize(out.len().next_multiple_of(188), 0xFF);
    }
    out
}

#[test]
fn mpegts_places() {
    let pat = ts_section(0, 0, &[0, 1, 0xE1, 0]);
    let filler = [&b"\x47\x1F\xFF\x10"[..], &[0; 184]].concat().repeat(6);
    let pmt = |info: &[u8], streams: &[u8]| {
        let len = (0xF000 | info.len() as u16).to_be_bytes();
        ts_section(0x100, 2, &[&[0xE1, 1][..], &len, info, streams].concat())
    };
    let descriptor = |tag: u8, body: &[u8]| [&[tag, body.len() as u8][..], body].concat();
    // A label in a descriptor of the program, of a stream, of a service.
    let label = descriptor(0xFE, LABEL.as_bytes());
    let stream = |info: &[u8]| {
        [&[0x1B, 0xE1, 1][..], &(0xF000 | info.len() as u16).to_be_bytes(), info].concat()
    };
    for table in [pmt(&label, &[]), pmt(&[], &stream(&label))] {
        let file = [&pat[..], &table, &filler, &pat, &table].concat();
        assert_labelled(&look(&file), "mpegts");
    }
    let service =
        descriptor(0x48, &[&[1, 2][..], b"me", &[LABEL.len() as u8], LABEL.as_bytes()].concat());
    let services =
        [&[0, 1, 0xFF, 0, 1, 0xFC][..], &(service.len() as u16).to_be_bytes(), &service].concat();
    let file = [ts_section(0x11, 0x42, &services), filler.clone()].concat();
    let found = look(&file);
    assert_labelled(&found, "mpegts");
    assert_eq!(of(&found, "aigc")[0].place, "SDT[service_name]@0");
    // With 4 bytes before each packet.
    let blu_ray: Vec<u8> = file.chunks(188).flat_map(|p| [&[0; 4][..], p].concat()).collect();
    assert_labelled(&look(&blu_ray), "mpegts");
    // Private data in the header of a packet of pictures.
    let mut private = vec![0x47, 0x01, 0x01, 0x30, 2 + LABEL.len() as u8, 2, LABEL.len() as u8];
    private.extend(LABEL.as_bytes());
    private.resize(188, 0);
    assert_labelled(&look(&[filler.clone(), private].concat()), "mpegts");
    // A timed ID3 tag over two packets.
    let text = [b"\x03AIGC\0", LABEL.as_bytes()].concat();
    let sync = |n: usize| [0, 0, (n >> 7) as u8, (n & 0x7F) as u8];
    let frame = [b"TXXX", &sync(text.len())[..], &[0, 0], &text].concat();
    let tag = [b"ID3\x04\0\0", &sync(frame.len())[..], &frame].concat();
    let pes = [b"\0\0\x01\xBD\0\0\x84\x80\x05\x21\0\x01\0\x01", &tag[..]].concat();
    let metadata = pmt(&[], &[0x15, 0xE1, 2, 0xF0, 0]);
    let file = [&pat[..], &metadata, &ts_packets(0x102, &pes), &filler].concat();
    let found = look(&file);
    assert_labelled(&found, "mpegts");
    assert!(of(&found, "aigc")[0].place.starts_with("timed ID3.TXXX[AIGC]@"));
    // What ffmpeg writes: a name that is a label, and none.
    let args = ["-c:v", "mpeg2video", "-f", "mpegts"];
    assert_clean(&look(&made("a.ts", None, &args)));
    let named =
        ["-c:v", "mpeg2video", "-f", "mpegts", "-metadata", &format!("service_name={LABEL}")];
    assert_labelled(&look(&made("b.ts", None, &named)), "mpegts");
}

#[test]
fn mp3_tags_behind_the_sound() {
    let plain = made("a.mp3", None, &["-vn", "-id3v2_version", "0", "-write_xing", "0"]);
    assert_clean(&look(&plain));
    let mut v1 = b"TAGtitle".to_vec();
    v1.resize(128, 0);
    let item = |key: &str, value: &str| {
        [&(value.len() as u32).to_le_bytes()[..], &[0; 4], key.as_bytes(), b"\0", value.as_bytes()]
            .concat()
    };
    let items = [item("Title", "t"), item("AIGC", LABEL)].concat();
    let frame = |kind: u32| {
        let size = (items.len() as u32 + 32).to_le_bytes();
        let head = [&b"APETAGEX\xD0\x07\0\0"[..], &size, &2_u32.to_le_bytes(), &kind.to_le_bytes()];
        [&head.concat()[..], &[0; 8]].concat()
    };
    let ape = [frame(0xA000_0000), items.clone(), frame(0x8000_0000)].concat();
    let text = [b"\0AIGC\0", LABEL.as_bytes()].concat();
    let sync = |n: usize| [0, 0, (n >> 7) as u8, (n & 0x7F) as u8];
    let body = [b"TXXX", &sync(text.len())[..], &[0, 0], &text].concat();
    let end = |id: &[u8]| [id, b"\x04\0\x10", &sync(body.len())].concat();
    let appended = [end(b"ID3"), body.clone(), end(b"3DI")].concat();
    for tail in [&ape, &appended] {
        assert_labelled(&look(&[&plain[..], tail].concat()), "mp3");
        assert_labelled(&look(&[&plain[..], tail, &v1].concat()), "mp3");
    }
    let both = look(&[&plain[..], &ape, &appended, &v1].concat());
    assert_eq!(of(&both, "aigc").len(), 2);
    assert_clean(&look(&[&plain[..], &v1].concat()));
    let blank = [frame(0xA000_0000), items.clone(), frame(0x8000_0000)].concat();
    let blank = replaced(&blank, LABEL.as_bytes(), " ".repeat(LABEL.len()).as_bytes());
    assert_stripped(&look(&[&plain[..], &blank].concat()), "aigc_key_without_value");
}

#[test]
fn extended_xmp_raw_profiles_and_chains() {
    // Two pieces of a packet that is too long for one segment, in the wrong order.
    let filler = "<a>".to_owned() + &"x".repeat(70_000) + "</a>";
    let packet = xmp(&format!("><TC260:AIGC>{}</TC260:AIGC>{filler}", BARE.replace('"', "&quot;")));
    let piece = |from: usize, to: usize| {
        let numbers = [(packet.len() as u32).to_be_bytes(), (from as u32).to_be_bytes()].concat();
        let digest = b"0123456789ABCDEF0123456789ABCDEF";
        let head = [&b"http://ns.adobe.com/xmp/extension/\0"[..], digest, &numbers];
        (0xE1, [&head.concat()[..], &packet[from..to]].concat())
    };
    let (first, second) = (piece(0, 50_000), piece(50_000, packet.len()));
    let found = look(&jpeg(&[second.clone(), first.clone()], b""));
    assert_labelled(&found, "jpeg");
    assert!(of(&found, "aigc")[0].place.contains("(extended XMP)"));
    let half = look(&jpeg(&[first], b""));
    assert!(half.unread[0].contains("a piece of the extended XMP is missing"), "{half:?}");
    assert!(!look(&jpeg(&[second], b"")).unread.is_empty());
    // Sizes and places that no packet has.
    let mut huge = piece(0, 100);
    huge.1[67..75].fill(0xFF);
    survives(&jpeg(&[huge], b""), "huge extended XMP");
    // Other formats' metadata in a PNG, as digits.
    let profile = |kind: &str, bytes: &[u8]| {
        let digits: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let lines: Vec<&str> =
            digits.as_bytes().chunks(72).map(|l| std::str::from_utf8(l).unwrap()).collect();
        let text = format!("\n{kind}\n{:8}\n{}\n", bytes.len(), lines.join("\n"));
        text_chunk(&format!("Raw profile type {kind}"), &text)
    };
    let block = exif(&[], Some(LABEL));
    let prefixed = [b"Exif\0\0", &block[..]].concat();
    let app1 = [b"http://ns.adobe.com/xap/1.0/\0", &aigc_xmp()[..]].concat();
    for (kind, bytes) in [
        ("xmp", aigc_xmp()),
        ("APP1", app1),
        ("APP1", prefixed.clone()),
        ("exif", prefixed),
        ("exif", block),
    ] {
        assert_labelled(&look(&png(&[profile(kind, &bytes)], &[], b"")), "png");
    }
    let torn = replaced(&profile("xmp", &aigc_xmp()), b"3c3f78", b"3c3fzz");
    assert!(look(&png(&[torn], &[], b"")).unread[0].contains("damaged"));
    // One Ogg behind another.
    let (plain, labelled) = (
        made("a.ogg", None, &["-vn", "-c:a", "libvorbis"]),
        made("b.ogg", Some(LABEL), &["-vn", "-c:a", "libopus"]),
    );
    assert_labelled(&look(&[&plain[..], &labelled].concat()), "ogg");
    assert_labelled(&look(&[&labelled[..], &plain].concat()), "ogg");
    assert_clean(&look(&[&plain[..], &plain].concat()));
    assert_eq!(of(&look(&[&labelled[..], &labelled].concat()), "aigc").len(), 2);
}

#[test]
fn what_is_not_read_is_said() {
    for bytes in [&b""[..], b"%PDF-1.7", b"GIF90a...............", b"plain text"] {
        let found = look(bytes);
        assert_eq!(found.container, None);
        assert_eq!(found.labels[0].verdict, LabelVerdict::Inconclusive);
        let (track, segments) = label_strip::judge(&found, Some(10));
        assert_eq!((segments[0].probability, track.windows.len()), (None, 0));
        assert_eq!(segments[0].verdict, SegmentVerdict::Undetermined);
        let state = disposition(&found.labels, &found.strip_evidence, &[], false).state;
        assert_eq!(state, DispositionState::Undetermined);
    }
    let folder = tempfile::tempdir().unwrap();
    let missing = inspect(&folder.path().join("no-such-file")).unwrap_err();
    assert!(missing.to_string().contains("no-such-file"));
    assert!(matches!(inspect(folder.path()), Err(InspectError::NotAFile { .. })));
    let fifo = folder.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    assert!(matches!(inspect(&fifo), Err(InspectError::NotAFile { .. })));
}

/// A file far larger than memory, with its label at the very end, is read in a moment.
#[test]
fn size_of_the_media_does_not_matter() {
    use std::io::{Seek, SeekFrom, Write};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("big.mp4");
    let mut file = std::fs::File::create(&path).unwrap();
    let media: u64 = 40 << 30;
    file.write_all(&boxed(b"ftyp", b"isom\0\0\0\0isom")).unwrap();
    file.write_all(&[&1_u32.to_be_bytes()[..], b"mdat", &media.to_be_bytes()].concat()).unwrap();
    file.seek(SeekFrom::Start(20 + media)).unwrap();
    let moov = boxed(b"moov", &boxed(b"udta", &boxed(b"aigc", LABEL.as_bytes())));
    if file.write_all(&moov).is_err() {
        println!("skipped: no sparse files of 40 GiB here");
        return;
    }
    let start = Instant::now();
    assert_labelled(&inspect(&path).unwrap(), "mp4");
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

fn samples() -> Vec<Vec<u8>> {
    let c2pa = [b"JP\x00\x01\x00\x00\x00\x01", &manifest()[..]].concat();
    vec![
        made("a.mp4", Some(LABEL), &["-an", "-movflags", "use_metadata_tags+faststart"]),
        made("frag.mp4", Some(LABEL), &["-an", "-movflags", "use_metadata_tags+frag_keyframe"]),
        made("a.mkv", Some(LABEL), &["-an"]),
        made("a.flac", Some(LABEL), &["-vn"]),
        made("a.mp3", Some(LABEL), &["-vn"]),
        made("a.ogg", Some(LABEL), &["-vn", "-c:a", "libopus"]),
        made("a.flv", Some(LABEL), &["-an"]),
        made("a.avi", None, &["-an"]),
        riff(b"WAVE", &[(b"AIGC", LABEL.into()), (b"JUNK", aigc_xmp()), (b"data", vec![0; 9])]),
        riff(b"WEBP", &[(b"XMP ", aigc_xmp()), (b"EXIF", exif(&[(0x010E, "x")], Some(LABEL)))]),
        png(&[text_chunk("AIGC", LABEL), chunk(b"caBX", &manifest())], &[], &aigc_xmp()),
        jpeg(
            &[app1_xmp(&aigc_xmp()), app1_exif(&exif(&[(0x010E, "x")], Some(LABEL))), (0xEB, c2pa)],
            LABEL.as_bytes(),
        ),
        gif(&[gif_xmp(&aigc_xmp()), gif_block(b"\xFE", LABEL.as_bytes())], LABEL.as_bytes()),
        tiff(
            false,
            false,
            &[(0x10E, 2, LABEL.as_bytes()), (0x2BC, 1, &aigc_xmp())],
            Some(&[9; 40]),
        ),
        tiff(true, true, &[(0x10E, 2, LABEL.as_bytes()), (0x2BC, 1, &aigc_xmp())], Some(&[9; 40])),
        heif(&[(b"mime", "application/rdf+xml", &aigc_xmp()), (b"Exif", "", &[0; 60])], 0, 1),
        heif(&[(b"Exif", "", &exif(&[], Some(LABEL))), (b"mime", "a", LABEL.as_bytes())], 1, 2),
        made("a.ts", None, &["-an", "-c:v", "mpeg2video", "-f", "mpegts", "-t", "0.2"]),
    ]
}

/// A small generator of pseudo-random numbers, so that a failure can be run again.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }
}

fn survives(bytes: &[u8], what: &str) {
    let start = Instant::now();
    let found = look(bytes);
    assert!(start.elapsed() < Duration::from_secs(2), "{what}: {:?}", start.elapsed());
    assert!(found.labels.len() <= 257 && found.strip_evidence.len() <= 300, "{what}");
    for label in &found.labels {
        assert!(label.content.len() <= 4096, "{what}");
    }
    let (_, segments) = label_strip::judge(&found, None);
    assert!(segments[0].probability.is_none_or(|p| (0.0..=1.0).contains(&p)), "{what}");
    disposition(&found.labels, &found.strip_evidence, &[], false);
}

#[test]
fn damage_never_breaks_a_reader() {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    for (index, sample) in samples().iter().enumerate() {
        let len = sample.len();
        for round in 0..400 {
            survives(&sample[..random.below(len)], &format!("sample {index} cut, {round}"));
            let mut flipped = sample.clone();
            for _ in 0..=random.below(8) {
                let at = random.below(len);
                flipped[at] ^= 1 << random.below(8);
            }
            survives(&flipped, &format!("sample {index} flipped, {round}"));
            // Sizes are what parsers trip over.
            let at = random.below(len.min(2000));
            let mut sized = sample.clone();
            for byte in sized.iter_mut().skip(at).take(4) {
                *byte = [0, 1, 0x7F, 0xFF][random.below(4)];
            }
            survives(&sized, &format!("sample {index} sized, {round}"));
        }
    }
    let magics: [&[u8]; 16] = [
        b"\0\0\0\x08ftyp",
        b"\0\0\0\0moov",
        b"\x1A\x45\xDF\xA3\x80\x18\x53\x80\x67\xFF",
        b"\x89PNG\r\n\x1a\n",
        b"\xFF\xD8\xFF\xE1",
        b"RIFF\xFF\xFF\xFF\xFFWAVE",
        b"RIFF\xFF\xFF\xFF\xFFWEBP",
        b"ID3\x04\0\0\0\0\x7F\x7F",
        b"fLaC\x04\0\xFF\xFF",
        b"OggS",
        b"FLV\x01\x05\0\0\0\x09\0\0\0\0\x12\0\x07\xFF",
        b"\xFF\xFB\x90\x64",
        b"GIF89a\x01\0\x01\0\0\0\0",
        b"II*\0\x08\0\0\0",
        b"MM\0+\0\x08\0\0\0\0\0\0\0\0\0\x10",
        b"\0\0\0\x14ftypheic\0\0\0\0mif1\0\0\x02\0meta\0\0\0\0",
    ];
    for magic in magics {
        for round in 0..200 {
            let mut bytes = magic.to_vec();
            bytes.extend((0..random.below(3000)).map(|_| random.below(256) as u8));
            survives(&bytes, &format!("{magic:?} {round}"));
        }
    }
}

/// Cut at every byte, the containers whose files are small enough for it.
#[test]
fn cut_at_every_byte() {
    let packets = made("a.ts", None, &["-an", "-c:v", "mpeg2video", "-f", "mpegts", "-t", "0.2"]);
    for (name, sample) in [
        (
            "gif",
            gif(&[gif_xmp(&aigc_xmp()), gif_block(b"\xFE", LABEL.as_bytes())], LABEL.as_bytes()),
        ),
        ("tiff", tiff(false, false, &[(0x2BC, 1, &aigc_xmp())], Some(&[9; 40]))),
        ("BigTIFF", tiff(true, true, &[(0x2BC, 1, &aigc_xmp())], Some(&[9; 40]))),
        ("heif", heif(&[(b"mime", "application/rdf+xml", &aigc_xmp())], 0, 1)),
        ("idat", heif(&[(b"Exif", "", &exif(&[], Some(LABEL)))], 1, 2)),
        ("ts", packets[..packets.len().min(2000)].to_vec()),
    ] {
        for len in 0..sample.len() {
            survives(&sample[..len], &format!("{name} cut at {len}"));
        }
    }
}

/// Structures made to nest or to loop for ever come to an end.
#[test]
fn nesting_and_loops_end() {
    let mut nested = b"x".to_vec();
    for level in 0..20_000 {
        nested = boxed([b"moov", b"udta", b"meta", b"trak"][level % 4], &nested);
        if nested.len() > 1 << 17 {
            break;
        }
    }
    survives(&[boxed(b"ftyp", b"isom"), nested].concat(), "nested boxes");
    let empty_boxes = boxed(b"free", b"").repeat(300_000);
    survives(&[boxed(b"ftyp", b"isom"), empty_boxes].concat(), "empty boxes");
    // Masters of unknown size inside each other.
    let mut ebml = b"\x1A\x45\xDF\xA3\x80\x18\x53\x80\x67\xFF".to_vec();
    ebml.extend(b"\x12\x54\xC3\x67\xFF\x73\x73\xFF\x67\xC8\xFF".repeat(20_000));
    survives(&ebml, "nested elements");
    let mut simple = b"\x1A\x45\xDF\xA3\x80\x18\x53\x80\x67\xFF\x12\x54\xC3\x67\xFF".to_vec();
    simple.extend(b"\x67\xC8\xFF".repeat(50_000));
    survives(&simple, "nested tags");
    let mut lists = b"RIFF\xFF\xFF\xFF\xFFAVI ".to_vec();
    lists.extend(b"LIST\xFF\xFF\xFF\x00hdrl".repeat(20_000));
    survives(&lists, "nested lists");
    survives(&jpeg(&[app1_xmp(&"<a>".repeat(20_000).into_bytes())], b""), "nested XML");
    let deep = format!("{{\"AIGC\":{}", "{\"AIGC\":".repeat(8000));
    survives(&png(&[text_chunk("AIGC", &deep)], &[], b""), "nested JSON");
    // An EXIF directory whose next directory is itself.
    let mut looped = exif(&[(0x010E, "x")], None);
    looped[22..26].copy_from_slice(&8_u32.to_le_bytes());
    survives(&jpeg(&[app1_exif(&looped)], b""), "looped EXIF");
    survives(&[&b"OggS"[..], &[0; 100_000]].concat(), "empty pages");
    let many = text_chunk("AIGC", LABEL).repeat(1000);
    let found = look(&png(&[many], &[], b""));
    assert_eq!(found.labels.len(), 256);
    assert!(!found.unread.is_empty());
}

#[test]
fn real_labels_are_read() {
    let Some(shared) = shared() else { return };
    let folder = shared.join("data/provenance");
    let read = |name: &str| inspect(&folder.join(name)).unwrap();
    for (name, producer) in [
        ("aigc-doubao.png", "001191110102MACQD9K64010000"),
        ("aigc-jimeng.png", "00119144030008867405X210001"),
    ] {
        let found = read(name);
        let labels = of(&found, "aigc");
        assert_eq!(labels.len(), 1, "{name}: {found:?}");
        assert!(labels[0].content.contains(producer), "{name}");
        assert_eq!(labels[0].deviations, [""; 0], "{name}");
        assert_eq!(labels[0].verdict, LabelVerdict::Compliant);
        assert_eq!(labels[0].place, "iTXt[XML:com.adobe.xmp][TC260:AIGC]@33");
        assert_eq!(kinds(&found), [""; 0]);
        let state = disposition(&found.labels, &found.strip_evidence, &[], false).state;
        assert_eq!(state, DispositionState::Confirmed);
    }
    let grok = read("grok.jpg");
    assert!(grok.ai_trace().unwrap().content.starts_with("xAI: "));
    assert_eq!(verdict(&grok), SegmentVerdict::Bonafide);
    let mut manifests = 0;
    for entry in std::fs::read_dir(&folder).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if !name.ends_with(".jpg") && !name.ends_with(".png") {
            continue;
        }
        let found = read(&name);
        let has = name.starts_with("c2pa-") && name != "c2pa-A.jpg"
            || matches!(name.as_str(), "firefly.png" | "flux.jpg");
        assert_eq!(of(&found, "c2pa").len(), usize::from(has), "{name}: {found:?}");
        assert!(found.unread.is_empty(), "{name}: {found:?}");
        assert_ne!(verdict(&found), SegmentVerdict::Fake, "{name}: {found:?}");
        manifests += usize::from(has);
    }
    assert!(manifests >= 12, "{manifests}");
    let firefly = read("firefly.png");
    assert_eq!(of(&firefly, "c2pa")[0].ai, Some(true));
}

/// The same real files, stripped the way ordinary editors do it or with residue left behind.
#[test]
fn real_manifests_taken_out_leave_a_trace() {
    let Some(shared) = shared() else { return };
    let folder = shared.join("data/provenance");
    for name in ["c2pa-C.jpg", "c2pa-CA.jpg", "c2pa-CAI.jpg", "c2pa-CICA.jpg"] {
        let whole = std::fs::read(folder.join(name)).unwrap();
        // Every APP11 segment dropped, XMP kept.
        let (mut kept, mut at) = (whole[..2].to_vec(), 2);
        while whole[at + 1] != 0xDA {
            let size = 2 + usize::from(u16::from_be_bytes([whole[at + 2], whole[at + 3]]));
            if whole[at + 1] != 0xEB {
                kept.extend(&whole[at..at + size]);
            }
            at += size;
        }
        kept.extend(&whole[at..]);
        assert_stripped(&look(&kept), "xmp_points_to_missing_manifest");
    }
    for name in ["aigc-doubao.png", "aigc-jimeng.png"] {
        let whole = std::fs::read(folder.join(name)).unwrap();
        let start = find(&whole, b"{&quot;Label");
        let end = find(&whole, b"</TC260:AIGC>");
        let mut blank = whole.clone();
        blank[start..end].fill(b' ');
        assert_stripped(&look(&blank), "aigc_key_without_value");
        let mut short = whole.clone();
        short[start + 200..end].fill(b' ');
        assert_stripped(&look(&short), "label_json_cut_short");
    }
}

#[test]
fn real_clips_carry_no_residue() {
    let Some(shared) = shared() else { return };
    let mut seen = 0;
    for entry in std::fs::read_dir(shared.join("data/clips")).unwrap().flatten() {
        let path = entry.path();
        let found = inspect(&path).unwrap();
        assert_eq!(kinds(&found), [""; 0], "{}", path.display());
        match path.extension().and_then(|e| e.to_str()) {
            Some("mp4") => {
                assert_clean(&found);
                seen += 1;
            }
            _ => assert_eq!(found.container, None),
        }
    }
    assert!(seen >= 14, "{seen}");
}
