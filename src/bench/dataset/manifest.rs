//! A data set's manifest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{DatasetError, MediaKind, place, short};
use crate::bench::files::read_small;
use crate::digest;

/// Of the manifest's format.
const SCHEMA: i64 = 1;

/// A longer manifest is none.
const MAX_BYTES: u64 = 1 << 20;

/// How a set's items are found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "layout")]
pub enum Layout {
    /// A table with a row a file.
    Index {
        index: String,
        columns: Columns,
        fake_label: Option<String>,
    },
    /// FaceForensics++: `compression` is the folder's name, one of them, never mixed; without
    /// `methods` all that are there.
    #[serde(rename = "faceforensics")]
    FaceForensics {
        compression: String,
        methods: Option<Vec<String>>,
    },
    #[serde(rename = "celeb-df")]
    CelebDf,
    Dfdc,
    #[serde(rename = "av-deepfake1m")]
    AvDeepfake1m,
    LavDf,
    /// The part of FaceForensics++ with paid actors.
    #[serde(rename = "deepfakedetection")]
    DeepFakeDetection {
        compression: String,
    },
    /// `protocol` and `audio` where the files lie elsewhere than the edition's archives put them.
    Asvspoof {
        edition: Edition,
        protocol: Option<String>,
        audio: Option<String>,
    },
    /// Media inside archives that scripts read: a record of what a network was trained on, which
    /// this program cannot run anything over.
    Archives,
}

impl Layout {
    /// As in manifests.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Index { .. } => "index",
            Self::FaceForensics { .. } => "faceforensics",
            Self::CelebDf => "celeb-df",
            Self::Dfdc => "dfdc",
            Self::AvDeepfake1m => "av-deepfake1m",
            Self::LavDf => "lav-df",
            Self::DeepFakeDetection { .. } => "deepfakedetection",
            Self::Asvspoof { .. } => "asvspoof",
            Self::Archives => "archives",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Edition {
    #[serde(rename = "2019-la")]
    La2019,
    #[serde(rename = "2019-pa")]
    Pa2019,
    #[serde(rename = "2021-la")]
    La2021,
    #[serde(rename = "2021-pa")]
    Pa2021,
    #[serde(rename = "2021-df")]
    Df2021,
    #[serde(rename = "5")]
    Five,
}

/// Names of an index's columns. Those without a name are not read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Columns {
    pub path: String,
    pub label: String,
    pub split: Option<String>,
    pub group: Option<String>,
    pub generator: Option<String>,
    pub sha256: Option<String>,
    pub periods: Option<String>,
}

impl Default for Columns {
    fn default() -> Self {
        Self {
            path: "path".to_owned(),
            label: "label".to_owned(),
            split: None,
            group: None,
            generator: None,
            sha256: None,
            periods: None,
        }
    }
}

/// A file that has to lie under the root as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Relative to the root.
    pub name: String,
    /// Hexadecimal.
    pub sha256: String,
}

/// A data set's manifest, whole and checked.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Manifest {
    #[serde(rename = "manifest")]
    pub path: PathBuf,
    /// Of the manifest's bytes.
    #[serde(rename = "manifest_sha256")]
    pub sha256: String,
    pub name: String,
    pub kind: MediaKind,
    pub source: String,
    pub licence: String,
    pub consent: String,
    #[serde(flatten)]
    pub layout: Layout,
    pub root: Option<PathBuf>,
    /// Name → what is in it.
    pub splits: BTreeMap<String, String>,
    /// Why people are in several splits, where the set is made so.
    pub overlap: Option<String>,
    pub files: Vec<FileRecord>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    schema: Option<i64>,
    name: Option<String>,
    kind: Option<String>,
    source: Option<String>,
    licence: Option<String>,
    consent: Option<String>,
    layout: Option<String>,
    root: Option<PathBuf>,
    splits: Option<BTreeMap<String, String>>,
    overlap: Option<String>,
    #[serde(default)]
    files: Vec<FileRecord>,
    index: Option<String>,
    columns: Option<Columns>,
    fake_label: Option<String>,
    compression: Option<String>,
    methods: Option<Vec<String>>,
    edition: Option<Edition>,
    protocol: Option<String>,
    audio: Option<String>,
    /// Packages that the media come out of; for people.
    packages: Option<toml::Table>,
}

impl Manifest {
    /// Reads a manifest and checks it.
    ///
    /// # Errors
    ///
    /// What cannot be read, is no TOML, or lacks a field or holds one that means nothing; file, line
    /// and field are named.
    pub fn read(path: &Path) -> Result<Self, DatasetError> {
        let wrong = |message: String| DatasetError::new(path, message);
        let bytes = read_small(path, MAX_BYTES).map_err(wrong)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| wrong("no UTF-8 text".to_owned()))?;
        let raw: Raw = toml::from_str(text).map_err(|e| {
            let line = e.span().and_then(|span| {
                let before = bytes.get(..span.start)?;
                Some(before.iter().filter(|b| **b == b'\n').count() as u64 + 1)
            });
            wrong(e.message().replace('\n', "; ")).at(line)
        })?;
        let sha256 = digest::sha256(&bytes);
        raw.checked(path, sha256).map_err(|e| match &e.field {
            // The line where the field stands, where it stands at the start of one.
            Some(field) if e.line.is_none() => {
                let line = text.lines().position(|line| {
                    line.strip_prefix(field.as_str())
                        .is_some_and(|rest| rest.trim_start().starts_with('='))
                });
                e.at(line.map(|l| l as u64 + 1))
            }
            _ => e,
        })
    }

    /// That the manifest has the split.
    pub(super) fn check_split(&self, split: Option<&str>) -> Result<(), DatasetError> {
        match split {
            Some(split) if !self.splits.contains_key(split) => {
                let there: Vec<&str> = self.splits.keys().map(String::as_str).collect();
                let message =
                    format!("no split '{}'; there are {}", short(split), there.join(", "));
                Err(DatasetError::new(&self.path, message).field("splits"))
            }
            _ => Ok(()),
        }
    }
}

impl Raw {
    fn checked(self, path: &Path, sha256: String) -> Result<Manifest, DatasetError> {
        let wrong = |field: &str, message: String| DatasetError::new(path, message).field(field);
        let text = |field: &str, value: Option<String>| match value {
            Some(value) if !value.trim().is_empty() => Ok(value),
            Some(_) => Err(wrong(field, "is empty".to_owned())),
            None => Err(wrong(field, "is missing".to_owned())),
        };
        match self.schema {
            Some(SCHEMA) => {}
            Some(other) => return Err(wrong("schema", format!("{other}, expected is {SCHEMA}"))),
            None => return Err(wrong("schema", "is missing".to_owned())),
        }
        let name = text("name", self.name)?;
        if !plain(&name) {
            return Err(wrong("name", format!("'{}' {NOT_PLAIN}", short(&name))));
        }
        let kind = match text("kind", self.kind)?.as_str() {
            "video" => MediaKind::Video,
            "audio" => MediaKind::Audio,
            "picture" => MediaKind::Picture,
            other => {
                let message = format!("'{}'; video, audio or picture is expected", short(other));
                return Err(wrong("kind", message));
            }
        };
        let source = text("source", self.source)?;
        let licence = text("licence", self.licence)?;
        let consent = text("consent", self.consent)?;
        let splits = self.splits.unwrap_or_default();
        if splits.is_empty() {
            return Err(wrong("splits", "is missing: at least one split is needed".to_owned()));
        }
        if let Some(split) = splits.keys().find(|split| !plain(split)) {
            return Err(wrong("splits", format!("'{}' {NOT_PLAIN}", short(split))));
        }
        for file in &self.files {
            if let Err(why) = place::check(&file.name) {
                return Err(wrong("files", format!("'{}' {why}", short(&file.name))));
            }
            if !is_sha256(&file.sha256) {
                let message = format!("'{}': sha256 is no SHA-256", short(&file.name));
                return Err(wrong("files", message));
            }
        }
        let given = [
            ("index", self.index.is_some(), &["index", "archives"][..]),
            ("columns", self.columns.is_some(), &["index"]),
            ("fake_label", self.fake_label.is_some(), &["index"]),
            ("compression", self.compression.is_some(), &["faceforensics", "deepfakedetection"]),
            ("methods", self.methods.is_some(), &["faceforensics"]),
            ("edition", self.edition.is_some(), &["asvspoof"]),
            ("protocol", self.protocol.is_some(), &["asvspoof"]),
            ("audio", self.audio.is_some(), &["asvspoof"]),
        ];
        let name_of_layout = text("layout", self.layout)?;
        for (field, given, layouts) in given {
            if given && !layouts.contains(&name_of_layout.as_str()) {
                let message = format!("has no meaning with layout '{}'", short(&name_of_layout));
                return Err(wrong(field, message));
            }
        }
        let inside = |field: &str, value: &Option<String>| match value.as_deref().map(place::check)
        {
            Some(Err(why)) => Err(wrong(field, why.to_owned())),
            _ => Ok(()),
        };
        inside("protocol", &self.protocol)?;
        inside("audio", &self.audio)?;
        let layout = match name_of_layout.as_str() {
            "index" => {
                let index = text("index", self.index)?;
                if let Err(why) = place::check(&index) {
                    return Err(wrong("index", why.to_owned()));
                }
                let columns = self.columns.unwrap_or_default();
                if columns.split.is_none() && splits.len() > 1 {
                    let message =
                        "`split` is missing: several splits need a column that says which";
                    return Err(wrong("columns", message.to_owned()));
                }
                Layout::Index { index, columns, fake_label: self.fake_label }
            }
            "faceforensics" | "deepfakedetection" => {
                let compression = text("compression", self.compression)?;
                if !["c0", "c23", "c40", "raw"].contains(&compression.as_str()) {
                    let message =
                        format!("'{}'; c23, c40, raw or c0 is expected", short(&compression));
                    return Err(wrong("compression", message));
                }
                if let Some(methods) = &self.methods
                    && (methods.is_empty() || methods.iter().any(|m| !plain(m)))
                {
                    return Err(wrong("methods", "folders' names are expected".to_owned()));
                }
                if name_of_layout == "faceforensics" {
                    Layout::FaceForensics { compression, methods: self.methods }
                } else {
                    Layout::DeepFakeDetection { compression }
                }
            }
            "celeb-df" => Layout::CelebDf,
            "dfdc" => Layout::Dfdc,
            "av-deepfake1m" => Layout::AvDeepfake1m,
            "lav-df" => Layout::LavDf,
            "asvspoof" => {
                let Some(edition) = self.edition else {
                    let message = "is missing: 2019-la, 2019-pa, 2021-la, 2021-pa, 2021-df or 5";
                    return Err(wrong("edition", message.to_owned()));
                };
                if splits.len() > 1
                    && matches!(edition, Edition::La2019 | Edition::Pa2019 | Edition::Five)
                    && (self.protocol.is_some() || self.audio.is_some())
                {
                    let field = if self.protocol.is_some() { "protocol" } else { "audio" };
                    let message =
                        "names one place, and there are several splits: one manifest each";
                    return Err(wrong(field, message.to_owned()));
                }
                Layout::Asvspoof { edition, protocol: self.protocol, audio: self.audio }
            }
            "archives" => Layout::Archives,
            other => {
                let message = format!(
                    "'{}'; index, faceforensics, deepfakedetection, celeb-df, dfdc, av-deepfake1m, \
                     lav-df, asvspoof or archives is expected",
                    short(other)
                );
                return Err(wrong("layout", message));
            }
        };
        let fits = match layout {
            Layout::Index { .. } | Layout::Archives => true,
            Layout::Asvspoof { .. } => kind == MediaKind::Audio,
            _ => kind == MediaKind::Video,
        };
        if !fits {
            let message = format!("layout '{}' holds no {}", layout.name(), kind.name());
            return Err(wrong("kind", message));
        }
        if self.packages.is_some() && layout != Layout::Archives {
            return Err(wrong("packages", "belongs to layout archives".to_owned()));
        }
        Ok(Manifest {
            path: path.to_owned(),
            sha256,
            name,
            kind,
            source,
            licence,
            consent,
            layout,
            root: self.root,
            splits,
            overlap: self.overlap.filter(|why| !why.trim().is_empty()),
            files: self.files,
        })
    }
}

const NOT_PLAIN: &str =
    "is no name: letters, digits, '-', '_', '.' and '+' are, 64 of them at most";

fn plain(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.+".contains(&b))
}

pub(super) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}
