//! What a platform has to do with a file (Measures for labeling AI-generated synthetic content,
//! Art. 6, as reported).

use crate::report::{
    DetectorKind, Disposition, DispositionState, Evidence, Label, LabelVerdict, Report,
    SegmentVerdict, TrackKind,
};

/// Derives the state from the labels read, the strip evidence, what detectors suspect, and whether
/// the uploader declared the content to be made by AI.
///
/// - `confirmed`: an implicit AIGC label (GB 45438, as reported) says that AI made it, compliant or
///   not.
/// - `possible`: such a label says "possibly" (Label 2), or the uploader declared it (Art. 6 (2): no
///   implicit label, but a declaration).
/// - `suspected`: such a label says "suspected" (Label 3) or cannot be understood; another label
///   (C2PA, IPTC) or a generator's trace says AI; remains of an AIGC label; or `suspected_by`,
///   one line for each further finding, such as a detector's segment.
/// - `undetermined`: none of these, but a C2PA manifest is gone that might have said so, or
///   labels of the file could not be read.
/// - `none`: nothing of all that.
///
/// That a manifest's binding to the content is broken (`broken_hard_binding`) says nothing of AI and
/// changes no state. What a label that does not comply says of AI counts, and the evidence tells that
/// it does not comply.
///
/// The first state that applies holds, in this order; its evidence is listed.
pub fn disposition(
    labels: &[Label],
    strip_evidence: &[Evidence],
    suspected_by: &[String],
    declared_ai: bool,
) -> Disposition {
    let (mut confirmed, mut possible, mut suspected) = (Vec::new(), Vec::new(), Vec::new());
    let mut open = Vec::new();
    for label in labels {
        let Label { system, place, content, .. } = label;
        match (system.as_str(), label.verdict, label.ai) {
            ("aigc", LabelVerdict::Inconclusive, _) => open.push(format!("{place}: {content}")),
            ("aigc", LabelVerdict::NotFound, _) => {}
            ("aigc", ..) => match stated(content).as_deref() {
                Some("2") => possible.push(format!("AIGC label at {place}: possibly AI (Label 2)")),
                Some("3") => suspected.push(format!("AIGC label at {place}: suspected (Label 3)")),
                Some(value) if label.ai == Some(true) => {
                    confirmed.push(format!("AIGC label at {place}: AI (Label {value})"));
                }
                _ => suspected.push(format!("AIGC label at {place} that does not say which")),
            },
            (_, LabelVerdict::Noncompliant, Some(true)) => {
                suspected.push(format!("{system} at {place} says AI, and does not comply"));
            }
            (_, _, Some(true)) => suspected.push(format!("{system} at {place} says AI")),
            _ => {}
        }
    }
    for Evidence { kind, place, detail, .. } in strip_evidence {
        match kind.as_str() {
            // Whether what is gone spoke of AI nobody knows.
            "orphaned_jumbf" | "xmp_points_to_missing_manifest" | "erased_mark" => {
                open.push(format!("{kind} at {place}: {detail}"));
            }
            // The trace or mark itself is among the labels; a broken binding says nothing of AI.
            "generator_trace_without_label" | "watermark_without_label" | "broken_hard_binding" => {
            }
            _ => suspected.push(format!("{kind} at {place}: {detail}")),
        }
    }
    suspected.extend_from_slice(suspected_by);
    if declared_ai {
        possible.push("the uploader declared it to be made by AI".to_owned());
    }
    let states = [
        (DispositionState::Confirmed, confirmed),
        (DispositionState::Possible, possible),
        (DispositionState::Suspected, suspected),
        (DispositionState::Undetermined, open),
    ];
    states.into_iter().find(|(_, evidence)| !evidence.is_empty()).map_or_else(
        || Disposition { state: DispositionState::None, evidence: Vec::new() },
        |(state, evidence)| Disposition { state, evidence },
    )
}

/// The disposition of a file by its report's labels, strip evidence and segments.
pub fn of_report(report: &Report, declared_ai: bool) -> Disposition {
    let suspicions: Vec<String> = report
        .segments
        .iter()
        .filter(|s| s.verdict == SegmentVerdict::Fake && s.detector != DetectorKind::LabelStrip)
        .map(|s| {
            format!(
                "{} found {} from {:.1} to {:.1} s with probability {:.2}",
                s.detector.name(),
                s.track,
                s.start_ms as f64 / 1e3,
                s.end_ms as f64 / 1e3,
                s.probability.unwrap_or_default()
            )
        })
        .collect();
    let found = disposition(&report.labels, &report.strip_evidence, &suspicions, declared_ai);
    // Reading labels leaves a track, whatever is found.
    let labels_were_read = report.tracks.iter().any(|t| t.kind == TrackKind::Labels);
    if !labels_were_read && found.state == DispositionState::None {
        return Disposition {
            state: DispositionState::Undetermined,
            evidence: vec!["labels were not read: label-strip was not asked for".to_owned()],
        };
    }
    found
}

/// Makes of the report of an engine that knows of no declaration the one that
/// [`ScanOptions::declared_ai`](crate::engine::ScanOptions) would give: whoever uploaded the file
/// declared it to be made by AI.
pub fn declare(report: &mut Report) {
    let declared = serde_json::Value::Bool(true);
    report.engine.options.insert("declared_ai".to_owned(), declared);
    // A file of which nothing could be read has no evidence for anything, a declaration included.
    let Disposition { state, evidence } = &report.disposition;
    if *state != DispositionState::Undetermined || !evidence.is_empty() {
        report.disposition = of_report(report, true);
    }
}

/// The value of `Label` in an AIGC label's content.
fn stated(content: &str) -> Option<String> {
    let json: serde_json::Value = serde_json::from_str(content).ok()?;
    Some(json.get("Label")?.as_str()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::report::Seen;

    fn label(system: &str, content: &str, verdict: LabelVerdict, ai: Option<bool>) -> Label {
        Label {
            system: system.into(),
            place: "here".into(),
            content: content.into(),
            verdict,
            deviations: vec![],
            ai,
            seen: Seen::default(),
        }
    }

    fn aigc(value: &str) -> Label {
        label("aigc", &format!("{{\"Label\":\"{value}\"}}"), LabelVerdict::Noncompliant, Some(true))
    }

    fn residue(kind: &str) -> Evidence {
        Evidence {
            kind: kind.into(),
            place: "p".into(),
            weight: 6.0,
            detail: "d".into(),
            seen: Seen::default(),
        }
    }

    fn state(labels: &[Label], evidence: &[Evidence], by: &[String]) -> DispositionState {
        let found = disposition(labels, evidence, by, false);
        assert_eq!(found.evidence.is_empty(), found.state == DispositionState::None);
        found.state
    }

    #[test]
    fn a_declaration_counts_where_no_implicit_label_says_it() {
        let absent = label("aigc", "", LabelVerdict::NotFound, None);
        let declared = |labels: &[Label], by: &[String]| disposition(labels, &[], by, true);
        let found = declared(std::slice::from_ref(&absent), &["face-1 looks swapped".to_owned()]);
        assert_eq!(found.state, DispositionState::Possible);
        assert_eq!(found.evidence, ["the uploader declared it to be made by AI"]);
        assert_eq!(declared(&[], &[]).state, DispositionState::Possible);
        assert_eq!(declared(&[aigc("3")], &[]).state, DispositionState::Possible);
        let confirmed = declared(&[aigc("1")], &[]);
        assert_eq!(confirmed.state, DispositionState::Confirmed);
        assert_eq!(confirmed.evidence.len(), 1);
    }

    #[test]
    fn a_broken_binding_is_no_evidence_of_ai() {
        assert_eq!(state(&[], &[residue("broken_hard_binding")], &[]), DispositionState::None);
        let broken = label("c2pa", "{}", LabelVerdict::Noncompliant, Some(true));
        let found = disposition(&[broken], &[residue("broken_hard_binding")], &[], false);
        assert_eq!(found.state, DispositionState::Suspected);
        assert_eq!(found.evidence, ["c2pa at here says AI, and does not comply"]);
    }

    #[test]
    fn the_most_certain_state_wins() {
        use DispositionState::{Confirmed, None, Possible, Suspected, Undetermined};
        let absent = label("aigc", "", LabelVerdict::NotFound, Option::None);
        let unread = label("aigc", "not read", LabelVerdict::Inconclusive, Option::None);
        let iptc = label("iptc", "x", LabelVerdict::Compliant, Some(true));
        let camera = label("iptc", "x", LabelVerdict::Compliant, Some(false));
        let seen = ["face-1 looks swapped".to_owned()];
        assert_eq!(state(&[], &[], &[]), None);
        assert_eq!(state(&[absent.clone(), camera], &[], &[]), None);
        assert_eq!(state(std::slice::from_ref(&unread), &[], &[]), Undetermined);
        assert_eq!(state(&[unread], &[], &seen), Suspected);
        assert_eq!(
            state(std::slice::from_ref(&absent), &[residue("orphaned_jumbf")], &[]),
            Undetermined
        );
        assert_eq!(
            state(std::slice::from_ref(&absent), &[residue("aigc_key_without_value")], &[]),
            Suspected
        );
        assert_eq!(state(&[absent], &[], &seen), Suspected);
        assert_eq!(state(std::slice::from_ref(&iptc), &[], &[]), Suspected);
        assert_eq!(state(&[aigc("3")], &[], &[]), Suspected);
        assert_eq!(state(&[aigc("3"), aigc("2")], &[], &seen), Possible);
        assert_eq!(state(&[iptc, aigc("2"), aigc("1")], &[], &seen), Confirmed);
        assert_eq!(state(&[aigc("AIGC")], &[], &[]), Confirmed);
        let unclear = label("aigc", "yes", LabelVerdict::Noncompliant, Option::None);
        assert_eq!(state(&[unclear], &[], &[]), Suspected);
    }
}
