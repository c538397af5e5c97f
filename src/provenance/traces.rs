//! Traces that generators leave in metadata beside any label: a table of rules, not code.
//!
//! Generators change what they write at any time, so a rule is a row. Every rule asks for what its
//! generator writes and nothing else does; a word in a caption is never enough.

use super::input::cut;

/// Where a piece of text was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    /// PNG tEXt, zTXt or iTXt.
    PngText,
    Exif,
    Xmp,
    /// Tags of a sound or video container.
    Tag,
    /// Bytes after the picture's end.
    Trailer,
}

/// One text with the key that it stands under.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    pub(crate) field: Field,
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) place: String,
}

enum Test {
    Is(&'static str),
    Starts(&'static str),
    /// All of these occur.
    Has(&'static [&'static str]),
    /// Not blank.
    Filled,
    /// 8-4-4-4-12 hexadecimal digits.
    Uuid,
    /// The prefix, then at least 100 characters of base64.
    Base64After(&'static str),
    /// JSON that has this key with one of these values (numbers as text) at any depth.
    Json(&'static str, &'static [&'static str]),
    /// `"key":` followed by a digit other than 0, in bytes that need not be JSON.
    NonZero(&'static str),
}

struct Clause {
    /// None: in any field.
    field: Option<Field>,
    /// None: under any key. Compared without regard to case.
    key: Option<&'static str>,
    test: Test,
}

struct Rule {
    generator: &'static str,
    /// All of them must hold in one file.
    all: &'static [Clause],
}

const fn any(key: &'static str, test: Test) -> Clause {
    Clause { field: None, key: Some(key), test }
}
const fn at(field: Field, key: &'static str, test: Test) -> Clause {
    Clause { field: Some(field), key: Some(key), test }
}
const fn in_field(field: Field, test: Test) -> Clause {
    Clause { field: Some(field), key: None, test }
}

const RULES: &[Rule] = &[
    Rule {
        generator: "Stable Diffusion web UI",
        all: &[at(Field::PngText, "parameters", Test::Has(&["Steps: ", "Sampler: "]))],
    },
    Rule {
        generator: "Stable Diffusion web UI",
        all: &[at(Field::Exif, "UserComment", Test::Has(&["Steps: ", "Sampler: ", "CFG scale: "]))],
    },
    Rule {
        generator: "ComfyUI",
        all: &[any("prompt", Test::Has(&["\"class_type\"", "\"inputs\""]))],
    },
    Rule {
        generator: "ComfyUI",
        all: &[any("workflow", Test::Has(&["\"nodes\"", "\"links\"", "\"last_node_id\""]))],
    },
    Rule {
        generator: "ComfyUI",
        all: &[any("comment", Test::Has(&["\"nodes\"", "\"links\"", "\"last_node_id\""]))],
    },
    Rule { generator: "InvokeAI", all: &[at(Field::PngText, "invokeai_metadata", Test::Filled)] },
    Rule { generator: "NovelAI", all: &[at(Field::PngText, "Software", Test::Is("NovelAI"))] },
    Rule {
        generator: "NovelAI",
        all: &[at(Field::PngText, "Source", Test::Starts("NovelAI Diffusion"))],
    },
    Rule {
        generator: "NovelAI",
        all: &[at(Field::PngText, "Title", Test::Is("NovelAI generated image"))],
    },
    Rule {
        generator: "xAI",
        all: &[
            at(Field::Exif, "Artist", Test::Uuid),
            at(Field::Exif, "ImageDescription", Test::Base64After("Signature: ")),
        ],
    },
    Rule { generator: "Ideogram", all: &[at(Field::Exif, "Make", Test::Is("Ideogram AI"))] },
    Rule {
        generator: "Samsung Galaxy AI",
        all: &[in_field(Field::Trailer, Test::NonZero("genAIType"))],
    },
    Rule {
        generator: "Samsung Galaxy AI",
        all: &[in_field(Field::Exif, Test::NonZero("genAIType"))],
    },
    Rule {
        generator: "ByteDance app",
        all: &[in_field(Field::Exif, Test::Json("aigc_label_type", &["1", "2"]))],
    },
    Rule {
        generator: "ByteDance app",
        all: &[
            in_field(Field::Exif, Test::Json("exportType", &["generation"])),
            in_field(Field::Exif, Test::Has(&["\"product\""])),
        ],
    },
    Rule { generator: "Reve", all: &[any("Software", Test::Has(&["reve.com"]))] },
    Rule { generator: "Reve", all: &[at(Field::Xmp, "CreatorTool", Test::Has(&["reve.com"]))] },
    Rule { generator: "Hugging Face job", all: &[at(Field::PngText, "hf-job-id", Test::Filled)] },
];

/// A generator whose trace is there, with the text that gave it away.
pub(crate) struct Trace<'a> {
    pub(crate) generator: &'static str,
    pub(crate) text: &'a Text,
}

/// Each generator found, once.
pub(crate) fn find(texts: &[Text]) -> Vec<Trace<'_>> {
    let mut found: Vec<Trace<'_>> = Vec::new();
    for rule in RULES {
        if found.iter().any(|t| t.generator == rule.generator) {
            continue;
        }
        let hits: Option<Vec<&Text>> =
            rule.all.iter().map(|clause| texts.iter().find(|text| clause.holds(text))).collect();
        if let Some(text) = hits.and_then(|hits| hits.first().copied()) {
            found.push(Trace { generator: rule.generator, text });
        }
    }
    found
}

impl Clause {
    fn holds(&self, text: &Text) -> bool {
        self.field.is_none_or(|field| field == text.field)
            && self.key.is_none_or(|key| key.eq_ignore_ascii_case(&text.key))
            && self.test.holds(text.value.trim_matches(|c: char| c.is_whitespace() || c == '\0'))
    }
}

impl Test {
    fn holds(&self, value: &str) -> bool {
        match self {
            Self::Is(text) => value.eq_ignore_ascii_case(text),
            Self::Starts(text) => value.starts_with(text),
            Self::Has(parts) => parts.iter().all(|part| value.contains(part)),
            Self::Filled => !value.is_empty(),
            Self::Uuid => is_uuid(value),
            Self::Base64After(prefix) => value.strip_prefix(prefix).is_some_and(|rest| {
                let is_base64 =
                    |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=');
                rest.len() >= 100 && rest.bytes().all(is_base64)
            }),
            Self::Json(key, values) => serde_json::from_str::<serde_json::Value>(value)
                .is_ok_and(|json| json_has(&json, key, values)),
            Self::NonZero(key) => {
                let needle = format!("\"{key}\":");
                value.match_indices(&needle).any(|(at, _)| {
                    let rest = value.get(at + needle.len()..).unwrap_or_default().trim_start();
                    rest.starts_with(|c: char| c.is_ascii_digit() && c != '0')
                })
            }
        }
    }
}

/// `serde_json` bounds the depth.
fn json_has(json: &serde_json::Value, key: &str, values: &[&str]) -> bool {
    match json {
        serde_json::Value::Object(map) => map.iter().any(|(k, v)| {
            let text = v.as_str().map_or_else(|| v.to_string(), str::to_owned);
            (k == key && values.contains(&text.as_str())) || json_has(v, key, values)
        }),
        serde_json::Value::Array(list) => list.iter().any(|v| json_has(v, key, values)),
        _ => false,
    }
}

fn is_uuid(text: &str) -> bool {
    let parts: Vec<&str> = cut(text, 64).split('-').collect();
    text.len() == 36
        && parts.iter().map(|p| p.len()).eq([8, 4, 4, 4, 12])
        && parts.iter().all(|p| p.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(field: Field, key: &str, value: &str) -> Text {
        Text { field, key: key.into(), value: value.into(), place: "here".into() }
    }

    fn generators(texts: &[Text]) -> Vec<&'static str> {
        find(texts).iter().map(|t| t.generator).collect()
    }

    /// Every rule with what its generator writes, and beside it the nearest innocent thing.
    #[test]
    fn each_rule_fires_on_its_generator_and_on_nothing_like_it() {
        use Field::{Exif, PngText, Tag, Trailer, Xmp};
        let signature = format!("Signature: {}", "Ab+/".repeat(40));
        let workflow = r#"{"last_node_id":3,"nodes":[],"links":[]}"#;
        let uuid = "4800156b-8880-4786-9056-7ca3da449d8c";
        type Row<'a> = (&'a str, Vec<(Field, &'a str, &'a str)>, Vec<(Field, &'a str, &'a str)>);
        let rows: Vec<Row<'_>> = vec![
            (
                "Stable Diffusion web UI",
                vec![(PngText, "parameters", "a cat\nSteps: 20, Sampler: Euler a, CFG scale: 7")],
                vec![
                    (PngText, "parameters", "exposure 20"),
                    (PngText, "Comment", "Steps: 20, Sampler: x"),
                ],
            ),
            (
                "Stable Diffusion web UI",
                vec![(Exif, "UserComment", "a cat\nSteps: 20, Sampler: Euler a, CFG scale: 7")],
                vec![(Exif, "UserComment", "Steps: three, then turn left. Sampler: none")],
            ),
            (
                "ComfyUI",
                vec![(PngText, "prompt", r#"{"3":{"class_type":"KSampler","inputs":{}}}"#)],
                vec![(PngText, "prompt", "answer the question")],
            ),
            (
                "ComfyUI",
                vec![(PngText, "workflow", workflow)],
                vec![(PngText, "workflow", "scan, crop")],
            ),
            ("ComfyUI", vec![(Tag, "comment", workflow)], vec![(Tag, "comment", r#"{"nodes":1}"#)]),
            (
                "InvokeAI",
                vec![(PngText, "invokeai_metadata", "{}x")],
                vec![(PngText, "invokeai_metadata", "  ")],
            ),
            (
                "NovelAI",
                vec![(PngText, "Software", "NovelAI")],
                vec![(PngText, "Software", "GIMP"), (PngText, "Comment", "NovelAI")],
            ),
            (
                "NovelAI",
                vec![(PngText, "Source", "NovelAI Diffusion V4 37442FCA")],
                vec![(PngText, "Source", "a novel")],
            ),
            (
                "NovelAI",
                vec![(PngText, "Title", "NovelAI generated image")],
                vec![(PngText, "Title", "generated image")],
            ),
            (
                "xAI",
                vec![(Exif, "Artist", uuid), (Exif, "ImageDescription", &signature)],
                vec![(Exif, "Artist", "Ann Lee"), (Exif, "ImageDescription", &signature)],
            ),
            (
                "xAI",
                vec![(Exif, "Artist", uuid), (Exif, "ImageDescription", &signature)],
                vec![(Exif, "Artist", uuid), (Exif, "ImageDescription", "Signature: of the mayor")],
            ),
            ("Ideogram", vec![(Exif, "Make", "Ideogram AI")], vec![(Exif, "Make", "Canon")]),
            (
                "Samsung Galaxy AI",
                vec![(Trailer, "", r#"x{"genAIType":1}"#)],
                vec![(Trailer, "", r#"{"genAIType":0}"#)],
            ),
            (
                "Samsung Galaxy AI",
                vec![(Exif, "UserComment", r#"{"genAIType": 2}"#)],
                vec![(Exif, "UserComment", "genAIType 2")],
            ),
            (
                "ByteDance app",
                vec![(Exif, "UserComment", r#"{"data":{"aigc_label_type":1}}"#)],
                vec![(Exif, "UserComment", r#"{"data":{"aigc_label_type":0}}"#)],
            ),
            (
                "ByteDance app",
                vec![(Exif, "ImageDescription", r#"{"product":"p","exportType":"generation"}"#)],
                vec![(Exif, "ImageDescription", r#"{"product":"p","exportType":"export"}"#)],
            ),
            ("Reve", vec![(Exif, "Software", "reve.com")], vec![(Exif, "Software", "Reverie")]),
            (
                "Reve",
                vec![(Xmp, "CreatorTool", "reve.com")],
                vec![(Xmp, "CreatorTool", "Lightroom")],
            ),
            (
                "Hugging Face job",
                vec![(PngText, "hf-job-id", "abc")],
                vec![(PngText, "job-id", "abc")],
            ),
        ];
        assert_eq!(rows.len(), RULES.len() + 1, "a rule without its negative");
        for (name, yes, no) in rows {
            let make = |list: &[(Field, &str, &str)]| {
                list.iter().map(|(f, k, v)| text(*f, k, v)).collect::<Vec<_>>()
            };
            assert_eq!(generators(&make(&yes)), [name], "{yes:?}");
            assert!(generators(&make(&no)).is_empty(), "{no:?}");
        }
    }
}
