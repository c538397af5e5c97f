//! One job's report as a page of its own: nothing is fetched, nothing runs, and it can be printed.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::model::{Action, Job, Source, Time};
use super::plain::{self, Lang};
use crate::media::{DecoderKind, MediaKind, StreamInfo, StreamKind};
use crate::report::{
    DetectorKind, DispositionState, Evidence, HeatMap, Label, LabelVerdict, Reason, Report, Seen,
    Segment, SegmentVerdict, Status, Track, TrackKind, WindowScore,
};

const STYLE: &str = include_str!("report_html.css");

/// Tracks that are drawn; of more, those that look most like fakes.
const MAX_LANES: usize = 24;
/// Stretches that are told one by one.
const MAX_STRETCHES: usize = 100;
/// Stretches with their heat map.
const MAX_HEAT_MAPS: usize = 24;
/// Cells of a heat map that is drawn.
const MAX_CELLS: usize = 4_096;
/// Labels, pieces of evidence, reasons: of each.
const MAX_ITEMS: usize = 100;
/// Points of a lane's curve.
const COLUMNS: usize = 500;
/// Width and height of a lane's drawing; it is stretched to the page.
const WIDTH: f64 = 1_000.0;
const HEIGHT: f64 = 100.0;
/// Between the times below the lanes.
const TICKS: i64 = 4;

/// The report of a job in the given language, as a whole HTML document.
pub fn report_html(report: &Report, job: &Job, lang: Lang) -> String {
    let page = Page { report, job, lang };
    let title = format!("{} · {}", page.t("title"), name(&job.source));
    let mut html = format!(
        "<!doctype html>\n<html lang=\"{}\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n",
        lang.tag(),
        escape(&title),
    );
    html += &page.head();
    html += &page.outcome();
    html += &page.fault();
    html += &page.disposition();
    html += &page.lanes();
    html += &page.stretches();
    html += &page.labels();
    html += &page.evidence();
    html += &page.not_judged();
    html += &page.file();
    html += &page.engine();
    html += "</main>\n</body>\n</html>\n";
    html
}

struct Page<'a> {
    report: &'a Report,
    job: &'a Job,
    lang: Lang,
}

impl Page<'_> {
    /// One of the page's own strings.
    fn t(&self, key: &str) -> &'static str {
        plain::known(self.lang, "report", key).unwrap_or_default()
    }

    /// The same with values, escaped.
    fn f(&self, key: &str, values: &[(&str, &str)]) -> String {
        escape(&plain::filled(self.lang, "report", key, values))
    }

    fn word(&self, kind: &str, code: &str) -> String {
        escape(plain::word(self.lang, kind, code))
    }

    fn section(&self, key: &str, body: &str) -> String {
        format!("<section>\n<h2>{}</h2>\n{body}</section>\n", self.t(key))
    }

    fn more(&self, all: usize, shown: usize) -> String {
        if all <= shown {
            return String::new();
        }
        format!("<p class=\"dim\">{}</p>\n", self.f("more", &[("n", &(all - shown).to_string())]))
    }

    fn head(&self) -> String {
        let mut html = format!("<h1>{}</h1>\n", escape(name(&self.job.source)));
        let mut facts = Vec::new();
        if let Some(kind) = self.report.media.kind {
            facts.push(self.word("media", kind_code(kind)));
        }
        if let Some(ms) = self.report.media.duration_ms.filter(|_| !self.still()) {
            facts.push(moment(ms));
        }
        facts.push(format!("{} {}", self.t("job"), self.job.id));
        let _ = writeln!(html, "<p class=\"dim\">{}</p>", facts.join(" · "));
        html
    }

    fn outcome(&self) -> String {
        let Some(outcome) = &self.job.outcome else {
            return format!("<p>{}</p>\n", self.t("no_outcome"));
        };
        let action = match outcome.action {
            Action::Allow => "allow",
            Action::Review => "review",
            Action::Block => "block",
        };
        let lines = outcome.because.iter().map(|line| plain::line(self.lang, line));
        let mut html = format!(
            "<div class=\"outcome {action}\">\n<strong>{}</strong>\n<p>{}</p>\n{}\
             <p class=\"dim\">{}</p>\n</div>\n",
            self.t(&format!("outcome.{action}")),
            self.t(&format!("outcome.{action}.hint")),
            list(lines),
            self.f("policy", &[("version", &outcome.policy_version)]),
        );
        if let Some(decision) = &self.job.decision {
            let verdict = serde_json::to_value(decision.verdict).unwrap_or_default();
            let verdict = self.word("decision", verdict.as_str().unwrap_or_default());
            let mut text = format!(
                "<strong>{}</strong>{}{}",
                self.t("decision"),
                self.t("colon"),
                plain_filled(
                    self.t("decided"),
                    &[
                        ("verdict", &verdict),
                        ("by", &escape(&decision.by)),
                        ("at", &date(decision.at)),
                    ]
                ),
            );
            if let Some(fake) = decision.fake {
                let _ = write!(text, " · {}", self.t(&format!("fake.{fake}")));
            }
            if !decision.note.is_empty() {
                let _ = write!(text, "<br>{}", escape(&decision.note));
            }
            let _ = writeln!(html, "<p>{text}</p>");
        }
        html
    }

    /// Why a report is not whole.
    fn fault(&self) -> String {
        let (key, error) = match (self.report.status, &self.report.error) {
            (Status::Failed, Some(error)) => ("not_at_all", error),
            (Status::Partial, Some(error)) => ("not_wholly", error),
            _ => return String::new(),
        };
        let message = error.message.strip_prefix(self.report.media.path.as_str());
        let message = message.unwrap_or(&error.message).trim_start_matches([':', ' ']);
        let mut html = format!(
            "<div class=\"fault\">\n<strong>{}</strong>\n<p>{}</p>\n<p class=\"dim\">{}",
            self.t(key),
            self.word("error", &error.code),
            escape(message),
        );
        if let Some(ms) = error.time_ms {
            let _ = write!(html, "<br>{}", self.f("good_until", &[("time", &moment(ms))]));
        }
        html + "</p>\n</div>\n"
    }

    fn disposition(&self) -> String {
        let disposition = &self.report.disposition;
        let state = match disposition.state {
            DispositionState::Confirmed => "confirmed",
            DispositionState::Possible => "possible",
            DispositionState::Suspected => "suspected",
            DispositionState::None => "none",
            DispositionState::Undetermined => "undetermined",
        };
        let mut html = format!("<p><strong>{}</strong></p>\n", self.word("disposition", state));
        if disposition.evidence.is_empty() {
            let _ = writeln!(html, "<p>{}</p>", self.t("no_evidence"));
        } else {
            let _ = writeln!(html, "<p>{}{}</p>", self.t("rests_on"), self.t("colon"));
            let shown = disposition.evidence.iter().take(MAX_ITEMS);
            html += &list(shown.map(|line| plain::line(self.lang, line)));
            html += &self.more(disposition.evidence.len(), MAX_ITEMS);
        }
        if self.job.declared_ai {
            let _ = writeln!(html, "<p>{}</p>", self.t("declared"));
        }
        let _ = writeln!(html, "<p class=\"dim\">{}</p>", self.t("article"));
        self.section("disposition", &html)
    }

    fn still(&self) -> bool {
        self.report.media.kind == Some(MediaKind::Image) || self.span() == 0
    }

    /// Milliseconds that the lanes are long.
    fn span(&self) -> i64 {
        let ends = self.report.tracks.iter().map(|t| t.end_ms);
        let ends = ends.chain(self.report.segments.iter().map(|s| s.end_ms));
        ends.chain(self.report.media.duration_ms).max().unwrap_or(0).max(0)
    }

    fn lanes(&self) -> String {
        let mut lanes: Vec<Lane> = Vec::new();
        for track in &self.report.tracks {
            lanes.push(Lane { id: &track.id, track: Some(track), segments: Vec::new() });
        }
        let mut places: BTreeMap<&str, usize> =
            lanes.iter().enumerate().map(|(i, lane)| (lane.id, i)).collect();
        for segment in &self.report.segments {
            let i = *places.entry(&segment.track).or_insert_with(|| {
                lanes.push(Lane { id: &segment.track, track: None, segments: Vec::new() });
                lanes.len() - 1
            });
            lanes[i].segments.push(segment);
        }
        if lanes.is_empty() {
            let nothing = format!("<p>{}</p>\n", self.t("nothing"));
            return self.section("findings", &nothing);
        }
        let hidden = lanes.len().saturating_sub(MAX_LANES);
        if hidden > 0 {
            let mut ranked: Vec<f32> = lanes.iter().map(Lane::highest).collect();
            ranked.sort_by(|a, b| b.total_cmp(a));
            let least = ranked[MAX_LANES - 1];
            lanes.retain(|lane| lane.highest() >= least);
            lanes.truncate(MAX_LANES);
        }
        let still = self.still();
        let span = self.span().max(1);
        let mut html = HATCH.to_owned();
        for lane in &lanes {
            let drawing = if still { lane.bar() } else { lane.timeline(span) };
            let _ = writeln!(
                html,
                "<div class=\"lane\"><div class=\"name\">{}</div>\
                 <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" \
                 aria-label=\"{}\">{drawing}</svg></div>",
                escape(&plain::track(self.lang, lane.id)),
                self.lane_text(lane),
            );
        }
        if !still {
            let ticks: String =
                (0..=TICKS).map(|i| format!("<span>{}</span>", tick(span * i / TICKS))).collect();
            let _ = writeln!(html, "<div class=\"axis\" aria-hidden=\"true\">{ticks}</div>");
        }
        if hidden > 0 {
            let n = hidden.to_string();
            let _ = writeln!(html, "<p class=\"dim\">{}</p>", self.f("more_tracks", &[("n", &n)]));
        }
        let stops: Vec<String> = (0..=4).map(|i| colour(i as f32 / 4.0)).collect();
        let _ = writeln!(
            html,
            "<p class=\"dim\">{}<span class=\"scale\" style=\"background: \
             linear-gradient(to right, {})\"></span>{} {}</p>",
            self.t("legend.low"),
            stops.join(", "),
            self.t("legend.high"),
            self.t(if still { "legend.still" } else { "legend" }),
        );
        self.section(if still { "findings_still" } else { "findings" }, &html)
    }

    /// What a lane shows, for who does not see it.
    fn lane_text(&self, lane: &Lane) -> String {
        let times = lane.segments.iter().flat_map(|s| [s.start_ms, s.end_ms]);
        let times = times.chain(lane.track.iter().flat_map(|t| [t.start_ms, t.end_ms]));
        let (from, to) = times.fold((i64::MAX, 0), |(a, b), t| (a.min(t), b.max(t)));
        let worst = lane
            .segments
            .iter()
            .filter_map(|s| Some((*s, s.probability?)))
            .max_by(|a, b| a.1.total_cmp(&b.1));
        let worst = match worst {
            Some((segment, p)) => plain::filled(
                self.lang,
                "report",
                "lane.worst",
                &[
                    ("p", &percent(p)),
                    ("from", &moment(segment.start_ms)),
                    ("to", &moment(segment.end_ms)),
                ],
            ),
            None => self.t("lane.none").to_owned(),
        };
        self.f(
            "lane",
            &[
                ("track", &plain::track(self.lang, lane.id)),
                ("from", &moment(from)),
                ("to", &moment(to)),
                ("worst", &worst),
            ],
        )
    }

    /// Fakes, then what could not be told, each with all that is known of it; the rest is counted.
    fn stretches(&self) -> String {
        let mut told: Vec<&Segment> = Vec::new();
        for verdict in [SegmentVerdict::Fake, SegmentVerdict::Undetermined] {
            let mut some: Vec<&Segment> = self
                .report
                .segments
                .iter()
                .filter(|s| s.verdict == verdict && s.probability.is_some())
                .collect();
            some.sort_by(|a, b| {
                let p = |s: &Segment| s.probability.unwrap_or_default();
                p(b).total_cmp(&p(a)).then(a.start_ms.cmp(&b.start_ms))
            });
            told.extend(some);
        }
        let clear =
            self.report.segments.iter().filter(|s| s.verdict == SegmentVerdict::Bonafide).count();
        if told.is_empty() && clear == 0 {
            return String::new();
        }
        let mut html = String::new();
        let mut maps = 0;
        for segment in told.iter().take(MAX_STRETCHES) {
            html += &self.stretch(segment, &mut maps);
        }
        if told.len() > MAX_STRETCHES {
            let n = (told.len() - MAX_STRETCHES).to_string();
            let _ = writeln!(html, "<p class=\"dim\">{}</p>", self.f("more_rows", &[("n", &n)]));
        }
        if clear > 0 {
            let n = clear.to_string();
            let _ = writeln!(html, "<p>{}</p>", self.f("clear_rows", &[("n", &n)]));
        }
        self.section("stretches", &html)
    }

    fn stretch(&self, segment: &Segment, maps: &mut usize) -> String {
        let p = segment.probability.unwrap_or_default();
        let verdict = match segment.verdict {
            SegmentVerdict::Fake => "fake",
            SegmentVerdict::Undetermined => "undetermined",
            SegmentVerdict::Bonafide => "bonafide",
        };
        let kind =
            if segment.detector == DetectorKind::LabelStrip { "segment_label" } else { "segment" };
        let mut html = format!(
            "<div class=\"item\"><div class=\"stretch\"><div>\n<h3>{} · {}</h3>\n\
             <p><span class=\"tag\" style=\"background: {}; color: {}\">{}</span> {}{}{}",
            escape(&plain::track(self.lang, &segment.track)),
            self.when(segment),
            colour(p),
            ink(p),
            percent(p),
            self.word("detector", segment.detector.name()),
            self.t("colon"),
            self.word(kind, verdict),
        );
        if let Some(u) = segment.uncertainty {
            let (low, high) = (percent((p - u).max(0.0)), percent((p + u).min(1.0)));
            let interval = self.f("interval", &[("low", &low), ("high", &high)]);
            let _ = write!(html, "{}{interval}", self.t("comma"));
        }
        html += "</p>\n";
        let mut notes = Vec::new();
        if let (Some(at), Some(peak), false) =
            (segment.peak_ms, segment.peak_probability, self.still())
        {
            let peak = percent(peak);
            notes.push(self.f("peak", &[("time", &moment(at)), ("p", &peak)]));
        }
        let place = segment.heat_map.as_ref().and_then(HeatMap::place);
        let place = place.map(|place| plain::place(self.lang, &place));
        if let Some(place) = &place {
            let sure = segment.verdict == SegmentVerdict::Fake;
            let key = if sure { "altered" } else { "if_altered" };
            notes.push(self.f(key, &[("place", place)]));
        }
        if !notes.is_empty() {
            let _ = writeln!(html, "<p>{}</p>", notes.join(" · "));
        }
        html += &self.reasons(&segment.reasons);
        html += "</div>\n";
        if let Some(map) = segment.heat_map.as_ref().filter(|_| *maps < MAX_HEAT_MAPS)
            && let Some(drawing) = heat(map)
        {
            *maps += 1;
            let place = place.unwrap_or_else(|| self.t("nowhere").to_owned());
            let alt = self.f("heat", &[("place", &place)]);
            let _ = writeln!(
                html,
                "<div class=\"heat\"><svg viewBox=\"0 0 {} {}\" preserveAspectRatio=\"none\" \
                 shape-rendering=\"crispEdges\" role=\"img\" aria-label=\"{alt}\">{drawing}</svg></div>",
                map.columns, map.rows,
            );
        }
        html + "</div></div>\n"
    }

    fn when(&self, segment: &Segment) -> String {
        let whole = segment.start_ms == 0 && segment.end_ms >= self.span();
        if self.still() || (whole && segment.detector == DetectorKind::LabelStrip) {
            return self.t("whole_file").to_owned();
        }
        let (from, to) = (moment(segment.start_ms), moment(segment.end_ms));
        self.f("from_to", &[("from", &from), ("to", &to)])
    }

    /// Reasons in words, each with its figures.
    fn reasons(&self, reasons: &[Reason]) -> String {
        if reasons.is_empty() {
            return String::new();
        }
        let lines = reasons.iter().take(MAX_ITEMS).map(|reason| {
            let code = serde_json::to_value(reason.code).unwrap_or_default();
            let words = plain::word(self.lang, "reason", code.as_str().unwrap_or_default());
            match reason.detail.as_str() {
                "" => words.to_owned(),
                detail => {
                    format!("{words}{}{}", self.t("colon"), plain::detail(self.lang, detail))
                }
            }
        });
        list(lines) + &self.more(reasons.len(), MAX_ITEMS)
    }

    fn labels(&self) -> String {
        let of = |system: &str| {
            let system = system.to_owned();
            self.report
                .labels
                .iter()
                .filter(move |l| (l.system == "encoder") == (system == "encoder"))
        };
        let found: Vec<&Label> = of("").filter(|l| l.verdict != LabelVerdict::NotFound).collect();
        let mut html = String::new();
        for label in found.iter().take(MAX_ITEMS) {
            html += &self.label(label);
        }
        html += &self.more(found.len(), MAX_ITEMS);
        if found.is_empty() && self.report.status != Status::Failed {
            let _ = writeln!(html, "<p>{}</p>", self.t("no_labels"));
        } else if of("").any(|l| l.system == "aigc" && l.verdict == LabelVerdict::NotFound) {
            let _ = writeln!(html, "<p>{}</p>", self.t("no_aigc"));
        }
        let packing: Vec<&str> = of("encoder").map(|l| l.content.as_str()).collect();
        if !packing.is_empty() {
            let _ = writeln!(html, "<p class=\"dim\">{}{}</p>", self.t("packing"), self.t("colon"));
            html += "<div class=\"dim\">";
            html += &list(packing.iter().take(MAX_ITEMS).map(|text| (*text).to_owned()));
            html += "</div>\n";
        }
        if html.is_empty() { html } else { self.section("labels", &html) }
    }

    fn label(&self, label: &Label) -> String {
        let verdict = match label.verdict {
            LabelVerdict::Compliant => "compliant",
            LabelVerdict::Noncompliant => "noncompliant",
            LabelVerdict::NotFound => "not_found",
            LabelVerdict::Inconclusive => "inconclusive",
        };
        let ai = match label.ai {
            Some(true) => "true",
            Some(false) => "false",
            None => "null",
        };
        let mut html = format!(
            "<div class=\"item\">\n<h3>{}</h3>\n<p>{} · {}</p>\n<dl>\n",
            self.word("system", &label.system),
            self.word("ai", ai),
            self.word("label_verdict", verdict),
        );
        if !label.content.is_empty() {
            let content = plain::detail(self.lang, &label.content);
            let pretty = pretty(&content).unwrap_or(content);
            let _ = writeln!(
                html,
                "<dt>{}</dt><dd><pre>{}</pre></dd>",
                self.t("says"),
                escape(&pretty)
            );
        }
        if !label.deviations.is_empty() {
            let all = label.deviations.iter().take(MAX_ITEMS);
            let all = list(all.map(|code| plain::deviation(self.lang, code)));
            let _ = writeln!(html, "<dt>{}</dt><dd>{all}</dd>", self.t("departs"));
        }
        html += &self.place(&label.place, &label.seen);
        html + "</dl>\n</div>\n"
    }

    /// Rows that say where something is.
    fn place(&self, place: &str, seen: &Seen) -> String {
        let mut parts = vec![format!("<span class=\"id\">{}</span>", escape(place))];
        if let Some(region) = seen.region {
            let pictures = self.report.media.streams.iter();
            let mut sizes = pictures.filter_map(|s| s.width.zip(s.height));
            let words = sizes.next().map_or("", |(w, h)| region.words(w, h));
            parts.push(plain_filled(
                self.t("seen_at"),
                &[
                    ("region", &self.word("region", words)),
                    ("w", &region.w.to_string()),
                    ("h", &region.h.to_string()),
                    ("x", &region.x.to_string()),
                    ("y", &region.y.to_string()),
                ],
            ));
        }
        if let (Some(from), Some(to)) = (seen.start_ms, seen.end_ms)
            && to > from
        {
            parts.push(self.f("from_to", &[("from", &moment(from)), ("to", &moment(to))]));
        }
        format!("<dt>{}</dt><dd>{}</dd>\n", self.t("place"), parts.join("<br>"))
    }

    fn evidence(&self) -> String {
        let all = &self.report.strip_evidence;
        let mut html = String::new();
        if all.is_empty() {
            if self.report.status == Status::Failed {
                return html;
            }
            let _ = writeln!(html, "<p>{}</p>", self.t("no_evidence_found"));
        }
        for Evidence { kind, place, weight, detail, seen } in all.iter().take(MAX_ITEMS) {
            let _ = writeln!(
                html,
                "<div class=\"item\">\n<h3>{}</h3>\n<p>{}</p>\n<p>{}</p>\n<dl>{}</dl>\n</div>",
                self.word("evidence", kind),
                escape(&plain::detail(self.lang, detail)),
                self.f("times", &[("n", &times(*weight))]),
                self.place(place, seen),
            );
        }
        html += &self.more(all.len(), MAX_ITEMS);
        self.section("evidence", &html)
    }

    fn not_judged(&self) -> String {
        let mut html = self.reasons(&self.report.reasons);
        for track in self.report.tracks.iter().filter(|t| !t.reasons.is_empty()).take(MAX_ITEMS) {
            let _ = writeln!(
                html,
                "<p><strong>{}</strong></p>\n{}",
                escape(&plain::track(self.lang, &track.id)),
                self.reasons(&track.reasons)
            );
        }
        // Segments without a track say it themselves.
        let known = |s: &Segment| self.report.tracks.iter().any(|t| t.id == s.track);
        let alone = self.report.segments.iter().filter(|s| s.probability.is_none() && !known(s));
        for segment in alone.take(MAX_ITEMS) {
            let _ = writeln!(
                html,
                "<p><strong>{}</strong>{}{}</p>\n{}",
                escape(&plain::track(self.lang, &segment.track)),
                self.t("comma"),
                self.when(segment),
                self.reasons(&segment.reasons)
            );
        }
        if html.is_empty() {
            if self.report.status != Status::Ok {
                return html;
            }
            let _ = writeln!(html, "<p>{}</p>", self.t("all_judged"));
        }
        self.section("not_judged", &html)
    }

    fn file(&self) -> String {
        let media = &self.report.media;
        let mut rows: Vec<(&str, String)> = vec![("name", escape(name(&self.job.source)))];
        if let Some(bytes) = media.bytes.or(self.job.bytes) {
            rows.push(("size", size(bytes)));
        }
        if let Some(container) = &media.container {
            rows.push(("container", escape(container)));
        }
        let streams: Vec<String> = media.streams.iter().filter_map(|s| self.stream(s)).collect();
        if !streams.is_empty() {
            rows.push(("streams", streams.join("<br>")));
        }
        if let Some(reference) = &self.job.reference {
            rows.push(("reference", escape(reference)));
        }
        rows.push(("submitted", date(self.job.submitted_at)));
        if let Some(at) = self.job.finished_at {
            rows.push(("finished", date(at)));
        }
        let mut html = self.rows(&rows);
        if let Some(sha256) = media.sha256.as_ref().or(self.job.sha256.as_ref()) {
            html +=
                &rows_of(&[("SHA-256", format!("<span class=\"id\">{}</span>", escape(sha256)))]);
        }
        let mut html = format!("<dl>\n{html}</dl>\n");
        if self.job.reused {
            let _ = writeln!(html, "<p>{}</p>", self.t("reused"));
        }
        self.section("file", &html)
    }

    fn stream(&self, stream: &StreamInfo) -> Option<String> {
        match stream.kind {
            StreamKind::Video => {
                let rate = match stream.frame_rate.filter(|_| !self.still()) {
                    Some(rate) => {
                        let n = format!("{rate:.2}");
                        let n = n.trim_end_matches('0').trim_end_matches('.');
                        format!(
                            "{}{}",
                            self.t("comma"),
                            plain_filled(self.t("a_second"), &[("n", n)])
                        )
                    }
                    None => String::new(),
                };
                Some(self.f(
                    "picture_stream",
                    &[
                        ("codec", &stream.codec),
                        ("w", &stream.width.unwrap_or_default().to_string()),
                        ("h", &stream.height.unwrap_or_default().to_string()),
                        ("rate", &rate),
                    ],
                ))
            }
            StreamKind::Audio => Some(self.f(
                "sound_stream",
                &[
                    ("codec", &stream.codec),
                    ("rate", &stream.sample_rate.unwrap_or_default().to_string()),
                    ("channels", &stream.channels.unwrap_or_default().to_string()),
                ],
            )),
            StreamKind::Cover | StreamKind::Other => None,
        }
    }

    fn engine(&self) -> String {
        let engine = &self.report.engine;
        let mut device = escape(&engine.device);
        if let Some(note) = &engine.device_note {
            let _ = write!(device, "<br>{}", escape(note));
        }
        let mut rows = vec![("device", device)];
        if let Some(decoder) = &engine.decoder {
            let mut text = match decoder.kind {
                DecoderKind::Nvdec => "NVDEC".to_owned(),
                DecoderKind::Software => "FFmpeg".to_owned(),
            };
            if let Some(reason) = &decoder.reason {
                let _ = write!(text, " ({})", escape(reason));
            }
            rows.push(("decoder", text));
        }
        let seconds = format!("{:.1}", self.report.timings.total_ms as f64 / 1e3);
        rows.push(("took", self.f("seconds", &[("n", &seconds)])));
        let weights: Vec<String> = engine
            .weights
            .iter()
            .map(|(name, sha256)| {
                format!("{} <span class=\"id\">{}</span>", escape(name), escape(sha256))
            })
            .collect();
        rows.push(("weights", weights.join("<br>")));
        let options: Vec<String> =
            engine.options.iter().map(|(key, value)| format!("{key} = {value}")).collect();
        rows.push((
            "options",
            format!("<span class=\"id\">{}</span>", escape(&options.join(", "))),
        ));
        let html = format!(
            "<p>{}</p>\n<dl>\n{}</dl>\n",
            self.f("version", &[("version", &engine.version)]),
            self.rows(&rows)
        );
        let footer = format!("<footer class=\"dim\"><p>{}</p></footer>\n", self.t("caution"));
        self.section("made_by", &html) + &footer
    }

    fn rows(&self, rows: &[(&str, String)]) -> String {
        let named: Vec<(&str, String)> =
            rows.iter().map(|(key, value)| (self.t(key), value.clone())).collect();
        rows_of(&named)
    }
}

/// Names and values, which are escaped already.
fn rows_of(rows: &[(&str, String)]) -> String {
    rows.iter().map(|(name, value)| format!("<dt>{name}</dt><dd>{value}</dd>\n")).collect()
}

/// One row of the drawing: a track and what was found on it.
struct Lane<'a> {
    id: &'a str,
    track: Option<&'a Track>,
    segments: Vec<&'a Segment>,
}

/// What was not judged is hatched.
const HATCH: &str = "<svg width=\"0\" height=\"0\" class=\"defs\" aria-hidden=\"true\"><defs>\
    <pattern id=\"h\" width=\"12\" height=\"12\" patternUnits=\"userSpaceOnUse\" \
    patternTransform=\"rotate(45)\"><rect width=\"4\" height=\"12\" fill=\"#8a93a0\"/></pattern>\
    </defs></svg>\n";

impl Lane<'_> {
    fn highest(&self) -> f32 {
        let fakes = self.segments.iter().filter(|s| s.verdict == SegmentVerdict::Fake);
        let base = if fakes.count() > 0 { 1.0 } else { 0.0 };
        base + self.segments.iter().filter_map(|s| s.probability).fold(0.0, f32::max)
    }

    /// Segments as coloured stretches, windows as a curve over them.
    fn timeline(&self, span: i64) -> String {
        let x = |ms: i64| (ms.clamp(0, span) as f64 / span as f64 * WIDTH * 10.0).round() / 10.0;
        let mut svg = String::new();
        let mut ordered = self.segments.clone();
        // A short stretch within a longer one, such as an erased mark within a file's labels, lies on it.
        ordered.sort_by_key(|s| std::cmp::Reverse(s.end_ms - s.start_ms));
        for segment in ordered {
            let (from, to) = (x(segment.start_ms), x(segment.end_ms));
            let width = (to - from).max(2.0);
            let fill = segment.probability.map_or("url(#h)".to_owned(), colour);
            let _ = write!(
                svg,
                "<rect x=\"{from}\" y=\"0\" width=\"{width:.1}\" height=\"{HEIGHT}\" fill=\"{fill}\"/>"
            );
        }
        if let Some(track) = self.track {
            if self.segments.is_empty() {
                let (from, to) = (x(track.start_ms), x(track.end_ms));
                let _ = write!(
                    svg,
                    "<rect x=\"{from}\" y=\"0\" width=\"{:.1}\" height=\"{HEIGHT}\" fill=\"url(#h)\"/>",
                    (to - from).max(2.0)
                );
            }
            if track.kind != TrackKind::Labels {
                svg += &curve(&track.windows, span);
            }
        }
        svg
    }

    /// A picture's probability as a bar from the left.
    fn bar(&self) -> String {
        let judged = self.segments.iter().filter_map(|s| s.probability);
        match judged.reduce(f32::max) {
            Some(p) => format!(
                "<rect x=\"0\" y=\"0\" width=\"{:.1}\" height=\"{HEIGHT}\" fill=\"{}\"/>",
                (f64::from(p) * WIDTH).max(4.0),
                colour(p)
            ),
            None => format!(
                "<rect x=\"0\" y=\"0\" width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"url(#h)\"/>"
            ),
        }
    }
}

/// The smoothed probabilities of windows: in each column the highest, lines between neighbours no
/// further apart than a gap in the judging.
fn curve(windows: &[WindowScore], span: i64) -> String {
    let mut points: BTreeMap<usize, f32> = BTreeMap::new();
    let mut longest = 0;
    for window in windows {
        let middle = window.start_ms.midpoint(window.end_ms).clamp(0, span);
        let column = (middle as f64 / span as f64 * COLUMNS as f64) as usize;
        let highest = points.entry(column).or_default();
        *highest = highest.max(window.smoothed);
        longest = longest.max(window.end_ms - window.start_ms);
    }
    let gap = (1.25 * longest as f64 / span as f64 * COLUMNS as f64).ceil().max(2.0) as usize;
    let mut path = String::new();
    let mut before: Option<usize> = None;
    for (&column, &p) in &points {
        let near = before.is_some_and(|b| column - b <= gap);
        let (x, y) = (column as f64 / COLUMNS as f64 * WIDTH, 4.0 + 92.0 * (1.0 - f64::from(p)));
        let _ = write!(path, "{}{x:.0} {y:.0}", if near { 'L' } else { 'M' });
        before = Some(column);
    }
    if points.len() < 2 {
        return String::new();
    }
    format!("<path class=\"curve\" vector-effect=\"non-scaling-stroke\" d=\"{path}\"/>")
}

/// A heat map's cells; none where it is none or too large.
fn heat(map: &HeatMap) -> Option<String> {
    let cells = map.columns.checked_mul(map.rows)?;
    if cells == 0 || cells > MAX_CELLS || cells != map.values.len() {
        return None;
    }
    let mut svg = String::new();
    for (i, value) in map.values.iter().enumerate() {
        let (x, y) = (i % map.columns, i / map.columns);
        // Cells overlap a little, so that no seams show.
        let _ = write!(
            svg,
            "<rect x=\"{x}\" y=\"{y}\" width=\"1.04\" height=\"1.04\" fill=\"{}\"/>",
            colour(*value)
        );
    }
    Some(svg)
}

/// Colours for probabilities that people with any colour vision tell apart: blue, sand, vermilion, the
/// review page's.
fn colour(p: f32) -> String {
    const STOPS: [(f32, [f32; 3]); 3] =
        [(0.0, [38.0, 120.0, 190.0]), (0.5, [190.0, 165.0, 95.0]), (1.0, [213.0, 80.0, 10.0])];
    let p = if p.is_finite() { p.clamp(0.0, 1.0) } else { 0.0 };
    let (from, to) = if p <= 0.5 { (STOPS[0], STOPS[1]) } else { (STOPS[1], STOPS[2]) };
    let share = (p - from.0) / (to.0 - from.0);
    let mix = |i: usize| (from.1[i] + (to.1[i] - from.1[i]) * share).round();
    format!("rgb({} {} {})", mix(0), mix(1), mix(2))
}

/// For text on [`colour`].
fn ink(p: f32) -> &'static str {
    if (0.2..0.8).contains(&p) { "#000" } else { "#fff" }
}

fn kind_code(kind: MediaKind) -> &'static str {
    match kind {
        MediaKind::Video => "video",
        MediaKind::Audio => "audio",
        MediaKind::Image => "image",
    }
}

fn name(source: &Source) -> &str {
    match source {
        Source::Upload { name } => name,
        Source::Url { url } => url,
        Source::Path { path } => path,
    }
}

/// Values that are escaped already in a template of ours.
fn plain_filled(template: &str, values: &[(&str, &str)]) -> String {
    values.iter().fold(template.to_owned(), |text, (name, value)| {
        text.replace(&format!("{{{name}}}"), value)
    })
}

/// Text lines as a list, escaped.
fn list(lines: impl Iterator<Item = String>) -> String {
    let items: String = lines.map(|line| format!("<li>{}</li>\n", escape(&line))).collect();
    if items.is_empty() { items } else { format!("<ul>\n{items}</ul>\n") }
}

/// JSON with a line a field, where it is JSON.
fn pretty(content: &str) -> Option<String> {
    let value: serde_json::Value = serde_json::from_str(content).ok()?;
    let fields = value.as_object()?;
    let line = |(key, value): (&String, &serde_json::Value)| match value {
        serde_json::Value::String(text) => format!("{key}: {text}"),
        other => format!("{key}: {other}"),
    };
    Some(fields.iter().map(line).collect::<Vec<_>>().join("\n"))
}

/// Text from outside within HTML: no markup, no controls, nothing that turns the direction of writing
/// of what stands around it.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            '\n' => out.push('\n'),
            '\t' => out.push(' '),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' => {
                out.push('\u{fffd}');
            }
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// A moment or length of media: `0:08.0`, `1:02.5`, `1:00:05`; cut, so that none lies beyond the end.
fn moment(ms: i64) -> String {
    let tenths = ms.max(0) / 100;
    let (s, tenth) = (tenths / 10, tenths % 10);
    match s / 3_600 {
        0 => format!("{}:{:02}.{tenth}", s / 60, s % 60),
        hours => format!("{hours}:{:02}:{:02}", s / 60 % 60, s % 60),
    }
}

/// On the axis: without tenths where it is long.
fn tick(ms: i64) -> String {
    let text = moment(ms);
    match text.split_once('.') {
        Some((whole, _)) if ms >= 60_000 => whole.to_owned(),
        _ => text,
    }
}

/// In percent, never rounded to a certainty that it does not have.
fn percent(p: f32) -> String {
    let value = p * 100.0;
    if value > 99.9 {
        "> 99.9 %".to_owned()
    } else if value > 99.5 {
        format!("{:.1} %", (value * 10.0).floor() / 10.0)
    } else if value < 0.5 {
        "< 0.5 %".to_owned()
    } else {
        format!("{value:.0} %")
    }
}

/// How much likelier, from log-odds, to two figures.
fn times(weight: f32) -> String {
    let n = weight.exp();
    let step = 10f32.powf(n.log10().floor() - 1.0);
    let rounded = (n / step).round() * step;
    if rounded >= 10.0 { format!("{rounded:.0}") } else { format!("{rounded:.1}") }
}

fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut n = bytes as f64;
    let mut unit = 0;
    while n >= 1_000.0 && unit < UNITS.len() - 1 {
        n /= 1_000.0;
        unit += 1;
    }
    if unit == 0 || n >= 100.0 {
        format!("{n:.0} {}", UNITS[unit])
    } else {
        format!("{n:.1} {}", UNITS[unit])
    }
}

/// `2026-11-24 02:13:11 UTC`.
fn date(time: Time) -> String {
    let text = time.to_string();
    match text.split_once('.').and_then(|(whole, _)| whole.split_once('T')) {
        Some((day, clock)) => format!("{day} {clock} UTC"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Disposition, Failure, ReasonCode, Region, samples};
    use crate::serve::model::{Decision, JobState, Priority, Verdict};
    use crate::serve::policy::Policies;

    fn job(report: &Report) -> Job {
        let outcome = Policies::open(None).unwrap().evaluate("t", report);
        Job {
            id: uuid::Uuid::from_u128(7),
            tenant: "t".into(),
            state: JobState::Done,
            priority: Priority::Normal,
            source: Source::Upload { name: report.media.path.clone() },
            reference: Some("case 12".into()),
            declared_ai: false,
            sha256: report.media.sha256.clone(),
            bytes: report.media.bytes,
            submitted_at: Time(1_764_000_000_000),
            started_at: Some(Time(1_764_000_000_500)),
            finished_at: Some(Time(1_764_000_004_000)),
            attempts: 1,
            reused: false,
            progress: None,
            outcome: Some(outcome),
            error: None,
            summary: None,
            decision: None,
            has_media: false,
        }
    }

    /// Every element that is opened is closed, in order.
    fn assert_well_formed(html: &str) {
        let mut open = Vec::new();
        let body = html.split_once("</style>").unwrap().1;
        for piece in body.split('<').skip(1) {
            let (tag, _) = piece.split_once('>').unwrap_or_else(|| panic!("{piece}"));
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop().as_deref(), Some(name), "{piece}");
            } else if !tag.ends_with('/') && !["br", "meta", "!doctype"].contains(&tag) {
                open.push(tag.split_whitespace().next().unwrap().to_owned());
            }
        }
        // Opened before the style.
        assert_eq!(open, Vec::<String>::new());
    }

    fn body_of(html: &str) -> String {
        html.replace("</head>", "").replace("</html>", "")
    }

    #[test]
    fn every_shape_of_report_has_a_page_in_both_languages() {
        for report in samples::all() {
            for lang in Lang::ALL {
                let html = report_html(&report, &job(&report), lang);
                assert!(html.starts_with("<!doctype html>\n<html lang="));
                assert_well_formed(&body_of(&html));
                assert!(
                    !html.contains("{") || !html.split("</style>").nth(1).unwrap().contains("{n}")
                );
                // Nothing is fetched and nothing runs.
                for foreign in ["<script", "src=", "href=", "http:", "https:", "@import", "url(h"] {
                    let text = html.replace("url(#h)", "");
                    assert!(!text.contains(foreign), "{foreign} in {}", report.media.path);
                }
                // No string of the page is missing, none is left unfilled.
                assert!(!html.contains("<h2></h2>") && !html.contains("<dt></dt>"));
                let shown = html.split("</style>").nth(1).unwrap();
                for name in ["{track}", "{p}", "{from}", "{to}", "{n}", "{place}", "{version}"] {
                    assert!(!shown.contains(name), "{name}");
                }
            }
        }
    }

    #[test]
    fn the_page_says_what_the_report_says() {
        let report = samples::video();
        let mut job = job(&report);
        job.decision = Some(Decision {
            verdict: Verdict::Block,
            fake: Some(true),
            note: "seen before <b>".into(),
            by: "anna".into(),
            at: Time(1_764_000_100_000),
        });
        let en = report_html(&report, &job, Lang::En);
        for text in [
            "Review by a person",
            "face swap: probability 0.930, from 0.5 on: Review (Face 1, 12.0 to 18.0 s)",
            "Confirmed: the file&#39;s own label says that AI made or changed it",
            "altered mostly: mouth and chin",
            "0:12.0 to 0:18.0",
            "The field ProduceID is missing",
            "Visible AI label in the picture",
            "lower right, 320 × 40 pixels at 1560, 960",
            "Remains of an AI label in space marked as unused",
            "about 25 times likelier",
            "The face is too small in the picture: The face is 31 px wide; 48 px are needed.",
            "blocked by anna, 2025-11-24 16:01:40 UTC · held to be fake",
            "seen before &lt;b&gt;",
            "Veriscope 0.1.0",
            "case 12",
            "ContentProducer",
        ] {
            assert!(en.contains(text), "no “{text}”");
        }
        let zh = report_html(&report, &job, Lang::Zh);
        for text in [
            "需人工复核",
            "换脸：概率 0.930，达到 0.5 即人工复核（人脸 1，12.0 至 18.0 秒）",
            "确认：文件自身的标识表明内容由 AI 生成或合成",
            "改动主要在：嘴部和下巴",
            "缺少 ProduceID 字段",
            "右下，320 × 40 像素",
            "anna 于 2025-11-24 16:01:40 UTC 已拦截",
        ] {
            assert!(zh.contains(text), "no “{text}”");
        }
    }

    #[test]
    fn what_comes_from_the_file_stays_text() {
        let evil = "\"><script>alert(1)</script>\u{202e}' onload='x &amp; {n} {place}";
        let mut report = samples::video();
        report.media.path = evil.into();
        report.media.container = Some(evil.into());
        report.media.streams[0].codec = evil.into();
        report.labels[0].content = format!("{{\"a\":{}}}", serde_json::json!(evil));
        report.labels[0].place = evil.into();
        report.labels[0].system = evil.into();
        report.labels[0].deviations = vec![evil.into()];
        report.strip_evidence[0].kind = evil.into();
        report.strip_evidence[0].detail = evil.into();
        report.segments[1].track = evil.into();
        report.segments[1].reasons = vec![Reason::new(ReasonCode::Music, evil.into())];
        report.reasons[0].detail = evil.into();
        report.disposition = Disposition {
            state: DispositionState::Suspected,
            evidence: vec![evil.into(), format!("iptc at {evil} says AI")],
        };
        report.engine.device_note = Some(evil.into());
        report.status = Status::Partial;
        report.error = Some(Failure { code: evil.into(), message: evil.into(), time_ms: Some(1) });
        let mut job = job(&report);
        job.reference = Some(evil.into());
        if let Some(outcome) = &mut job.outcome {
            outcome.because = vec![evil.into()];
            outcome.policy_version = evil.into();
        }
        job.decision = Some(Decision {
            verdict: Verdict::Allow,
            fake: None,
            note: evil.into(),
            by: evil.into(),
            at: Time(0),
        });
        for lang in Lang::ALL {
            let html = report_html(&report, &job, lang);
            assert_well_formed(&body_of(&html));
            assert!(!html.contains("<script") && !html.contains('\u{202e}'));
            assert!(!html.contains("' onload="));
            assert!(html.matches("&lt;script&gt;").count() >= 15);
        }
    }

    #[test]
    fn pages_are_bounded() {
        let mut report = samples::video();
        let (segment, track, label) =
            (report.segments[1].clone(), report.tracks[0].clone(), report.labels[0].clone());
        report.segments = (0..5_000)
            .map(|i| {
                let start_ms = i * 10;
                Segment { start_ms, end_ms: start_ms + 10, ..segment.clone() }
            })
            .collect();
        report.tracks =
            (0..500).map(|i| Track { id: format!("face-{i}"), ..track.clone() }).collect();
        report.labels = vec![label; 500];
        report.strip_evidence = vec![report.strip_evidence[0].clone(); 500];
        report.reasons = vec![report.reasons[0].clone(); 500];
        report.disposition.evidence = vec!["x".into(); 500];
        let html = report_html(&report, &job(&report), Lang::En);
        assert!(html.len() < 1_500_000, "{}", html.len());
        assert_well_formed(&body_of(&html));
        assert!(html.contains("none worse than these: 4900") && html.contains("and 400 more"));
    }

    #[test]
    fn figures_and_colours() {
        assert_eq!((moment(-5), moment(62_570)), ("0:00.0".into(), "1:02.5".into()));
        assert_eq!(moment(3_605_000), "1:00:05");
        assert_eq!((tick(15_000), tick(75_000)), ("0:15.0".into(), "1:15".into()));
        assert_eq!((percent(0.9996), percent(0.996)), ("> 99.9 %".into(), "99.6 %".into()));
        assert_eq!((percent(0.0), percent(0.934)), ("< 0.5 %".into(), "93 %".into()));
        assert_eq!(
            (times(7.0), times(1.0), times(6.5)),
            ("1100".into(), "2.7".into(), "670".into())
        );
        assert_eq!((size(999), size(12_345_678)), ("999 B".into(), "12.3 MB".into()));
        assert_eq!(colour(0.0), "rgb(38 120 190)");
        assert_eq!((colour(1.0), colour(7.0)), ("rgb(213 80 10)".into(), "rgb(213 80 10)".into()));
        assert_eq!(colour(f32::NAN), colour(0.0));
        assert!(heat(&HeatMap { columns: 3, rows: 3, values: vec![0.5; 8] }).is_none());
        let region = Region { x: 1_560, y: 960, w: 320, h: 40 };
        assert_eq!(plain::word(Lang::Zh, "region", region.words(1_920, 1_080)), "右下");
    }

    /// Writes the samples' pages to the folder VERISCOPE_PAGES, to be looked at.
    #[test]
    #[ignore = "writes files to be looked at"]
    fn pages_to_look_at() {
        let folder = std::path::PathBuf::from(std::env::var("VERISCOPE_PAGES").unwrap());
        for (i, report) in samples::all().iter().enumerate() {
            for lang in Lang::ALL {
                let page = report_html(report, &job(report), lang);
                std::fs::write(folder.join(format!("{i}-{}.html", lang.tag())), page).unwrap();
            }
        }
    }
}
