//! The HTML report of a run, over made-up results with hostile names. It is left in cargo's folder for
//! test files (`target/tmp/bench-report.html`), to be looked at in a browser.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::Path;

use veriscope::bench::dataset::MediaKind;
use veriscope::bench::evaluate::{self, Scale, evaluate, evaluate_localization};
use veriscope::bench::metrics::bootstrap::Units;
use veriscope::bench::metrics::localization::{Localization, Located, Proposal};
use veriscope::bench::metrics::{Absent, Ranked, Sweep, operating, paired};
use veriscope::bench::output::{Bootstrap, Counts, Drawn, Entries, Level};
use veriscope::bench::protocol::{Direction, Reading};
use veriscope::bench::report::{MAX_THUMBNAILS, Thumbnail, report_html};
use veriscope::bench::run::results::{
    CLEAN, Cell, CellLevel, Comparison, Cost, DataSet, Degradation, Detector, DetectorKind,
    Histogram, Holm, Localisation, Results, Threshold, Transferred, Worst,
};

const HOSTILE: &str = "</title><script src=\"http://evil.example/x.js\">alert('1')</script>";
const FILE: &str = "a\"><img src=x onerror='alert(1)'>\u{202E}gpj.mp4";

struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.next()).sum::<f64>() - 6.0
    }
}

/// Scores in the program's direction: log-odds whose classes lie `apart`.
fn trials(seed: u64, files: usize, apart: f64) -> (Vec<f64>, Vec<bool>) {
    let mut random = Random(seed);
    (0..files)
        .map(|i| {
            let fake = i % 3 == 0;
            (random.normal() + if fake { apart / 2.0 } else { -apart / 2.0 }, fake)
        })
        .unzip()
}

fn reading(detector: &Detector) -> Reading {
    Reading { direction: detector.direction, scale: detector.scale }
}

/// What the detector would write.
fn written(detector: &Detector, score: f64) -> f64 {
    let score = match detector.scale {
        Scale::Probability => 1.0 / (1.0 + (-1.6 * score).exp()),
        _ => score,
    };
    reading(detector).turn(score)
}

fn level(name: &str, detector: &Detector, scores: &[f64], fake: &[bool]) -> CellLevel {
    let inside: Vec<f64> =
        scores.iter().map(|s| reading(detector).turn(written(detector, *s))).collect();
    let ranked = Ranked::new(&inside, fake).unwrap();
    let (fakes, reals) = (ranked.fakes(), ranked.reals());
    let options = evaluate::Options {
        scale: detector.scale,
        threshold: detector.threshold.as_ref().map(|t| reading(detector).turn(t.value)),
        asv: None,
        rounds: 200,
        seed: 1,
    };
    let metrics = evaluate(&ranked, &Units::Trials(inside.len()), &options).map(|evaluation| {
        let counts =
            Counts::Classes { fake: fakes, real: reals, distinct_scores: ranked.distinct() as u64 };
        let units = Drawn { kind: "file".to_owned(), count: inside.len() as u64 };
        Level::of(name, counts, units, evaluation, reading(detector))
    });
    let (mut roc, mut det, mut histogram) = (Vec::new(), Vec::new(), None);
    if metrics.is_ok() {
        let mut calls = (0, 0);
        roc.push([0.0, 0.0]);
        for block in ranked.blocks() {
            calls = (calls.0 + block.reals, calls.1 + block.fakes);
            let point = [calls.0 as f64 / reals as f64, calls.1 as f64 / fakes as f64];
            roc.push(point);
            if point.iter().all(|rate| *rate > 0.0 && *rate < 1.0) {
                det.push([point[0], 1.0 - point[1]]);
            }
        }
        let own: Vec<f64> = scores.iter().map(|s| written(detector, *s)).collect();
        let from = own.iter().copied().fold(f64::INFINITY, f64::min);
        let to = own.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mut bins = (vec![0; 40], vec![0; 40]);
        for (score, fake) in own.iter().zip(fake) {
            let bin = (((score - from) / (to - from) * 40.0) as usize).min(39);
            *(if *fake { &mut bins.0 } else { &mut bins.1 }).get_mut(bin).unwrap() += 1;
        }
        histogram = Some(Histogram { from, to, fake: bins.0, real: bins.1 });
    }
    CellLevel { level: name.to_owned(), fake: fakes, real: reals, metrics, roc, det, histogram }
}

/// Two files, one of whose forged stretches was found.
fn located() -> Level {
    let truth = vec![(1.0, 2.0), (4.0, 6.0)];
    let proposals = vec![Proposal { confidence: 0.9, start: 1.0, end: 2.0 }];
    let files = [Located { truth, proposals }, Located { truth: vec![], proposals: vec![] }];
    let table = Localization::new(&files).unwrap();
    Level {
        level: "segment".to_owned(),
        counts: Counts::Located { files: 2, stretches: 2, proposals: 1 },
        units: Drawn { kind: "file".to_owned(), count: 2 },
        metrics: Entries(evaluate_localization(&table, &table.units(), 100, 1).unwrap()),
        thresholds: None,
        reliability: None,
        risk_coverage: None,
    }
}

fn nothing_to_find() -> Absent {
    Localization::new(&[Located { truth: vec![], proposals: vec![] }]).unwrap_err()
}

fn data_set(name: &str, media: MediaKind) -> DataSet {
    DataSet {
        name: name.to_owned(),
        media,
        manifest: format!("datasets/{name}.toml"),
        manifest_sha256: "0123456789abcdef".repeat(4),
        split: Some("test".to_owned()),
        source: "a source with a paper (Name et al. 2024), https://example.org/set".to_owned(),
        licence: "CC BY 4.0".to_owned(),
        consent: "volunteers who agreed to research".to_owned(),
        fake: 200,
        real: 400,
        groups: (media == MediaKind::Audio).then_some(48),
        drawn_from: (media == MediaKind::Video).then_some(12_345),
    }
}

fn detector(name: &str, kind: DetectorKind, direction: Direction, scale: Scale) -> Detector {
    let value = if scale == Scale::Probability { 0.5 } else { 0.1 };
    Detector {
        name: name.to_owned(),
        kind,
        what: "face-swap, tier accurate".to_owned(),
        fingerprint: "fedcba9876543210".repeat(4),
        direction,
        scale,
        threshold: (kind != DetectorKind::Command)
            .then(|| Threshold { value, source: "the weights' manifest".to_owned() }),
    }
}

fn degradation(family: &str, value: Option<f64>, unit: &str, worse_upwards: bool) -> Degradation {
    Degradation {
        name: value.map_or(family.to_owned(), |v| format!("{family}-{v}")),
        family: family.to_owned(),
        value,
        unit: unit.to_owned(),
        worse_upwards,
        media: vec![MediaKind::Video, MediaKind::Audio],
    }
}

/// Three detectors and one with the sign of its scores turned round, on videos and on sound.
fn results() -> Results {
    let data_sets = vec![
        data_set("clips", MediaKind::Video),
        data_set(&format!("voices {HOSTILE}"), MediaKind::Audio),
    ];
    let detectors = vec![
        detector(
            "face-swap accurate",
            DetectorKind::Ours,
            Direction::HigherIsFake,
            Scale::Probability,
        ),
        detector("face-swap fast", DetectorKind::Ours, Direction::HigherIsFake, Scale::Probability),
        detector(HOSTILE, DetectorKind::Command, Direction::HigherIsReal, Scale::Raw),
        detector("turned round", DetectorKind::Scores, Direction::HigherIsFake, Scale::Raw),
    ];
    let degradations = vec![
        degradation(CLEAN, None, "", true),
        degradation("h264", Some(23.0), "CRF", true),
        degradation("h264", Some(32.0), "CRF", true),
        degradation("h264", Some(40.0), "CRF", true),
        degradation("resize", Some(0.75), "of the side", false),
        degradation("resize", Some(0.5), "of the side", false),
        degradation("resize", Some(0.25), "of the side", false),
        degradation("telephone", None, "", true),
    ];
    let mut cells = Vec::new();
    let mut comparisons = Vec::new();
    for (s, set) in data_sets.iter().enumerate() {
        let mut clean = Vec::new();
        for (d, detector) in detectors.iter().enumerate() {
            for (g, degradation) in degradations.iter().enumerate() {
                // A score file has no degraded copies.
                if detector.kind == DetectorKind::Scores && g > 0 {
                    continue;
                }
                let strength = [0.0, 0.3, 0.8, 1.5, 0.1, 0.4, 1.1, 0.9][g];
                let apart = ([2.6, 2.1, 1.7, -1.2][d] - strength * [0.6, 0.9, 0.5, 0.0][d])
                    * if s == 1 { 0.8 } else { 1.0 };
                let (scores, fake) = trials((s * 100 + d * 10 + g) as u64 + 1, 600, apart);
                let name = set.media.name();
                let mut levels = vec![level(name, detector, &scores, &fake)];
                if detector.kind == DetectorKind::Ours && set.media == MediaKind::Video {
                    let (scores, fake) = trials((d + 7 * g) as u64 + 500, 2400, apart * 0.8);
                    levels.push(level("window", detector, &scores, &fake));
                }
                if g == 0 {
                    let ranked = Ranked::new(&scores, &fake).unwrap();
                    clean.push((detector.name.clone(), ranked));
                }
                let mut wrong: Vec<(f64, bool)> =
                    scores.iter().copied().zip(fake).filter(|(s, f)| (*s > 0.0) != *f).collect();
                wrong.sort_by(|a, b| b.0.abs().total_cmp(&a.0.abs()));
                let worst = wrong
                    .iter()
                    .take(12)
                    .enumerate()
                    .map(|(i, (score, fake))| Worst {
                        id: format!("part/{i}-{FILE}"),
                        path: format!("/data/{}/part/{i}-{FILE}", set.media.name()),
                        fake: *fake,
                        score: written(detector, *score),
                        probability: (detector.scale == Scale::Probability)
                            .then(|| written(detector, *score)),
                        generator: fake.then(|| "Deepfakes <b>".to_owned()),
                    })
                    .collect();
                let bad = d == 2 && g == 3;
                let skipped = if bad { 80 } else { 3 * (d as u64) };
                cells.push(Cell {
                    data_set: set.name.clone(),
                    detector: detector.name.clone(),
                    degradation: degradation.name.clone(),
                    files: 600 + skipped,
                    judged: 600,
                    skipped: match skipped {
                        0 => BTreeMap::new(),
                        n => BTreeMap::from([("no_face".into(), n - 1), ("<i>odd".into(), 1)]),
                    },
                    too_many_skipped: bad,
                    abstained: (detector.kind == DetectorKind::Ours).then_some(37),
                    levels,
                    localisation: (d < 2 && g == 0).then(|| Localisation {
                        metrics: if d == 0 { Ok(located()) } else { Err(nothing_to_find()) },
                    }),
                    cost: Cost {
                        mean_ms: (detector.kind != DetectorKind::Scores)
                            .then_some([940.0, 85.5, 310.0, 0.0][d]),
                        median_ms: (d < 2).then_some([890.0, 80.25, 0.0, 0.0][d]),
                        peak_memory_bytes: (d < 3).then_some((300 + 700 * d as u64) << 20),
                    },
                    worst,
                });
            }
        }
        for a in 0..clean.len() {
            for b in a + 1..clean.len() {
                let (a, b) = (&clean[a], &clean[b]);
                comparisons.push(Comparison {
                    data_set: set.name.clone(),
                    a: a.0.clone(),
                    b: b.0.clone(),
                    files: 600,
                    delong: paired::delong(&a.1, &b.1),
                    bootstrap: paired::paired_bootstrap(&a.1, &b.1, &Units::Trials(600), 200, 1),
                    holm: Holm { auc: Some(0.011), ..Holm::default() },
                });
            }
        }
    }
    let transfer = |seed: u64| {
        let (here, fake) = trials(seed, 600, 1.4);
        let (there, _) = trials(seed + 1, 600, 2.0);
        let (here, there) =
            (Ranked::new(&here, &fake).unwrap(), Ranked::new(&there, &fake).unwrap());
        operating::transfer(operating::eer_threshold(&there).unwrap(), &there, &here)
    };
    // 600 files hold 400 reals: 1 in 1,000 has no meaning.
    let (scores, fake) = trials(5, 60, 1.0);
    let few = operating::tpr_at(&Sweep::new(&Ranked::new(&scores, &fake).unwrap(), &[]), 1);
    let transfers = vec![Transferred {
        detector: detectors[0].name.clone(),
        from: data_sets[0].name.clone(),
        to: data_sets[1].name.clone(),
        eer_asvspoof: transfer(11),
        fpr_1pct: Err(few.unwrap_err()),
    }];
    let hints = vec![format!("clips: 3 files of {HOSTILE} have no score and are in no metric")];
    Results {
        schema: 1,
        name: format!("faces and voices {HOSTILE}"),
        fingerprint: "a1b2c3d4".repeat(8),
        engine: "0.1.0".to_owned(),
        bootstrap: Bootstrap::new(200, 1),
        data_sets,
        detectors,
        degradations,
        cells,
        comparisons,
        transfers,
        hints,
    }
}

/// A grey JPEG is not needed to see that one is put in.
fn thumbnail(worst: &Worst) -> Result<Thumbnail, String> {
    if worst.id.starts_with("part/1-") {
        return Err(format!("no picture in {FILE}"));
    }
    Ok(Thumbnail {
        jpeg: b"\xFF\xD8\xFF\xE0 stands for a picture".to_vec(),
        width: 160,
        height: 90,
    })
}

/// Every element's name with its attributes, as a browser would read them: text is escaped, so that
/// every `<` begins one.
fn elements(html: &str) -> Vec<&str> {
    html.split('<').skip(1).map(|part| part.split_once('>').unwrap().0).collect()
}

#[test]
fn the_report_is_whole_and_fetches_nothing() {
    let results = results();
    let html = report_html(&results, &thumbnail);
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-report.html");
    std::fs::write(path, &html).unwrap();

    // Nothing of what came from outside is an element or an attribute.
    for element in elements(&html) {
        let name = element.trim_start_matches('/').split_whitespace().next().unwrap();
        assert!(
            [
                "!DOCTYPE",
                "html",
                "head",
                "meta",
                "title",
                "style",
                "body",
                "main",
                "header",
                "h1",
                "h2",
                "h3",
                "h4",
                "p",
                "nav",
                "ul",
                "li",
                "a",
                "section",
                "div",
                "table",
                "caption",
                "thead",
                "tbody",
                "tr",
                "th",
                "td",
                "span",
                "br",
                "strong",
                "em",
                "code",
                "sup",
                "details",
                "summary",
                "figure",
                "figcaption",
                "svg",
                "desc",
                "path",
                "circle",
                "rect",
                "text",
                "img",
                "audio",
                "dl",
                "dt",
                "dd",
            ]
            .contains(&name),
            "<{element}>"
        );
        // Quotes part names from values: every second part is a value.
        let parts: Vec<&str> = element.split('"').collect();
        for pair in parts.chunks_exact(2) {
            if pair[0].ends_with("src=") || pair[0].ends_with("href=") {
                let local = ["data:image/jpeg;base64,", "file:///data/", "#"];
                assert!(local.iter().any(|start| pair[1].starts_with(start)), "<{element}>");
            }
        }
        let outside: String = parts.iter().step_by(2).copied().collect();
        assert!(!outside.contains("onerror") && !outside.contains("onload"), "<{element}>");
    }
    assert!(!html.contains("<script") && !html.contains("url(") && !html.contains("@import"));
    assert!(html.contains("default-src &#39;none&#39;") || html.contains("default-src 'none'"));
    assert!(!html.contains('\u{202E}'));
    assert!(html.contains("&lt;script src=&quot;http://evil.example/x.js&quot;&gt;"));
    assert!(html.starts_with("<!DOCTYPE html>\n<html lang=\"en\">"));
    for (open, close) in
        [("<table", "</table>"), ("<svg", "</svg>"), ("<details", "</details>"), ("<li", "</li>")]
    {
        assert_eq!(html.matches(open).count(), html.matches(close).count(), "{open}");
    }
    // Every plot says what it is, and has its data beside it.
    let plots = html.matches("<svg class=\"plot\" role=\"img\"").count();
    assert_eq!(html.matches("<desc>").count(), plots);
    // For each set ROC, DET, risk–coverage, 4 histograms, 2 reliability diagrams, time against AUC,
    // and families h264, resize and the rest.
    assert_eq!(plots, 2 * (3 + 4 + 2 + 1 + 3));
    for title in
        ["ROC", "DET", "Risk–coverage", "h264 (CRF)", "resize (of the side)", "Time against AUC"]
    {
        let figure = format!("<figcaption>{title}</figcaption>");
        assert_eq!(html.matches(&figure).count(), 2, "{title}");
    }
    assert!(!html.contains("NaN") && !html.contains("inf\"") && !html.contains(">inf<"));
}

#[test]
fn what_is_absent_is_said_and_never_a_number() {
    let results = results();
    let html = report_html(&results, &thumbnail);
    // Raw scores have no reliability diagram and no ECE: for two detectors on two sets.
    let why = "Not available: scores are not probabilities";
    assert_eq!(html.matches(why).count(), 4);
    assert!(html.contains("</sup> scores are not probabilities</li>"));
    assert!(html.contains("</sup> no threshold was fixed beforehand</li>"));
    assert!(html.contains("Not shown: "));
    // Of stretches in time: one detector has figures, the other a reason.
    let located = html.split("<h3>Localisation in time</h3>").nth(1).unwrap();
    let row = located.split("<th scope=\"row\">AR@50</th>").nth(1).unwrap();
    let row = row.split("</tr>").next().unwrap();
    assert!(row.starts_with("<td>50.0 %") && row.contains("none<sup>"), "{row}");
    // A cell whose level has no metrics at all.
    let mut one_class = results.clone();
    for cell in &mut one_class.cells {
        if cell.detector == "face-swap fast" {
            let scores = vec![0.1, 0.2, 0.3];
            cell.levels = vec![level("video", &one_class.detectors[1], &scores, &[true; 3])];
        }
    }
    let html = report_html(&one_class, &thumbnail);
    assert!(html.contains("all trials are fake"));
    let row = html.split("face-swap fast</th>").nth(2).unwrap().split("</tr>").next().unwrap();
    assert!(row.starts_with("<td><span class=\"absent\">none<sup>"), "{row}");

    // A run of nothing, and one without intervals and degradations.
    let mut empty = results.clone();
    empty.cells.clear();
    empty.comparisons.clear();
    empty.transfers.clear();
    empty.degradations.truncate(1);
    empty.bootstrap = Bootstrap::new(0, 1);
    let html = report_html(&empty, &thumbnail);
    assert!(html.contains("No detector was run on it."));
    assert!(html.contains("no degradations") && html.contains("no intervals were asked for"));
    assert!(!html.contains("class=\"plot\""));
}

#[test]
fn what_matters_most_is_loud() {
    let results = results();
    let html = report_html(&results, &thumbnail);
    let alarm = html.split("<section class=\"alarm\"").nth(1).unwrap();
    let alarm = alarm.split("</section>").next().unwrap();
    assert_eq!(alarm.matches("is below 0.5. The sign of its scores may be wrong.").count(), 2);
    assert!(alarm.contains("turned round on clips: AUC 0."));
    assert!(alarm.contains("h264-40: 80 of 680 files were skipped, more than 5 %."));
    // Leaders come by AUC, the turned one last; levels in tables of their own.
    let tables: Vec<&str> = html.split("level: detectors by AUC</caption>").skip(1).collect();
    assert_eq!(tables.len(), 3);
    let order: Vec<usize> =
        ["face-swap accurate", "face-swap fast", "&lt;/title&gt;", "turned round"]
            .iter()
            .map(|name| tables[0].find(&format!("</svg>{name}")).unwrap())
            .collect();
    assert!(order.is_sorted(), "{order:?}");
    assert!(html.contains("<h3>Video level (whole files)</h3>"));
    assert!(html.contains("<h3>Window level</h3>"));
    assert!(tables[0].contains("differs, p "));
    // Skipped files by reason.
    assert!(
        html.contains("79 no_face, 1 &lt;i&gt;odd") || html.contains("1 &lt;i&gt;odd, 79 no_face")
    );
    assert!(html.contains("<strong>11.8 %</strong>"));
}

#[test]
fn pictures_are_asked_for_once_and_not_without_end() {
    let mut results = results();
    let asked = std::cell::RefCell::new(Vec::new());
    let count = |worst: &Worst| {
        asked.borrow_mut().push(worst.path.clone());
        thumbnail(worst)
    };
    report_html(&results, &count);
    let mut paths = asked.take();
    // Of videos alone, of clean files alone: the same 12 files of all detectors.
    assert_eq!(paths.len(), 12);
    assert!(paths.iter().all(|p| p.starts_with("/data/video/")));
    paths.sort();
    paths.dedup();
    assert_eq!(paths.len(), 12);
    let template = results.cells[0].worst[0].clone();
    results.cells[0].worst = (0..MAX_THUMBNAILS + 50)
        .map(|i| Worst { path: format!("/data/{i}.mp4"), ..template.clone() })
        .collect();
    let html = report_html(&results, &count);
    assert_eq!(asked.take().len(), MAX_THUMBNAILS);
    assert!(html.contains("no picture: more than 600 pictures"));
}
