//! The label-strip detector, first version: rules over what the container's bytes hold.
//!
//! The probability is that of a naive Bayes model in log-odds: a prior, plus the weight of the
//! strongest piece of each kind of evidence. Prior and weights are reasoned, not fitted
//! (`docs/labels.md`).

use crate::provenance::Findings;
use crate::report::{
    DetectorKind, Evidence, Reason, ReasonCode, Seen, Segment, SegmentVerdict, Track, TrackKind,
    WindowScore,
};

/// Probability at and above which a label counts as taken off.
pub const THRESHOLD: f32 = 0.5;
/// Log-odds of 1 %: among files without an intact label, few ever had one. Reasoned.
const PRIOR: f32 = -4.6;
/// No sum of reasoned weights is more certain than this.
const MOST: f32 = 0.99;
/// Half width of the 90 % interval of the prior, in log-odds: a factor of two either way.
const PRIOR_SPREAD: f32 = 0.7;
/// The same of each weight: a factor of about 2.7 either way.
const WEIGHT_SPREAD: f32 = 1.0;

/// The kind of evidence that a mark was erased from the pictures.
pub const ERASED_MARK: &str = "erased_mark";
/// What is taken off its log-odds because not every mark that is erased was an AI label: channel
/// logos, dates and signatures are, too. One in two, reasoned.
const OTHER_MARKS: f32 = 0.7;
/// No look at pictures is worth more than this.
const MOST_ERASED: f32 = 5.0;

/// Evidence that a mark was erased where `seen` says; `log_odds` is how much likelier what the network
/// sees there is in a picture from which something was erased than in another. None where it is no
/// likelier that a label was.
pub fn erased_mark(place: &str, log_odds: f32, seen: Seen) -> Option<Evidence> {
    let weight = log_odds - OTHER_MARKS;
    (weight > 0.0).then(|| Evidence {
        kind: ERASED_MARK.to_owned(),
        place: place.to_owned(),
        weight: weight.min(MOST_ERASED),
        detail:
            "something that lay over the picture was erased here (blurred, filled in or covered); \
                 whether it was a label cannot be seen"
                .to_owned(),
        seen,
    })
}

/// What is said of one erased mark: the probability at equal prior odds, as of the other networks, with
/// the ends of its 90 % interval.
fn erased(evidence: &Evidence) -> (f32, f32, f32) {
    let at = |log_odds: f32| (1.0 / (1.0 + (-log_odds).exp())).min(MOST);
    let weight = evidence.weight;
    (at(weight - WEIGHT_SPREAD), at(weight), at(weight + WEIGHT_SPREAD))
}

/// Judges a file's findings: one track `labels` over the whole file, one segment on it for the file, and
/// one for each mark that was erased from the pictures, for the time that it concerns.
///
/// `duration_ms` is the length of the presentation; a picture or unknown length gives 0. An absent
/// label is no evidence by itself: without residue the probability stays at the prior of 0.01. Where
/// the container is not read the probability is none, the verdict undetermined and the reason
/// `unread_container`; where a part of it could not be read and nothing was found, undetermined
/// with `labels_partly_read`; likewise, with `manifest_not_verified`, where the verifier of C2PA
/// failed.
pub fn judge(findings: &Findings, duration_ms: Option<i64>) -> (Track, Vec<Segment>) {
    let end_ms = duration_ms.unwrap_or(0).max(0);
    let mut reasons = Vec::new();
    if findings.container.is_none() {
        let detail = "labels and remains of labels are not read in this container".to_owned();
        reasons.push(Reason { code: ReasonCode::UnreadContainer, detail });
    }
    for what in &findings.unread {
        reasons.push(Reason { code: ReasonCode::LabelsPartlyRead, detail: what.clone() });
    }
    if let Some(why) = &findings.unverified {
        reasons.push(Reason { code: ReasonCode::ManifestNotVerified, detail: why.clone() });
    }
    let whole = findings.unread.is_empty() && findings.unverified.is_none();
    let judged = findings.container.map(|_| probability(findings));
    let verdict = match judged {
        None => SegmentVerdict::Undetermined,
        Some((low, middle, _)) if middle >= THRESHOLD && low >= THRESHOLD => SegmentVerdict::Fake,
        Some((_, _, high)) if high < THRESHOLD && whole => SegmentVerdict::Bonafide,
        Some(_) => SegmentVerdict::Undetermined,
    };
    let mut track = Track {
        id: "labels".into(),
        kind: TrackKind::Labels,
        stream: None,
        start_ms: 0,
        end_ms,
        boxes: Vec::new(),
        windows: judged
            .map(|(_, probability, _)| WindowScore {
                start_ms: 0,
                end_ms,
                probability,
                smoothed: probability,
            })
            .into_iter()
            .collect(),
        reasons: reasons.clone(),
    };
    let whole_file = Segment {
        track: track.id.clone(),
        detector: DetectorKind::LabelStrip,
        start_ms: 0,
        end_ms,
        probability: judged.map(|(_, middle, _)| middle),
        uncertainty: judged.map(|(low, _, high)| ((high - low) / 2.0).clamp(0.0, 0.5)),
        // Residue belongs to the file, not to a moment of it.
        peak_ms: None,
        peak_probability: None,
        verdict,
        reasons,
        heat_map: None,
    };
    let mut segments = vec![whole_file];
    for piece in findings.strip_evidence.iter().filter(|e| e.kind == ERASED_MARK) {
        let (low, probability, high) = erased(piece);
        let (start_ms, end_ms) = (piece.seen.start_ms.unwrap_or(0), piece.seen.end_ms.unwrap_or(0));
        track.windows.push(WindowScore { start_ms, end_ms, probability, smoothed: probability });
        segments.push(Segment {
            track: track.id.clone(),
            detector: DetectorKind::LabelStrip,
            start_ms,
            end_ms,
            probability: Some(probability),
            uncertainty: Some(((high - low) / 2.0).clamp(0.0, 0.5)),
            peak_ms: None,
            peak_probability: None,
            verdict: match low >= THRESHOLD {
                true => SegmentVerdict::Fake,
                false => SegmentVerdict::Undetermined,
            },
            reasons: Vec::new(),
            heat_map: None,
        });
    }
    track.windows.sort_by_key(|w| (w.start_ms, w.end_ms));
    (track, segments)
}

/// The probability with the ends of its 90 % interval: lower end, probability, upper end.
fn probability(findings: &Findings) -> (f32, f32, f32) {
    // Pieces of one kind say the same thing again; only the strongest counts.
    let mut strongest: Vec<(&str, f32)> = Vec::new();
    // What was seen in pictures has segments of its own.
    let of_file = findings.strip_evidence.iter().filter(|e| e.kind != ERASED_MARK);
    for piece in of_file {
        match strongest.iter_mut().find(|(kind, _)| *kind == piece.kind) {
            Some((_, weight)) => *weight = weight.max(piece.weight),
            None => strongest.push((&piece.kind, piece.weight)),
        }
    }
    let sum = PRIOR + strongest.iter().map(|(_, weight)| weight).sum::<f32>();
    let count = strongest.len() as f32;
    let spread = (PRIOR_SPREAD.powi(2) + count * WEIGHT_SPREAD.powi(2)).sqrt();
    let at = |log_odds: f32| (1.0 / (1.0 + (-log_odds).exp())).min(MOST);
    (at(sum - spread), at(sum), at(sum + spread))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Evidence, Seen};

    fn findings(kinds: &[(&str, f32)]) -> Findings {
        Findings {
            container: Some("mp4"),
            labels: vec![],
            strip_evidence: kinds
                .iter()
                .map(|(kind, weight)| Evidence {
                    kind: (*kind).into(),
                    place: "p".into(),
                    weight: *weight,
                    detail: "d".into(),
                    seen: Seen::default(),
                })
                .collect(),
            unread: vec![],
            unverified: None,
        }
    }

    fn one(findings: &Findings) -> Segment {
        let (track, segments) = judge(findings, Some(5000));
        assert_eq!((track.start_ms, track.end_ms, track.id.as_str()), (0, 5000, "labels"));
        assert_eq!(segments.len(), 1);
        segments.into_iter().next().unwrap()
    }

    #[test]
    fn no_residue_is_the_prior() {
        let segment = one(&findings(&[]));
        assert!((segment.probability.unwrap() - 0.00995).abs() < 1e-4);
        assert_eq!(segment.verdict, SegmentVerdict::Bonafide);
        assert!(segment.uncertainty.unwrap() < 0.01);
    }

    #[test]
    fn evidence_adds_up_once_a_kind() {
        let single = one(&findings(&[("a", 6.0)]));
        let twice = one(&findings(&[("a", 6.0), ("a", 5.0)]));
        assert_eq!(single.probability, twice.probability);
        assert!((single.probability.unwrap() - 0.8022).abs() < 1e-3);
        assert_eq!(single.verdict, SegmentVerdict::Fake);
        let two = one(&findings(&[("a", 6.0), ("b", 7.0)]));
        assert_eq!(two.probability, Some(0.99));
    }

    #[test]
    fn weak_evidence_is_not_a_verdict() {
        assert_eq!(one(&findings(&[("weak", 1.0)])).verdict, SegmentVerdict::Bonafide);
        let middling = one(&findings(&[("a", 4.5)]));
        assert_eq!(middling.verdict, SegmentVerdict::Undetermined);
    }

    #[test]
    fn an_erased_mark_is_judged_for_its_own_time() {
        let seen = Seen { start_ms: Some(1_000), end_ms: Some(3_000), region: None };
        assert_eq!(erased_mark("pictures", 0.6, seen), None);
        assert_eq!(erased_mark("pictures", f32::NAN, seen), None);
        let strong = erased_mark("pictures", 99.0, seen).unwrap();
        let weak = erased_mark("pictures", 1.2, Seen::default()).unwrap();
        assert!(strong.weight == MOST_ERASED && (weak.weight - 0.5).abs() < 1e-6);
        let mut findings = findings(&[]);
        findings.strip_evidence = vec![strong, weak];
        let (track, segments) = judge(&findings, Some(5_000));
        let [file, strong, weak] = &segments[..] else { panic!("{segments:?}") };
        assert_eq!(
            (file.start_ms, file.end_ms, file.verdict),
            (0, 5_000, SegmentVerdict::Bonafide)
        );
        assert_eq!((strong.start_ms, strong.end_ms), (1_000, 3_000));
        assert_eq!(strong.verdict, SegmentVerdict::Fake);
        assert!((strong.probability.unwrap() - 0.99).abs() < 1e-3);
        assert_eq!((weak.start_ms, weak.end_ms), (0, 0));
        assert_eq!(weak.verdict, SegmentVerdict::Undetermined);
        assert_eq!(track.windows.len(), 3);
    }

    #[test]
    fn what_was_not_read_is_not_judged() {
        let mut unread = findings(&[]);
        unread.container = None;
        let segment = one(&unread);
        assert_eq!((segment.probability, segment.uncertainty), (None, None));
        assert_eq!(segment.verdict, SegmentVerdict::Undetermined);
        assert_eq!(segment.reasons[0].code, ReasonCode::UnreadContainer);
        let mut partly = findings(&[]);
        partly.unread.push("cut".into());
        let segment = one(&partly);
        assert_eq!(segment.verdict, SegmentVerdict::Undetermined);
        assert_eq!(segment.reasons[0].code, ReasonCode::LabelsPartlyRead);
        let mut unverified = findings(&[]);
        unverified.unverified = Some("it took too long".into());
        let segment = one(&unverified);
        assert_eq!(segment.verdict, SegmentVerdict::Undetermined);
        assert_eq!(segment.reasons[0].code, ReasonCode::ManifestNotVerified);
    }
}
