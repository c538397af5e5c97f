//! Gathers what the readers find, bounded, and judges it once the whole file was seen.

use std::fmt;

use super::c2pa::{self, Answer};
use super::evidence::{self, Kind};
use super::input::cut;
use super::traces::{self, Field, Text};
use super::{Findings, aigc, encoder, exif, jumbf, xmp};
use crate::report::{Evidence, Label, LabelVerdict, Seen};

/// A report's label says this much.
const MAX_CONTENT: usize = 4 << 10;
const MAX_LABELS: usize = 256;
const MAX_EVIDENCE: usize = 256;
const MAX_TEXTS: usize = 512;
const MAX_TEXT_BYTES: usize = 4 << 20;
const MAX_NOTES: usize = 16;
/// One step of a path, which may hold a key of the file's choosing.
const MAX_STEP: usize = 160;
/// Encoders and muxers that a file names; a film with many tracks has a handler each.
const MAX_ENCODERS: usize = 16;
/// EXIF blocks read in one file; a picture has one.
const MAX_EXIF_BLOCKS: u32 = 64;
/// A value under a label's key is read up to this length.
pub(crate) const MAX_VALUE: usize = 64 << 10;

/// A place in the file: the path through its structure and the byte where it begins.
#[derive(Debug, Clone)]
pub(crate) struct Spot {
    path: String,
    offset: u64,
    /// The structure runs past the end of the file.
    file_cut: bool,
    misplaced: Option<&'static str>,
}

impl Spot {
    pub(crate) fn new(path: impl Into<String>, offset: u64) -> Self {
        Self { path: path.into(), offset, file_cut: false, misplaced: None }
    }

    pub(crate) fn cut_by_file_end(mut self, is: bool) -> Self {
        self.file_cut = is;
        self
    }

    /// Labels here carry the deviation `code`.
    pub(crate) fn misplaced(mut self, code: Option<&'static str>) -> Self {
        self.misplaced = code;
        self
    }

    pub(crate) fn child(&self, suffix: &str) -> Self {
        let suffix = cut(suffix, MAX_STEP);
        Self { path: format!("{}{suffix}", self.path), ..self.clone() }
    }

    fn ahead(&self, bytes: usize) -> Self {
        Self { offset: self.offset.saturating_add(bytes as u64), ..self.clone() }
    }
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.path, self.offset)
    }
}

/// Why a manifest was not verified.
pub(crate) enum NotVerified {
    /// Nobody gave a verifier, or the bytes are not a file's.
    NotAsked,
    Failed(String),
}

struct Found {
    kind: &'static Kind,
    spot: Spot,
    detail: String,
}

#[derive(Default)]
pub(crate) struct Collector {
    labels: Vec<Label>,
    found: Vec<Found>,
    texts: Vec<Text>,
    text_bytes: usize,
    pointers: Vec<(Spot, String)>,
    notes: Vec<String>,
    /// Where the first whole C2PA store is, and which of the labels it became.
    store: Option<(Spot, usize)>,
    unverified: Option<String>,
    exif_blocks: u32,
    /// Bytes that compressed texts grew to, over the whole file.
    pub(crate) inflated: u64,
}

impl Collector {
    /// Something that kept a part of the file from being read.
    pub(crate) fn note(&mut self, what: String) {
        if self.notes.len() < MAX_NOTES && !self.notes.contains(&what) {
            self.notes.push(what);
        }
    }

    fn label(&mut self, label: Label) {
        if self.labels.len() < MAX_LABELS {
            self.labels.push(label);
        } else {
            self.note(format!("more than {MAX_LABELS} labels, the rest are not listed"));
        }
    }

    fn evidence(&mut self, kind: &'static Kind, spot: &Spot, detail: String) {
        if self.found.len() < MAX_EVIDENCE {
            self.found.push(Found { kind, spot: spot.clone(), detail });
        }
    }

    /// The value of a key; labels if the key says so.
    pub(crate) fn tag(&mut self, field: Field, key: &str, value: &str, spot: &Spot) {
        if aigc::is_key(key) {
            self.aigc(spot, value, &[]);
        } else {
            self.text(field, key, value, spot);
        }
    }

    /// What stands under a key that says AIGC.
    pub(crate) fn aigc(&mut self, spot: &Spot, raw: &str, extra: &[&'static str]) {
        let mut deviations: Vec<String> = Vec::new();
        let (content, ai) = match aigc::read(raw) {
            aigc::Reading::Blank => {
                let detail = "the key AIGC is there and its value is blank".to_owned();
                return self.evidence(&evidence::KEY_WITHOUT_VALUE, spot, detail);
            }
            aigc::Reading::CutShort if raw.len() >= MAX_VALUE => {
                return self.note(format!("{spot}: a label over 64 KiB was not read"));
            }
            aigc::Reading::CutShort => {
                let detail =
                    format!("the label's JSON breaks off after {} bytes", raw.trim().len());
                return self.evidence(&evidence::JSON_CUT_SHORT, spot, detail);
            }
            aigc::Reading::NotJson => {
                deviations.push("not_json".to_owned());
                (raw.trim().to_owned(), None)
            }
            aigc::Reading::Label(label) => {
                deviations.extend(label.deviations.iter().map(|d| (*d).to_owned()));
                (label.content(), label.ai())
            }
        };
        deviations.extend(extra.iter().chain(&spot.misplaced).map(|d| (*d).to_owned()));
        self.label(Label {
            system: "aigc".into(),
            place: spot.to_string(),
            content: cut(&content, MAX_CONTENT).to_owned(),
            verdict: LabelVerdict::Compliant,
            deviations,
            ai,
            seen: Seen::default(),
        });
    }

    /// A table of keys names AIGC and no value belongs to it.
    pub(crate) fn key_without_item(&mut self, spot: &Spot) {
        let detail = "the table of keys names AIGC and the list of values has none".to_owned();
        self.evidence(&evidence::KEY_WITHOUT_ITEM, spot, detail);
    }

    /// Free text, which may hold a label or a generator's trace.
    pub(crate) fn text(&mut self, field: Field, key: &str, value: &str, spot: &Spot) {
        let value = cut(value, MAX_VALUE);
        if let Some((at, piece)) = aigc::embedded(value) {
            self.aigc(&spot.ahead(at), piece, &[]);
        }
        if self.texts.len() < MAX_TEXTS && self.text_bytes + value.len() <= MAX_TEXT_BYTES {
            self.text_bytes += value.len();
            let key = cut(key, 128).to_owned();
            self.texts.push(Text { field, key, value: value.to_owned(), place: spot.to_string() });
        }
    }

    pub(crate) fn xmp(&mut self, spot: &Spot, bytes: &[u8]) {
        xmp::read(bytes, spot, self);
    }

    pub(crate) fn exif(&mut self, spot: &Spot, bytes: &[u8]) {
        self.exif_blocks += 1;
        if self.exif_blocks > MAX_EXIF_BLOCKS {
            return self.note(format!("more than {MAX_EXIF_BLOCKS} EXIF blocks"));
        }
        exif::read(bytes, spot, self);
    }

    pub(crate) fn digital_source_type(&mut self, spot: &Spot, value: &str) {
        /// Values that leave it open.
        const OPEN: [&str; 8] = [
            "algorithmicallyEnhanced",
            "composite",
            "compositeCapture",
            "digitalArt",
            "digitalCreation",
            "screenCapture",
            "softwareImage",
            "virtualRecording",
        ];
        if value.is_empty() {
            return;
        }
        let name = value.rsplit('/').next().unwrap_or(value);
        let ai = jumbf::source_type_says(value);
        let mut deviations = Vec::new();
        if ai.is_none() && !OPEN.contains(&name) {
            deviations.push("unknown_source_type".to_owned());
        }
        if !value.contains(jumbf::SOURCE_TYPE_PREFIX) {
            deviations.push("source_type_not_a_newscode".to_owned());
        }
        let verdict = if deviations.is_empty() {
            LabelVerdict::Compliant
        } else {
            LabelVerdict::Noncompliant
        };
        self.label(Label {
            system: "iptc".into(),
            place: spot.to_string(),
            content: cut(value, MAX_CONTENT).to_owned(),
            verdict,
            deviations,
            ai,
            seen: Seen::default(),
        });
    }

    /// A reference to a manifest inside this file.
    pub(crate) fn pointer(&mut self, spot: &Spot, target: &str) {
        if self.pointers.len() < MAX_EVIDENCE {
            self.pointers.push((spot.clone(), cut(target, 256).to_owned()));
        }
    }

    /// A reference to a manifest that is kept elsewhere, which is not fetched.
    pub(crate) fn remote_manifest(&mut self, spot: &Spot, address: &str) {
        let content = format!("manifest kept elsewhere, not fetched: {}", cut(address, 1024));
        self.c2pa(spot, content, None);
    }

    fn c2pa(&mut self, spot: &Spot, content: String, ai: Option<bool>) {
        self.label(Label {
            system: "c2pa".into(),
            place: spot.to_string(),
            content,
            verdict: LabelVerdict::Inconclusive,
            deviations: Vec::new(),
            ai,
            seen: Seen::default(),
        });
    }

    /// The first bytes of a video stream, which may hold its encoder's options.
    pub(crate) fn stream_head(&mut self, spot: &Spot, bytes: &[u8]) {
        if let Some((at, name, text)) = encoder::options(bytes) {
            self.encoder(&spot.ahead(at).child("(SEI)").to_string(), &format!("{name}: {text}"));
        }
    }

    /// The name of an MP4 track's handler.
    pub(crate) fn handler(&mut self, spot: &Spot, name: &str) {
        let name = name.trim_matches(|c: char| c.is_whitespace() || c.is_control());
        if !name.is_empty() {
            self.encoder(&spot.to_string(), &format!("handler: {name}"));
        }
    }

    /// What a file says of the software that wrote it: each statement once.
    fn encoder(&mut self, place: &str, content: &str) {
        let content = cut(content, MAX_CONTENT);
        let ours = || self.labels.iter().filter(|l| l.system == "encoder");
        if ours().count() >= MAX_ENCODERS || ours().any(|l| l.content == content) {
            return;
        }
        self.label(Label {
            system: "encoder".into(),
            place: place.to_owned(),
            content: content.to_owned(),
            verdict: LabelVerdict::Inconclusive,
            deviations: Vec::new(),
            ai: None,
            seen: Seen::default(),
        });
    }

    /// The bytes of a JUMBF superbox where manifests live. `missing`: it states more than there is.
    pub(crate) fn jumbf(&mut self, spot: &Spot, bytes: &[u8], missing: bool) {
        let Some(store) = jumbf::read(bytes, missing) else { return };
        if let Some(what) = store.broken {
            return self.evidence(&evidence::ORPHANED_JUMBF, spot, what);
        }
        let mut content = format!("C2PA manifest store of {} bytes", bytes.len());
        if let Some(name) = store.source_type {
            content.push_str(&format!("; its bytes name the source type {name}"));
        }
        if self.store.is_none() {
            self.store = Some((spot.clone(), self.labels.len()));
        } else {
            content.push_str("; not verified: only the first store of a file is");
        }
        self.c2pa(spot, content, store.source_type.map(|_| true));
    }

    /// Whether there is anything that the verifier of C2PA might know more of.
    pub(crate) fn wants_c2pa(&self) -> bool {
        self.store.is_some()
            || !self.pointers.is_empty()
            || self.found.iter().any(|f| f.kind.system == "c2pa")
    }

    /// What the verifier said, or why it did not. `trust_list`: it had one.
    pub(crate) fn c2pa_answer(&mut self, answer: Result<Answer, NotVerified>, trust_list: bool) {
        let known = self.store.as_ref().and_then(|(spot, at)| Some((spot, self.labels.get(*at)?)));
        let (spot, mut label) = match known {
            Some((spot, label)) => (spot.clone(), label.clone()),
            // Where the container's reader saw no whole store.
            None => (
                Spot::new("file", 0),
                Label {
                    system: "c2pa".into(),
                    place: Spot::new("file", 0).to_string(),
                    content: String::new(),
                    verdict: LabelVerdict::Inconclusive,
                    deviations: Vec::new(),
                    ai: None,
                    seen: Seen::default(),
                },
            ),
        };
        let add = |content: &mut String, what: &str| {
            if !content.is_empty() {
                content.push_str("; ");
            }
            content.push_str(what);
        };
        // Says something only of a store that is there.
        let mut says_something = self.store.is_some();
        match answer {
            Ok(Answer::Store(store)) => {
                let judged = c2pa::judge(&store, trust_list);
                label.content = judged.content;
                label.verdict = judged.verdict;
                label.deviations = judged.deviations;
                label.ai = judged.ai;
                says_something = true;
                if let Some(code) = judged.broken_binding {
                    let detail = format!(
                        "{code}: the content is not the one that was signed; the manifest itself \
                         was left"
                    );
                    self.evidence(&evidence::BROKEN_BINDING, &spot, detail);
                }
            }
            Ok(answer) => {
                add(&mut label.content, &c2pa::unjudged(&answer));
                match answer {
                    Answer::Malformed { code, .. } => {
                        label.verdict = LabelVerdict::Noncompliant;
                        label.deviations.push(code);
                    }
                    Answer::Remote { .. } => says_something = true,
                    _ => {}
                }
            }
            Err(NotVerified::NotAsked) => {
                add(&mut label.content, "not verified: no verifier was given")
            }
            Err(NotVerified::Failed(why)) => {
                add(&mut label.content, &format!("not verified: {why}"));
                self.unverified = Some(format!("the C2PA manifest was not verified: {why}"));
            }
        }
        label.content = cut(&label.content, MAX_CONTENT).to_owned();
        match self.store.as_ref().and_then(|(_, at)| self.labels.get_mut(*at)) {
            Some(place) => *place = label,
            None if says_something => self.label(label),
            None => {}
        }
    }

    /// Bytes that the format says to ignore: `free`, Void, JUNK, padding.
    pub(crate) fn padding(&mut self, spot: &Spot, bytes: &[u8]) {
        let find = |needle: &[u8]| memchr::memmem::find(bytes, needle);
        let mut hits = [
            find(xmp::AIGC_NAMESPACE.as_bytes()),
            find(b"TC260:AIGC"),
            find(b"mdtaAIGC"),
            find(b"\"ContentProducer\"").filter(|_| find(b"\"ProduceID\"").is_some()),
            // A label's opening, with one of its fields close behind.
            aigc::find_start(bytes).filter(|at| {
                let near = bytes.get(*at..).unwrap_or_default();
                let near = near.get(..near.len().min(256)).unwrap_or_default();
                [&b"Label"[..], b"ContentProducer"]
                    .iter()
                    .any(|field| memchr::memmem::find(near, field).is_some())
            }),
        ];
        hits.sort_unstable();
        if let Some(at) = hits.into_iter().flatten().next() {
            let structure =
                [&b"ilst"[..], b"keys", b"hdlr"].iter().any(|name| find(name).is_some());
            let (kind, what) = if structure {
                (&evidence::BOX_RENAMED, "metadata boxes with an AIGC label")
            } else {
                (&evidence::BYTES_IN_FREE, "bytes of an AIGC label")
            };
            let detail = format!("{what} in space that is marked as unused");
            self.evidence(kind, &spot.ahead(at), detail);
        }
        let manifest = find(b"jumdc2pa").or_else(|| find(b"jumdc2ma"));
        if let Some(at) = manifest {
            let detail = "a C2PA manifest in space that is marked as unused".to_owned();
            self.evidence(&evidence::ORPHANED_JUMBF, &spot.ahead(at), detail);
        }
    }

    /// Bytes after the end of what the format describes.
    pub(crate) fn trailer(&mut self, spot: &Spot, bytes: &[u8]) {
        let find = |needle: &[u8]| memchr::memmem::find(bytes, needle);
        let packet = find(b"<x:xmpmeta").and_then(|start| {
            let end = find(b"</x:xmpmeta>").filter(|end| *end > start)?;
            Some((start, bytes.get(start..end + b"</x:xmpmeta>".len())?))
        });
        if let Some((at, packet)) = packet {
            // Only its label counts: what is appended is often another picture with pointers of
            // its own.
            if find(b"AIGC").is_some() || jumbf::source_type(packet).is_some() {
                let pointers = self.pointers.len();
                self.xmp(&spot.ahead(at), packet);
                self.pointers.truncate(pointers);
            }
        }
        if let Some(at) = aigc::find_start(bytes) {
            let tail = bytes.get(at..).unwrap_or_default();
            let tail = tail.get(..tail.len().min(MAX_VALUE)).unwrap_or_default();
            let text = String::from_utf8_lossy(tail);
            if let Some((_, piece)) = aigc::embedded(&text) {
                self.aigc(&spot.ahead(at), piece, &[]);
            }
        }
        if let Some(at) = find(b"\"genAIType\"") {
            let tail = bytes.get(at..).unwrap_or_default();
            let tail = tail.get(..tail.len().min(64)).unwrap_or_default();
            self.text(Field::Trailer, "", &String::from_utf8_lossy(tail), &spot.ahead(at));
        }
    }

    /// Judges what only the whole file tells.
    pub(crate) fn finish(mut self, container: Option<&'static str>) -> Findings {
        let copies = self.labels.iter().filter(|l| l.system == "aigc").count();
        for label in self.labels.iter_mut().filter(|l| l.system == "aigc") {
            if copies > 1 {
                label.deviations.push("duplicate_label".to_owned());
            }
            // The attribute form is reported, but the rule allows it.
            if label.deviations.iter().any(|d| d != "xmp_attribute_form") {
                label.verdict = LabelVerdict::Noncompliant;
            }
        }
        let has = |labels: &[Label], system: &str| labels.iter().any(|l| l.system == system);
        let intact_aigc = has(&self.labels, "aigc");
        let intact_c2pa = has(&self.labels, "c2pa");
        if !intact_c2pa && !self.found.iter().any(|f| f.kind.system == "c2pa") {
            for (spot, target) in std::mem::take(&mut self.pointers) {
                let detail = format!("it names {target}, and the file holds no manifest");
                self.evidence(&evidence::POINTER_TO_NOTHING, &spot, detail);
            }
        }
        let mut strip_evidence: Vec<Evidence> = self
            .found
            .iter()
            .map(|found| {
                let mut weight = found.kind.weight;
                let superseded = match found.kind.system {
                    "aigc" => intact_aigc,
                    "c2pa" => intact_c2pa,
                    _ => false,
                };
                if superseded {
                    weight = weight.min(evidence::SUPERSEDED);
                }
                if found.spot.file_cut {
                    weight = weight.min(evidence::FILE_CUT);
                }
                Evidence {
                    kind: found.kind.code.to_owned(),
                    place: found.spot.to_string(),
                    weight,
                    detail: found.detail.clone(),
                    seen: Seen::default(),
                }
            })
            .collect();
        let labelled = super::labelled(&self.labels);
        let texts = std::mem::take(&mut self.texts);
        for text in texts.iter().filter(|text| encoder::is_tag(text)) {
            let value = text.value.trim_matches(|c: char| c.is_whitespace() || c.is_control());
            if !value.is_empty() {
                let key = text.key.replace("\\u{a9}", "©");
                self.encoder(&text.place, &format!("{key}: {value}"));
            }
        }
        for trace in traces::find(&texts) {
            let key = &trace.text.key;
            let content = format!("{}: {key} = {}", trace.generator, trace.text.value);
            self.label(Label {
                system: "generator-trace".into(),
                place: trace.text.place.clone(),
                content: cut(&content, MAX_CONTENT).to_owned(),
                verdict: LabelVerdict::Inconclusive,
                deviations: Vec::new(),
                ai: Some(true),
                seen: Seen::default(),
            });
            if !labelled {
                let kind = &evidence::TRACE_WITHOUT_LABEL;
                strip_evidence.push(Evidence {
                    kind: kind.code.to_owned(),
                    place: trace.text.place.clone(),
                    weight: kind.weight,
                    detail: format!("a trace of {} and no label beside it", trace.generator),
                    seen: Seen::default(),
                });
            }
        }
        if !intact_aigc {
            self.labels.insert(0, absent(container, self.notes.is_empty()));
        }
        Findings {
            container,
            labels: self.labels,
            strip_evidence,
            unread: self.notes,
            unverified: self.unverified,
        }
    }
}

/// What is said of the AIGC label where none was found.
fn absent(container: Option<&'static str>, whole: bool) -> Label {
    let (verdict, content) = match container {
        Some(_) if whole => (
            LabelVerdict::NotFound,
            "no AIGC label in the places that are read; its absence says nothing about the content",
        ),
        Some(_) => (
            LabelVerdict::Inconclusive,
            "no AIGC label in what could be read; a part of the file could not be",
        ),
        None => (LabelVerdict::Inconclusive, "labels of this container are not read"),
    };
    Label {
        system: "aigc".into(),
        place: "file".into(),
        content: content.into(),
        verdict,
        deviations: Vec::new(),
        ai: None,
        seen: Seen::default(),
    }
}
