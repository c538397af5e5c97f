//! The plots of one data set.

use super::chart::{self, Axis, MAX_SERIES, Plot};
use super::page::{Table, escape, figure, no_figure};
use super::{
    CLEAN, Cell, CellLevel, DataSet, Direction, Interval, Report, entry, percent, thousands, three,
    value, why,
};
use crate::bench::run::results::Degradation;

/// False-positive rates at which the data beside a ROC curve are given.
const RATES: [f64; 9] = [0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.8];

/// Shares of files at which the data beside a risk–coverage curve are given.
const COVERAGES: [f64; 7] = [0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0];

/// A detector's cell with its whole-file level.
type Row<'a> = (&'a Cell, &'a CellLevel);

impl Report<'_> {
    /// ROC, DET, histograms, reliability and risk–coverage of clean files.
    pub(super) fn curves(&self, level: &str, clean: &[&Cell]) -> String {
        let mut rows: Vec<Row> = clean
            .iter()
            .filter_map(|cell| Some((*cell, cell.levels.iter().find(|l| l.level == level)?)))
            .collect();
        let auc = |level: &CellLevel| value(level, "auc").unwrap_or(f64::NEG_INFINITY);
        rows.sort_by(|a, b| auc(b.1).total_cmp(&auc(a.1)));
        let mut html = String::from("<h3>Curves</h3>");
        for (part, rows) in rows.chunks(MAX_SERIES).enumerate() {
            if rows.len() < clean.len() {
                let first = part * MAX_SERIES + 1;
                let last = first + rows.len() - 1;
                html += &format!("<h4>Detectors {first} to {last} by AUC</h4>");
            }
            html += &self.legend(rows.iter().map(|(cell, level)| {
                let auc = entry(level, "auc").and_then(|e| e.value.as_ref().ok());
                (
                    cell.detector.as_str(),
                    auc.map_or(String::new(), |v| format!("AUC {}", three(*v))),
                )
            }));
            html += "<div class=\"figures\">";
            html += &self.roc(rows);
            html += &self.det(rows);
            html += &self.risk_coverage(rows);
            html += "</div>";
        }
        html += "<h3>Scores by class</h3>";
        html += CLASSES;
        html += "<div class=\"figures\">";
        for row in &rows {
            html += &self.histogram(row);
        }
        html += "</div><h3>Reliability</h3><div class=\"figures\">";
        for row in &rows {
            html += &self.reliability(row);
        }
        html + "</div>"
    }

    /// Which line is whose.
    fn legend<'a>(&self, of: impl Iterator<Item = (&'a str, String)>) -> String {
        let items: Vec<String> = of
            .map(|(name, note)| {
                format!(
                    "<li>{}{} <span class=\"small\">{}</span></li>",
                    chart::swatch(self.place(name)),
                    escape(name),
                    escape(&note)
                )
            })
            .collect();
        format!("<ul class=\"legend\">{}</ul>", items.concat())
    }

    /// Detectors whose curve is missing, and why.
    fn missing(&self, rows: &[Row], empty: impl Fn(&Row) -> Option<String>) -> String {
        let items: Vec<String> = rows
            .iter()
            .filter_map(|row| {
                Some(format!("{}: {}", escape(&row.0.detector), escape(&empty(row)?)))
            })
            .collect();
        if items.is_empty() { String::new() } else { format!("Not shown: {}.", items.join("; ")) }
    }

    fn roc(&self, rows: &[Row]) -> String {
        let title = "ROC";
        let says = "True-positive against false-positive rate of each detector.";
        let (x, y) = (Axis::rate("false-positive rate"), Axis::rate("true-positive rate"));
        let mut plot = Plot::new(title, says, &x, &y);
        plot.reference(&[[0.0, 0.0], [1.0, 1.0]]);
        for (cell, level) in rows {
            plot.line(&level.roc, &chart::series(self.place(&cell.detector)));
        }
        let mut head = vec!["FPR".to_owned()];
        head.extend(rows.iter().map(|(cell, _)| cell.detector.clone()));
        let head: Vec<&str> = head.iter().map(String::as_str).collect();
        let mut table = Table::new("True-positive rate at false-positive rates", &head);
        for rate in RATES {
            let mut cells = vec![percent(rate)];
            cells.extend(rows.iter().map(|(_, level)| {
                let at = level.roc.iter().rev().find(|p| p[0] <= rate);
                at.map_or("–".to_owned(), |p| percent(p[1]))
            }));
            table.row(&cells);
        }
        let note = self.missing(rows, no_curve);
        figure(title, &plot.finish(), &note, &table.finish())
    }

    fn det(&self, rows: &[Row]) -> String {
        let title = "DET";
        let says = "False-negative against false-positive rate of each detector, both in per cent \
                    on axes of normal deviates.";
        let points = || rows.iter().flat_map(|(_, level)| &level.det);
        if points().next().is_none() {
            return no_figure(title, "no detector has a curve with errors of both kinds");
        }
        let least = |at: usize| points().map(|p| p[at]).fold(0.01, f64::min).max(0.0001);
        let most = |at: usize| points().map(|p| p[at]).fold(0.4, f64::max).min(0.95);
        let x = Axis::probit("false-positive rate (%)", least(0), most(0));
        let y = Axis::probit("false-negative rate (%)", least(1), most(1));
        let mut plot = Plot::new(title, says, &x, &y);
        // Where both errors are equal.
        let (from, to) = (least(0).max(least(1)), most(0).min(most(1)));
        let diagonal: Vec<[f64; 2]> = (0..=40)
            .map(|i| {
                let rate = from + (to - from) * f64::from(i) / 40.0;
                [rate, rate]
            })
            .collect();
        plot.reference(&diagonal);
        for (cell, level) in rows {
            // Beyond the axes a curve would run along their border.
            let inside: Vec<[f64; 2]> = level
                .det
                .iter()
                .filter(|p| (0..2).all(|at| (least(at)..=most(at)).contains(&p[at])))
                .copied()
                .collect();
            plot.line(&inside, &chart::series(self.place(&cell.detector)));
        }
        let mut table = Table::new("Equal error rates", &["Detector", "EER", "EER (convex hull)"]);
        for (cell, level) in rows {
            let of = |name| value(level, name).map_or("–".to_owned(), percent);
            table.row(&[escape(&cell.detector), of("eer_asvspoof"), of("eer_hull")]);
        }
        let note = self.missing(rows, |row| match no_curve(row) {
            None if row.1.det.is_empty() => Some("it makes no errors of both kinds".to_owned()),
            other => other,
        });
        figure(title, &plot.finish(), &note, &table.finish())
    }

    fn risk_coverage(&self, rows: &[Row]) -> String {
        let title = "Risk–coverage";
        let says = "Share of wrong calls among answered files against the share that is answered.";
        let of = |row: &Row| match &row.1.metrics {
            Ok(level) => match &level.risk_coverage {
                Some(Ok(points)) => Ok(points.clone()),
                Some(Err(absent)) => Err(absent.why.clone()),
                None => Err("it was not computed".to_owned()),
            },
            Err(absent) => Err(absent.why.clone()),
        };
        let found: Vec<_> = rows.iter().filter_map(|row| Some((row, of(row).ok()?))).collect();
        if found.is_empty() {
            let why = rows.first().and_then(|row| of(row).err()).unwrap_or_default();
            return no_figure(title, &why);
        }
        let most = found.iter().flat_map(|(_, points)| points).map(|p| p.risk).fold(0.02, f64::max);
        let (x, y) =
            (Axis::rate("share of files answered"), Axis::linear("share wrong", 0.0, most));
        let mut plot = Plot::new(title, says, &x, &y);
        let mut head = vec!["Answered".to_owned()];
        for ((cell, _), points) in &found {
            let line: Vec<[f64; 2]> = points.iter().map(|p| [p.coverage, p.risk]).collect();
            plot.line(&line, &chart::series(self.place(&cell.detector)));
            head.push(cell.detector.clone());
        }
        let head: Vec<&str> = head.iter().map(String::as_str).collect();
        let mut table = Table::new("Share of wrong calls by share answered", &head);
        for coverage in COVERAGES {
            let mut cells = vec![percent(coverage)];
            cells.extend(found.iter().map(|(_, points)| {
                let at = points.iter().rev().find(|p| p.coverage <= coverage + 1e-9);
                at.map_or("–".to_owned(), |p| percent(p.risk))
            }));
            table.row(&cells);
        }
        let note = self.missing(rows, |row| of(row).err());
        figure(title, &plot.finish(), &note, &table.finish())
    }

    fn histogram(&self, (cell, level): &Row) -> String {
        let title = &cell.detector;
        let Some(histogram) = &level.histogram else {
            let why = why(&level.metrics).map_or("it was not computed", |a| a.why.as_str());
            return no_figure(title, why);
        };
        let share = |counts: &[u64]| {
            let sum = counts.iter().sum::<u64>().max(1) as f64;
            counts.iter().map(|n| *n as f64 / sum).collect::<Vec<_>>()
        };
        let (fake, real) = (share(&histogram.fake), share(&histogram.real));
        let most = fake.iter().chain(&real).copied().fold(0.0, f64::max);
        let detector = self.detector(&cell.detector);
        let end = match detector.map(|d| d.direction) {
            Some(Direction::HigherIsReal) => "score (high: real)",
            _ => "score (high: fake)",
        };
        let x = Axis::linear(end, histogram.from, histogram.to);
        let y = Axis::linear("share of the class", 0.0, most);
        let says = "How often each score is given to real and to fake files.";
        let mut plot = Plot::sized(title, says, &x, &y, 240.0);
        plot.steps(histogram.from, histogram.to, &real, "real");
        plot.steps(histogram.from, histogram.to, &fake, "fake");
        if let Some(threshold) = detector.and_then(|d| d.threshold.as_ref())
            && (histogram.from..=histogram.to).contains(&threshold.value)
        {
            plot.upright(threshold.value, "fixed threshold");
        }
        let mut table = Table::new("Files by score", &["Score from", "to", "Real", "Fake"]);
        let width = (histogram.to - histogram.from) / histogram.fake.len().max(1) as f64;
        for (i, (fake, real)) in histogram.fake.iter().zip(&histogram.real).enumerate() {
            let from = histogram.from + width * i as f64;
            table.row(&[
                chart::plain(from),
                chart::plain(from + width),
                thousands(*real),
                thousands(*fake),
            ]);
        }
        figure(title, &plot.finish(), "", &table.finish())
    }

    fn reliability(&self, (cell, level): &Row) -> String {
        let title = &cell.detector;
        let bins = match &level.metrics {
            Err(absent) => return no_figure(title, &absent.why),
            Ok(level) => match &level.reliability {
                None => return no_figure(title, "it was not computed"),
                Some(Err(absent)) => return no_figure(title, &absent.why),
                Some(Ok(bins)) => bins,
            },
        };
        let (x, y) =
            (Axis::rate("probability of fake, mean of the bin"), Axis::rate("share that is fake"));
        let says = "Share of fakes among the files that were given about the same probability; the \
                    larger a disc, the more files; bars at the bottom show how many.";
        let mut plot = Plot::sized(title, says, &x, &y, 280.0);
        let files = bins.iter().map(|b| b.files).sum::<u64>().max(1) as f64;
        let most = bins.iter().map(|b| b.files).max().unwrap_or(1).max(1) as f64;
        for bin in bins {
            let width = (bin.to - bin.from) * 0.08;
            let height = bin.files as f64 / most * 0.15;
            plot.bar(bin.from + width, bin.to - width, height, "amount");
        }
        plot.reference(&[[0.0, 0.0], [1.0, 1.0]]);
        let held: Vec<_> = bins.iter().filter(|bin| bin.files > 0).collect();
        let line: Vec<[f64; 2]> = held.iter().map(|b| [b.mean_probability, b.fake]).collect();
        let class = chart::series(self.place(&cell.detector));
        plot.line(&line, &class);
        for bin in &held {
            let radius = 3.0 + 9.0 * (bin.files as f64 / files).sqrt();
            plot.disc(bin.mean_probability, bin.fake, radius, &format!("disc {class}"));
        }
        let mut table = Table::new(
            "Bins of probability",
            &["Probability from", "to", "Files", "Mean probability", "Share fake"],
        );
        for bin in bins {
            let (mean, fake) = match bin.files {
                0 => ("–".to_owned(), "–".to_owned()),
                _ => (three(bin.mean_probability), three(bin.fake)),
            };
            table.row(&[three(bin.from), three(bin.to), thousands(bin.files), mean, fake]);
        }
        let ece = value(level, "ece").map_or(String::new(), |v| format!("ECE {}", three(v)));
        figure(title, &plot.finish(), &ece, &table.finish())
    }

    /// A plot a family of degradations; those without a value share one.
    pub(super) fn robustness(&self, set: &DataSet) -> String {
        let degraded: Vec<&Degradation> = self
            .results
            .degradations
            .iter()
            .filter(|d| d.name != CLEAN)
            .filter(|d| {
                self.results.cells.iter().any(|c| c.data_set == set.name && c.degradation == d.name)
            })
            .collect();
        if degraded.is_empty() {
            return String::new();
        }
        let names: Vec<&str> = self
            .results
            .detectors
            .iter()
            .map(|d| d.name.as_str())
            .filter(|name| {
                degraded.iter().any(|d| self.results.cell(&set.name, name, &d.name).is_some())
            })
            .collect();
        let mut families: Vec<(&str, Vec<&Degradation>)> = Vec::new();
        for d in degraded {
            let family = if d.value.is_some() { d.family.as_str() } else { "" };
            match families.iter_mut().find(|(known, _)| *known == family) {
                Some((_, all)) => all.push(d),
                None => families.push((family, vec![d])),
            }
        }
        let mut html = String::from("<h3>Robustness</h3>");
        html += "<p>AUC of whole files with its interval, from the files as they are (“clean”) to the \
                 strongest degradation. Values are put at equal distances.</p>";
        for names in names.chunks(MAX_SERIES) {
            html += &self.legend(names.iter().map(|name| (*name, String::new())));
            html += "<div class=\"figures\">";
            for (family, all) in &families {
                html += &self.family(set, family, all, names);
            }
            html += "</div>";
        }
        html
    }

    fn family(&self, set: &DataSet, family: &str, all: &[&Degradation], names: &[&str]) -> String {
        let mut all = all.to_vec();
        all.sort_by(|a, b| {
            let value = |d: &Degradation| {
                let value = d.value.unwrap_or(0.0);
                if d.worse_upwards { value } else { -value }
            };
            value(a).total_cmp(&value(b))
        });
        let unit = all.first().map_or("", |d| d.unit.as_str());
        let title = match family {
            "" => "Other degradations".to_owned(),
            _ if unit.is_empty() => family.to_owned(),
            _ => format!("{family} ({unit})"),
        };
        let mut ticks = vec!["clean".to_owned()];
        ticks.extend(all.iter().map(|d| match d.value {
            Some(value) => chart::plain(value),
            None => d.name.clone(),
        }));
        let level = |name: &str, state: &str| {
            self.results.cell(&set.name, name, state).and_then(Cell::files_level)
        };
        let states: Vec<&str> =
            std::iter::once(CLEAN).chain(all.iter().map(|d| d.name.as_str())).collect();
        let low = names
            .iter()
            .flat_map(|name| states.iter().filter_map(|state| level(name, state)))
            .filter_map(|l| entry(l, "auc"))
            .filter_map(|e| match (&e.value, &e.interval) {
                (Ok(_), Some(Ok(i))) => Some(i.low),
                (Ok(v), _) => Some(*v),
                _ => None,
            })
            .fold(0.95, f64::min)
            .max(0.0);
        let x_label = if unit.is_empty() { String::new() } else { format!("{family}, {unit}") };
        let (x, y) = (Axis::names(&x_label, ticks.clone()), Axis::linear("AUC", low, 1.0));
        let says = "AUC of each detector at each value of the degradation.";
        let mut plot = Plot::new(&title, says, &x, &y);
        if low < 0.5 {
            plot.reference(&[[-0.4, 0.5], [states.len() as f64 - 0.6, 0.5]]);
        }
        let mut head = vec!["Detector"];
        head.extend(ticks.iter().map(String::as_str));
        let mut table = Table::new(&format!("AUC: {title}"), &head);
        for (i, name) in names.iter().enumerate() {
            let at = self.place(name);
            let class = chart::series(at);
            // Side by side, so that intervals do not cover each other.
            let aside = (i as f64 - (names.len() as f64 - 1.0) / 2.0) * 0.07;
            let mut line = Vec::new();
            let mut cells = vec![escape(name)];
            for (place, state) in states.iter().enumerate() {
                let found = level(name, state).map(|l| (l, entry(l, "auc")));
                cells.push(match found {
                    Some((_, Some(e))) => match (&e.value, &e.interval) {
                        (Ok(v), interval) => {
                            let x = place as f64 + aside;
                            line.push([x, *v]);
                            let mut cell = three(*v);
                            if let Some(Ok(Interval { low, high })) = interval {
                                plot.whisker(x, *low, *high, &class);
                                cell += &format!(
                                    "<br><span class=\"small\">{} to {}</span>",
                                    three(*low),
                                    three(*high)
                                );
                            }
                            cell
                        }
                        (Err(absent), _) => escape(&absent.why),
                    },
                    Some((l, None)) => {
                        why(&l.metrics).map_or("not computed".to_owned(), |a| escape(&a.why))
                    }
                    None => "not run".to_owned(),
                });
            }
            // Telephone and reverberation do not follow on each other.
            if !family.is_empty() {
                plot.line(&line, &class);
            }
            for [x, y] in &line {
                plot.mark(*x, *y, at, &format!("{name}: {}", three(*y)));
            }
            table.row(&cells);
        }
        figure(&title, &plot.finish(), "", &table.finish())
    }

    /// Time a file beside AUC, and memory.
    pub(super) fn cost(&self, clean: &[&Cell]) -> String {
        let mut html = String::from("<h3>Cost</h3>");
        let mut table = Table::new(
            "Cost beside accuracy",
            &["Detector", "Mean, ms a file", "Median, ms a file", "Peak memory", "AUC"],
        );
        let mut points: Vec<(&str, f64, f64)> = Vec::new();
        for cell in clean {
            let auc = cell.files_level().and_then(|l| value(l, "auc"));
            if let (Some(ms), Some(auc)) = (cell.cost.mean_ms, auc)
                && ms > 0.0
                && ms.is_finite()
            {
                points.push((&cell.detector, ms, auc));
            }
            let number = |v: Option<f64>| v.map_or("not measured".to_owned(), chart::plain);
            table.row(&[
                self.named(&cell.detector),
                number(cell.cost.mean_ms),
                number(cell.cost.median_ms),
                cell.cost.peak_memory_bytes.map_or("not measured".to_owned(), memory),
                auc.map_or("none".to_owned(), three),
            ]);
        }
        let table = table.finish();
        html += "<p>Wall time of the machine at hand, with everything else that it did.</p>";
        if points.is_empty() {
            return html + &table;
        }
        let least = points.iter().map(|p| p.1).fold(f64::INFINITY, f64::min);
        let most = points.iter().map(|p| p.1).fold(0.0, f64::max);
        let low = points.iter().map(|p| p.2).fold(0.9, f64::min);
        let x = Axis::log("mean time a file (ms)", least, most);
        let y = Axis::linear("AUC", low, 1.0);
        let says = "AUC of each detector against its time a file: the upper left is best.";
        let mut plot = Plot::new("Time against AUC", says, &x, &y);
        // Words of points that lie beside each other go below each other.
        points.sort_by(|a, b| b.2.total_cmp(&a.2));
        let mut taken: Vec<f64> = Vec::new();
        for (name, ms, auc) in points {
            let at = plot.height_of(auc);
            let mut down = 0.0;
            while taken.iter().any(|t| (t - (at + down)).abs() < 14.0) && down < 200.0 {
                down += 2.0;
            }
            taken.push(at + down);
            let index = self.place(name);
            plot.mark(
                ms,
                auc,
                index,
                &format!("{name}: {} ms, AUC {}", chart::plain(ms), three(auc)),
            );
            let short: String = name.chars().take(24).collect();
            plot.words(ms, auc, down, &short, &chart::series(index));
        }
        html + "<div class=\"figures beside\">"
            + &figure("Time against AUC", &plot.finish(), "", "")
            + "<div>"
            + &table
            + "</div></div>"
    }
}

/// What the two colours of a histogram are.
const CLASSES: &str = "<ul class=\"legend\"><li><svg class=\"swatch\" viewBox=\"0 0 34 12\" \
                       aria-hidden=\"true\"><rect class=\"steps real\" x=\"1\" y=\"1\" width=\"32\" \
                       height=\"10\"/></svg>real</li><li><svg class=\"swatch\" viewBox=\"0 0 34 12\" \
                       aria-hidden=\"true\"><rect class=\"steps fake\" x=\"1\" y=\"1\" width=\"32\" \
                       height=\"10\"/></svg>fake</li></ul>";

/// Why a detector has no ROC curve.
fn no_curve(row: &Row) -> Option<String> {
    match &row.1.metrics {
        Err(absent) => Some(absent.why.clone()),
        Ok(_) if row.1.roc.is_empty() => Some("it has no curve".to_owned()),
        Ok(_) => None,
    }
}

fn memory(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib < 1024.0 { format!("{mib:.0} MiB") } else { format!("{:.1} GiB", mib / 1024.0) }
}
