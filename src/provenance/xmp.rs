//! XMP packets: the AIGC property, IPTC digital source type, pointers to C2PA manifests.

use quick_xml::NsReader;
use quick_xml::events::{BytesStart, Event};
use quick_xml::name::{LocalName, ResolveResult};

use super::collect::{Collector, Spot};
use super::input::cut;
use super::traces::Field;

/// Only this much of a packet is read.
pub(crate) const MAX_XMP: usize = 1 << 20;
const MAX_VALUE: usize = 64 << 10;
const MAX_DEPTH: usize = 64;
const MAX_EVENTS: u32 = 200_000;
pub(crate) const AIGC_NAMESPACE: &str = "http://www.tc260.org.cn/ns/AIGC/";

/// Reads one packet that begins at byte `spot.offset`.
pub(crate) fn read(bytes: &[u8], spot: &Spot, out: &mut Collector) {
    if bytes.len() > MAX_XMP {
        out.note(format!("{spot}: XMP over 1 MiB, the rest was not read"));
    }
    let bytes = bytes.get(..bytes.len().min(MAX_XMP)).unwrap_or_default();
    let mut reader = NsReader::from_reader(bytes);
    // Labels are read from packets that no strict reader would take.
    reader.config_mut().check_end_names = false;
    reader.config_mut().allow_unmatched_ends = true;
    reader.config_mut().allow_dangling_amp = true;
    let mut open: Vec<Element> = Vec::new();
    for _ in 0..MAX_EVENTS {
        let event = match reader.read_event() {
            Ok(Event::Eof) | Err(_) => break,
            Ok(event) => event,
        };
        match event {
            Event::Start(start) => {
                if open.len() >= MAX_DEPTH {
                    out.note(format!("{spot}: XMP nested deeper than {MAX_DEPTH}"));
                    break;
                }
                attributes(&reader, &start, spot, out);
                open.push(Element::of(&reader, &start));
            }
            Event::Empty(start) => {
                attributes(&reader, &start, spot, out);
                let element = Element::of(&reader, &start);
                if element.is_aigc() {
                    property(&element, false, spot, out);
                }
            }
            Event::End(_) => {
                if let Some(element) = open.pop() {
                    property(&element, false, spot, out);
                    // rdf:Alt, rdf:Bag and rdf:li carry the value of the property around them.
                    if element.is_rdf
                        && let Some(parent) = open.last_mut()
                    {
                        parent.push(&element.value);
                    }
                }
            }
            Event::Text(text) => {
                if let Some(element) = open.last_mut() {
                    element.push(&String::from_utf8_lossy(&text));
                }
            }
            Event::CData(text) => {
                if let Some(element) = open.last_mut() {
                    element.push(&String::from_utf8_lossy(&text));
                }
            }
            Event::GeneralRef(name) => {
                let entity = format!("&{};", String::from_utf8_lossy(&name));
                if let Some(element) = open.last_mut() {
                    element.push(&unescape(&entity));
                }
            }
            _ => {}
        }
    }
    // A packet cut short: what was open when it ended still says what it says.
    while let Some(element) = open.pop() {
        if element.is_aigc() {
            property(&element, false, spot, out);
        }
    }
}

struct Element {
    name: String,
    /// Whether the name stands in the namespace of the AIGC label.
    tc260: bool,
    is_rdf: bool,
    value: String,
}

impl Element {
    fn new(namespace: &ResolveResult<'_>, name: LocalName<'_>) -> Self {
        let namespace = match namespace {
            ResolveResult::Bound(ns) => String::from_utf8_lossy(ns.as_ref()).into_owned(),
            _ => String::new(),
        };
        Self {
            name: cut(&String::from_utf8_lossy(name.as_ref()), 128).to_owned(),
            tc260: namespace.starts_with(AIGC_NAMESPACE),
            is_rdf: namespace.ends_with("rdf-syntax-ns#"),
            value: String::new(),
        }
    }

    fn of(reader: &NsReader<&[u8]>, start: &BytesStart<'_>) -> Self {
        let (namespace, name) = reader.resolver().resolve_element(start.name());
        Self::new(&namespace, name)
    }

    fn is_aigc(&self) -> bool {
        super::aigc::is_key(&self.name)
    }

    fn push(&mut self, text: &str) {
        let room = MAX_VALUE.saturating_sub(self.value.len());
        self.value.push_str(cut(text, room));
    }
}

fn attributes(reader: &NsReader<&[u8]>, start: &BytesStart<'_>, spot: &Spot, out: &mut Collector) {
    for attribute in start.attributes().with_checks(false).flatten().take(1024) {
        let (namespace, name) = reader.resolver().resolve_attribute(attribute.key);
        let mut element = Element::new(&namespace, name);
        element.push(&unescape(&String::from_utf8_lossy(&attribute.value)));
        property(&element, true, spot, out);
    }
}

fn unescape(text: &str) -> String {
    quick_xml::escape::unescape(text).map_or_else(|_| text.to_owned(), |t| t.into_owned())
}

fn property(element: &Element, attribute: bool, spot: &Spot, out: &mut Collector) {
    let value = element.value.trim();
    if element.is_aigc() {
        let mut extra = Vec::new();
        if attribute {
            extra.push("xmp_attribute_form");
        }
        if !element.tc260 {
            extra.push("xmp_wrong_namespace");
        }
        out.aigc(&spot.child("[TC260:AIGC]"), &element.value, &extra);
    } else if element.name.eq_ignore_ascii_case("DigitalSourceType") {
        out.digital_source_type(&spot.child("[DigitalSourceType]"), value);
    } else if value.contains("self#jumbf=") {
        out.pointer(&spot.child(&format!("[{}]", element.name)), value);
    } else if element.name == "provenance" && value.starts_with("http") {
        out.remote_manifest(&spot.child("[provenance]"), value);
    } else if matches!(element.name.as_str(), "CreatorTool" | "Software" | "description")
        // A label under another name.
        || value.contains("\"ContentProducer\"")
    {
        out.text(Field::Xmp, &element.name, value, &spot.child(&format!("[{}]", element.name)));
    }
}
