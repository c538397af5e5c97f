//! Reports in plain words, in English and Simplified Chinese.
//!
//! All words are in `page/words.json`, which the review page reads, too: under each language a table for
//! each kind of code (`reason`, `evidence`, `system`, `deviation`, `error`, …). Sentences that the
//! program writes in English with names and figures in them (an outcome's lines, the disposition's
//! evidence, what reasons say) are recognised by their `patterns` and said anew; what fits none stays
//! as it is.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde::Deserialize;

/// The table, as the page gets it.
pub const WORDS_JSON: &str = include_str!("page/words.json");

/// How deep sentences are looked for in sentences.
const MAX_DEPTH: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lang {
    En,
    Zh,
}

impl Lang {
    pub const ALL: [Self; 2] = [Self::En, Self::Zh];

    /// From a tag such as `zh-CN` or `en`; English for all others.
    pub fn from_tag(tag: &str) -> Self {
        let primary = tag.split(['-', '_']).next().unwrap_or_default();
        if primary.eq_ignore_ascii_case("zh") { Self::Zh } else { Self::En }
    }

    /// From an `Accept-Language` header: whichever of the two comes first.
    pub fn accepted(header: &str) -> Self {
        let mut tags = header.split(',').filter_map(|part| {
            let tag = part.split(';').next()?.trim();
            let primary = tag.split('-').next()?;
            ["en", "zh"].iter().any(|l| primary.eq_ignore_ascii_case(l)).then_some(tag)
        });
        tags.next().map_or(Self::En, Self::from_tag)
    }

    /// For HTML's `lang`.
    pub fn tag(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Zh => "zh-CN",
        }
    }
}

type Table = BTreeMap<String, BTreeMap<String, String>>;

#[derive(Default, Deserialize)]
struct Words {
    patterns: Table,
    en: Table,
    zh: Table,
}

fn words() -> &'static Words {
    static WORDS: OnceLock<Words> = OnceLock::new();
    // A test reads it; were it broken, codes would be shown as they are.
    WORDS.get_or_init(|| serde_json::from_str(WORDS_JSON).unwrap_or_default())
}

/// The word for a code of a kind; none for one that is not in the table.
pub fn known(lang: Lang, kind: &str, code: &str) -> Option<&'static str> {
    let words = words();
    let table = match lang {
        Lang::En => &words.en,
        Lang::Zh => &words.zh,
    };
    table.get(kind)?.get(code).map(String::as_str)
}

/// The same; the code itself where it is not in the table.
pub fn word<'a>(lang: Lang, kind: &str, code: &'a str) -> &'a str {
    known(lang, kind, code).unwrap_or(code)
}

/// A word with values for its `{names}`.
pub fn filled(lang: Lang, kind: &str, code: &str, values: &[(&str, &str)]) -> String {
    fill(word(lang, kind, code), |name| {
        values.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()).unwrap_or_default()
    })
}

fn fill(template: &str, value: impl Fn(&str) -> String) -> String {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((name, after)) = after.split_once('}') else { break };
        text += before;
        text += &value(name);
        rest = after;
    }
    text + rest
}

/// How a label departs from the rule.
pub fn deviation(lang: Lang, code: &str) -> String {
    match code.strip_prefix("ingredient:") {
        Some(inner) => {
            filled(lang, "deviation", "ingredient:", &[("what", word(lang, "deviation", inner))])
        }
        None => word(lang, "deviation", code).to_owned(),
    }
}

/// `face-1` as people call it.
pub fn track(lang: Lang, id: &str) -> String {
    let (kind, n) = match id.split_once('-') {
        Some((kind, n)) => (kind, n),
        None => (id, ""),
    };
    match known(lang, "track", kind) {
        Some(_) => filled(lang, "track", kind, &[("n", n)]),
        None => id.to_owned(),
    }
}

/// Where a face was altered, as [`HeatMap::place`](crate::report::HeatMap::place) says it.
pub fn place(lang: Lang, text: &str) -> String {
    let is = |word: &str| known(lang, "place", word);
    let mut said = String::new();
    for (i, part) in text.split(", ").enumerate() {
        if i > 0 {
            said += is(",").unwrap_or(", ");
        }
        for (j, name) in part.split(" and ").enumerate() {
            if j > 0 {
                let and = is("and").unwrap_or("and");
                said += &if lang == Lang::En { format!(" {and} ") } else { and.to_owned() };
            }
            said += is(name).unwrap_or(name);
        }
    }
    said
}

/// A line of an outcome or of a disposition's evidence.
pub fn line(lang: Lang, text: &str) -> String {
    said(lang, "line", text, 0).unwrap_or_else(|| text.to_owned())
}

/// What a reason or a piece of evidence says in figures.
pub fn detail(lang: Lang, text: &str) -> String {
    said(lang, "detail", text, 0).unwrap_or_else(|| text.to_owned())
}

fn said(lang: Lang, kind: &str, text: &str, depth: usize) -> Option<String> {
    if depth > MAX_DEPTH {
        return None;
    }
    let fits = |pattern: &'static str| -> Option<Vec<(&'static str, String)>> {
        let values = matched(pattern, text)?;
        let mut told = Vec::new();
        for (name, value) in values {
            told.push((name, told_value(lang, name, value, depth)?));
        }
        Some(told)
    };
    // Of those that fit, the one with most words of its own.
    let own = |pattern: &str| fill(pattern, |_| String::new()).len();
    let (key, values) = words()
        .patterns
        .get(kind)?
        .iter()
        .filter_map(|(key, pattern)| Some((own(pattern), key, fits(pattern)?)))
        .max_by_key(|(own, ..)| *own)
        .map(|(_, key, values)| (key, values))?;
    let template = known(lang, kind, key)?;
    Some(fill(template, |name| {
        values.iter().find(|(n, _)| *n == name).map(|(_, v)| v.clone()).unwrap_or_default()
    }))
}

/// A value that a pattern found, said by what it is; none where it is no such thing.
fn told_value(lang: Lang, name: &str, value: &str, depth: usize) -> Option<String> {
    match name {
        "action" | "detector" | "disposition_short" | "evidence" | "system" | "error" => {
            known(lang, name, value).map(str::to_owned)
        }
        "track" => Some(track(lang, value)),
        "where" => {
            Some(said(lang, "where", value, depth + 1).unwrap_or_else(|| track(lang, value)))
        }
        "line" => Some(said(lang, "line", value, depth + 1).unwrap_or_else(|| value.to_owned())),
        "reasons" => {
            let all: Vec<&str> = value.split(", ").map(|code| word(lang, "reason", code)).collect();
            Some(all.join(known(lang, "place", ",").unwrap_or(", ")))
        }
        _ => Some(value.to_owned()),
    }
}

/// The values of a pattern's `{names}` in a text that it fits, each as short as it can be.
fn matched<'p, 't>(pattern: &'p str, text: &'t str) -> Option<Vec<(&'p str, &'t str)>> {
    let mut values = Vec::new();
    let (first, mut pattern) = match pattern.split_once('{') {
        Some((first, rest)) => (first, Some(rest)),
        None => (pattern, None),
    };
    let mut text = text.strip_prefix(first)?;
    while let Some(rest) = pattern {
        let (name, after) = rest.split_once('}')?;
        let (literal, next) = match after.split_once('{') {
            Some((literal, next)) => (literal, Some(next)),
            None => (after, None),
        };
        let (value, remaining) = match (literal, next) {
            (_, None) => (text.strip_suffix(literal)?, ""),
            (literal, Some(_)) => text.split_once(literal)?,
        };
        values.push((name, value));
        text = remaining;
        pattern = next;
    }
    text.is_empty().then_some(values)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::report::{DetectorKind, ReasonCode, samples};
    use crate::serve::policy::{Policies, evidence_kinds};

    fn table(lang: Lang) -> &'static Table {
        match lang {
            Lang::En => &words().en,
            Lang::Zh => &words().zh,
        }
    }

    fn assert_known<'a>(kind: &str, codes: impl IntoIterator<Item = &'a str>) {
        for code in codes {
            for lang in Lang::ALL {
                assert!(known(lang, kind, code).is_some(), "{lang:?} has no {kind} `{code}`");
            }
        }
    }

    fn names(template: &str) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        let cell = std::cell::RefCell::new(&mut names);
        fill(template, |name| {
            cell.borrow_mut().insert(name.to_owned());
            String::new()
        });
        names
    }

    #[test]
    fn both_languages_say_the_same_things() {
        assert!(serde_json::from_str::<Words>(WORDS_JSON).is_ok());
        let keys = |table: &Table| -> BTreeSet<(String, String)> {
            table.iter().flat_map(|(k, t)| t.keys().map(|c| (k.clone(), c.clone()))).collect()
        };
        assert_eq!(keys(table(Lang::En)), keys(table(Lang::Zh)));
        for (kind, codes) in table(Lang::En) {
            for (code, text) in codes {
                let zh = &table(Lang::Zh)[kind][code];
                assert!(!text.is_empty() && !zh.is_empty(), "{kind} {code}");
                assert!(names(zh).is_subset(&names(text)), "{kind} {code}: {zh}");
                // Chinese is Chinese, where it is more than marks around what is filled in.
                let own = fill(zh, |_| String::new());
                let chinese = own.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c));
                assert!(chinese || !own.chars().any(char::is_alphabetic), "{kind} {code}: {zh}");
            }
        }
        for (kind, patterns) in &words().patterns {
            for (key, pattern) in patterns {
                let text = known(Lang::En, kind, key).unwrap();
                assert!(names(text).is_subset(&names(pattern)), "{kind} {key}");
            }
        }
    }

    /// The schema lists every code of reasons and of errors that the program can write; a test beside it
    /// sees to that.
    #[test]
    fn every_code_of_the_schema_has_words() {
        let schema: serde_json::Value = serde_json::from_str(crate::report::SCHEMA).unwrap();
        let codes = |pointer: &str| -> Vec<String> {
            serde_json::from_value(schema.pointer(pointer).unwrap().clone()).unwrap()
        };
        let reasons = codes("/$defs/reason/properties/code/enum");
        assert!(reasons.len() >= 22);
        assert_known("reason", reasons.iter().map(String::as_str));
        let last = serde_json::to_value(ReasonCode::DeviceLost).unwrap();
        assert!(reasons.contains(&last.as_str().unwrap().to_owned()));
        assert_eq!(evidence_kinds().count(), 11);
        assert_known("evidence", evidence_kinds());
        assert_known("detector", DetectorKind::ALL.map(DetectorKind::name));
        for (kind, codes) in [
            ("disposition", &["confirmed", "possible", "suspected", "none", "undetermined"][..]),
            ("disposition_short", &["confirmed", "possible", "suspected", "none", "undetermined"]),
            ("action", &["allow", "review", "block"]),
            ("decision", &["allow", "block", "escalate"]),
            ("track", &["face", "speech", "labels"]),
            ("segment", &["fake", "undetermined", "bonafide", "unjudged"]),
            ("label_verdict", &["compliant", "noncompliant", "not_found", "inconclusive"]),
            ("ai", &["true", "false", "null"]),
            ("status", &["ok", "partial", "failed"]),
            ("media", &["video", "audio", "image"]),
        ] {
            assert_known(kind, codes.iter().copied());
        }
    }

    /// The text of the program's own sources before their tests.
    fn sources() -> Vec<(&'static str, &'static str)> {
        macro_rules! source {
            ($($path:literal),* $(,)?) => { vec![$(($path, include_str!(concat!("../", $path)))),*] };
        }
        let all = source![
            "provenance/aigc.rs",
            "provenance/collect.rs",
            "provenance/encoder.rs",
            "provenance/gif.rs",
            "provenance/jpeg.rs",
            "provenance/mp4.rs",
            "provenance/png.rs",
            "provenance/rhythm.rs",
            "provenance/watermark.rs",
            "provenance/xmp.rs",
            "provenance/c2pa/judge.rs",
            "explicit/rule.rs",
            "engine/job.rs",
            "engine/pictures.rs",
            "engine/watermarks.rs",
            "report/mod.rs",
            "media/mod.rs",
        ];
        all.into_iter()
            .map(|(path, text)| (path, text.split("#[cfg(test)]").next().unwrap()))
            .collect()
    }

    /// String literals that stand right behind one of `before`.
    fn literals_behind(text: &str, before: &[&str]) -> Vec<String> {
        let mut found = Vec::new();
        for before in before {
            for (at, _) in text.match_indices(before) {
                let rest = &text[at + before.len()..];
                found.push(rest.split('"').next().unwrap().to_owned());
            }
        }
        found
    }

    /// Codes are found in the sources where they are written, so that a new one cannot be forgotten.
    #[test]
    fn every_code_in_the_sources_has_words() {
        let (mut deviations, mut systems, mut errors) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for (path, text) in sources() {
            // Some(…) stands for the late places of a container's end.
            deviations.extend(
                literals_behind(
                    text,
                    &["deviations.push(\"", "found.push(\"", "extra.push(\"", "\"misplaced"],
                )
                .into_iter()
                .map(|code| {
                    if code.starts_with("_after") { format!("misplaced{code}") } else { code }
                }),
            );
            if path == "explicit/rule.rs" {
                let codes = text.split("pub fn deviations(").nth(1).unwrap();
                deviations.extend(codes.lines().filter_map(|l| {
                    let l = l.trim();
                    (l.contains("code(") && l.ends_with(';') || l.ends_with("\"),"))
                        .then(|| l.split('"').nth(1).map(str::to_owned))?
                }));
            }
            if path == "provenance/c2pa/judge.rs" {
                deviations.extend(
                    literals_behind(
                        text,
                        &["    \"assertion", "    \"signingCredential", "    \"claimSignature"],
                    )
                    .into_iter()
                    .map(|rest| {
                        let head = ["assertion", "signingCredential", "claimSignature"];
                        head.into_iter()
                            .map(|h| format!("{h}{rest}"))
                            .find(|code| text.contains(&format!("\"{code}\"")))
                            .unwrap()
                    }),
                );
            }
            systems.extend(literals_behind(text, &["system: \""]));
            if path == "media/mod.rs" {
                let codes =
                    text.split("fn code(&self)").nth(1).unwrap().split("\n    }").next().unwrap();
                errors.extend(literals_behind(codes, &["=> \""]));
            }
            if path == "engine/job.rs" {
                errors.extend(literals_behind(text, &["code: \""]));
            }
        }
        deviations.insert("duplicate_label".to_owned());
        assert!(deviations.len() >= 30, "{deviations:?}");
        assert!(deviations.contains("misplaced_after_mdat") && deviations.contains("wording"));
        assert!(deviations.contains("shown_too_short"), "{deviations:?}");
        assert!(systems.len() == 8, "{systems:?}");
        assert!(errors.len() >= 10, "{errors:?}");
        assert_known("deviation", deviations.iter().map(String::as_str));
        assert_known("system", systems.iter().map(String::as_str));
        assert_known("error", errors.iter().map(String::as_str));
        // Of fetching.
        let outbound = include_str!("outbound.rs").split("#[cfg(test)]").next().unwrap();
        let fetch = include_str!("fetch.rs").split("#[cfg(test)]").next().unwrap();
        for text in [outbound, fetch] {
            let codes =
                text.split("fn code(&self)").nth(1).unwrap().split("\n    }").next().unwrap();
            let codes = literals_behind(codes, &["=> \""]);
            assert!(codes.len() >= 7);
            assert_known("error", codes.iter().map(String::as_str));
            let document = include_str!("../../docs/policy.md");
            for code in codes.iter().filter(|code| *code != "internal_error") {
                assert!(document.contains(&format!("`{code}`")), "{code}");
            }
        }
    }

    #[test]
    fn words_are_found_and_filled() {
        assert_eq!(word(Lang::Zh, "action", "block"), "拦截");
        assert_eq!(word(Lang::Zh, "action", "new"), "new");
        assert_eq!(track(Lang::En, "face-12"), "Face 12");
        assert_eq!(track(Lang::Zh, "labels"), "标识");
        assert_eq!(track(Lang::Zh, "odd-1"), "odd-1");
        assert_eq!(
            deviation(Lang::En, "ingredient:claim.missing"),
            "Of a source: C2PA: the claim is missing"
        );
        assert_eq!(deviation(Lang::Zh, "x.y"), "x.y");
        assert_eq!(place(Lang::Zh, "eyes, nose and mouth, left side"), "眼部、鼻部和嘴部、左侧");
        assert_eq!(place(Lang::En, "mouth and chin"), "mouth and chin");
        assert_eq!((Lang::from_tag("zh-Hans-CN"), Lang::from_tag("de")), (Lang::Zh, Lang::En));
        assert_eq!(Lang::accepted("de, zh;q=0.8, en;q=0.5"), Lang::Zh);
        assert_eq!(Lang::accepted("*"), Lang::En);
    }

    #[test]
    fn sentences_are_said_anew() {
        for (text, en, zh) in [
            (
                "review.face-swap >= 0.5: 0.930 at face-1, 12.0 s to 18.0 s",
                "face swap: probability 0.930, from 0.5 on: Review (Face 1, 12.0 to 18.0 s)",
                "换脸：概率 0.930，达到 0.5 即人工复核（人脸 1，12.0 至 18.0 秒）",
            ),
            (
                "face-swap < 0.5: 0.030 at face-2",
                "face swap: probability at most 0.030, below 0.5 (Face 2)",
                "换脸：概率最高 0.030，低于 0.5（人脸 2）",
            ),
            (
                "dispositions.suspected = review: erased_mark at pictures: something: else",
                "labelling duty “suspected”: Review (Something that lay over the picture was erased; \
                 whether it was a label cannot be seen (pictures))",
                "标识处置“疑似”：人工复核（画面上曾有叠加内容被抹除，无法看出是否为标识（pictures））",
            ),
            ("dispositions.none = allow", "labelling duty “none”: Allow", "标识处置“无”：放行"),
            (
                "segments_not_judged = block: face-2, 30.0 s to 45.0 s (face_too_small, too_blurred)",
                "a stretch was not judged: Block (Face 2, 30.0 to 45.0 s: The face is too small in the \
                 picture, The picture is too blurred)",
                "有片段未判断：拦截（人脸 2，30.0 至 45.0 秒：画面中的人脸太小、画面太模糊）",
            ),
            (
                "iptc at xmp@12 says AI, and does not comply",
                "IPTC source type in the metadata at xmp@12: says AI, and departs from the rule",
                "元数据中的 IPTC 来源类型（xmp@12）：表明与 AI 有关，但不符合规定",
            ),
            ("and 135 more", "and 135 more", "另有 135 条"),
            ("something new", "something new", "something new"),
            ("bad.thing = review: x", "bad.thing = review: x", "bad.thing = review: x"),
        ] {
            assert_eq!(line(Lang::En, text), en);
            assert_eq!(line(Lang::Zh, text), zh);
        }
        let text = "3 of 8 crops are unlike what the network knows, 1.37 times the limit away";
        assert_eq!(detail(Lang::En, text), text);
        assert_eq!(
            detail(Lang::Zh, text),
            "8 幅人脸截图中有 3 幅与网络所学差异很大，偏离为界限的 1.37 倍"
        );
        assert_eq!(detail(Lang::Zh, "4 of 9 crops not judged"), "9 幅人脸截图中有 4 幅未判断");
    }

    /// Every line that the policy and the disposition write is recognised.
    #[test]
    fn no_line_of_an_outcome_stays_as_it_is() {
        let policies = Policies::open(None).unwrap();
        let strict = crate::serve::policy::Policy::parse(
            "version = \"1\"\n[default]\nstrip_evidence = { label_bytes_in_free_box = \"block\" }\n\
             [tenants.a]\nsegments_not_judged = \"block\"\n[tenants.b]\nblock = { face-swap = 0.1 }",
            "",
        )
        .unwrap();
        for mut report in samples::all() {
            report.disposition = crate::verdict::disposition::disposition(
                &report.labels,
                &report.strip_evidence,
                &["face-swap found face-1 from 12.0 to 18.0 s with probability 0.93".to_owned()],
                false,
            );
            for outcome in [
                policies.evaluate("x", &report),
                strict.evaluate("x", &report),
                strict.evaluate("a", &report),
                strict.evaluate("b", &report),
            ] {
                for text in &outcome.because {
                    assert_ne!(&line(Lang::Zh, text), text);
                    assert_ne!(&line(Lang::En, text), text);
                }
            }
        }
    }

    #[test]
    fn hostile_text_is_only_text() {
        for text in ["", "{", "}", "{detector}", "review.{x} >= ", ": : : ", &"a: ".repeat(10_000)]
        {
            for lang in Lang::ALL {
                line(lang, text);
                detail(lang, text);
                deviation(lang, text);
                place(lang, text);
            }
        }
        let deep = format!("{}x", "dispositions.none = allow: ".repeat(2_000));
        assert!(line(Lang::Zh, &deep).starts_with("标识处置"));
        let deep = "ingredient:".repeat(5_000);
        assert!(!deviation(Lang::En, &deep).is_empty());
    }
}
