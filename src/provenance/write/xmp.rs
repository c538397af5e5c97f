//! The label in an XMP packet: a new packet, or one more property in the packet that is there.

use quick_xml::escape::{escape, unescape};

use super::{Change, Refusal, elsewhere};

const NAMESPACE: &str = "http://www.tc260.org.cn/ns/AIGC/1.0/";

/// A whole packet with nothing but the label.
pub(super) fn packet(json: &str) -> Vec<u8> {
    format!(
        "<?xpacket begin=\"\u{feff}\" id=\"W5M0MpCehiHzreSzNTczkc9d\"?>\
         <x:xmpmeta xmlns:x=\"adobe:ns:meta/\">\
         <rdf:RDF xmlns:rdf=\"http://www.w3.org/1999/02/22-rdf-syntax-ns#\">{}\
         </rdf:RDF></x:xmpmeta><?xpacket end=\"w\"?>",
        description("", json)
    )
    .into_bytes()
}

fn description(about: &str, json: &str) -> String {
    format!(
        "<rdf:Description rdf:about=\"{about}\" xmlns:TC260=\"{NAMESPACE}\">\
         <TC260:AIGC>{}</TC260:AIGC></rdf:Description>",
        escape(json)
    )
}

/// The packet with the change made. Blanks that are kept before its end for such changes are used
/// up, so that it grows no more than it must.
pub(super) fn edit(packet: &[u8], change: &Change<'_>) -> Result<Vec<u8>, Refusal> {
    let text = std::str::from_utf8(packet).map_err(|_| "its XMP is not UTF-8")?;
    let mut new = match change {
        Change::Add(json) => add(text, json)?,
        Change::Propagate(_) => change_value(text, change)?,
    };
    if let Some(end) = new.rfind("<?xpacket end=") {
        let blanks = new.get(..end).unwrap_or_default();
        let blanks = blanks.len() - blanks.trim_end().len();
        let spare = blanks.min(new.len().saturating_sub(text.len()));
        new.replace_range(end - spare..end, "");
    }
    Ok(new.into_bytes())
}

fn add(text: &str, json: &str) -> Result<String, Refusal> {
    let end = text.rfind("</rdf:RDF>").ok_or("its XMP has no rdf:RDF to which to add")?;
    // All descriptions of a packet are about the same resource.
    let about = text
        .find("rdf:about=")
        .and_then(|at| {
            let rest = text.get(at + "rdf:about=".len()..)?;
            let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
            rest.get(1..)?.split(quote).next()
        })
        .filter(|about| !about.contains('"'))
        .unwrap_or("");
    let mut new = text.to_owned();
    new.insert_str(end, &description(about, json));
    Ok(new)
}

/// Changes the one value of a property `AIGC`, an element or an attribute.
fn change_value(text: &str, change: &Change<'_>) -> Result<String, Refusal> {
    let mut spans = Vec::new();
    for (at, name) in text.match_indices(":AIGC") {
        let start = at + name.len();
        let rest = text.get(start..).unwrap_or_default();
        let opens = text.get(..at).unwrap_or_default();
        let closing = opens
            .rfind(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-'))
            .is_some_and(|i| opens.get(..=i).is_some_and(|s| s.ends_with('/')));
        if closing {
            continue;
        }
        let (from, end) = match rest.chars().next() {
            Some('>') => (1, rest.find("</")),
            Some('=') => {
                let quote = rest.chars().nth(1).filter(|c| matches!(c, '"' | '\''));
                let value = rest.get(2..).unwrap_or_default();
                (2, quote.and_then(|quote| value.find(quote)).map(|n| n + 2))
            }
            _ => continue,
        };
        let value = end.and_then(|end| Some((start + from, start + end, rest.get(from..end)?)));
        spans.push(value.ok_or("its XMP breaks off in the label")?);
        if spans.len() > 1 {
            break;
        }
    }
    let [(start, end, raw)] = spans.as_slice() else { return Err(elsewhere()) };
    let plain = unescape(raw).map_err(|_| "the label's XMP is not escaped as XML asks for")?;
    let new = change.rewritten(&plain)?.ok_or_else(elsewhere)?;
    let mut out = text.to_owned();
    out.replace_range(start..end, &escape(&new));
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::super::Propagator;
    use super::*;

    #[test]
    fn a_packet_grows_into_its_padding_first() {
        let with_blanks = |n: usize| {
            let packet = String::from_utf8(packet("{}")).unwrap();
            packet.replace("<?xpacket end", &format!("{}<?xpacket end", " ".repeat(n)))
        };
        let old = with_blanks(4000);
        let new = edit(old.as_bytes(), &Change::Add("{\"Label\":\"1\"}")).unwrap();
        assert_eq!(new.len(), old.len());
        let old = with_blanks(3);
        let new = edit(old.as_bytes(), &Change::Add("{\"Label\":\"1\"}")).unwrap();
        assert!(new.len() > old.len() && !new.ends_with(b" <?xpacket end=\"w\"?>"));
        assert!(edit(b"<x:xmpmeta/>", &Change::Add("{}")).is_err());
        assert!(edit(b"\xFF\xFE<\0", &Change::Add("{}")).is_err());
    }

    #[test]
    fn both_forms_are_changed_in_their_place() {
        let p = Propagator { code: "c", id: "i", reserved: None };
        let change = Change::Propagate(&p);
        let new = edit(&packet(r#"{"Label":"1"}"#), &change).unwrap();
        let new = String::from_utf8(new).unwrap();
        assert!(new.contains("&quot;PropagateID&quot;:&quot;i&quot;}</TC260:AIGC>"), "{new}");
        let attribute = r#"<a T:AIGC="{&quot;Label&quot;:&quot;1&quot;}" b="c"/>"#;
        let new = String::from_utf8(edit(attribute.as_bytes(), &change).unwrap()).unwrap();
        assert!(new.ends_with("&quot;PropagateID&quot;:&quot;i&quot;}\" b=\"c\"/>"), "{new}");
        assert!(edit(b"<a/>", &change).is_err());
        assert!(edit(b"<T:AIGC>{", &change).is_err());
    }
}
