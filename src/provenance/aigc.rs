//! The implicit label of GB 45438-2025 (as reported): tolerant in reading, strict in judging.

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use std::fmt;

use super::input::cut;

/// JSON inside a JSON string is followed this deep.
const MAX_ENCODINGS: usize = 3;
/// A field's value is reported up to this length, so that a label stays whole JSON in the report.
const MAX_VALUE: usize = 512;
const MAX_FIELDS: usize = 7;
const FIELDS: [&str; MAX_FIELDS] = [
    "Label",
    "ContentProducer",
    "ProduceID",
    "ReservedCode1",
    "ContentPropagator",
    "PropagateID",
    "ReservedCode2",
];

/// What the bytes under an AIGC key turned out to be.
#[derive(Debug, PartialEq)]
pub(crate) enum Reading {
    /// Nothing, padding, or an object that says nothing.
    Blank,
    /// JSON that ends before it is complete.
    CutShort,
    /// Something else than a label.
    NotJson,
    Label(Aigc),
}

#[derive(Debug, PartialEq)]
pub(crate) struct Aigc {
    fields: Vec<(String, String)>,
    pub(crate) deviations: Vec<&'static str>,
}

impl Aigc {
    fn field(&self, name: &str) -> &str {
        self.fields.iter().find(|(k, _)| k == name).map_or("", |(_, v)| v.as_str())
    }

    /// Whether the label says that the content is, may be or is suspected to be AI-made; none
    /// where its value is not one that can be understood.
    pub(crate) fn ai(&self) -> Option<bool> {
        let label = self.field("Label").trim();
        (matches!(label, "1" | "2" | "3") || label.eq_ignore_ascii_case("aigc")).then_some(true)
    }

    /// The label as one JSON object with the standard's fields only, long values cut.
    pub(crate) fn content(&self) -> String {
        let mut map = serde_json::Map::new();
        for name in FIELDS {
            if let Some((_, value)) = self.fields.iter().find(|(k, _)| k == name) {
                map.insert(name.to_owned(), cut(value, MAX_VALUE).into());
            }
        }
        serde_json::Value::Object(map).to_string()
    }

    fn judge(&mut self) {
        let mut found = Vec::new();
        match self.field("Label") {
            "1" | "2" | "3" => {}
            "" => found.push("missing_label"),
            _ => found.push("label_value_not_1_2_3"),
        }
        let producer = self.field("ContentProducer");
        if producer.is_empty() {
            found.push("missing_content_producer");
        } else if !is_provider_code(producer) {
            found.push("producer_not_provider_code");
        }
        if self.field("ProduceID").is_empty() {
            found.push("missing_produce_id");
        }
        let propagator = self.field("ContentPropagator");
        if !propagator.is_empty() && !is_provider_code(propagator) {
            found.push("propagator_not_provider_code");
        }
        if self.fields.iter().any(|(_, v)| v.bytes().any(|b| !is_allowed(b))) {
            found.push("bad_characters");
        }
        self.deviations.extend(found);
    }
}

/// What a deviation asks of who writes a label.
pub(crate) fn explain(code: &str) -> String {
    let why = match code {
        "missing_label" => "Label is missing",
        "label_value_not_1_2_3" => "Label must be 1 (AI), 2 (possibly) or 3 (suspected)",
        "missing_content_producer" => "ContentProducer is missing",
        "missing_produce_id" => "ProduceID is missing",
        "producer_not_provider_code" => {
            "ContentProducer must be 001, 1, a unified social credit code of 18 characters \
             (0-9, A-Z) and 5 digits"
        }
        "propagator_not_provider_code" => {
            "ContentPropagator must be 001, 1, a unified social credit code of 18 characters \
             (0-9, A-Z) and 5 digits"
        }
        "bad_characters" => "values may hold 0x21 to 0x7E without \" and \\ only",
        other => other,
    };
    why.to_owned()
}

/// 0x21 to 0x7E without the quotation mark and the backslash.
fn is_allowed(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7E) && byte != b'"' && byte != b'\\'
}

/// `001`, `1`, an 18-character unified social credit code, a suffix of 5 digits.
fn is_provider_code(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("0011") else { return false };
    if rest.len() != 23 || !rest.is_ascii() {
        return false;
    }
    let (code, suffix) = rest.split_at(18);
    code.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase())
        && suffix.bytes().all(|b| b.is_ascii_digit())
}

/// Reads what stands under a key that says AIGC.
pub(crate) fn read(raw: &str) -> Reading {
    let mut text = raw.trim_matches(|c: char| c.is_whitespace() || c == '\0' || c == '\u{feff}');
    if is_blank(text) {
        return Reading::Blank;
    }
    let unescaped;
    let mut deviations = Vec::new();
    if text.starts_with("{&quot;") || text.starts_with("&quot;") || text.starts_with("{&#") {
        // Escaped once more than the carrier asks for.
        unescaped = quick_xml::escape::unescape(text).unwrap_or_default().into_owned();
        text = &unescaped;
        deviations.push("double_encoded");
    }
    let mut node = match serde_json::from_str::<Node>(text) {
        Ok(node) => node,
        Err(error) if error.is_eof() && text.starts_with(['{', '"']) => return Reading::CutShort,
        Err(_) => return Reading::NotJson,
    };
    for _ in 0..MAX_ENCODINGS {
        node = match node {
            Node::Text(inner) if is_blank(&inner) => return Reading::Blank,
            Node::Text(inner) => {
                if !deviations.contains(&"double_encoded") {
                    deviations.push("double_encoded");
                }
                match serde_json::from_str::<Node>(&inner) {
                    Ok(inner) => inner,
                    Err(e) if e.is_eof() && inner.starts_with('{') => return Reading::CutShort,
                    Err(_) => return Reading::NotJson,
                }
            }
            Node::Object(mut pairs) => match pairs.iter().position(|(k, _)| is_key(k)) {
                Some(at) => pairs.swap_remove(at).1,
                None => return from_pairs(pairs, deviations),
            },
            Node::Number(_) | Node::Other => return Reading::NotJson,
        };
    }
    match node {
        Node::Object(pairs) => from_pairs(pairs, deviations),
        Node::Text(_) | Node::Number(_) | Node::Other => Reading::NotJson,
    }
}

fn from_pairs(pairs: Vec<(String, Node)>, mut deviations: Vec<&'static str>) -> Reading {
    if pairs.is_empty() {
        return Reading::Blank;
    }
    let mut fields: Vec<(String, String)> = Vec::new();
    for (key, value) in pairs {
        let Some(name) = FIELDS.iter().find(|f| f.eq_ignore_ascii_case(&key)) else { continue };
        if *name != key {
            deviations.push("field_name_case");
        }
        if fields.iter().any(|(k, _)| k == name) {
            deviations.push("duplicate_json_key");
            continue;
        }
        match value {
            Node::Text(value) => fields.push(((*name).to_owned(), value)),
            Node::Number(value) => {
                deviations.push("value_not_a_string");
                fields.push(((*name).to_owned(), value));
            }
            Node::Object(_) | Node::Other => {
                deviations.push("value_not_a_string");
                fields.push(((*name).to_owned(), String::new()));
            }
        }
    }
    deviations.dedup();
    if fields.is_empty() {
        return Reading::NotJson;
    }
    if fields.iter().all(|(_, v)| v.is_empty()) && !deviations.contains(&"value_not_a_string") {
        return Reading::Blank;
    }
    let mut label = Aigc { fields, deviations };
    label.judge();
    Reading::Label(label)
}

pub(crate) fn is_key(key: &str) -> bool {
    key.eq_ignore_ascii_case("AIGC")
}

/// Whether a value says nothing: empty, or one filler character over and over.
fn is_blank(text: &str) -> bool {
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    if text.is_empty() || matches!(text, "{}" | "\"\"" | "null") {
        return true;
    }
    let mut chars = text.chars();
    // A single character may be meant ("1"); a run of the same one is filler.
    chars.next().is_some_and(|first| chars.clone().next().is_some() && chars.all(|c| c == first))
}

/// A label inside free text that no key announces: `AIGC{…}`, `{"AIGC":{…}}`, or a bare object
/// with the label's own field names. Gives the offset and the piece of text to [`read`].
pub(crate) fn embedded(text: &str) -> Option<(usize, &str)> {
    let trimmed = text.trim_start_matches(|c: char| c.is_whitespace() || c == '\0');
    if trimmed.starts_with('{') && trimmed.contains("\"Label\"") {
        let named = trimmed.contains("\"ContentProducer\"") || trimmed.contains("\"ProduceID\"");
        if named {
            return Some((text.len() - trimmed.len(), balanced(trimmed)));
        }
    }
    let start = find_start(text.as_bytes())?;
    // "AIGC{…}" starts at its brace, {"AIGC":…} at its own.
    let tail = text.get(start..)?;
    let brace = tail.find('{')?;
    Some((start + brace, balanced(tail.get(brace..)?)))
}

/// Where `AIGC{` or `{"AIGC":` begins in bytes of any kind.
pub(crate) fn find_start(bytes: &[u8]) -> Option<usize> {
    let bare = memchr::memmem::find(bytes, b"AIGC{");
    let json = memchr::memmem::find_iter(bytes, b"\"AIGC\"").find_map(|at| {
        let before = bytes.get(..at)?;
        let blanks = before.iter().rev().take(16).take_while(|b| b.is_ascii_whitespace()).count();
        let brace = at.checked_sub(blanks + 1)?;
        (bytes.get(brace) == Some(&b'{')).then_some(brace)
    });
    match (bare, json) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// `text`, which begins with a brace, up to the brace that closes it; all of it where none does.
fn balanced(text: &str) -> &str {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' if !quoted => depth += 1,
            b'}' if !quoted => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return text.get(..=at).unwrap_or(text);
                }
            }
            _ => {}
        }
    }
    text
}

/// JSON that keeps duplicate keys; `serde_json` bounds its depth.
#[derive(Debug)]
enum Node {
    Text(String),
    Number(String),
    Object(Vec<(String, Node)>),
    Other,
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }
    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Other)
    }
    fn visit_i64<E>(self, number: i64) -> Result<Node, E> {
        Ok(Node::Number(number.to_string()))
    }
    fn visit_u64<E>(self, number: u64) -> Result<Node, E> {
        Ok(Node::Number(number.to_string()))
    }
    fn visit_f64<E>(self, number: f64) -> Result<Node, E> {
        Ok(Node::Number(number.to_string()))
    }
    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Other)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        while seq.next_element::<Node>()?.is_some() {}
        Ok(Node::Other)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry::<String, Node>()? {
            pairs.push(pair);
        }
        Ok(Node::Object(pairs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"AIGC":{"Label":"1","ContentProducer":"001191110102MACQD9K64010000","ProduceID":"p1"}}"#;

    fn deviations(raw: &str) -> Vec<&'static str> {
        match read(raw) {
            Reading::Label(label) => label.deviations,
            other => panic!("{raw}: {other:?}"),
        }
    }

    #[test]
    fn reads_every_form_that_is_seen() {
        assert!(deviations(GOOD).is_empty());
        let bare =
            r#"{"Label":"1","ContentProducer":"001191110102MACQD9K64010000","ProduceID":"p1"}"#;
        assert!(deviations(bare).is_empty());
        let twice = serde_json::to_string(bare).unwrap();
        assert_eq!(deviations(&twice), ["double_encoded"]);
        assert_eq!(deviations(&format!("{{\"AIGC\":{twice}}}")), ["double_encoded"]);
        assert_eq!(deviations(&bare.replace('"', "&quot;")), ["double_encoded"]);
    }

    #[test]
    fn judges_strictly() {
        let cases = [
            (
                r#"{"Label":"AIGC","ContentProducer":"doubao","ProduceID":"x"}"#,
                "label_value_not_1_2_3",
            ),
            (
                r#"{"Label":"1","ContentProducer":"doubao","ProduceID":"x"}"#,
                "producer_not_provider_code",
            ),
            (r#"{"Label":"1","ContentProducer":"","ProduceID":"x"}"#, "missing_content_producer"),
            (r#"{"Label":"1","ContentProducer":"d"}"#, "missing_produce_id"),
            (r#"{"ContentProducer":"d","ProduceID":"x"}"#, "missing_label"),
            (r#"{"Label":"1","ProduceID":"a b"}"#, "bad_characters"),
            (r#"{"Label":1,"ProduceID":"ab"}"#, "value_not_a_string"),
            (r#"{"Label":"1","Label":"2","ProduceID":"ab"}"#, "duplicate_json_key"),
            (r#"{"label":"1","ProduceID":"ab"}"#, "field_name_case"),
            (
                r#"{"Label":"1","ProduceID":"ab","ContentPropagator":"x"}"#,
                "propagator_not_provider_code",
            ),
        ];
        for (raw, code) in cases {
            assert!(deviations(raw).contains(&code), "{raw}: {:?}", deviations(raw));
            assert!(!deviations(GOOD).contains(&code));
        }
    }

    #[test]
    fn knows_residue_from_labels() {
        for blank in ["", " \0\0", "{}", "\"\"", "xxxxxxxx", r#"{"AIGC":{}}"#, r#"{"AIGC":""}"#] {
            assert_eq!(read(blank), Reading::Blank, "{blank:?}");
        }
        for end in 2..GOOD.len() - 1 {
            assert_eq!(read(&GOOD[..end]), Reading::CutShort, "{end}");
        }
        for other in ["a film about AIGC", "1", "[1,2]", "{\"a\":1}"] {
            assert_eq!(read(other), Reading::NotJson, "{other}");
        }
    }

    #[test]
    fn finds_labels_in_free_text_only_where_there_are_any() {
        let text = format!("note AIGC{} tail", &GOOD[8..GOOD.len() - 1]);
        let (_, piece) = embedded(&text).unwrap();
        assert!(matches!(read(piece), Reading::Label(_)));
        assert_eq!(embedded(&format!("x {GOOD} y")).unwrap().1, GOOD);
        for none in ["AIGC is a word", "{\"Label\":\"shoes\"}", "\"AIGC\": {", "{\"x\":\"AIGC\"}"] {
            assert!(embedded(none).is_none(), "{none}");
        }
    }

    #[test]
    fn deep_nesting_is_refused() {
        let bomb = format!("{}1{}", "{\"AIGC\":".repeat(5000), "}".repeat(5000));
        assert_eq!(read(&bomb), Reading::NotJson);
    }
}
