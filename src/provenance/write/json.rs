//! The text of a label: made new, or changed without touching what is not to be changed.

use super::{Producer, Propagator};
use crate::provenance::aigc;

/// A whole label with the standard's seven fields, as it stands under a key `AIGC`.
pub(super) fn label(producer: &Producer<'_>, propagator: Option<&Propagator<'_>>) -> String {
    let fields = [
        ("Label", producer.label),
        ("ContentProducer", producer.code),
        ("ProduceID", producer.id),
        ("ReservedCode1", producer.reserved),
        ("ContentPropagator", propagator.map_or("", |p| p.code)),
        ("PropagateID", propagator.map_or("", |p| p.id)),
        ("ReservedCode2", propagator.and_then(|p| p.reserved).unwrap_or("")),
    ];
    let members: Vec<String> =
        fields.iter().map(|(key, value)| format!("\"{key}\":{}", string(value))).collect();
    format!("{{{}}}", members.join(","))
}

/// A JSON string. Quotation marks and backslashes do not comply and are refused afterwards, so they
/// are escaped rather than let out of their string.
fn string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The label's text with propagation elements in it, everything else as it is; none where the text
/// is no JSON object.
pub(super) fn propagated(text: &str, propagator: &Propagator<'_>) -> Option<String> {
    let parsed = serde_json::from_str::<serde_json::Value>(trimmed(text)).ok()?;
    if !parsed.is_object() {
        return None;
    }
    let mut text = set(text, "ContentPropagator", propagator.code)?;
    text = set(&text, "PropagateID", propagator.id)?;
    if let Some(reserved) = propagator.reserved {
        text = set(&text, "ReservedCode2", reserved)?;
    }
    Some(text)
}

fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || c == '\0' || c == '\u{feff}')
}

/// Gives one member of the label's object this value.
fn set(text: &str, name: &str, value: &str) -> Option<String> {
    let mut object = members(text, text.find('{')?)?;
    // `{"AIGC":{…}}`: the fields are one level further in.
    if let Some(inner) = object.members.iter().find(|m| aigc::is_key(m.key)) {
        object = members(text, inner.start)?;
    }
    let value = string(value);
    let (start, end, new) = match object.members.iter().find(|m| m.key == name) {
        Some(member) => (member.start, member.end, value),
        None => {
            let comma = if object.members.is_empty() { "" } else { "," };
            let at = object.members.last().map_or(object.close, |m| m.end);
            (at, at, format!("{comma}\"{name}\":{value}"))
        }
    };
    Some(format!("{}{new}{}", text.get(..start)?, text.get(end..)?))
}

struct Object<'a> {
    members: Vec<Member<'a>>,
    /// Where the closing brace stands.
    close: usize,
}

struct Member<'a> {
    key: &'a str,
    /// Where the value begins and ends.
    start: usize,
    end: usize,
}

/// The members of the object that opens at `open`, in text that is known to be JSON.
fn members(text: &str, open: usize) -> Option<Object<'_>> {
    let bytes = text.as_bytes();
    if bytes.get(open) != Some(&b'{') {
        return None;
    }
    let blank = |mut at: usize| {
        while bytes.get(at).is_some_and(u8::is_ascii_whitespace) {
            at += 1;
        }
        at
    };
    let mut members = Vec::new();
    let mut at = blank(open + 1);
    loop {
        if bytes.get(at)? == &b'}' {
            return Some(Object { members, close: at });
        }
        let key_end = value_end(bytes, at)?;
        let key = text.get(at + 1..key_end - 1)?;
        let colon = blank(key_end);
        if bytes.get(colon)? != &b':' {
            return None;
        }
        let start = blank(colon + 1);
        let end = value_end(bytes, start)?;
        members.push(Member { key, start, end });
        at = blank(end);
        if bytes.get(at)? == &b',' {
            at = blank(at + 1);
        }
    }
}

/// The byte after the value that begins at `start`.
fn value_end(bytes: &[u8], start: usize) -> Option<usize> {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for (at, byte) in bytes.iter().enumerate().skip(start) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => {
                quoted = !quoted;
                if !quoted && depth == 0 {
                    return Some(at + 1);
                }
            }
            _ if quoted => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 0 => return Some(at),
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            b',' if depth == 0 => return Some(at),
            byte if depth == 0 && byte.is_ascii_whitespace() => return Some(at),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: Propagator<'_> =
        Propagator { code: "001191110102MACQD9K64020000", id: "q-1", reserved: None };

    #[test]
    fn elements_are_set_and_nothing_else_moves() {
        let new = r#""ContentPropagator":"001191110102MACQD9K64020000","PropagateID":"q-1""#;
        for (old, now) in [
            (
                r#"{"Label":"1","X":[1,{"a":"}"}]}"#,
                format!(r#"{{"Label":"1","X":[1,{{"a":"}}"}}],{new}}}"#),
            ),
            ("{}", format!("{{{new}}}")),
            (
                r#" { "AIGC" : { "Label" : "1" , "n" : 1.50 } } "#,
                format!(r#" {{ "AIGC" : {{ "Label" : "1" , "n" : 1.50,{new} }} }} "#),
            ),
        ] {
            assert_eq!(propagated(old, &P).unwrap(), now);
        }
        let old = r#"{"ContentPropagator": "", "Label":"1","PropagateID":"x","ReservedCode2":"r"}"#;
        let now = r#"{"ContentPropagator": "001191110102MACQD9K64020000", "Label":"1","PropagateID":"q-1","ReservedCode2":"r"}"#;
        assert_eq!(propagated(old, &P).unwrap(), now);
        let p = Propagator { reserved: Some("s"), ..P };
        assert_eq!(propagated(old, &p).unwrap(), now.replace("\"r\"", "\"s\""));
        for bad in ["", "AIGC", "[1]", "{\"a\":", "\"{}\"", "{\"AIGC\":1}"] {
            assert_eq!(propagated(bad, &P), None, "{bad}");
        }
    }
}
