//! A run's results as one HTML file: no script, nothing from elsewhere, plots inline.

use std::collections::BTreeMap;

use super::dataset::MediaKind;
use super::evaluate::{Entry, Scale};
use super::metrics::bootstrap::Interval;
use super::metrics::{Absent, Metric};
use super::output::Level;
use super::protocol::Direction;
use super::run::results::{
    CLEAN, Cell, CellLevel, Comparison, DataSet, Detector, DetectorKind, Localisation, Results,
    Worst,
};

mod chart;
mod page;
mod plots;

use page::{Table, details, escape};

/// Pictures of wrongly called files in one report; beyond it their paths alone are shown.
pub const MAX_THUMBNAILS: usize = 600;

/// Side that a thumbnail has at most, in pixels.
pub const THUMBNAIL_SIDE: usize = 160;

/// A small picture of a file, a JPEG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thumbnail {
    pub jpeg: Vec<u8>,
    pub width: usize,
    pub height: usize,
}

/// Makes the thumbnail of a picture or video, or says why there is none.
pub type MakeThumbnail<'a> = &'a dyn Fn(&Worst) -> Result<Thumbnail, String>;

/// The whole report. `thumbnail` is asked for pictures and videos among the worst errors, for at most
/// [`MAX_THUMBNAILS`] files.
pub fn report_html(results: &Results, thumbnail: MakeThumbnail) -> String {
    Report { results, thumbnail }.page()
}

const STYLE: &str = include_str!("style.css");

/// Nothing is fetched, whatever a name in the results holds; sounds are played from the disk.
const POLICY: &str =
    "default-src 'none'; img-src data:; media-src file: 'self'; style-src 'unsafe-inline'";

struct Report<'a> {
    results: &'a Results,
    thumbnail: MakeThumbnail<'a>,
}

/// A metric as people know it.
struct Known {
    name: &'static str,
    label: &'static str,
    /// Shown in per cent.
    percent: bool,
}

/// In the order in which they are shown; others follow by name.
const METRICS: [Known; 19] = [
    known("auc", "AUC", false),
    known("ap", "AP", false),
    known("eer_asvspoof", "EER (ASVspoof)", true),
    known("eer_hull", "EER (convex hull)", true),
    known("tpr_at_fpr_1pct", "TPR at 1 % FPR", true),
    known("tpr_at_fpr_0.1pct", "TPR at 0.1 % FPR", true),
    known("accuracy", "Accuracy at the fixed threshold", true),
    known("balanced_accuracy", "Balanced accuracy at the fixed threshold", true),
    known("tpr_at_threshold", "TPR at the fixed threshold", true),
    known("fpr_at_threshold", "FPR at the fixed threshold", true),
    known("brier", "Brier score", false),
    known("ece", "ECE", false),
    known("cllr", "Cllr (bits)", false),
    known("min_cllr", "min Cllr (bits)", false),
    known("min_dcf", "min DCF", false),
    known("act_dcf", "act DCF", false),
    known("min_tdcf", "min t-DCF", false),
    known("min_tdcf_legacy", "min t-DCF (legacy)", false),
    known("aurc", "AURC", false),
];

const fn known(name: &'static str, label: &'static str, percent: bool) -> Known {
    Known { name, label, percent }
}

/// Columns of a leader table.
const LEADERS: [(&str, &str); 5] = [
    ("ap", "AP"),
    ("eer_asvspoof", "EER"),
    ("tpr_at_fpr_1pct", "TPR at 1 % FPR"),
    ("balanced_accuracy", "Balanced accuracy"),
    ("ece", "ECE"),
];

/// Reasons below a table, each once, with a letter that stands in its cells.
#[derive(Default)]
struct Reasons(Vec<String>);

impl Reasons {
    /// The cell of a value that is absent.
    fn cell(&mut self, why: &str) -> String {
        let at = match self.0.iter().position(|known| known == why) {
            Some(at) => at,
            None => {
                self.0.push(why.to_owned());
                self.0.len() - 1
            }
        };
        format!("<span class=\"absent\">none<sup>{}</sup></span>", letter(at))
    }

    fn finish(self) -> String {
        if self.0.is_empty() {
            return String::new();
        }
        let items: Vec<String> = self
            .0
            .iter()
            .enumerate()
            .map(|(i, why)| format!("<li><sup>{}</sup> {}</li>", letter(i), escape(why)))
            .collect();
        format!("<ul class=\"reasons\">{}</ul>", items.concat())
    }
}

/// a to z, then aa, ab, …
fn letter(at: usize) -> String {
    let mut text = String::new();
    let mut rest = at + 1;
    while rest > 0 {
        rest -= 1;
        text.insert(0, char::from(b'a' + (rest % 26) as u8));
        rest /= 26;
    }
    text
}

impl Report<'_> {
    fn page(&self) -> String {
        let results = self.results;
        let name = escape(&results.name);
        let mut pictures = Thumbnails { make: self.thumbnail, known: BTreeMap::new() };
        let mut body = String::new();
        body += &self.head();
        body += &self.hints();
        body += &self.contents();
        body += &self.compared();
        for (at, set) in results.data_sets.iter().enumerate() {
            body += &self.data_set(at, set, &mut pictures);
        }
        body += &self.transfers();
        body += &self.skipped();
        body += &reading();
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta \
             name=\"viewport\" content=\"width=device-width, initial-scale=1\"><meta \
             http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\"><meta name=\"referrer\" \
             content=\"no-referrer\"><title>{name} – Veriscope bench</title><style>{STYLE}</style></head>\
             <body><main>{body}</main></body></html>\n"
        )
    }

    fn head(&self) -> String {
        let results = self.results;
        let files: u64 = results.data_sets.iter().map(|s| s.fake + s.real).sum();
        let bootstrap = &results.bootstrap;
        let intervals = if bootstrap.rounds == 0 {
            "no intervals were asked for".to_owned()
        } else {
            format!(
                "{} % intervals from {} bootstrap rounds, seed {}",
                chart::plain(bootstrap.level * 100.0),
                thousands(u64::from(bootstrap.rounds)),
                bootstrap.seed
            )
        };
        format!(
            "<header><p class=\"kicker\">Veriscope bench</p><h1>{}</h1><p>{} on {} ({} files), {}; \
             {intervals}.</p><p class=\"small\">Program {} · run <code>{}</code></p></header>",
            escape(&results.name),
            count(results.detectors.len() as u64, "detector"),
            count(results.data_sets.len() as u64, "data set"),
            thousands(files),
            match results.degradations.iter().filter(|d| d.name != CLEAN).count() as u64 {
                0 => "no degradations".to_owned(),
                n => format!("as they are and in {}", count(n, "degraded version")),
            },
            escape(&results.engine),
            escape(&results.fingerprint)
        )
    }

    /// What people should look at; what may overturn the whole table is loud.
    fn hints(&self) -> String {
        let mut loud = Vec::new();
        for cell in &self.results.cells {
            let Some(level) = cell.files_level() else { continue };
            let Some(auc) = value(level, "auc").filter(|auc| *auc < 0.5) else { continue };
            // Degraded copies of a detector that is right on clean ones are worse, not turned round.
            if cell.degradation == CLEAN {
                let clear = matches!(
                    entry(level, "auc").and_then(|e| e.interval.as_ref()),
                    Some(Ok(interval)) if interval.high < 0.5
                );
                let detector = self.detector(&cell.detector);
                let fixed =
                    |d: &Detector| matches!(d.kind, DetectorKind::Ours | DetectorKind::Imported);
                let (what, more) = match detector {
                    Some(d) if fixed(d) => {
                        ("It is worse than chance on these files.", String::new())
                    }
                    _ => (
                        "The sign of its scores may be wrong.",
                        format!(
                            " They were read as {}; the other direction would give {:.3}.",
                            detector.map_or("", |d| direction(d.direction)),
                            1.0 - auc
                        ),
                    ),
                };
                loud.push(format!(
                    "<strong>{} on {}: AUC {auc:.3} is below 0.5. {what}</strong>{more}{}",
                    escape(&cell.detector),
                    escape(&cell.data_set),
                    if clear { "" } else { " With these few files it may be chance." }
                ));
            }
        }
        for cell in self.results.cells.iter().filter(|cell| cell.too_many_skipped) {
            loud.push(format!(
                "<strong>{} on {}{}: {} of {} files were skipped, more than 5 %.</strong> What is left \
                 is another set of files; the run counts as failed.",
                escape(&cell.detector),
                escape(&cell.data_set),
                state(cell),
                thousands(cell.files - cell.judged.min(cell.files)),
                thousands(cell.files)
            ));
        }
        // Of the signs, the list above says more.
        let quiet: Vec<&String> =
            self.results.hints.iter().filter(|hint| !hint.contains(" is BELOW 0.5: ")).collect();
        let mut html = String::new();
        if !loud.is_empty() {
            let items: Vec<String> = loud.iter().map(|l| format!("<li>{l}</li>")).collect();
            html += &format!(
                "<section class=\"alarm\" role=\"alert\"><h2>Look at this first</h2><ul>{}</ul></section>",
                items.concat()
            );
        }
        if !quiet.is_empty() {
            let items: Vec<String> =
                quiet.iter().map(|hint| format!("<li>{}</li>", escape(hint))).collect();
            let list = format!("<ul>{}</ul>", items.concat());
            html += "<section class=\"hints\">";
            html += &if quiet.len() > 6 {
                details(&format!("{} hints", quiet.len()), &list)
            } else {
                format!("<h2>Hints</h2>{list}")
            };
            html += "</section>";
        }
        html
    }

    fn contents(&self) -> String {
        let mut items = String::from("<li><a href=\"#compared\">What was compared</a></li>");
        for (at, set) in self.results.data_sets.iter().enumerate() {
            items += &format!("<li><a href=\"#set-{at}\">{}</a></li>", escape(&set.name));
        }
        if !self.results.transfers.is_empty() {
            items += "<li><a href=\"#transfer\">Thresholds from elsewhere</a></li>";
        }
        items += "<li><a href=\"#skipped\">Skipped files</a></li><li><a href=\"#reading\">How to read \
                  this</a></li>";
        format!("<nav aria-label=\"Contents\"><ul>{items}</ul></nav>")
    }

    fn compared(&self) -> String {
        let mut sets = Table::new(
            "Data sets",
            &[
                "Data set", "Kind", "Split", "Fake", "Real", "Groups", "Licence", "Consent",
                "Source",
            ],
        );
        for set in &self.results.data_sets {
            let drawn = set.drawn_from.map_or(String::new(), |from| {
                format!("<br><span class=\"small\">drawn from {}</span>", thousands(from))
            });
            sets.row(&[
                format!(
                    "{}<br><span class=\"small\">{} <code>{}</code></span>",
                    escape(&set.name),
                    escape(&set.manifest),
                    escape(set.manifest_sha256.get(..12).unwrap_or(&set.manifest_sha256))
                ),
                set.media.name().to_owned(),
                set.split.as_deref().map_or("all".to_owned(), escape),
                thousands(set.fake) + &drawn,
                thousands(set.real),
                set.groups.map_or("not known".to_owned(), thousands),
                escape(&set.licence),
                escape(&set.consent),
                escape(&set.source),
            ]);
        }
        let mut detectors = Table::new(
            "Detectors",
            &[
                "Detector",
                "Kind",
                "What it is",
                "Fake is",
                "Scores",
                "Fixed threshold",
                "Fingerprint",
            ],
        );
        for (at, detector) in self.results.detectors.iter().enumerate() {
            detectors.row(&[
                format!("{}{}", chart::swatch(at), escape(&detector.name)),
                kind(detector.kind).to_owned(),
                escape(&detector.what),
                match detector.direction {
                    Direction::HigherIsFake => "a high score".to_owned(),
                    Direction::HigherIsReal => "a low score".to_owned(),
                },
                match detector.scale {
                    Scale::Raw => "raw".to_owned(),
                    Scale::Llr => "log-likelihood ratios".to_owned(),
                    Scale::Probability => "probabilities".to_owned(),
                },
                detector.threshold.as_ref().map_or("none".to_owned(), |t| {
                    format!(
                        "{}<br><span class=\"small\">{}</span>",
                        chart::plain(t.value),
                        escape(&t.source)
                    )
                }),
                format!("<code class=\"hash\">{}</code>", escape(&detector.fingerprint)),
            ]);
        }
        let mut html = format!(
            "<section id=\"compared\"><h2>What was compared</h2><h3>Data sets</h3>{}<h3>Detectors</h3>{}",
            sets.finish(),
            detectors.finish()
        );
        let degradations: Vec<String> = self
            .results
            .degradations
            .iter()
            .filter(|d| d.name != CLEAN)
            .map(|d| escape(&d.name))
            .collect();
        if !degradations.is_empty() {
            html += &format!("<h3>Degradations</h3><p>{}</p>", degradations.join(", "));
        }
        html + "</section>"
    }

    fn data_set(&self, at: usize, set: &DataSet, pictures: &mut Thumbnails) -> String {
        let clean: Vec<&Cell> = self
            .results
            .cells
            .iter()
            .filter(|c| c.data_set == set.name && c.degradation == CLEAN)
            .collect();
        let mut html = format!(
            "<section id=\"set-{at}\"><h2>{}</h2><p>{}{}: {} fake and {} real {} files.</p>",
            escape(&set.name),
            escape(&set.source),
            set.split.as_ref().map_or(String::new(), |s| format!(", split {}", escape(s))),
            thousands(set.fake),
            thousands(set.real),
            set.media.name()
        );
        if clean.is_empty() {
            return html + "<p class=\"absent\">No detector was run on it.</p></section>";
        }
        // One table a level; levels are never put beside each other in one.
        let mut levels: Vec<&str> = Vec::new();
        for level in clean.iter().flat_map(|cell| &cell.levels) {
            if !levels.contains(&level.level.as_str()) {
                levels.push(&level.level);
            }
        }
        for level in &levels {
            html += &self.leaders(set, level, &clean);
        }
        if let Some(files) = levels.first() {
            html += &self.differences(set);
            html += &self.curves(files, &clean);
            html += &self.robustness(set);
        }
        // A file of proposals in time has no levels.
        html += &localisation(&clean);
        if !levels.is_empty() {
            html += &self.cost(&clean);
            html += &errors(set, &clean, pictures);
        }
        html + "</section>"
    }

    /// Detectors by falling AUC at one level, and all their metrics.
    fn leaders(&self, set: &DataSet, level: &str, clean: &[&Cell]) -> String {
        let mut rows: Vec<(&Cell, &CellLevel)> = clean
            .iter()
            .filter_map(|cell| Some((*cell, cell.levels.iter().find(|l| l.level == level)?)))
            .collect();
        let auc = |level: &CellLevel| value(level, "auc").unwrap_or(f64::NEG_INFINITY);
        rows.sort_by(|a, b| auc(b.1).total_cmp(&auc(a.1)));
        let Some((first, _)) = rows.first().copied() else { return String::new() };
        let whole = self.is_whole_files(set, level);
        let mut head = vec!["Detector", "AUC"];
        head.extend(LEADERS.iter().map(|(_, label)| *label));
        if whole {
            head.extend(["Against the first", "Judged"]);
        } else {
            head.extend(["Fake", "Real"]);
        }
        let from = rows
            .iter()
            .filter_map(|(_, l)| entry(l, "auc"))
            .map(|e| e.interval.as_ref().and_then(|i| i.as_ref().ok()).map_or(1.0, |i| i.low))
            .chain(rows.iter().filter_map(|(_, l)| value(l, "auc")))
            .fold(0.5, f64::min);
        let mut reasons = Reasons::default();
        let mut table = Table::new(&format!("{} level: detectors by AUC", capital(level)), &head);
        for (cell, found) in &rows {
            let mut cells = vec![self.named(&cell.detector)];
            cells.push(match entry(found, "auc") {
                Some(e) if e.value.is_ok() => {
                    let drawn = match (&e.value, &e.interval) {
                        (Ok(v), Some(Ok(i))) => chart::interval(*v, i.low, i.high, from),
                        _ => String::new(),
                    };
                    format!("{}{drawn}", shown(e, false, &mut reasons))
                }
                Some(e) => shown(e, false, &mut reasons),
                None => reasons.cell(&why_none(found)),
            });
            for (name, _) in LEADERS {
                let percent = METRICS.iter().any(|m| m.name == name && m.percent);
                cells.push(match entry(found, name) {
                    Some(e) => shown(e, percent, &mut reasons),
                    None => reasons.cell(&why_none(found)),
                });
            }
            if whole {
                cells.push(self.against(set, &first.detector, &cell.detector, &mut reasons));
                let skipped = cell.files - cell.judged.min(cell.files);
                let mut judged = thousands(cell.judged);
                let notes =
                    [(Some(skipped).filter(|n| *n > 0), "skipped"), (cell.abstained, "undecided")];
                for (n, what) in notes {
                    if let Some(n) = n {
                        judged +=
                            &format!("<br><span class=\"small\">{} {what}</span>", thousands(n));
                    }
                }
                cells.push(judged);
            } else {
                cells.push(thousands(found.fake));
                cells.push(thousands(found.real));
            }
            table.row(&cells);
        }
        let units = rows.iter().find_map(|(_, l)| l.metrics.as_ref().ok()).map(|l| &l.units);
        let units = units.map_or(String::new(), |u| {
            format!(
                " The bootstrap draws {} of kind <em>{}</em>.",
                count(u.count, "unit"),
                escape(&u.kind)
            )
        });
        let heading = if whole {
            format!("{} level (whole files)", capital(level))
        } else {
            format!("{} level", capital(level))
        };
        format!(
            "<h3>{}</h3>{}<p class=\"note\">By falling AUC; below each value its interval.{units} Levels \
             are not comparable with each other.</p>{}{}",
            escape(&heading),
            table.finish(),
            reasons.finish(),
            self.all_metrics(level, &rows)
        )
    }

    /// All metrics of one level, detectors side by side.
    fn all_metrics(&self, level: &str, rows: &[(&Cell, &CellLevel)]) -> String {
        let mut names: Vec<&str> = Vec::new();
        for entry in
            rows.iter().filter_map(|(_, l)| l.metrics.as_ref().ok()).flat_map(|l| &l.metrics.0)
        {
            if !names.contains(&entry.name.as_str()) {
                names.push(&entry.name);
            }
        }
        let place =
            |name: &str| METRICS.iter().position(|m| m.name == name).unwrap_or(METRICS.len());
        names.sort_by(|a, b| place(a).cmp(&place(b)).then_with(|| a.cmp(b)));
        let mut head = vec!["Metric"];
        head.extend(rows.iter().map(|(cell, _)| cell.detector.as_str()));
        let mut reasons = Reasons::default();
        let mut table = Table::new(&format!("{} level: all metrics", capital(level)), &head);
        for name in names {
            let known = METRICS.iter().find(|m| m.name == name);
            let mut cells = vec![known.map_or_else(|| escape(name), |m| escape(m.label))];
            for (_, found) in rows {
                cells.push(match entry(found, name) {
                    Some(e) => shown(e, known.is_some_and(|m| m.percent), &mut reasons),
                    None => reasons.cell(&why_none(found)),
                });
            }
            table.row(&cells);
        }
        details("All metrics", &(table.finish() + &reasons.finish()))
    }

    /// The paired test of a detector against the first of the table.
    fn against(&self, set: &DataSet, first: &str, other: &str, reasons: &mut Reasons) -> String {
        if first == other {
            return "the first".to_owned();
        }
        let found = self.results.comparisons.iter().find_map(|c| {
            let turned = if c.a == first && c.b == other {
                false
            } else if c.b == first && c.a == other {
                true
            } else {
                return None;
            };
            (c.data_set == set.name).then_some((turned, c))
        });
        let Some((turned, comparison)) = found else {
            return reasons.cell("the two were not compared file by file");
        };
        match &comparison.bootstrap.auc {
            Err(absent) => reasons.cell(&absent.why),
            Ok(d) => {
                // The other minus the first.
                let by = if turned { d.difference } else { -d.difference };
                let word = if differs(comparison) { "differs" } else { "no clear difference" };
                // Corrected, for all rows are looked at.
                let p = comparison.holm.auc.unwrap_or(d.p);
                format!(
                    "{}<br><span class=\"small\">{word}, p {}</span>",
                    signed(by),
                    probability(p)
                )
            }
        }
    }

    /// Every pair of detectors on the files that both judged.
    fn differences(&self, set: &DataSet) -> String {
        let pairs: Vec<_> =
            self.results.comparisons.iter().filter(|c| c.data_set == set.name).collect();
        if pairs.is_empty() {
            return String::new();
        }
        let mut reasons = Reasons::default();
        let mut table = Table::new(
            "Paired tests of AUC",
            &[
                "Pair",
                "Files of both",
                "AUC, first minus second",
                "Bootstrap p",
                "DeLong p",
                "Differ?",
            ],
        );
        let mut clear = 0;
        for pair in &pairs {
            let (by, p, differ) = match &pair.bootstrap.auc {
                Ok(d) => {
                    let differ = differs(pair);
                    clear += usize::from(differ);
                    let word = match (differ, significant(&d.interval)) {
                        (true, _) => "<strong>yes</strong>",
                        (false, true) => "not after correction",
                        (false, false) => "not clear",
                    };
                    (
                        format!(
                            "{}<br><span class=\"small\">{} to {}</span>",
                            signed(d.difference),
                            signed(d.interval.low),
                            signed(d.interval.high)
                        ),
                        corrected(d.p, pair.holm.auc),
                        word.to_owned(),
                    )
                }
                Err(absent) => {
                    let cell = reasons.cell(&absent.why);
                    (cell.clone(), cell.clone(), cell)
                }
            };
            let delong = match &pair.delong {
                Ok(d) => corrected(d.p, pair.holm.delong),
                Err(absent) => reasons.cell(&absent.why),
            };
            table.row(&[
                format!("{} – {}", escape(&pair.a), escape(&pair.b)),
                thousands(pair.files),
                by,
                p,
                delong,
                differ,
            ]);
        }
        format!(
            "<h3>Do they differ?</h3><p>Of {}, {} at 95 %: the paired bootstrap's p, corrected after Holm \
             for the {} of this report, is below 0.05. Below each p stands the corrected one. DeLong \
             takes files as independent, the bootstrap draws whole people where they are known.</p>{}{}",
            count(pairs.len() as u64, "pair"),
            match clear {
                0 => "none differs".to_owned(),
                1 => "one differs".to_owned(),
                n => format!("{n} differ"),
            },
            count(self.results.comparisons.len() as u64, "pair"),
            table.finish(),
            reasons.finish()
        )
    }

    fn transfers(&self) -> String {
        if self.results.transfers.is_empty() {
            return String::new();
        }
        let mut reasons = Reasons::default();
        let mut table = Table::new(
            "Thresholds fixed on one data set and used on another",
            &[
                "Detector",
                "Fixed on",
                "Used on",
                "Fixed at",
                "Threshold",
                "Balanced accuracy there",
                "Balanced accuracy here",
                "Best possible here",
                "TPR here",
                "FPR here",
            ],
        );
        for t in &self.results.transfers {
            for (what, found) in [("equal error rate", &t.eer_asvspoof), ("1 % FPR", &t.fpr_1pct)] {
                let mut cells =
                    vec![self.named(&t.detector), escape(&t.from), escape(&t.to), what.to_owned()];
                match found {
                    Ok(found) => cells.extend([
                        chart::plain(found.threshold),
                        percent(found.there.balanced_accuracy),
                        percent(found.here.balanced_accuracy),
                        percent(found.best_balanced_accuracy_here),
                        percent(found.here.true_positive_rate),
                        percent(found.here.false_positive_rate),
                    ]),
                    Err(absent) => {
                        let cell = reasons.cell(&absent.why);
                        cells.extend(std::iter::repeat_n(cell, 6));
                    }
                }
                table.row(&cells);
            }
        }
        format!(
            "<section id=\"transfer\"><h2>Thresholds from elsewhere</h2><p>A threshold is chosen where it \
             is known what is fake, and used where it is not. What one that was fixed on one data set \
             does on another:</p>{}{}</section>",
            table.finish(),
            reasons.finish()
        )
    }

    fn skipped(&self) -> String {
        let mut html = String::from("<section id=\"skipped\"><h2>Skipped files</h2>");
        let cells: Vec<&Cell> =
            self.results.cells.iter().filter(|cell| cell.judged < cell.files).collect();
        if cells.is_empty() {
            return html + "<p>Every file has a score.</p></section>";
        }
        // What was skipped of degraded copies is mostly the same files again.
        let (first, rest): (Vec<&Cell>, Vec<&Cell>) =
            cells.into_iter().partition(|c| c.degradation == CLEAN || c.too_many_skipped);
        html += "<p>Files without a score are in no metric. Where they are more than 5 %, the run \
                 fails.</p>";
        if !first.is_empty() {
            html += &self.skipped_of(&first);
        }
        if !rest.is_empty() {
            html += &details("Of degraded copies", &self.skipped_of(&rest));
        }
        html + "</section>"
    }

    fn skipped_of(&self, cells: &[&Cell]) -> String {
        let mut table = Table::new(
            "Files without a score, by reason",
            &["Detector", "Data set", "State", "Skipped", "Of", "Share", "Reasons"],
        );
        for cell in cells {
            let skipped = cell.files - cell.judged;
            let reasons: Vec<String> = cell
                .skipped
                .iter()
                .map(|(code, n)| format!("{} {}", thousands(*n), escape(code)))
                .collect();
            let share = percent(skipped as f64 / cell.files.max(1) as f64);
            table.row(&[
                self.named(&cell.detector),
                escape(&cell.data_set),
                escape(if cell.degradation == CLEAN { "as it is" } else { &cell.degradation }),
                thousands(skipped),
                thousands(cell.files),
                if cell.too_many_skipped { format!("<strong>{share}</strong>") } else { share },
                reasons.join(", "),
            ]);
        }
        table.finish()
    }

    /// A detector's name with its line and mark.
    fn named(&self, name: &str) -> String {
        format!("{}{}", chart::swatch(self.place(name)), escape(name))
    }

    /// Its colour goes by its place among the detectors, the same in every plot.
    fn place(&self, detector: &str) -> usize {
        self.results.detectors.iter().position(|d| d.name == detector).unwrap_or(0)
    }

    fn detector(&self, name: &str) -> Option<&Detector> {
        self.results.detectors.iter().find(|d| d.name == name)
    }

    fn is_whole_files(&self, set: &DataSet, level: &str) -> bool {
        self.results
            .cells
            .iter()
            .filter(|c| c.data_set == set.name)
            .filter_map(Cell::files_level)
            .any(|l| l.level == level)
    }
}

/// How well forged stretches of time were found: metrics down, detectors across.
fn localisation(clean: &[&Cell]) -> String {
    let found: Vec<_> =
        clean.iter().filter_map(|cell| Some((*cell, cell.localisation.as_ref()?))).collect();
    if found.is_empty() {
        return String::new();
    }
    let mut names: Vec<&str> = Vec::new();
    for entry in
        found.iter().filter_map(|(_, l)| l.metrics.as_ref().ok()).flat_map(|l| &l.metrics.0)
    {
        if !names.contains(&entry.name.as_str()) {
            names.push(&entry.name);
        }
    }
    // Where no detector has any, the row says why.
    let names = if names.is_empty() { vec!["AP, AR"] } else { names };
    let (complete, published): (Vec<&str>, Vec<&str>) =
        names.into_iter().partition(|name| name.ends_with("_complete"));
    let mut html = format!(
        "<h3>Localisation in time</h3><p>How well forged stretches were found: AP@IoU and AR@N as \
         AV-Deepfake1M defines them; <em>complete</em> without the places where that definition is \
         lenient or harsh.</p>{}",
        located(&found, &published)
    );
    if !complete.is_empty() {
        html += &details("Complete", &located(&found, &complete));
    }
    html
}

/// A table of such metrics.
fn located(found: &[(&Cell, &Localisation)], names: &[&str]) -> String {
    let mut head = vec!["Metric"];
    head.extend(found.iter().map(|(cell, _)| cell.detector.as_str()));
    let mut reasons = Reasons::default();
    let mut table = Table::new("Localisation in time", &head);
    for &name in names {
        let label =
            name.replace("ap@", "AP@").replace("ar@", "AR@").replace("_complete", ", complete");
        let mut cells = vec![escape(&label)];
        for (_, found) in found {
            cells.push(match &found.metrics {
                Err(absent) => reasons.cell(&absent.why),
                Ok(level) => match level.metrics.0.iter().find(|e| e.name == name) {
                    Some(entry) => shown(entry, true, &mut reasons),
                    None => reasons.cell("it was not computed"),
                },
            });
        }
        table.row(&cells);
    }
    table.finish() + &reasons.finish()
}

fn errors(set: &DataSet, clean: &[&Cell], pictures: &mut Thumbnails) -> String {
    let mut html = String::from("<h3>Worst errors</h3>");
    if clean.iter().all(|cell| cell.worst.is_empty()) {
        return html + "<p>No file was called wrongly.</p>";
    }
    html += "<p>Files called wrongly at the threshold fixed beforehand, else at the equal error rate, \
             the furthest from it first.</p>";
    for (at, cell) in clean.iter().enumerate() {
        let mut cards = String::new();
        for worst in &cell.worst {
            cards += &card(worst, set.media, pictures);
        }
        if cards.is_empty() {
            cards = "<p>None.</p>".to_owned();
        } else {
            cards = format!("<ul class=\"cards\">{cards}</ul>");
        }
        let shown = details(&format!("{}: {}", cell.detector, cell.worst.len()), &cards);
        // The first is open, so that it is seen what there is.
        html += &if at == 0 { shown.replacen("<details>", "<details open>", 1) } else { shown };
    }
    html
}

/// How the page is read.
fn reading() -> String {
    "<section id=\"reading\"><h2>How to read this</h2><dl>\
     <dt>AUC</dt><dd>Probability that a fake scores higher than a real file; 0.5 is chance.</dd>\
     <dt>AP</dt><dd>Average precision; it rises with the share of fakes, so that sets cannot be \
     compared by it.</dd>\
     <dt>EER</dt><dd>Error rate where as many reals are called fake as fakes real, as ASVspoof \
     computes it.</dd>\
     <dt>TPR at 1 % FPR</dt><dd>Share of fakes that are found where 1 in 100 real files is called \
     fake.</dd>\
     <dt>Balanced accuracy</dt><dd>Mean of the shares of fakes and of reals that are called rightly, \
     at the threshold that was fixed before the run.</dd>\
     <dt>ECE, Brier score</dt><dd>How far probabilities are from what happens; 0 is best. Only for \
     detectors that give probabilities.</dd>\
     <dt>DET curve</dt><dd>Both kinds of error against each other on normal deviates: the nearer to the \
     lower left, the better; a straight line where scores are normally distributed.</dd>\
     <dt>Reliability</dt><dd>Of the files that were given a probability, the share that is fake; on the \
     diagonal probabilities mean what they say.</dd>\
     <dt>Risk–coverage</dt><dd>Share of wrong calls among the files that are answered, where those \
     nearest to the threshold are left unanswered first.</dd>\
     <dt>Undecided</dt><dd>Files on which the detector itself would give no verdict, because its \
     interval holds the threshold. They count in all metrics.</dd>\
     <dt>none</dt><dd>A metric that has no meaning for these scores; the letter leads to the reason \
     below the table. It is never replaced by a number.</dd></dl></section>"
        .to_owned()
}

/// Thumbnails, each file's once.
struct Thumbnails<'a> {
    make: MakeThumbnail<'a>,
    /// By path: the element, or why there is none.
    known: BTreeMap<String, Result<String, String>>,
}

impl Thumbnails<'_> {
    fn of(&mut self, worst: &Worst) -> Result<String, String> {
        if let Some(known) = self.known.get(&worst.path) {
            return known.clone();
        }
        if self.known.len() >= MAX_THUMBNAILS {
            return Err(format!("more than {MAX_THUMBNAILS} pictures"));
        }
        let made = (self.make)(worst).map(|t| {
            format!(
                "<img width=\"{}\" height=\"{}\" alt=\"{}\" src=\"data:image/jpeg;base64,{}\">",
                t.width,
                t.height,
                escape(&worst.id),
                base64(&t.jpeg)
            )
        });
        self.known.insert(worst.path.clone(), made.clone());
        made
    }
}

fn card(worst: &Worst, media: MediaKind, made: &mut Thumbnails) -> String {
    let address = page::address(&worst.path);
    let seen = match media {
        MediaKind::Audio => {
            format!("<audio controls preload=\"none\" src=\"{address}\"></audio>")
        }
        MediaKind::Video | MediaKind::Picture => match made.of(worst) {
            Ok(image) => image,
            Err(why) => format!("<p class=\"absent small\">no picture: {}</p>", escape(&why)),
        },
    };
    let (truth, called) = if worst.fake { ("fake", "real") } else { ("real", "fake") };
    let generator = worst.generator.as_ref().filter(|_| worst.fake);
    format!(
        "<li>{seen}<p><strong>{truth}</strong>{}, called {called}</p><p class=\"small\">score {}{}</p><p \
         class=\"small\"><a href=\"{address}\">{}</a></p></li>",
        generator.map_or(String::new(), |g| format!(" ({})", escape(g))),
        chart::plain(worst.score),
        worst.probability.map_or(String::new(), |p| format!(", {} fake", percent(p))),
        escape(&worst.id)
    )
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let at = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for i in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * i)) as usize & 63];
            out.push(if i > chunk.len() { '=' } else { char::from(letter) });
        }
    }
    out
}

fn entry<'a>(level: &'a CellLevel, name: &str) -> Option<&'a Entry> {
    level.metrics.as_ref().ok()?.metrics.0.iter().find(|e| e.name == name)
}

fn value(level: &CellLevel, name: &str) -> Option<f64> {
    level.metrics.as_ref().ok().and_then(|l: &Level| l.value(name))
}

/// Why a level has no such metric.
fn why_none(level: &CellLevel) -> String {
    match &level.metrics {
        Err(absent) => absent.why.clone(),
        Ok(_) => "it was not computed".to_owned(),
    }
}

/// A metric with its interval, or the letter of why there is none.
fn shown(entry: &Entry, in_percent: bool, reasons: &mut Reasons) -> String {
    let text = |v: f64| if in_percent { percent(v) } else { three(v) };
    // The unit stands once, at the end.
    let bare = |v: f64| text(v).trim_end_matches([' ', '%']).to_owned();
    match (&entry.value, &entry.interval) {
        (Err(absent), _) => reasons.cell(&absent.why),
        (Ok(v), None) => text(*v),
        (Ok(v), Some(Ok(Interval { low, high }))) => format!(
            "{}<br><span class=\"small\">{} to {}</span>",
            text(*v),
            bare(*low),
            text(*high)
        ),
        (Ok(v), Some(Err(absent))) => {
            format!(
                "{}<br><span class=\"small\">interval: {}</span>",
                text(*v),
                reasons.cell(&absent.why)
            )
        }
    }
}

/// At 95 % for all pairs of the report together.
fn differs(pair: &Comparison) -> bool {
    pair.holm.auc.is_some_and(|p| p < 0.05)
}

/// A test's p, and the corrected one below it.
fn corrected(p: f64, holm: Option<f64>) -> String {
    let below = holm.map(|p| format!("<br><span class=\"small\">Holm {}</span>", probability(p)));
    probability(p) + &below.unwrap_or_default()
}

fn significant(interval: &Interval) -> bool {
    interval.low > 0.0 || interval.high < 0.0
}

fn three(value: f64) -> String {
    format!("{value:.3}").replace('-', "−")
}

fn signed(value: f64) -> String {
    format!("{value:+.3}").replace('-', "−")
}

fn percent(value: f64) -> String {
    format!("{:.1} %", value * 100.0).replace('-', "−")
}

fn probability(p: f64) -> String {
    if p < 0.001 { "&lt; 0.001".to_owned() } else { format!("{p:.3}") }
}

/// 12 345, with narrow spaces that do not break.
fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push('\u{202F}');
        }
        out.push(c);
    }
    out
}

fn count(n: u64, what: &str) -> String {
    if n == 1 { format!("one {what}") } else { format!("{} {what}s", thousands(n)) }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |c| c.to_uppercase().chain(chars).collect())
}

fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::HigherIsFake => "higher-is-fake",
        Direction::HigherIsReal => "higher-is-real",
    }
}

fn kind(kind: DetectorKind) -> &'static str {
    match kind {
        DetectorKind::Ours => "Veriscope's own",
        DetectorKind::Imported => "imported network",
        DetectorKind::Command => "external program",
        DetectorKind::Scores => "score file",
    }
}

/// A degraded cell says how.
fn state(cell: &Cell) -> String {
    if cell.degradation == CLEAN {
        String::new()
    } else {
        format!(", {}", escape(&cell.degradation))
    }
}

/// A metric's reason, where it has no value.
fn why<T>(metric: &Metric<T>) -> Option<&Absent> {
    metric.as_ref().err()
}
