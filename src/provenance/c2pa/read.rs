//! In the worker: one file through the `c2pa` crate.

use std::collections::BTreeSet;
use std::io::{Read, Seek};

use ::c2pa::{Context, Error, Manifest, Reader, Relationship, ValidationState};
use serde_json::{Value, json};

use super::{Answer, Failure, MAX_LISTED, MAX_TEXT, SourceType, State, Store};
use crate::provenance::input::cut;

/// Manifests whose assertions are looked at; a chain of edits has a few.
const MAX_MANIFESTS: usize = 256;

/// Reads and validates the manifest store of `file`. `format` is an extension that hints at the
/// container where its content does not tell; `trust_anchors` are certificates in PEM.
///
/// May loop or take any amount of memory on a hostile file: for a process of its own only.
pub fn answer(file: impl Read + Seek + Send, format: &str, trust_anchors: Option<&str>) -> Answer {
    let mut settings = json!({
        "verify": { "remote_manifest_fetch": false, "ocsp_fetch": false },
        // Identity assertions are not reported, and may lead to the network.
        "core": { "allowed_network_hosts": [], "decode_identity_assertions": false },
    });
    if let Some(anchors) = trust_anchors {
        settings["trust"] = json!({ "trust_anchors": anchors });
    }
    let read = Context::new()
        .with_settings(settings)
        .and_then(|context| Reader::from_context(context).with_stream(format, file));
    match read {
        Ok(reader) => Answer::Store(Box::new(store(&reader))),
        Err(error) => refused(&error),
    }
}

fn refused(error: &Error) -> Answer {
    let cause = clean(&error.to_string());
    let malformed = |code: &str| Answer::Malformed { code: code.to_owned(), cause: cause.clone() };
    match error {
        Error::RemoteManifestUrl(address) | Error::RemoteManifestFetch(address) => {
            Answer::Remote { address: cut(address, 1024).to_owned() }
        }
        Error::JumbfNotFound | Error::ProvenanceMissing => Answer::Absent,
        Error::UnsupportedType => Answer::Unsupported,
        Error::ClaimMissing { .. } => malformed("claim.missing"),
        Error::ClaimDecoding(_) => malformed("claim.cbor.invalid"),
        Error::ClaimInvalidContent | Error::InvalidClaim(_) => malformed("claim.malformed"),
        Error::ClaimMissingSignatureBox => malformed("claimSignature.missing"),
        Error::ClaimMissingHardBinding => malformed("claim.hardBindings.missing"),
        Error::ClaimMultipleHardBinding => malformed("assertion.multipleHardBindings"),
        Error::AssertionMissing { .. } => malformed("assertion.missing"),
        Error::UpdateManifestInvalid => malformed("manifest.update.invalid"),
        Error::C2PAValidation(code) => malformed(&clean(code)),
        Error::JumbfParseError(_)
        | Error::JumbfBoxNotFound
        | Error::AssertionDecoding(_)
        | Error::TooManyManifestStores
        | Error::TooManyAssertions { .. }
        | Error::CyclicIngredients { .. }
        | Error::ClaimVerification(_)
        | Error::ValidationRule(_)
        | Error::HashMismatch(_)
        | Error::CborError(_)
        | Error::JsonError(_)
        | Error::Utf8Error(_)
        | Error::CoseX5ChainMissing
        | Error::CoseInvalidCert
        | Error::CoseSignature
        | Error::CoseNoCerts => malformed("general.error"),
        // The container, the disk, or something that this version of the crate does not know.
        _ => Answer::Failed { cause },
    }
}

fn store(reader: &Reader) -> Store {
    let mut failures: Vec<Failure> = Vec::new();
    let mut fail = |code: &str, ingredient| {
        let failure = Failure { code: clean(code), ingredient };
        if failures.len() < MAX_LISTED && !failures.contains(&failure) {
            failures.push(failure);
        }
    };
    if let Some(results) = reader.validation_results() {
        for status in results.active_manifest().iter().flat_map(|codes| codes.failure()) {
            fail(status.code(), false);
        }
        for ingredient in results.ingredient_deltas().into_iter().flatten() {
            for status in ingredient.validation_deltas().failure() {
                fail(status.code(), true);
            }
        }
    }
    let active = reader.active_manifest();
    let signature = active.and_then(Manifest::signature_info);
    let text = |text: &Option<String>| text.as_deref().map(clean).filter(|t| !t.is_empty());
    Store {
        state: match reader.validation_state() {
            ValidationState::Invalid => State::Invalid,
            ValidationState::Valid => State::Valid,
            ValidationState::Trusted => State::Trusted,
        },
        failures,
        manifests: reader.manifests().len(),
        generator: active.and_then(generator),
        issuer: signature.and_then(|s| text(&s.issuer)),
        common_name: signature.and_then(|s| text(&s.common_name)),
        signed_at: signature.and_then(|s| text(&s.time)),
        source_types: source_types(reader),
    }
}

/// Claims of version 2 name their generator in a list, those of version 1 in one text.
fn generator(manifest: &Manifest) -> Option<String> {
    let listed = manifest.claim_generator_info.iter().flatten().map(|info| match &info.version {
        Some(version) => format!("{} {version}", info.name),
        None => info.name.clone(),
    });
    let listed = listed.collect::<Vec<_>>().join(", ");
    let name = if listed.is_empty() { manifest.claim_generator.clone()? } else { listed };
    Some(clean(&name))
}

/// What assertions say of how the content came about: those of the active manifest, and of
/// ingredients that it was made from or that are a part of it. Ingredients that were only an input
/// (a prompt, a reference) are no part of the content.
fn source_types(reader: &Reader) -> Vec<SourceType> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    let mut next: Vec<(String, bool)> =
        reader.active_label().map(|label| (label.to_owned(), false)).into_iter().collect();
    while let Some((label, ingredient)) = next.pop() {
        let Some(manifest) = reader.get_manifest(&label) else { continue };
        if seen.len() >= MAX_MANIFESTS || !seen.insert(label) {
            continue;
        }
        for assertion in manifest.assertions() {
            if let Ok(value) = assertion.value() {
                collect(assertion.label(), value, ingredient, &mut found);
            }
        }
        for part in manifest.ingredients() {
            if let Some(label) = part.active_manifest()
                && *part.relationship() != Relationship::InputTo
            {
                next.push((label.to_owned(), true));
            }
        }
    }
    found
}

fn collect(label: &str, value: &Value, ingredient: bool, found: &mut Vec<SourceType>) {
    let mut add = |by: &str, value: &Value| {
        // A list where metadata allows several.
        let first = value.as_array().and_then(|list| list.first()).unwrap_or(value);
        let Some(value) = first.as_str() else { return };
        let this = SourceType { by: clean(by), value: clean(value), ingredient };
        if found.len() < MAX_LISTED && !this.value.is_empty() && !found.contains(&this) {
            found.push(this);
        }
    };
    if label.starts_with("c2pa.actions") {
        for list in ["actions", "templates"] {
            for action in value.get(list).and_then(Value::as_array).into_iter().flatten() {
                let name = action.get("action").and_then(Value::as_str).unwrap_or(list);
                let parameters = action.get("parameters");
                let inner = parameters.and_then(|p| p.get("digitalSourceType"));
                for value in action.get("digitalSourceType").into_iter().chain(inner) {
                    add(name, value);
                }
            }
        }
    } else if let Value::Object(fields) = value {
        // Metadata in JSON-LD (c2pa.metadata, stds.iptc): the name has a prefix of the file's choice.
        for (key, value) in fields {
            let name = key.rsplit(':').next().unwrap_or(key);
            if name.eq_ignore_ascii_case("digitalSourceType") {
                add(label, value);
            }
        }
    }
}

/// One line of at most [`MAX_TEXT`] bytes.
fn clean(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    cut(line.trim(), MAX_TEXT).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(label: &str, value: Value) -> Vec<(String, String)> {
        let mut found = Vec::new();
        collect(label, &value, false, &mut found);
        found.into_iter().map(|s| (s.by, s.value)).collect()
    }

    #[test]
    fn source_types_are_read_from_actions_and_metadata_only() {
        let ai = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia";
        let actions = json!({"actions": [
            {"action": "c2pa.created", "digitalSourceType": ai},
            {"action": "c2pa.created", "digitalSourceType": ai},
            {"action": "c2pa.edited", "parameters": {"digitalSourceType": "x"}},
            {"action": "c2pa.opened", "softwareAgent": ai, "description": ai},
        ]});
        let pair = |by: &str, value: &str| (by.to_owned(), value.to_owned());
        assert_eq!(
            found("c2pa.actions.v2", actions),
            [pair("c2pa.created", ai), pair("c2pa.edited", "x")]
        );
        let metadata = json!({"@context": {}, "Iptc4xmpExt:DigitalSourceType": ai, "dc:title": ai});
        assert_eq!(found("c2pa.metadata", metadata), [pair("c2pa.metadata", ai)]);
        let listed = json!({"DigitalSourceType": [ai]});
        assert_eq!(found("stds.iptc", listed), [pair("stds.iptc", ai)]);
        // A caption that talks of it says nothing.
        assert!(found("stds.schema-org.CreativeWork", json!({"about": ai})).is_empty());
        assert!(found("c2pa.actions", json!("actions")).is_empty());
        let many: Vec<Value> = (0..50)
            .map(|n| json!({"action": "c2pa.edited", "digitalSourceType": n.to_string()}))
            .collect();
        assert_eq!(found("c2pa.actions", json!({"actions": many})).len(), MAX_LISTED);
    }

    #[test]
    fn what_the_crate_refuses_has_a_code_or_a_cause() {
        assert_eq!(refused(&Error::JumbfNotFound), Answer::Absent);
        assert_eq!(refused(&Error::UnsupportedType), Answer::Unsupported);
        assert!(matches!(
            refused(&Error::ClaimMissing { label: "x".into() }),
            Answer::Malformed { code, .. } if code == "claim.missing"
        ));
        let gone = std::io::Error::other("disk\ngone");
        assert_eq!(refused(&Error::IoError(gone)), Answer::Failed { cause: "disk gone".into() });
    }

    #[test]
    fn a_file_without_a_manifest_is_told_from_one_that_is_no_media() {
        let png = include_bytes!("../../../demo/label-intact.png");
        assert_eq!(answer(std::io::Cursor::new(&png[..]), "png", None), Answer::Absent);
        let mkv = [0x1A, 0x45, 0xDF, 0xA3, 0, 0, 0, 0];
        assert_eq!(answer(std::io::Cursor::new(mkv), "mkv", None), Answer::Unsupported);
    }
}
