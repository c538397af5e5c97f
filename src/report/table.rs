//! The report for people: one timeline row a track, as text for a terminal or a pipe.
//!
//! Everything that comes from a file is cleaned of control characters first, so that media cannot
//! steer the terminal.

use std::fmt::Write as _;
use std::io::{self, Write};

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::{
    DetectorKind, Disposition, DispositionState, Evidence, Label, LabelVerdict, Reason, Region,
    Report, Seen, Segment, SegmentVerdict, Sink, Status, Totals, Track, WindowScore,
};
use crate::media::{MediaKind, StreamKind};

mod inspection;

pub use inspection::InspectionTable;

/// How the table is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Columns of the terminal; less than [`Style::MIN_WIDTH`] counts as that.
    pub width: usize,
    pub color: bool,
    /// Nothing beyond ASCII of our own making; paths and label texts stay as they are.
    pub ascii: bool,
}

impl Style {
    pub const MIN_WIDTH: usize = 40;
    /// Width where there is no terminal to ask.
    pub const PIPE_WIDTH: usize = 100;
}

/// Tracks drawn a file; the others are counted in one line.
const MAX_ROWS: usize = 16;
/// Stretches listed a track and verdict; the others are counted.
const MAX_STRETCHES: usize = 8;
/// Labels and pieces of evidence listed a file each.
const MAX_ITEMS: usize = 12;
/// Narrower timelines say nothing: the row's summary then goes on a line of its own.
const MIN_TIMELINE: usize = 24;
/// Least width of the column of names, which holds the word `disposition` too.
const NAME: usize = 11;
/// Where text begins that stands beside a name.
const TEXT: usize = 2 + NAME + 1;
/// Width of a picture's probability bar.
const PICTURE_BAR: usize = 20;

struct Glyphs {
    /// From probability 0 to 1.
    levels: [char; 8],
    unjudged: char,
    side: char,
    corner_left: char,
    tick: char,
    corner_right: char,
    line: char,
    full: char,
    empty: char,
    found: &'static str,
    unsure: &'static str,
    clear: &'static str,
    failed: &'static str,
    dot: &'static str,
    to: &'static str,
    plus_minus: &'static str,
    ellipsis: &'static str,
    times: &'static str,
}

const UNICODE: Glyphs = Glyphs {
    levels: ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'],
    unjudged: '╌',
    side: '│',
    corner_left: '└',
    tick: '┴',
    corner_right: '┘',
    line: '─',
    full: '█',
    empty: '░',
    found: "✗",
    unsure: "?",
    clear: "✓",
    failed: "!",
    dot: " · ",
    to: "–",
    plus_minus: "±",
    ellipsis: "…",
    times: "×",
};

const ASCII: Glyphs = Glyphs {
    levels: ['.', ',', ':', '+', 'x', '%', '#', '@'],
    unjudged: '-',
    side: '|',
    corner_left: '+',
    tick: '+',
    corner_right: '+',
    line: '-',
    full: '#',
    empty: '.',
    found: "X",
    unsure: "?",
    clear: "=",
    failed: "!",
    dot: ", ",
    to: "-",
    plus_minus: "+/-",
    ellipsis: "...",
    times: "x",
};

/// Colours of the 256-colour palette, green over yellow to red.
const GRADIENT: [u8; 8] = [34, 70, 106, 178, 214, 208, 202, 196];
const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "1;38;5;196";
const YELLOW: &str = "38;5;214";
const GREEN: &str = "38;5;34";

/// Draws reports as text, a block a file, in the order in which files are finished.
pub struct Table<W> {
    out: W,
    style: Style,
    legend_shown: bool,
}

impl<W: Write> Table<W> {
    pub fn new(out: W, style: Style) -> Self {
        let style = Style { width: style.width.max(Style::MIN_WIDTH), ..style };
        Self { out, style, legend_shown: false }
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }
}

impl<W: Write> Sink for Table<W> {
    fn report(&mut self, report: &Report) -> io::Result<()> {
        let mut page = Page::new(self.style);
        if !self.legend_shown && report.status != Status::Failed {
            page.legend();
            self.legend_shown = true;
        }
        page.file(report);
        self.write(&page.text)
    }

    fn finish(&mut self, totals: &Totals) -> io::Result<()> {
        let mut page = Page::new(self.style);
        page.totals(totals);
        self.write(&page.text)
    }
}

/// One cell of a timeline.
#[derive(Clone, Copy, PartialEq)]
enum Cell {
    Outside,
    Unjudged,
    Probability(f32),
}

/// One row of the table: a track and what was found on it.
struct Row<'a> {
    id: &'a str,
    track: Option<&'a Track>,
    segments: Vec<&'a Segment>,
}

impl Row<'_> {
    /// Highest probability on the row; what is undetermined counts before what is clear.
    fn weight(&self) -> (u8, f32) {
        let rank = self.segments.iter().map(|s| match s.verdict {
            SegmentVerdict::Fake => 2,
            SegmentVerdict::Undetermined => 1,
            SegmentVerdict::Bonafide => 0,
        });
        (rank.max().unwrap_or(0), highest(self.segments.iter().copied()).unwrap_or(0.0))
    }

    fn with(&self, verdict: SegmentVerdict) -> Vec<&Segment> {
        self.segments.iter().copied().filter(|s| s.verdict == verdict).collect()
    }
}

fn highest<'a>(segments: impl Iterator<Item = &'a Segment>) -> Option<f32> {
    segments.filter_map(|s| s.probability).reduce(f32::max)
}

struct Page {
    text: String,
    style: Style,
    glyphs: &'static Glyphs,
}

impl Page {
    fn new(style: Style) -> Self {
        let glyphs = if style.ascii { &ASCII } else { &UNICODE };
        Self { text: String::new(), style, glyphs }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.style.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }

    fn line(&mut self, text: &str) {
        self.text.push_str(text.trim_end());
        self.text.push('\n');
    }

    fn level(p: f32) -> usize {
        ((p * 8.0) as usize).min(7)
    }

    fn legend(&mut self) {
        let levels: String = (0..8)
            .map(|level| {
                let glyph = self.glyphs.levels[level].to_string();
                self.paint(&format!("38;5;{}", GRADIENT[level]), &glyph)
            })
            .collect();
        let text = format!(
            "Timelines: {levels} probability of being fake, 0 to 1, each column its highest{dot}\
             {unjudged} nothing judged{dot}blank: no track",
            dot = self.glyphs.dot,
            unjudged = self.glyphs.unjudged,
        );
        let marks = format!(
            "Files: {} fake found{dot}{} in part \"can't tell\"{dot}{} no fake found{dot}{} not \
             scanned",
            self.paint(RED, self.glyphs.found),
            self.paint(YELLOW, self.glyphs.unsure),
            self.paint(GREEN, self.glyphs.clear),
            self.paint(RED, self.glyphs.failed),
            dot = self.glyphs.dot,
        );
        self.wrapped("", 0, &text);
        self.wrapped("", 0, &marks);
        self.text.push('\n');
    }

    fn file(&mut self, report: &Report) {
        if report.status == Status::Failed {
            self.failed(report);
        } else {
            self.head(report);
            let (rows, hidden) = rows(report);
            let pad =
                rows.iter().map(|row| clean(row.id).width()).max().unwrap_or(0).clamp(NAME, 16);
            let span = span(report);
            if report.media.kind == Some(MediaKind::Image) || span == 0 {
                self.pictures(&rows, pad);
            } else {
                self.timelines(&rows, pad, span);
                self.stretches(&rows, pad);
            }
            if hidden > 0 {
                let text =
                    format!("and {hidden} more tracks with less to show; the JSONL report has all");
                self.wrapped("", 2, &text);
            }
        }
        self.notes(report);
        self.text.push('\n');
    }

    fn failed(&mut self, report: &Report) {
        let path = clean(&report.media.path);
        let cause = match &report.error {
            Some(error) => {
                let message = without_path(&clean(&error.message), &path);
                format!("{message} ({})", clean(&error.code))
            }
            None => "no cause given".into(),
        };
        let mark = self.paint(RED, self.glyphs.failed);
        let path = self.paint(BOLD, &path);
        self.line(&format!("{mark} {path}"));
        self.wrapped("", 2, &format!("not scanned: {cause}"));
    }

    fn head(&mut self, report: &Report) {
        let has = |verdict| report.segments.iter().any(|s| s.verdict == verdict);
        let mark = if has(SegmentVerdict::Fake) {
            self.paint(RED, self.glyphs.found)
        } else if has(SegmentVerdict::Undetermined) || report.status == Status::Partial {
            self.paint(YELLOW, self.glyphs.unsure)
        } else {
            self.paint(GREEN, self.glyphs.clear)
        };
        let path = self.paint(BOLD, &clean(&report.media.path));
        let about = self.paint(DIM, &self.about(report));
        self.line(&format!("{mark} {path}  {about}"));
        if report.status == Status::Partial
            && let Some(error) = &report.error
        {
            let text = without_path(&clean(&error.message), &clean(&report.media.path));
            self.wrapped("broken off", TEXT, &self.paint(YELLOW, &text));
        }
    }

    /// Kind, length and streams, short.
    fn about(&self, report: &Report) -> String {
        let mut parts = Vec::new();
        let kind = report.media.kind;
        match kind {
            Some(MediaKind::Video) => parts.push("video".to_string()),
            Some(MediaKind::Audio) => parts.push("sound".to_string()),
            Some(MediaKind::Image) => parts.push("picture".to_string()),
            None => {}
        }
        if kind != Some(MediaKind::Image)
            && let Some(ms) = report.media.duration_ms
        {
            parts.push(time(ms));
        }
        for stream in &report.media.streams {
            match (stream.kind, stream.width, stream.height) {
                (StreamKind::Video, Some(w), Some(h)) => {
                    parts.push(format!("{w}{}{h} {}", self.glyphs.times, clean(&stream.codec)));
                }
                (StreamKind::Video | StreamKind::Audio, ..) => parts.push(clean(&stream.codec)),
                (StreamKind::Cover | StreamKind::Other, ..) => {}
            }
        }
        parts.join(self.glyphs.dot)
    }

    fn pictures(&mut self, rows: &[Row], pad: usize) {
        for row in rows {
            let summary = self.summary(row);
            let p = highest(row.segments.iter().copied());
            let bar: String = match p {
                Some(p) => {
                    let full = (p * PICTURE_BAR as f32).round() as usize;
                    let full = full.min(PICTURE_BAR);
                    let color = format!("38;5;{}", GRADIENT[Self::level(p)]);
                    let filled: String = std::iter::repeat_n(self.glyphs.full, full).collect();
                    let empty: String =
                        std::iter::repeat_n(self.glyphs.empty, PICTURE_BAR - full).collect();
                    format!("{}{}", self.paint(&color, &filled), self.paint(DIM, &empty))
                }
                None => {
                    let line: String =
                        std::iter::repeat_n(self.glyphs.unjudged, PICTURE_BAR).collect();
                    self.paint(DIM, &line)
                }
            };
            let place = row
                .track
                .and_then(|t| t.boxes.first())
                .map(|b| {
                    let text = format!(
                        "  at {:.0},{:.0} {:.0}{}{:.0}",
                        b.x, b.y, b.w, self.glyphs.times, b.h
                    );
                    self.paint(DIM, &text)
                })
                .unwrap_or_default();
            let id = fit(&clean(row.id), pad);
            self.wrapped(&id, 2 + pad + 1, &format!("{bar}  {summary}{place}"));
            if let [segment] = row.segments.as_slice()
                && let Some(text) = altered(segment)
            {
                self.wrapped("", 2 + pad + 1, &text);
            }
            if let Some(cause) = causes(&row.segments) {
                self.wrapped("", 2 + pad + 1, &cause);
            }
        }
    }

    fn timelines(&mut self, rows: &[Row], pad: usize, span: i64) {
        if rows.is_empty() {
            return;
        }
        let summaries: Vec<String> = rows.iter().map(|row| self.summary(row)).collect();
        let longest = summaries.iter().map(|s| visible_width(s)).max().unwrap_or(0);
        // Two of indent, the name, a space, the two sides, two before the summary.
        let fixed = 2 + pad + 1 + 2 + 2;
        let beside = self.style.width.saturating_sub(fixed + longest);
        let (columns, summary_beside) = if beside >= MIN_TIMELINE {
            (beside, true)
        } else {
            (self.style.width.saturating_sub(fixed - 2).max(1), false)
        };
        let side = self.paint(DIM, &self.glyphs.side.to_string());
        for (row, summary) in rows.iter().zip(&summaries) {
            let id = fit(&clean(row.id), pad);
            let cells = self.draw(&cells(row, columns, span));
            if summary_beside {
                self.line(&format!("  {id} {side}{cells}{side}  {summary}"));
            } else {
                self.line(&format!("  {id} {side}{cells}{side}"));
                self.wrapped("", 2 + pad + 1, summary);
            }
        }
        let (ticks, labels) = self.axis(columns, span);
        let ticks = self.paint(DIM, &ticks);
        let labels = self.paint(DIM, &labels);
        self.line(&format!("  {:pad$} {ticks}", ""));
        self.line(&format!("  {:pad$}  {labels}", ""));
    }

    /// Cells as glyphs, neighbours of one colour painted together.
    fn draw(&self, cells: &[Cell]) -> String {
        let look = |cell: &Cell| match *cell {
            Cell::Outside => (' ', None),
            Cell::Unjudged => (self.glyphs.unjudged, Some(DIM.to_string())),
            Cell::Probability(p) => {
                let level = Self::level(p);
                (self.glyphs.levels[level], Some(format!("38;5;{}", GRADIENT[level])))
            }
        };
        let mut text = String::new();
        for run in cells.chunk_by(|a, b| look(a).1 == look(b).1) {
            let glyphs: String = run.iter().map(|cell| look(cell).0).collect();
            match run.first().and_then(|cell| look(cell).1) {
                Some(color) => text.push_str(&self.paint(&color, &glyphs)),
                None => text.push_str(&glyphs),
            }
        }
        text
    }

    /// The line of ticks with its corners, and the times under them.
    fn axis(&self, columns: usize, span: i64) -> (String, String) {
        const STEPS_S: [i64; 16] =
            [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21_600, 86_400];
        let label_width = tick_time(span).width() + 2;
        let fits = |step_ms: i64| {
            step_ms.saturating_mul(columns as i64) >= span.saturating_mul(label_width as i64)
        };
        // Beyond a day between ticks: as many days as it takes.
        let step =
            STEPS_S.map(|s| s * 1000).into_iter().find(|step| fits(*step)).unwrap_or_else(|| {
                let day = 86_400_000;
                day * (span.saturating_mul(label_width as i64) / (day * columns as i64) + 1)
            });
        let mut ticks: Vec<char> = vec![self.glyphs.line; columns];
        let mut labels = String::new();
        let mut at = 0i64;
        while at < span {
            let column = scale(at, columns, span);
            if at > 0
                && let Some(cell) = ticks.get_mut(column)
            {
                *cell = self.glyphs.tick;
            }
            let label = tick_time(at);
            if column + label.width() <= columns {
                while labels.width() < column {
                    labels.push(' ');
                }
                labels.push_str(&label);
            }
            at = at.saturating_add(step);
        }
        let mut line = String::from(self.glyphs.corner_left);
        line.extend(ticks);
        line.push(self.glyphs.corner_right);
        (line, labels)
    }

    /// What a row comes to, in a few words.
    fn summary(&self, row: &Row) -> String {
        let fakes = row.with(SegmentVerdict::Fake);
        let unsure = row.with(SegmentVerdict::Undetermined);
        let clear = row.with(SegmentVerdict::Bonafide);
        match fakes.as_slice() {
            [] => {}
            [one] => {
                let mut text = found(one.detector).to_string();
                if one.end_ms > one.start_ms {
                    let _ = write!(text, " {}", self.stretch(one));
                }
                let _ = write!(text, "  {}", self.probability(one));
                return self.paint(RED, &text);
            }
            many => {
                let p = highest(many.iter().copied()).unwrap_or(0.0);
                let what = many.first().map_or("fake", |s| found(s.detector));
                let text = format!("{what} in {} places, {}", many.len(), at_most(p));
                return self.paint(RED, &text);
            }
        }
        if !clear.is_empty() {
            let p = highest(clear.iter().copied()).unwrap_or(0.0);
            let what = clear.first().map_or("no fake found", |s| not_found(s.detector));
            let text = self.paint(GREEN, &format!("{what}, {}", at_most(p)));
            if unsure.is_empty() {
                return text;
            }
            return format!("{text}{}", self.paint(YELLOW, ", in part can't tell"));
        }
        if let Some(first) = unsure.first() {
            let text = match first.reasons.first() {
                Some(reason) => format!("can't tell: {}", reason.code.words()),
                None => match highest(unsure.iter().copied()) {
                    Some(p) => format!("can't tell, p {}", figure(p)),
                    None => "can't tell".into(),
                },
            };
            return self.paint(YELLOW, &text);
        }
        match row.track.and_then(|t| t.reasons.first()) {
            Some(reason) => self.paint(YELLOW, &format!("not judged: {}", reason.code.words())),
            None => self.paint(DIM, "nothing judged"),
        }
    }

    fn stretch(&self, segment: &Segment) -> String {
        format!("{}{}{}", time(segment.start_ms), self.glyphs.to, time(segment.end_ms))
    }

    fn probability(&self, segment: &Segment) -> String {
        let Some(p) = segment.probability else { return String::new() };
        match segment.uncertainty {
            Some(u) => format!("p {} {}{u:.2}", figure(p), self.glyphs.plus_minus),
            None => format!("p {}", figure(p)),
        }
    }

    /// Under the timelines: each stretch of a row with several fakes, and what could not be told.
    fn stretches(&mut self, rows: &[Row], pad: usize) {
        for row in rows {
            let id = fit(&clean(row.id), pad);
            let fakes = row.with(SegmentVerdict::Fake);
            if let [one] = fakes.as_slice()
                && let Some(text) = altered(one)
            {
                self.wrapped(&id, 2 + pad + 1, &text);
            }
            if fakes.len() > 1 {
                for segment in fakes.iter().take(MAX_STRETCHES) {
                    let mut text = format!(
                        "{} {}  {}",
                        found(segment.detector),
                        self.stretch(segment),
                        self.probability(segment)
                    );
                    if let (Some(at), Some(p)) = (segment.peak_ms, segment.peak_probability) {
                        let _ = write!(text, "  peak {} at {}", figure(p), time(at));
                    }
                    if let Some(place) = altered(segment) {
                        let _ = write!(text, ", {place}");
                    }
                    let text = self.paint(RED, text.trim_end());
                    self.wrapped(&id, 2 + pad + 1, &text);
                }
                if fakes.len() > MAX_STRETCHES {
                    let more = fakes.len() - MAX_STRETCHES;
                    let text = format!("and {more} more fake stretches");
                    self.wrapped(&id, 2 + pad + 1, &text);
                }
            }
            self.unsure(row, pad);
        }
    }

    /// Stretches that could not be told, those with the same cause in one entry.
    fn unsure(&mut self, row: &Row, pad: usize) {
        let mut groups: Vec<(String, Vec<&Segment>)> = Vec::new();
        for segment in row.with(SegmentVerdict::Undetermined) {
            let codes: Vec<&str> = segment.reasons.iter().map(|r| r.code.words()).collect();
            let key = codes.join(", ");
            match groups.iter_mut().find(|(known, _)| *known == key) {
                Some((_, list)) => list.push(segment),
                None => groups.push((key, vec![segment])),
            }
        }
        for (_, list) in groups {
            let Some(first) = list.first() else { continue };
            let mut text = format!("can't tell {}", self.stretch(first));
            if list.len() > 1 {
                let _ = write!(text, " and {} more stretches", list.len() - 1);
            }
            match causes(&[*first]) {
                Some(cause) => {
                    let _ = write!(text, ": {cause}");
                }
                None => {
                    let _ = write!(text, ": {} spans the threshold", self.probability(first));
                }
            }
            if let Some(place) = altered(first) {
                let _ = write!(text, "; {place}");
            }
            self.wrapped(&clean(row.id), 2 + pad + 1, &text);
        }
    }

    /// Labels, strip evidence, notes and the disposition.
    fn notes(&mut self, report: &Report) {
        let size = picture_size(report);
        // That nothing was found is said by the disposition, and how a file was packed says nothing of
        // its origin: `inspect` and the JSON tell.
        let found: Vec<&Label> = report
            .labels
            .iter()
            .filter(|l| l.verdict != LabelVerdict::NotFound && l.system != "encoder")
            .collect();
        for label in found.iter().take(MAX_ITEMS) {
            let text = self.label(label, size);
            self.wrapped("label", TEXT, &text);
        }
        self.more(found.len(), "labels");
        self.evidence(&report.strip_evidence, size);
        for reason in &report.reasons {
            let text = format!("{}: {}", reason.code.words(), clean(&reason.detail));
            self.wrapped("note", TEXT, &text);
        }
        if report.status != Status::Failed {
            self.disposition(&report.disposition);
        }
    }

    fn evidence(&mut self, evidence: &[Evidence], size: Option<(u32, u32)>) {
        for piece in evidence.iter().take(MAX_ITEMS) {
            let text = format!(
                "{} [{}, weight {:+.1}]",
                clean(&piece.detail),
                self.place(&piece.place, &piece.seen, size),
                piece.weight
            );
            self.wrapped(evidence_name(piece), TEXT, &text);
        }
        self.more(evidence.len(), "pieces of evidence");
    }

    fn disposition(&mut self, disposition: &Disposition) {
        let (color, words) = match disposition.state {
            DispositionState::Confirmed => (RED, "confirmed: a label in the file says AI"),
            DispositionState::Possible => (YELLOW, "possible: declared as AI"),
            DispositionState::Suspected => (YELLOW, "suspected: traces of AI, no label"),
            DispositionState::None => (GREEN, "none: neither label nor trace of AI"),
            DispositionState::Undetermined => (YELLOW, "undetermined"),
        };
        let mut text = self.paint(color, words);
        if !disposition.evidence.is_empty() {
            let evidence: Vec<String> = disposition.evidence.iter().map(|e| clean(e)).collect();
            let _ = write!(text, " ({})", evidence.join("; "));
        }
        self.wrapped("disposition", TEXT, &text);
    }

    fn more(&mut self, count: usize, what: &str) {
        if count > MAX_ITEMS {
            self.wrapped("", TEXT, &format!("and {} more {what}", count - MAX_ITEMS));
        }
    }

    /// A place, with the part of the picture (in a picture of `size`) and the stretch of time.
    fn place(&self, place: &str, seen: &Seen, size: Option<(u32, u32)>) -> String {
        let mut text = clean(place);
        if let Some(region) = seen.region {
            let Region { x, y, w, h } = region;
            if let Some((width, height)) = size {
                let _ = write!(text, ", {}", region.words(width, height));
            }
            let _ = write!(text, ", {w}{}{h} px at {x},{y}", self.glyphs.times);
        }
        if let (Some(start), Some(end)) = (seen.start_ms, seen.end_ms)
            && end > start
        {
            let _ = write!(text, ", {}{}{}", time(start), self.glyphs.to, time(end));
        }
        text
    }

    fn label(&self, label: &Label, size: Option<(u32, u32)>) -> String {
        let mut text = label_head(label, &self.place(&label.place, &label.seen, size));
        if !label.content.is_empty() {
            // Two lines' worth: the whole is in the JSONL report.
            let room = 2 * self.style.width.saturating_sub(TEXT);
            let content = shorten(&clean(&label.content), room, self.glyphs.ellipsis);
            let _ = write!(text, " {content}");
        }
        text
    }

    /// `text` in lines of the table's width, all indented by `indent`, the first one with `name`
    /// (dimmed, cut to fit) before it.
    fn wrapped(&mut self, name: &str, indent: usize, text: &str) {
        let room = self.style.width.saturating_sub(indent).max(10);
        // Where the name is longer than the indent allows, it takes a place in the text.
        let (name, text) = if name.width() + 3 > indent && !name.is_empty() {
            (String::new(), format!("{name}: {text}"))
        } else {
            (name.to_string(), text.to_string())
        };
        for (n, line) in wrap(&text, room).iter().enumerate() {
            let before = if n == 0 && !name.is_empty() {
                let padded = fit(&name, indent.saturating_sub(3));
                format!("  {} ", self.paint(DIM, &padded))
            } else {
                " ".repeat(indent)
            };
            self.line(&format!("{before}{line}"));
        }
    }

    fn totals(&mut self, totals: &Totals) {
        let scanned = totals.ok + totals.partial;
        let files = |n: usize| if n == 1 { "1 file".to_string() } else { format!("{n} files") };
        let mut parts = vec![format!("{} scanned", files(scanned))];
        if totals.reused > 0 {
            parts.push(format!("{} of the reports from the store or a copy", totals.reused));
        }
        if totals.partial > 0 {
            parts.push(self.paint(YELLOW, &format!("{} only in part", totals.partial)));
        }
        if totals.failed > 0 {
            parts.push(self.paint(RED, &format!("{} failed", totals.failed)));
        }
        if totals.not_media > 0 {
            parts.push(format!("{} skipped (not media)", totals.not_media));
        }
        let fakes: Vec<String> = DetectorKind::ALL
            .iter()
            .filter_map(|d| totals.fakes.get(d).map(|n| format!("{n} {}", d.name())))
            .collect();
        parts.push(if fakes.is_empty() {
            "no fake segments".into()
        } else {
            self.paint(RED, &format!("fake segments: {}", fakes.join(", ")))
        });
        let text = parts.join(self.glyphs.dot);
        self.wrapped("", 0, &text);
    }
}

/// The rows to draw, in the report's order, and how many were left out.
/// What kind of label, what it says of AI, whether it complies, and where it is.
fn label_head(label: &Label, place: &str) -> String {
    let verdict = match label.verdict {
        LabelVerdict::Compliant => "complies",
        LabelVerdict::Noncompliant => "does not comply",
        LabelVerdict::NotFound => "not found",
        LabelVerdict::Inconclusive => "inconclusive",
    };
    let says = match label.ai {
        Some(true) => ", says AI",
        Some(false) => ", says not AI",
        None => "",
    };
    let mut text = format!("{}{says}, {verdict}", clean(&label.system));
    if !label.deviations.is_empty() {
        let list: Vec<String> = label.deviations.iter().map(|d| clean(d)).collect();
        let _ = write!(text, " ({})", list.join(", "));
    }
    let _ = write!(text, " [{place}]");
    text
}

/// Width and height of the pictures, of the first stream that has some.
fn picture_size(report: &Report) -> Option<(u32, u32)> {
    let streams = report.media.streams.iter().filter(|s| s.kind == StreamKind::Video);
    streams.filter_map(|s| s.width.zip(s.height)).next()
}

/// What evidence is of: a broken binding is not a label that is gone.
fn evidence_name(evidence: &Evidence) -> &'static str {
    match evidence.kind.as_str() {
        "broken_hard_binding" => "changed",
        "generator_trace_without_label" | "watermark_without_label" => "unlabelled",
        _ => "label gone",
    }
}

fn rows(report: &Report) -> (Vec<Row<'_>>, usize) {
    let mut rows: Vec<Row> = report
        .tracks
        .iter()
        .map(|track| Row { id: &track.id, track: Some(track), segments: Vec::new() })
        .collect();
    for segment in &report.segments {
        match rows.iter_mut().find(|row| row.id == segment.track) {
            Some(row) => row.segments.push(segment),
            None => {
                rows.push(Row { id: &segment.track, track: None, segments: vec![segment] });
            }
        }
    }
    // The labels' own lines stand below; a row without a judgement would say nothing more.
    rows.retain(|row| {
        !row.segments.is_empty() || row.track.is_some_and(|t| t.kind != super::TrackKind::Labels)
    });
    let hidden = rows.len().saturating_sub(MAX_ROWS);
    if hidden > 0 {
        let mut order: Vec<usize> = (0..rows.len()).collect();
        let weights: Vec<(u8, f32)> = rows.iter().map(Row::weight).collect();
        order.sort_by(|a, b| match (weights.get(*a), weights.get(*b)) {
            (Some(a), Some(b)) => b.0.cmp(&a.0).then(b.1.total_cmp(&a.1)),
            _ => std::cmp::Ordering::Equal,
        });
        order.truncate(MAX_ROWS);
        let mut n = 0;
        rows.retain(|_| {
            n += 1;
            order.contains(&(n - 1))
        });
    }
    (rows, hidden)
}

/// Length of the time axis in milliseconds.
fn span(report: &Report) -> i64 {
    let ends = report.tracks.iter().map(|t| t.end_ms);
    let ends = ends.chain(report.segments.iter().map(|s| s.end_ms));
    ends.chain(report.media.duration_ms).max().unwrap_or(0).max(0)
}

/// Column in which a time lies.
fn scale(ms: i64, columns: usize, span: i64) -> usize {
    let column = i128::from(ms.max(0)) * columns as i128 / i128::from(span.max(1));
    usize::try_from(column).unwrap_or(columns).min(columns)
}

/// The columns that a stretch touches, at least one.
fn covered(start: i64, end: i64, columns: usize, span: i64) -> std::ops::Range<usize> {
    let first = scale(start, columns, span).min(columns.saturating_sub(1));
    let last = scale(end.saturating_sub(1), columns, span).max(first);
    first..(last + 1).min(columns)
}

fn cells(row: &Row, columns: usize, span: i64) -> Vec<Cell> {
    let mut cells = vec![Cell::Outside; columns];
    let mut mark = |start: i64, end: i64, value: Option<f32>| {
        for cell in cells.get_mut(covered(start, end, columns, span)).unwrap_or_default() {
            *cell = match (*cell, value) {
                (Cell::Probability(a), Some(b)) => Cell::Probability(a.max(b)),
                (_, Some(b)) => Cell::Probability(b),
                (Cell::Probability(a), None) => Cell::Probability(a),
                (_, None) => Cell::Unjudged,
            };
        }
    };
    let windows = row.track.map(|t| t.windows.as_slice()).unwrap_or_default();
    if let Some(track) = row.track {
        mark(track.start_ms, track.end_ms, None);
    }
    for segment in &row.segments {
        // Windows are finer; a segment's own figure is drawn only where there are none.
        let value = if windows.is_empty() { segment.probability } else { None };
        mark(segment.start_ms, segment.end_ms, value);
    }
    // Windows overlap, so each is drawn half-way to its neighbours' middles.
    let middle = |w: &WindowScore| w.start_ms.midpoint(w.end_ms);
    for (i, window) in windows.iter().enumerate() {
        let mut start = window.start_ms;
        let mut end = window.end_ms;
        if let Some(before) = i.checked_sub(1).and_then(|i| windows.get(i)) {
            start = start.max(middle(before).midpoint(middle(window)));
        }
        if let Some(after) = windows.get(i + 1) {
            end = end.min(middle(window).midpoint(middle(after)));
        }
        mark(start, end, Some(window.smoothed));
    }
    cells
}

/// `h:mm:ss.s`, cut, not rounded, so that no time lies beyond the file's end.
fn time(ms: i64) -> String {
    let tenths = ms.max(0) / 100;
    let (s, tenth) = (tenths / 10, tenths % 10);
    format!("{}:{:02}:{:02}.{tenth}", s / 3600, s / 60 % 60, s % 60)
}

/// A time on the axis: `m:ss`, or `h:mm:ss` from an hour on.
fn tick_time(ms: i64) -> String {
    let s = ms / 1000;
    if s < 3600 {
        format!("{}:{:02}", s / 60, s % 60)
    } else {
        format!("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
    }
}

/// A probability with two figures; never "1.00" for what is less than certain, nor "0.00".
fn figure(p: f32) -> String {
    if p > 0.99 {
        ">0.99".into()
    } else if p < 0.01 {
        "<0.01".into()
    } else {
        format!("{p:.2}")
    }
}

fn at_most(p: f32) -> String {
    if p < 0.01 { "p <0.01".into() } else { format!("p up to {}", figure(p)) }
}

/// What a detector found where its verdict is fake.
fn found(detector: DetectorKind) -> &'static str {
    match detector {
        DetectorKind::FaceSwap | DetectorKind::VoiceClone => "fake",
        DetectorKind::LabelStrip => "label taken off",
    }
}

/// What its verdict says otherwise.
fn not_found(detector: DetectorKind) -> &'static str {
    match detector {
        DetectorKind::FaceSwap | DetectorKind::VoiceClone => "no fake found",
        DetectorKind::LabelStrip => "no label taken off",
    }
}

/// Where a face was altered, by its heat map; nothing for one that is taken for real.
fn altered(segment: &Segment) -> Option<String> {
    let place = segment.heat_map.as_ref()?.place()?;
    match segment.verdict {
        SegmentVerdict::Fake => Some(format!("altered mostly: {place}")),
        SegmentVerdict::Undetermined => Some(format!("if altered, mostly: {place}")),
        SegmentVerdict::Bonafide => None,
    }
}

/// The reasons' sentences of some segments, each once.
fn causes(segments: &[&Segment]) -> Option<String> {
    let mut sentences: Vec<String> = Vec::new();
    for Reason { code, detail } in segments.iter().flat_map(|s| &s.reasons) {
        let sentence = if detail.is_empty() { code.words().to_string() } else { clean(detail) };
        if !sentences.contains(&sentence) {
            sentences.push(sentence);
        }
    }
    (!sentences.is_empty()).then(|| sentences.join(" "))
}

/// Text from outside, safe for a terminal: controls (also the C1 set and the marks that turn the
/// direction of writing) become one visible character each, line breaks a space.
fn clean(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\r' | '\t' => ' ',
            c if c.is_control() => '\u{fffd}',
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' => {
                '\u{fffd}'
            }
            c => c,
        })
        .collect()
}

/// A message without the path that it begins with, where the path stands beside it anyway.
fn without_path(message: &str, path: &str) -> String {
    message.strip_prefix(path).map_or(message, |rest| rest.trim_start_matches([':', ' '])).into()
}

/// Cut to `width` columns, with `ellipsis` where something is missing.
fn shorten(text: &str, width: usize, ellipsis: &str) -> String {
    if text.width() <= width {
        return text.to_string();
    }
    let room = width.saturating_sub(ellipsis.width());
    let mut used = 0;
    let mut out = String::new();
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used > room {
            break;
        }
        out.push(c);
    }
    out + ellipsis
}

/// Cut or filled with spaces to exactly `width` columns.
fn fit(text: &str, width: usize) -> String {
    let mut out = shorten(text, width, "~");
    let missing = width.saturating_sub(out.width());
    out.extend(std::iter::repeat_n(' ', missing));
    out
}

/// Columns that a text takes once our own colour codes are gone.
fn visible_width(text: &str) -> usize {
    let mut width = 0;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '\x1b' {
            chars.find(|c| *c == 'm');
        } else {
            width += c.width().unwrap_or(0);
        }
    }
    width
}

/// Words in lines of at most `width` columns; a longer word is broken. What fits in one line keeps
/// its spaces.
fn wrap(text: &str, width: usize) -> Vec<String> {
    if visible_width(text) <= width {
        return vec![text.to_string()];
    }
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split(' ').filter(|w| !w.is_empty()) {
        let len = visible_width(word);
        let gap = usize::from(used > 0);
        if used + gap + len <= width {
            if let Some(line) = lines.last_mut() {
                line.push_str(if gap > 0 { " " } else { "" });
                line.push_str(word);
            }
            used += gap + len;
            continue;
        }
        if used > 0 {
            lines.push(String::new());
            used = 0;
        }
        let mut escape = false;
        for c in word.chars() {
            escape |= c == '\x1b';
            let w = if escape { 0 } else { c.width().unwrap_or(0) };
            if used + w > width {
                lines.push(String::new());
                used = 0;
            }
            if let Some(line) = lines.last_mut() {
                line.push(c);
            }
            used += w;
            escape &= c != 'm';
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    fn draw(reports: &[Report], style: Style) -> String {
        let mut out = Vec::new();
        let mut table = Table::new(&mut out, style);
        let mut totals = Totals::default();
        for report in reports {
            totals.add(report);
            table.report(report).unwrap();
        }
        table.finish(&totals).unwrap();
        String::from_utf8(out).unwrap()
    }

    const PLAIN: Style = Style { width: 100, color: false, ascii: false };

    #[test]
    fn a_video_with_swapped_face_cloned_voice_and_lost_label() {
        let expected = r#"
Timelines: ▁▂▃▄▅▆▇█ probability of being fake, 0 to 1, each column its highest · ╌ nothing judged ·
blank: no track
Files: ✗ fake found · ? in part "can't tell" · ✓ no fake found · ! not scanned

✗ clips/interview.mp4  video · 0:01:00.0 · 1920×1080 h264 · aac
  face-1      │▁▁▁▁▁▁▁▁██████▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁       │  fake 0:00:12.0–0:00:18.0  p 0.93 ±0.05
  face-2      │                      ╌╌╌╌╌╌╌╌╌╌╌           │  can't tell: face too small
  speech-1    │▁▁▁▁▁▁▁╌╌╌╌╌╌╌███████╌▃▃▃▃▃▃▃▃▃╌╌╌╌╌▇▇▇▇▇▇▇╌│  fake in 2 places, p up to 0.90
              └───────┴──────┴───────┴──────┴──────┴───────┘
               0:00   0:10   0:20    0:30   0:40   0:50
  face-1      altered mostly: mouth and chin
  face-2      can't tell 0:00:30.0–0:00:45.0: The face is 31 px wide; 48 px are needed.
  speech-1    fake 0:00:20.0–0:00:28.0  p 0.90 ±0.05  peak 0.92 at 0:00:24.0
  speech-1    fake 0:00:50.0–0:00:58.0  p 0.80 ±0.05  peak 0.82 at 0:00:54.0
  label       aigc, says AI, does not comply (producer_characters, missing_produce_id)
              [moov.udta.meta.ilst[AIGC] at byte 4096]
              {"AIGC":{"Label":"1","ContentProducer":"豆包"}}
  label       explicit-text, says AI, does not comply (text_too_small) [pictures, lower right,
              320×40 px at 1560,960, 0:00:00.0–0:00:58.0] 豆包AI生成
  label gone  A free box still holds 212 bytes of an AIGC label. [free at byte 81234, weight +3.2]
  note        too compressed: Faces are coded at 0.03 bits a pixel.
  disposition confirmed: a label in the file says AI (AIGC label in moov.udta.meta says Label 1)

1 file scanned · fake segments: 1 face-swap, 2 voice-clone
"#;
        assert_eq!(draw(&[samples::video()], PLAIN), expected.trim_start());
    }

    #[test]
    fn partial_failed_and_picture_in_ascii_on_a_narrow_terminal() {
        let style = Style { width: 60, color: false, ascii: true };
        let expected = r#"
Timelines: .,:+x%#@ probability of being fake, 0 to 1, each
column its highest, - nothing judged, blank: no track
Files: X fake found, ? in part "can't tell", = no fake
found, ! not scanned

? b/talk.flac  sound, 0:01:30.0, flac
  broken off  stream 0 cannot be decoded after 31.000 s:
              invalid data
  speech-1    |................                            |
              no fake found, p up to 0.06
              +-------+------+-------+------+------+-------+
               0:00   0:15   0:30    0:45   1:00   1:15
  note        cannot be decoded: Nothing after 31.000 s was
              read.
  disposition undetermined

! c/notes.mp4
  not scanned: no container or picture format is recognised
  in its content (unrecognised)

X d/group.png  picture, 1920x1080 png
  face-1      ##################.. fake p 0.88 +/-0.05 at
              100,90 120x150
              altered mostly: mouth and chin
  face-2      #................... no fake found, p up to
              0.03 at 700,90 120x150
  disposition suspected: traces of AI, no label (face-1 is
              swapped with p 0.88)

2 files scanned, 1 only in part, 1 failed, fake segments: 1
face-swap
"#;
        let text = draw(&[samples::partial(), samples::failed(), samples::picture()], style);
        assert_eq!(text, expected.trim_start());
        assert!(text.is_ascii());
    }

    #[test]
    fn a_column_shows_the_highest_of_its_windows() {
        let mut report = samples::video();
        report.media.duration_ms = Some(3_600_000);
        report.segments.clear();
        report.tracks.truncate(1);
        let track = report.tracks.first_mut().unwrap();
        (track.start_ms, track.end_ms) = (0, 3_600_000);
        // One hot second in an hour, exactly at its half.
        track.windows =
            samples::windows((0, 3_600_000), 1000, |t| if t == 1_800_000 { 0.95 } else { 0.05 });
        let (rows, hidden) = rows(&report);
        assert_eq!(hidden, 0);
        let cells = cells(&rows[0], 50, span(&report));
        let hot: Vec<usize> = (0..50).filter(|n| cells[*n] == Cell::Probability(0.95)).collect();
        assert_eq!(hot, [25]);
        assert_eq!(cells.iter().filter(|c| **c == Cell::Probability(0.05)).count(), 49);
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for width in [40, 57, 80, 100, 133, 200] {
            for color in [false, true] {
                let text = draw(&samples::all(), Style { width, color, ascii: false });
                for line in text.lines() {
                    // The head line keeps the path in one piece.
                    let head = line.contains("interview.mp4") && visible_width(line) > 40;
                    assert!(head || visible_width(line) <= width, "{width}: {line}");
                }
            }
        }
    }

    #[test]
    fn colours_are_the_only_difference_that_colour_makes() {
        let colored = draw(&samples::all(), Style { color: true, ..PLAIN });
        assert!(colored.contains("\x1b[38;5;196m██████"), "{colored}");
        let mut bare = String::new();
        let mut rest = colored.as_str();
        while let Some((before, after)) = rest.split_once('\x1b') {
            bare += before;
            rest = after.split_once('m').unwrap().1;
        }
        bare += rest;
        assert_eq!(bare, draw(&samples::all(), PLAIN));
    }

    #[test]
    fn text_from_a_file_cannot_steer_the_terminal() {
        let evil = "a\x1b[2Jb\u{9b}31mc\u{202e}d\r\ne";
        let mut report = samples::video().with_path(evil);
        report.labels[0].content = evil.into();
        report.labels[0].place = evil.into();
        report.labels[0].system = evil.into();
        report.strip_evidence[0].detail = evil.into();
        report.disposition.evidence[0] = evil.into();
        report.reasons[0].detail = evil.into();
        report.tracks[0].id = evil.into();
        report.media.streams[0].codec = evil.into();
        let mut failed = samples::failed().with_path(evil);
        failed.error.as_mut().unwrap().code = evil.into();
        let mut partial = samples::partial().with_path(evil);
        partial.tracks[0].reasons = partial.reasons.clone();
        for text in [draw(&[report], PLAIN), draw(&[failed, partial], PLAIN)] {
            let bad = text.chars().find(|c| c.is_control() && *c != '\n');
            assert_eq!(bad, None);
            assert!(!text.contains('\u{202e}'));
            assert!(text.contains("[2Jb"));
        }
    }

    #[test]
    fn of_many_tracks_those_with_fakes_are_drawn() {
        let mut report = samples::video();
        let (track, segment) = (report.tracks[0].clone(), report.segments[0].clone());
        report.tracks.clear();
        report.segments.clear();
        for n in 0..60 {
            let id = format!("face-{n}");
            report.tracks.push(Track { id: id.clone(), ..track.clone() });
            let verdict = if n == 57 { SegmentVerdict::Fake } else { SegmentVerdict::Bonafide };
            report.segments.push(Segment { track: id, verdict, ..segment.clone() });
        }
        let text = draw(&[report], PLAIN);
        assert!(text.contains("face-57"));
        assert!(text.contains("and 44 more tracks"), "{text}");
    }

    #[test]
    fn odd_times_do_no_harm() {
        let mut report = samples::video();
        report.media.duration_ms = None;
        report.tracks[0].windows = vec![
            WindowScore {
                start_ms: i64::MIN,
                end_ms: i64::MAX,
                probability: f32::NAN,
                smoothed: f32::NAN,
            },
            WindowScore { start_ms: 9, end_ms: 3, probability: 7.0, smoothed: 7.0 },
        ];
        report.segments[1].end_ms = i64::MAX;
        let text = draw(&[report.clone()], PLAIN);
        assert!(text.contains("face-1"));
        report.segments.clear();
        report.tracks.clear();
        assert!(draw(&[report], PLAIN).contains("interview.mp4"));
    }

    #[test]
    fn a_label_that_was_taken_off_is_not_called_a_fake() {
        let mut report = samples::video();
        report.tracks.clear();
        report.segments.truncate(2);
        for segment in &mut report.segments {
            segment.track = "labels".into();
            segment.detector = DetectorKind::LabelStrip;
        }
        let text = draw(&[report.clone()], PLAIN);
        assert!(text.contains("│  label taken off 0:00:12.0–0:00:18.0  p 0.93 ±0.05"), "{text}");
        report.segments.truncate(1);
        let text = draw(&[report], PLAIN);
        assert!(text.contains("│  no label taken off, p up to 0.04"), "{text}");
    }

    #[test]
    fn times_and_figures() {
        assert_eq!(time(59_999), "0:00:59.9");
        assert_eq!(time(3_661_250), "1:01:01.2");
        assert_eq!(time(-5), "0:00:00.0");
        assert_eq!(figure(0.999), ">0.99");
        assert_eq!(figure(0.001), "<0.01");
        assert_eq!(figure(0.5), "0.50");
        assert_eq!(at_most(0.001), "p <0.01");
        assert_eq!(at_most(0.35), "p up to 0.35");
        assert_eq!(fit("豆包豆包", 5).width(), 5);
        assert_eq!(wrap("aa bbbbbbb c", 4), ["aa", "bbbb", "bbb", "c"]);
    }
}
