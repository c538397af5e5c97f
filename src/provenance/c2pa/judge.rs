//! From the worker's answer to a label and to evidence. Kept apart: what the manifest says, whether
//! it verifies, and whether the content is still the one that was signed.

use serde::Serialize;

use super::{Answer, SourceType, State, Store};
use crate::provenance::{input::cut, jumbf};
use crate::report::LabelVerdict;

/// Codes that say the content is not the one that was signed.
const HARD_BINDING: [&str; 5] = [
    "assertion.dataHash.mismatch",
    "assertion.bmffHash.mismatch",
    "assertion.boxesHash.mismatch",
    "assertion.boxesHash.unknownBox",
    "assertion.collectionHash.mismatch",
];
/// Codes that say something of the signer's certificate only.
const CERTIFICATE: [&str; 6] = [
    UNTRUSTED,
    "signingCredential.expired",
    "signingCredential.invalid",
    "signingCredential.ocsp.revoked",
    "signingCredential.ocsp.unknown",
    "claimSignature.outsideValidity",
];
const UNTRUSTED: &str = "signingCredential.untrusted";
/// Services that sign what their AI makes. Most of them sign other things too, and anybody can put
/// any name into a certificate of their own, so the name alone says nothing.
const AI_ISSUERS: [&str; 9] = [
    "openai",
    "google",
    "adobe",
    "microsoft",
    "stability ai",
    "canva",
    "black forest labs",
    "volcano engine",
    "byteplus",
];

/// Source types that a label tells; with the lengths of all texts this keeps the JSON under 4 KiB,
/// where labels are cut.
const MAX_TOLD: usize = 8;

/// The label that a store becomes.
#[derive(Debug, PartialEq)]
pub(in crate::provenance) struct Judged {
    pub(in crate::provenance) content: String,
    pub(in crate::provenance) verdict: LabelVerdict,
    pub(in crate::provenance) deviations: Vec<String>,
    pub(in crate::provenance) ai: Option<bool>,
    /// The binding to the content that no longer holds.
    pub(in crate::provenance) broken_binding: Option<String>,
}

/// What a manifest's label holds: one JSON object.
#[derive(Serialize)]
struct Content<'a> {
    state: State,
    /// `state` in words.
    says: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    generator: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    common_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signed_at: Option<&'a str>,
    source_types: Vec<String>,
    manifests: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
}

/// The label of a store that was validated. `trust_list`: signers were looked up in one.
pub(in crate::provenance) fn judge(store: &Store, trust_list: bool) -> Judged {
    let own = || store.failures.iter().filter(|f| !f.ingredient).map(|f| f.code.as_str());
    let broken_binding = own().find(|code| HARD_BINDING.contains(code)).map(str::to_owned);
    let deviations: Vec<String> = store
        .failures
        .iter()
        // That no list was given is no fault of the file.
        .filter(|failure| trust_list || failure.code != UNTRUSTED)
        .map(|f| if f.ingredient { format!("ingredient:{}", f.code) } else { f.code.clone() })
        .collect();
    let ai = says_ai(&store.source_types);
    let issued_by_ai = store.issuer.as_deref().is_some_and(|issuer| {
        let issuer = issuer.to_lowercase();
        AI_ISSUERS.iter().any(|name| issuer.starts_with(name))
    });
    let note = match ai {
        Some(true) if issued_by_ai => Some("the issuer's name is that of an AI service"),
        None if issued_by_ai => Some(
            "the issuer's name is that of an AI service, which alone says nothing: no assertion \
             names a source type",
        ),
        _ => None,
    };
    let content = Content {
        state: store.state,
        says: in_words(store, trust_list, broken_binding.is_some()),
        generator: store.generator.as_deref(),
        issuer: store.issuer.as_deref(),
        common_name: store.common_name.as_deref(),
        signed_at: store.signed_at.as_deref(),
        source_types: store.source_types.iter().take(MAX_TOLD).map(told).collect(),
        manifests: store.manifests,
        note,
    };
    Judged {
        // Numbers and texts cannot fail to be written.
        content: serde_json::to_string(&content).unwrap_or_default(),
        verdict: match store.state {
            State::Invalid => LabelVerdict::Noncompliant,
            State::Valid | State::Trusted => LabelVerdict::Compliant,
        },
        deviations,
        ai,
        broken_binding,
    }
}

fn in_words(store: &Store, trust_list: bool, content_changed: bool) -> String {
    let certificate_only = store.failures.iter().all(|f| CERTIFICATE.contains(&f.code.as_str()));
    match store.state {
        State::Trusted => "signature whole, signer on the trust list".to_owned(),
        State::Valid if trust_list => "signature whole, signer not on the trust list".to_owned(),
        State::Valid => "signature whole, signer not checked against a trust list".to_owned(),
        State::Invalid if content_changed => {
            "the content is not the one that was signed".to_owned()
        }
        State::Invalid if certificate_only && !store.failures.is_empty() => {
            let expired = store.failures.iter().any(|f| {
                matches!(
                    f.code.as_str(),
                    "signingCredential.expired" | "claimSignature.outsideValidity"
                )
            });
            let what = if expired { "expired" } else { "refused" };
            format!("manifest whole, only the signer's certificate is {what}")
        }
        State::Invalid if store.failures.iter().all(|f| f.ingredient) => {
            "an ingredient's manifest does not verify".to_owned()
        }
        State::Invalid => "the manifest does not verify".to_owned(),
    }
}

/// True where any source type is one of AI; false where the file's own manifest says how it was
/// made otherwise. What an ingredient was made from says nothing of the rest.
fn says_ai(source_types: &[SourceType]) -> Option<bool> {
    let says = |s: &SourceType| jumbf::source_type_says(&s.value);
    if source_types.iter().any(|s| says(s) == Some(true)) {
        return Some(true);
    }
    let by_hand = source_types.iter().any(|s| !s.ingredient && says(s) == Some(false));
    by_hand.then_some(false)
}

fn told(source_type: &SourceType) -> String {
    let SourceType { by, value, ingredient } = source_type;
    let name = value.rsplit('/').next().unwrap_or(value);
    let of = if *ingredient { " (ingredient)" } else { "" };
    format!("{}: {}{of}", cut(by, 60), cut(name, 60))
}

/// What is said beside the store's size where the worker gave no verdict.
pub(in crate::provenance) fn unjudged(answer: &Answer) -> String {
    match answer {
        Answer::Unsupported => "not verified: the verifier does not read this container".to_owned(),
        Answer::Absent => "not verified: the verifier finds no manifest here".to_owned(),
        Answer::Failed { cause } => format!("not verified: {cause}"),
        Answer::Malformed { cause, .. } => format!("cannot be read: {cause}"),
        Answer::Remote { address } => format!("manifest kept elsewhere, not fetched: {address}"),
        Answer::Store(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Failure;
    use super::*;

    const AI: &str = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia";
    const CAMERA: &str = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture";

    fn store(state: State, failures: &[(&str, bool)], types: &[(&str, bool)]) -> Store {
        Store {
            state,
            failures: failures
                .iter()
                .map(|(code, ingredient)| Failure { code: (*code).into(), ingredient: *ingredient })
                .collect(),
            manifests: 1,
            generator: Some("Tool 1.0".into()),
            issuer: Some("OpenAI OpCo, LLC".into()),
            common_name: None,
            signed_at: None,
            source_types: types
                .iter()
                .map(|(value, ingredient)| SourceType {
                    by: "c2pa.created".into(),
                    value: (*value).into(),
                    ingredient: *ingredient,
                })
                .collect(),
        }
    }

    fn content(judged: &Judged) -> serde_json::Value {
        serde_json::from_str(&judged.content).unwrap()
    }

    #[test]
    fn states_become_verdicts_and_words() {
        let valid = store(State::Valid, &[(UNTRUSTED, false)], &[(AI, false)]);
        let judged = judge(&valid, false);
        assert_eq!(judged.verdict, LabelVerdict::Compliant);
        assert_eq!((judged.deviations.len(), judged.ai), (0, Some(true)));
        let told = content(&judged);
        assert_eq!(told["state"], "valid");
        assert_eq!(told["says"], "signature whole, signer not checked against a trust list");
        assert_eq!(told["source_types"][0], "c2pa.created: trainedAlgorithmicMedia");
        // With a list it is the signer who is not on it, and that is told.
        let judged = judge(&valid, true);
        assert_eq!(judged.deviations, [UNTRUSTED]);
        assert_eq!(content(&judged)["says"], "signature whole, signer not on the trust list");

        let expired =
            store(State::Invalid, &[("signingCredential.expired", false), (UNTRUSTED, false)], &[]);
        let judged = judge(&expired, false);
        assert_eq!(judged.verdict, LabelVerdict::Noncompliant);
        assert_eq!(judged.deviations, ["signingCredential.expired"]);
        assert_eq!(
            content(&judged)["says"],
            "manifest whole, only the signer's certificate is expired"
        );
        assert_eq!(judged.broken_binding, None);
    }

    #[test]
    fn a_broken_binding_is_the_files_own_only() {
        let code = "assertion.dataHash.mismatch";
        let own = judge(&store(State::Invalid, &[(code, false)], &[]), false);
        assert_eq!(own.broken_binding.as_deref(), Some(code));
        assert_eq!(content(&own)["says"], "the content is not the one that was signed");
        let inner = judge(&store(State::Invalid, &[(code, true)], &[]), false);
        assert_eq!(inner.broken_binding, None);
        assert_eq!(inner.deviations, ["ingredient:assertion.dataHash.mismatch"]);
        assert_eq!(content(&inner)["says"], "an ingredient's manifest does not verify");
    }

    #[test]
    fn a_name_is_evidence_only_beside_a_source_type() {
        let note = |types: &[(&str, bool)]| {
            let judged = judge(&store(State::Valid, &[], types), false);
            (judged.ai, content(&judged)["note"].as_str().map(str::len))
        };
        assert!(matches!(note(&[(AI, false)]), (Some(true), Some(_))));
        assert!(matches!(note(&[]), (None, Some(_))));
        assert_eq!(note(&[(CAMERA, false)]), (Some(false), None));
    }

    #[test]
    fn ingredients_speak_for_ai_and_not_against_it() {
        let ai = |types: &[(&str, bool)]| judge(&store(State::Valid, &[], types), false).ai;
        assert_eq!(ai(&[(CAMERA, false), (AI, true)]), Some(true));
        assert_eq!(ai(&[(CAMERA, true)]), None);
        assert_eq!(ai(&[("http://example.org/none", false)]), None);
    }

    #[test]
    fn content_stays_whole_however_long_its_parts_are() {
        // Every character doubled where it is written as JSON.
        let long = "\"".repeat(super::super::MAX_TEXT);
        let mut full = store(State::Invalid, &[], &[]);
        full.source_types = (0..12)
            .map(|_| SourceType { by: long.clone(), value: long.clone(), ingredient: true })
            .collect();
        (full.generator, full.issuer) = (Some(long.clone()), Some(long.clone()));
        (full.common_name, full.signed_at) = (Some(long.clone()), Some(long));
        let judged = judge(&full, true);
        assert!(judged.content.len() <= 4096, "{}", judged.content.len());
        assert_eq!(content(&judged)["manifests"], 1);
    }
}
