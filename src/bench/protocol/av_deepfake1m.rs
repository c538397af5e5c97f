//! AV-Deepfake1M: proposals in time as JSON, with the data set's metadata as key.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::deepfakebench::parse;
use super::{Groups, MAX_NOT_JUDGED, MAX_TRIALS, Names, ReadCode, ReadError, short};
use crate::bench::metrics::localization::{Located, Proposal};

/// Proposals of one file that are kept; AR@N looks at 50, AP at all.
const MAX_PROPOSALS: usize = 10_000;

/// What was found in time.
#[derive(Debug, Clone, Default)]
pub struct Localized {
    pub files: Vec<Located>,
    /// Identity of each, where paths name one.
    pub groups: Option<Groups>,
    pub not_judged: u64,
    /// Files whose proposals did not come by falling confidence and were sorted.
    pub unsorted: u64,
    /// Files with forged stretches and an empty list of proposals.
    pub empty: u64,
}

/// Reads `{"file": [[confidence, start, end], …], …}`, times in units of 1 / `fps` s, and the data
/// set's metadata, `[{"file": …, "fake_segments": [[start, end], …], …}, …]` in seconds
/// (`fake_periods` in older sets). Files are grouped by identity where all their paths have a folder
/// `id` and digits, as VoxCeleb names people.
pub fn read(proposals: &Path, key: &Path, fps: f32) -> Result<Localized, ReadError> {
    let metadata = parse(key, MetadataSeed)?;
    let mut index: HashMap<&str, usize> = HashMap::with_capacity(metadata.len());
    for (i, meta) in metadata.iter().enumerate() {
        if index.insert(&meta.file, i).is_some() {
            let message = format!("'{}' is there twice", short(&meta.file));
            return Err(ReadError::new(key, None, ReadCode::DuplicateFile, message));
        }
    }
    if metadata.is_empty() {
        return Err(ReadError::new(key, None, ReadCode::Empty, "no files"));
    }
    let mut found: Vec<Option<Vec<Proposal>>> = vec![None; metadata.len()];
    for (file, rows) in self::proposals(proposals, fps)? {
        let Some(&at) = index.get(file.as_str()) else {
            let message = format!("'{}' is not in the key {}", short(&file), key.display());
            return Err(ReadError::new(proposals, None, ReadCode::NotInKey, message));
        };
        if found[at].replace(rows).is_some() {
            let message = format!("'{}' is there twice", short(&file));
            return Err(ReadError::new(proposals, None, ReadCode::DuplicateFile, message));
        }
    }
    let missing = found.iter().filter(|f| f.is_none()).count();
    if missing as f64 > MAX_NOT_JUDGED * metadata.len() as f64 {
        let first = found.iter().position(Option::is_none).unwrap_or_default();
        let message = format!(
            "{missing} of {} files of the key are not there, the first is '{}'",
            metadata.len(),
            short(&metadata[first].file)
        );
        return Err(ReadError::new(proposals, None, ReadCode::MissingScores, message));
    }
    let mut localized = Localized { not_judged: missing as u64, ..Localized::default() };
    let mut identities = Names::default();
    let mut groups: Option<Vec<u32>> = Some(Vec::new());
    for (meta, rows) in metadata.into_iter().zip(found) {
        let Some(mut proposals) = rows else { continue };
        if !proposals.is_sorted_by(|a, b| a.confidence >= b.confidence) {
            localized.unsorted += 1;
            proposals.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
        }
        localized.empty += u64::from(proposals.is_empty() && !meta.segments.is_empty());
        groups = match (groups, identity(&meta.file)) {
            (Some(mut groups), Some(identity)) => {
                groups.push(identities.number(identity));
                Some(groups)
            }
            _ => None,
        };
        localized.files.push(Located { truth: meta.segments, proposals });
    }
    localized.groups =
        groups.map(|of| Groups { kind: "identity".to_owned(), of, count: identities.0.len() });
    Ok(localized)
}

/// Proposals of each file, in the file's order; times in units of 1 / `fps` s become seconds.
pub(in crate::bench) fn proposals(
    path: &Path,
    fps: f32,
) -> Result<Vec<(String, Vec<Proposal>)>, ReadError> {
    let seconds =
        |Row(confidence, start, end)| Proposal { confidence, start: start / fps, end: end / fps };
    let files = parse(path, ProposalsSeed)?;
    Ok(files
        .into_iter()
        .map(|(file, rows)| (file, rows.into_iter().map(seconds).collect()))
        .collect())
}

pub(in crate::bench) fn identity(file: &str) -> Option<&str> {
    file.split(['/', '\\']).find(|folder| {
        folder
            .strip_prefix("id")
            .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
    })
}

struct Metadata {
    file: String,
    segments: Vec<(f32, f32)>,
}

#[derive(Deserialize)]
struct RawMetadata {
    file: String,
    #[serde(alias = "fake_periods")]
    fake_segments: Vec<(f64, f64)>,
}

struct MetadataSeed;

impl<'de> DeserializeSeed<'de> for MetadataSeed {
    type Value = Vec<Metadata>;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Self::Value, D::Error> {
        d.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for MetadataSeed {
    type Value = Vec<Metadata>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an array of objects with file and fake_segments")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some(RawMetadata { file, fake_segments }) = seq.next_element()? {
            if all.len() == MAX_TRIALS {
                return Err(de::Error::custom(format!("more than {MAX_TRIALS} files")));
            }
            for &(start, end) in &fake_segments {
                if !(start.is_finite() && end.is_finite() && start < end) {
                    let message = format!("'{}': no stretch from {start} to {end} s", short(&file));
                    return Err(de::Error::custom(message));
                }
            }
            let segments = fake_segments.iter().map(|&(a, b)| (a as f32, b as f32)).collect();
            all.push(Metadata { file, segments });
        }
        Ok(all)
    }
}

struct ProposalsSeed;

impl<'de> DeserializeSeed<'de> for ProposalsSeed {
    type Value = Vec<(String, Vec<Row>)>;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Self::Value, D::Error> {
        d.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ProposalsSeed {
    type Value = Vec<(String, Vec<Row>)>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object of files and their proposals [confidence, start, end]")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some((file, rows)) = map.next_entry::<String, Vec<Row>>()? {
            if all.len() == MAX_TRIALS {
                return Err(de::Error::custom(format!("more than {MAX_TRIALS} files")));
            }
            if rows.len() > MAX_PROPOSALS {
                let message = format!("'{}' has {} proposals", short(&file), rows.len());
                return Err(de::Error::custom(message));
            }
            for &Row(confidence, start, end) in &rows {
                let finite = confidence.is_finite() && start.is_finite() && end.is_finite();
                if !finite || start > end {
                    let message = format!(
                        "'{}': [{confidence}, {start}, {end}] is no proposal \
                         [confidence, start, end]",
                        short(&file)
                    );
                    return Err(de::Error::custom(message));
                }
            }
            all.push((file, rows));
        }
        Ok(all)
    }
}

/// Confidence, start, end, in single precision like the package reads them.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Row(f32, f32, f32);
