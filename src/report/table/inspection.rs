//! Inspections for people: a block a file, a line a label, its fields below.

use std::io::{self, Write};

use super::{
    BOLD, DIM, GREEN, MAX_ITEMS, Page, RED, Style, TEXT, YELLOW, clean, figure, fit, label_head,
    shorten, without_path,
};
use crate::report::inspection::{Inspection, InspectionSink, LabelStrip};
use crate::report::{Label, SegmentVerdict, Status};

/// Width of the names of a label's fields.
const FIELD: usize = 16;
/// Fields that come first.
const FIRST: [&str; 3] = ["state", "says", "Label"];
/// Fields shown a label; the JSONL output has all.
const MAX_FIELDS: usize = 12;

/// Draws inspections as text, in the order in which files are finished.
pub struct InspectionTable<W> {
    out: W,
    style: Style,
}

impl<W: Write> InspectionTable<W> {
    pub fn new(out: W, style: Style) -> Self {
        Self { out, style: Style { width: style.width.max(Style::MIN_WIDTH), ..style } }
    }
}

impl<W: Write> InspectionSink for InspectionTable<W> {
    fn inspection(&mut self, inspection: &Inspection) -> io::Result<()> {
        let mut page = Page::new(self.style);
        page.inspection(inspection);
        self.out.write_all(page.text.as_bytes())?;
        self.out.flush()
    }
}

impl Page {
    fn inspection(&mut self, this: &Inspection) {
        let path = clean(&this.path);
        let verdict = this.label_strip.as_ref().map(|l| l.verdict);
        let mark = match (this.status, verdict) {
            (Status::Failed, _) => self.paint(RED, self.glyphs.failed),
            (_, Some(SegmentVerdict::Fake)) => self.paint(RED, self.glyphs.found),
            (Status::Partial, _) | (_, Some(SegmentVerdict::Undetermined) | None) => {
                self.paint(YELLOW, self.glyphs.unsure)
            }
            (Status::Ok, Some(SegmentVerdict::Bonafide)) => self.paint(GREEN, self.glyphs.clear),
        };
        let container = this.container.as_deref().map(clean).unwrap_or_default();
        let head = format!("{mark} {}  {}", self.paint(BOLD, &path), self.paint(DIM, &container));
        self.line(&head);
        if let Some(error) = &this.error {
            let message = without_path(&clean(&error.message), &path);
            let text = format!("{message} ({})", clean(&error.code));
            let name = if this.status == Status::Failed { "failed" } else { "broken off" };
            self.wrapped(name, TEXT, &self.paint(YELLOW, &text));
        }
        if this.status != Status::Failed {
            for label in this.labels.iter().take(MAX_ITEMS) {
                self.wrapped("label", TEXT, &label_head(label, &clean(&label.place)));
                self.fields(label);
            }
            self.more(this.labels.len(), "labels");
            self.evidence(&this.strip_evidence, None);
            if let Some(judged) = &this.label_strip {
                self.label_strip(judged);
            }
            for reason in &this.reasons {
                let text = format!("{}: {}", reason.code.words(), clean(&reason.detail));
                self.wrapped("not read", TEXT, &text);
            }
            self.disposition(&this.disposition);
        }
        self.text.push('\n');
    }

    /// What a label holds: a line a field where it is a JSON object.
    fn fields(&mut self, label: &Label) {
        let object = serde_json::from_str::<serde_json::Value>(&label.content).ok();
        let Some(object) = object.as_ref().and_then(|json| json.as_object()) else {
            let room = 2 * self.style.width.saturating_sub(TEXT);
            let content = shorten(&clean(&label.content), room, self.glyphs.ellipsis);
            if !content.is_empty() {
                self.wrapped("", TEXT, &content);
            }
            return;
        };
        let room = self.style.width.saturating_sub(TEXT + FIELD).max(10);
        // The verdict before its grounds; the rest as the map has it.
        let first = |key: &str| FIRST.iter().position(|k| *k == key).unwrap_or(FIRST.len());
        let mut fields: Vec<_> = object.iter().collect();
        fields.sort_by_key(|(key, _)| first(key));
        for (key, value) in fields.into_iter().take(MAX_FIELDS) {
            let text = match value {
                serde_json::Value::String(text) => clean(text),
                serde_json::Value::Array(list) if list.is_empty() => continue,
                serde_json::Value::Array(list) => {
                    let texts = list.iter().map(|v| v.as_str().unwrap_or_default());
                    clean(&texts.collect::<Vec<_>>().join("; "))
                }
                other => clean(&other.to_string()),
            };
            let text = shorten(&text, 2 * room, self.glyphs.ellipsis);
            let name = fit(&clean(key).replace('_', " "), FIELD - 1);
            for (n, line) in super::wrap(&text, room).iter().enumerate() {
                let name = if n == 0 { name.clone() } else { " ".repeat(FIELD - 1) };
                let name = self.paint(DIM, &name);
                self.line(&format!("{}{name} {line}", " ".repeat(TEXT)));
            }
        }
    }

    fn label_strip(&mut self, judged: &LabelStrip) {
        let (color, words) = match judged.verdict {
            SegmentVerdict::Fake => (RED, "a label was taken off"),
            SegmentVerdict::Bonafide => (GREEN, "nothing shows that a label was taken off"),
            SegmentVerdict::Undetermined => (YELLOW, "can't tell whether a label was taken off"),
        };
        let mut text = self.paint(color, words);
        if let Some(p) = judged.probability {
            text.push_str(&format!("  p {}", figure(p)));
        }
        if let Some(half) = judged.uncertainty {
            text.push_str(&format!(" {}{}", self.glyphs.plus_minus, figure(half)));
        }
        self.wrapped("label-strip", TEXT, &text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{
        Disposition, DispositionState, Evidence, LabelVerdict, Reason, ReasonCode, Seen,
    };

    fn sample() -> Inspection {
        Inspection {
            error: None,
            status: Status::Ok,
            container: Some("jpeg".into()),
            labels: vec![
                Label {
                    system: "aigc".into(),
                    place: "file".into(),
                    content: "no AIGC label".into(),
                    verdict: LabelVerdict::NotFound,
                    deviations: vec![],
                    ai: None,
                    seen: Seen::default(),
                },
                Label {
                    system: "c2pa".into(),
                    place: "APP11@20".into(),
                    content: r#"{"state":"invalid","says":"the content is not the one that was signed","source_types":["c2pa.created: trainedAlgorithmicMedia"],"empty":[]}"#.into(),
                    verdict: LabelVerdict::Noncompliant,
                    deviations: vec!["assertion.dataHash.mismatch".into()],
                    ai: Some(true),
                    seen: Seen::default(),
                },
            ],
            strip_evidence: vec![Evidence {
                kind: "broken_hard_binding".into(),
                place: "APP11@20".into(),
                weight: 1.5,
                detail: "the content is not the one that was signed".into(),
                seen: Seen::default(),
            }],
            label_strip: Some(LabelStrip {
                probability: Some(0.043),
                uncertainty: Some(0.05),
                verdict: SegmentVerdict::Bonafide,
            }),
            disposition: Disposition {
                state: DispositionState::Suspected,
                evidence: vec!["c2pa at APP11@20 says AI".into()],
            },
            reasons: vec![Reason::new(ReasonCode::LabelsPartlyRead, "cut".into())],
            ..Inspection::failed("a/b.jpg".into(), "", String::new())
        }
    }

    fn draw(inspection: &Inspection, width: usize, ascii: bool) -> String {
        let mut out = Vec::new();
        let style = Style { width, color: false, ascii };
        InspectionTable::new(&mut out, style).inspection(inspection).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_block_a_file_with_a_line_a_field() {
        let expected = r"
✓ a/b.jpg  jpeg
  label       aigc, not found [file]
              no AIGC label
  label       c2pa, says AI, does not comply (assertion.dataHash.mismatch) [APP11@20]
              state           invalid
              says            the content is not the one that was signed
              source types    c2pa.created: trainedAlgorithmicMedia
  changed     the content is not the one that was signed [APP11@20, weight +1.5]
  label-strip nothing shows that a label was taken off  p 0.04 ±0.05
  not read    labels partly read: cut
  disposition suspected: traces of AI, no label (c2pa at APP11@20 says AI)

";
        assert_eq!(draw(&sample(), 100, false), expected.trim_start_matches('\n'));
    }

    #[test]
    fn nothing_is_wider_than_the_terminal_and_ascii_is_ascii() {
        let mut long = sample();
        long.labels[1].content = format!(r#"{{"generator":"{}"}}"#, "x y".repeat(300));
        let text = draw(&long, 50, true);
        assert!(text.is_ascii(), "{text}");
        assert!(text.lines().all(|line| line.len() <= 50), "{text}");
        let failed = Inspection::failed("a.mp4".into(), "unreadable", "a.mp4: gone".into());
        assert_eq!(draw(&failed, 60, true), "! a.mp4\n  failed      gone (unreadable)\n\n");
    }

    #[test]
    fn text_from_a_file_cannot_steer_the_terminal() {
        let mut evil = sample();
        evil.labels[1].content = "{\"a\\u001b[2J\":\"b\\u001b[2J\\nlabel\"}".into();
        evil.path = "a\u{1b}[2J".into();
        let text = draw(&evil, 80, false);
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
}
