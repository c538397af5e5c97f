//! `SUITE.toml`: which data sets, detectors and degradations. `docs/bench.md` describes it for people.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::degrade::{Degradation, Family};
use super::score_file::PROPOSALS;
use crate::bench::evaluate::Scale;
use crate::bench::files::read_small;
use crate::bench::protocol::Direction;

/// A larger file is no suite.
const MAX_BYTES: u64 = 1 << 20;
/// Cells of a run; more is a mistake in a list of values.
pub const MAX_CELLS: usize = 100_000;

/// What is to be run, as the file says it; paths are resolved against the file's folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    pub name: String,
    /// Of the bootstrap, of drawing files, of noise.
    #[serde(default = "one")]
    pub seed: u64,
    #[serde(default = "thousand")]
    pub rounds: u32,
    #[serde(rename = "dataset")]
    pub data_sets: Vec<DataSetSpec>,
    #[serde(rename = "detector")]
    pub detectors: Vec<DetectorSpec>,
    #[serde(default, rename = "degradation")]
    pub sweeps: Vec<Sweep>,
}

fn one() -> u64 {
    1
}

fn thousand() -> u32 {
    1000
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSetSpec {
    /// None: the manifest's.
    pub name: Option<String>,
    pub manifest: PathBuf,
    pub root: Option<PathBuf>,
    pub split: Option<String>,
    /// Files at most, drawn with the suite's seed: whole groups where they are known.
    pub limit: Option<usize>,
}

/// One of `detector`, `network`, `command` and `scores` says what it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DetectorSpec {
    pub name: Option<String>,
    /// Names of the data sets that it judges; None: all whose kind it can judge.
    pub datasets: Option<Vec<String>>,

    pub detector: Option<String>,
    pub tier: Option<String>,
    pub precision: Option<String>,
    pub fps: Option<f64>,
    pub precropped: Option<bool>,

    pub network: Option<String>,

    pub command: Option<String>,
    /// Seconds that one call may take.
    pub time_limit: Option<f64>,
    /// Files of one call at most.
    pub batch: Option<usize>,
    /// Part of a video that it looks at: which degradations can change what it says.
    pub looks_at: Option<LooksAt>,
    /// Weights and code whose content belongs to the run's fingerprint.
    pub files: Option<Vec<PathBuf>>,
    /// What lines with times are; without it there are none.
    pub times: Option<Times>,

    pub scores: Option<PathBuf>,
    pub protocol: Option<String>,
    /// DeepfakeBench's data set JSON, for score files without labels, and its split.
    pub key: Option<PathBuf>,
    pub subset: Option<String>,
    pub file_column: Option<String>,
    pub score_column: Option<String>,
    pub join: Option<Join>,
    /// Of proposals whose times are counted in frames.
    pub proposal_fps: Option<f64>,

    pub direction: Option<Direction>,
    pub scale: Option<Scale>,
    pub threshold: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LooksAt {
    Pictures,
    Sound,
    Both,
}

/// What a command's lines with times are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Times {
    /// Moments or stretches that were judged, forged or not: a level of their own.
    Windows,
    /// Stretches that are proposed as forged, with their confidence: localisation in time.
    Segments,
}

/// What a score file's names are compared with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Join {
    /// The item's path in its data set.
    #[default]
    Id,
    /// The last part of it.
    FileName,
    /// The last part without what follows its last dot.
    Stem,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sweep {
    pub family: String,
    #[serde(default)]
    pub values: Vec<f64>,
}

/// The four kinds of detector, by the key that says which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Ours,
    Network,
    Command,
    Scores,
}

impl Kind {
    fn key(self) -> &'static str {
        match self {
            Self::Ours => "detector",
            Self::Network => "network",
            Self::Command => "command",
            Self::Scores => "scores",
        }
    }
}

/// A suite that cannot be run: one line that names the file and the place.
#[derive(Debug, thiserror::Error)]
#[error("{}: {message}", .file.display())]
pub struct SuiteError {
    pub file: PathBuf,
    pub message: String,
}

impl Suite {
    /// Reads and checks a suite.
    ///
    /// # Errors
    /// What cannot be read, is no TOML, has an unknown key or a value that has no meaning: with its
    /// place.
    pub fn open(path: &Path) -> Result<Self, SuiteError> {
        let error = |message: String| SuiteError { file: path.to_owned(), message };
        let text = String::from_utf8(read_small(path, MAX_BYTES).map_err(error)?)
            .map_err(|_| error("no UTF-8 text".to_owned()))?;
        let mut suite: Self = toml::from_str(&text).map_err(|e| {
            let line = e.span().map(|s| 1 + text[..s.start.min(text.len())].matches('\n').count());
            let line = line.map_or(String::new(), |l| format!("line {l}: "));
            error(format!("{line}{}", e.message().replace('\n', " ")))
        })?;
        suite.check().map_err(error)?;
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        suite.resolve(folder);
        Ok(suite)
    }

    /// The degradations that the sweeps come to, in their order.
    ///
    /// # Errors
    /// An unknown family, or a value that it does not have: one sentence with the place.
    pub fn degradations(&self) -> Result<Vec<Degradation>, String> {
        let mut all: Vec<Degradation> = Vec::new();
        for (i, sweep) in self.sweeps.iter().enumerate() {
            let place = format!("degradation {}", i + 1);
            let Some(family) = Family::named(&sweep.family) else {
                let known: Vec<&str> = Family::ALL.iter().map(|f| f.name()).collect();
                return Err(format!(
                    "{place}: unknown family '{}'; known are {}",
                    sweep.family,
                    known.join(", ")
                ));
            };
            let found = family.sweep(&sweep.values).map_err(|e| format!("{place}: {e}"))?;
            for one in found {
                if all.contains(&one) {
                    return Err(format!("{place}: {} is there twice", one.name()));
                }
                all.push(one);
            }
        }
        Ok(all)
    }

    fn check(&self) -> Result<(), String> {
        if self.name.trim().is_empty() {
            return Err("`name` is empty".to_owned());
        }
        if self.rounds > 100_000 {
            return Err("`rounds` is over 100,000".to_owned());
        }
        if self.data_sets.is_empty() || self.detectors.is_empty() {
            return Err("a suite needs a [[dataset]] and a [[detector]]".to_owned());
        }
        for (i, set) in self.data_sets.iter().enumerate() {
            if set.limit == Some(0) {
                return Err(format!("dataset {}: `limit` is 0", i + 1));
            }
        }
        let mut names = HashSet::new();
        for (i, detector) in self.detectors.iter().enumerate() {
            let place = format!("detector {}", i + 1);
            detector.check().map_err(|e| format!("{place}: {e}"))?;
            let name = detector.name();
            if !names.insert(name.clone()) {
                return Err(format!("{place}: a second detector of the name '{name}'"));
            }
        }
        self.degradations().map(|_| ())
    }

    fn resolve(&mut self, folder: &Path) {
        for set in &mut self.data_sets {
            set.manifest = folder.join(&set.manifest);
            set.root = set.root.as_ref().map(|root| folder.join(root));
        }
        for detector in &mut self.detectors {
            for path in [&mut detector.scores, &mut detector.key].into_iter().flatten() {
                *path = folder.join(&*path);
            }
            for path in detector.files.iter_mut().flatten() {
                *path = folder.join(&*path);
            }
        }
    }
}

impl DetectorSpec {
    /// What it is; [`Suite::open`] has seen that it is one of the four.
    pub fn kind(&self) -> Kind {
        if self.detector.is_some() {
            Kind::Ours
        } else if self.network.is_some() {
            Kind::Network
        } else if self.command.is_some() {
            Kind::Command
        } else {
            Kind::Scores
        }
    }

    /// Its own, or that of what it is.
    pub fn name(&self) -> String {
        if let Some(name) = &self.name {
            return name.clone();
        }
        let scores = self.scores.as_ref().and_then(|p| Some(p.file_stem()?.to_string_lossy()));
        match (&self.detector, &self.tier, &self.network, &self.command, scores) {
            (Some(detector), Some(tier), ..) => format!("{detector}-{tier}"),
            (Some(name), ..) | (_, _, Some(name), ..) | (_, _, _, Some(name), _) => name.clone(),
            (.., Some(scores)) => scores.into_owned(),
            _ => String::new(),
        }
    }

    fn check(&self) -> Result<(), String> {
        let given = [
            (self.detector.is_some(), Kind::Ours),
            (self.network.is_some(), Kind::Network),
            (self.command.is_some(), Kind::Command),
            (self.scores.is_some(), Kind::Scores),
        ];
        let mut given = given.iter().filter(|(given, _)| *given).map(|(_, kind)| *kind);
        let (Some(kind), None) = (given.next(), given.next()) else {
            return Err("needs exactly one of `detector`, `network`, `command` and `scores`".into());
        };
        use Kind::{Command, Network, Ours, Scores};
        let fits: [(bool, &str, &[Kind]); 19] = [
            (self.tier.is_some(), "tier", &[Ours]),
            (self.precision.is_some(), "precision", &[Ours]),
            (self.fps.is_some(), "fps", &[Ours, Network]),
            (self.precropped.is_some(), "precropped", &[Ours, Network]),
            (self.time_limit.is_some(), "time_limit", &[Command]),
            (self.batch.is_some(), "batch", &[Command]),
            (self.looks_at.is_some(), "looks_at", &[Command]),
            (self.files.is_some(), "files", &[Command]),
            (self.times.is_some(), "times", &[Command]),
            (self.protocol.is_some(), "protocol", &[Scores]),
            (self.key.is_some(), "key", &[Scores]),
            (self.subset.is_some(), "subset", &[Scores]),
            (self.file_column.is_some(), "file_column", &[Scores]),
            (self.score_column.is_some(), "score_column", &[Scores]),
            (self.join.is_some(), "join", &[Scores]),
            (self.proposal_fps.is_some(), "proposal_fps", &[Scores]),
            (self.direction.is_some(), "direction", &[Command, Scores]),
            (self.scale.is_some(), "scale", &[Command, Scores]),
            (self.threshold.is_some(), "threshold", &[Network, Command, Scores]),
        ];
        if let Some((_, key, _)) = fits.iter().find(|(given, _, of)| *given && !of.contains(&kind))
        {
            return Err(format!("`{key}` has no meaning beside `{}`", kind.key()));
        }
        let one_of = |key: &str, value: &Option<String>, known: &[&str]| match value {
            Some(value) if !known.contains(&value.as_str()) => {
                Err(format!("`{key}` is '{value}', known are {}", known.join(", ")))
            }
            _ => Ok(()),
        };
        one_of("detector", &self.detector, &["face-swap", "voice-clone"])?;
        one_of("tier", &self.tier, &["fast", "accurate"])?;
        one_of("precision", &self.precision, &["auto", "f32", "bf16"])?;
        if self.precropped == Some(true) && self.detector.as_deref() == Some("voice-clone") {
            return Err("`precropped` goes with face-swap only".to_owned());
        }
        if self.fps.is_some_and(|fps| !(0.01..=240.0).contains(&fps)) {
            return Err("`fps` is not from 0.01 to 240".to_owned());
        }
        if self.time_limit.is_some_and(|s| !(0.001..=31_536_000.0).contains(&s)) {
            return Err("`time_limit` is not from 0.001 s to a year".to_owned());
        }
        if self.batch.is_some_and(|n| n == 0 || n > 1_000_000) {
            return Err("`batch` is not from 1 to 1,000,000".to_owned());
        }
        if self.threshold.is_some_and(|t| !t.is_finite()) {
            return Err("`threshold` is not finite".to_owned());
        }
        if let Some(command) = &self.command {
            if !command.contains("{list}") {
                return Err("`command` lacks {list}, where the file with the paths goes".to_owned());
            }
            for missing in [
                self.direction.is_none().then_some("direction"),
                self.scale.is_none().then_some("scale"),
            ] {
                needed(missing, "command")?;
            }
        }
        if self.scores.is_some() {
            let proposals = self.proposals();
            for missing in [
                self.protocol.is_none().then_some("protocol"),
                (self.direction.is_none() && !proposals).then_some("direction"),
                (self.scale.is_none() && !proposals).then_some("scale"),
                self.datasets.is_none().then_some("datasets"),
            ] {
                needed(missing, "scores")?;
            }
            one_of("protocol", &self.protocol, &super::score_file::PROTOCOLS)?;
            for (key, given) in [
                ("direction", self.direction.is_some()),
                ("scale", self.scale.is_some()),
                ("threshold", self.threshold.is_some()),
            ] {
                if proposals && given {
                    let why = "proposals have a confidence, and files no score";
                    return Err(format!("`{key}` has no meaning with protocol {PROPOSALS}: {why}"));
                }
            }
            if self.proposal_fps.is_some() && !proposals {
                return Err(format!("`proposal_fps` goes with protocol {PROPOSALS} only"));
            }
            if self.proposal_fps.is_some_and(|fps| !(0.01..=1_000.0).contains(&fps)) {
                return Err("`proposal_fps` is not from 0.01 to 1,000".to_owned());
            }
        }
        Ok(())
    }

    /// Whether it is a file of proposals in time, which has no scores of files.
    pub fn proposals(&self) -> bool {
        self.protocol.as_deref() == Some(PROPOSALS)
    }
}

fn needed(missing: Option<&str>, beside: &str) -> Result<(), String> {
    match missing {
        Some("direction") => Err(format!(
            "`{beside}` needs `direction` (higher-is-fake or higher-is-real): nothing else says which \
             end of a score means fake"
        )),
        Some("scale") => Err(format!("`{beside}` needs `scale` (raw, llr or probability)")),
        Some(key) => Err(format!("`{beside}` needs `{key}`")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETS: &str = "name = 'a'\n[[dataset]]\nmanifest = 'm.toml'\n";

    fn open(text: &str) -> Result<Suite, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.toml");
        std::fs::write(&path, text).unwrap();
        Suite::open(&path).map_err(|e| {
            let message = e.to_string();
            let start = format!("{}: ", path.display());
            assert!(message.starts_with(&start) && !message.contains('\n'), "{message}");
            message[start.len()..].to_owned()
        })
    }

    #[test]
    fn what_a_suite_says_is_read() {
        let text = format!(
            "{SETS}limit = 5\n[[detector]]\ndetector = 'face-swap'\ntier = 'fast'\n[[detector]]\n\
             scores = 's.csv'\nprotocol = 'csv'\ndirection = 'higher-is-real'\nscale = 'raw'\n\
             datasets = ['x']\njoin = 'stem'\n[[degradation]]\nfamily = 'h264'\nvalues = [23, 40]\n\
             [[degradation]]\nfamily = 'telephone'\n"
        );
        let suite = open(&text).unwrap();
        assert_eq!((suite.seed, suite.rounds), (1, 1000));
        assert_eq!(suite.detectors[0].name(), "face-swap-fast");
        assert_eq!(suite.detectors[1].name(), "s");
        assert!(suite.detectors[1].scores.as_ref().unwrap().is_absolute());
        let names: Vec<String> = suite.degradations().unwrap().iter().map(|d| d.name()).collect();
        assert_eq!(names, ["h264-23", "h264-40", "telephone"]);
    }

    #[test]
    fn every_mistake_is_named_with_its_place() {
        let command = "[[detector]]\ncommand = 'x {list}'\n";
        let ours = "[[detector]]\ndetector = 'face-swap'\n";
        let proposals =
            "[[detector]]\nscores = 'x'\nprotocol = 'av-deepfake1m'\ndatasets = ['x']\n";
        for (more, says) in [
            ("nonsense = 1", "line 4: unknown field `nonsense`"),
            ("[[detector]]\ndetektor = 'face-swap'", "line 5: unknown field `detektor`"),
            ("", "missing field `detector`"),
            ("[[detector]]\nname = 'x'", "detector 1: needs exactly one of"),
            ("[[detector]]\ndetector = 'mood'", "detector 1: `detector` is 'mood'"),
            (&format!("{ours}threshold = 0.5"), "`threshold` has no meaning beside `detector`"),
            (&format!("{ours}{ours}"), "detector 2: a second detector of the name 'face-swap'"),
            (&format!("{ours}tier = 'slow'"), "`tier` is 'slow', known are fast, accurate"),
            (&format!("{ours}fps = 0"), "`fps` is not from"),
            ("[[detector]]\ncommand = 'x'", "`command` lacks {list}"),
            (command, "`command` needs `direction`"),
            (&format!("{command}direction = 'higher-is-fake'"), "`command` needs `scale`"),
            (&format!("{command}direction = 'up'"), "line 6: unknown variant `up`"),
            (&format!("{command}batch = 0"), "`batch` is not"),
            (&format!("{command}threshold = nan"), "`threshold` is not finite"),
            ("[[detector]]\nscores = 'x'", "`scores` needs `protocol`"),
            (&format!("{ours}times = 'windows'"), "`times` has no meaning beside `detector`"),
            (&format!("{command}times = 'frames'"), "line 6: unknown variant `frames`"),
            (
                &format!("{proposals}direction = 'higher-is-fake'"),
                "`direction` has no meaning with protocol av-deepfake1m",
            ),
            (&format!("{proposals}proposal_fps = 0"), "`proposal_fps` is not from"),
            (
                &format!("{}proposal_fps = 25", proposals.replace("av-deepfake1m", "csv")),
                "`scores` needs `direction`",
            ),
            (&format!("{ours}[[degradation]]\nfamily = 'rust'"), "degradation 1: unknown family"),
            (
                &format!("{ours}[[degradation]]\nfamily = 'jpeg'"),
                "degradation 1: jpeg needs `values`",
            ),
            (
                &format!("{ours}[[degradation]]\nfamily = 'jpeg'\nvalues = [50, 101]"),
                "degradation 1: jpeg has no value 101: it goes from 1 to 100, whole numbers",
            ),
            (
                &format!("{ours}[[degradation]]\nfamily = 'jpeg'\nvalues = [50, 50]"),
                "degradation 1: jpeg-50 is there twice",
            ),
            (
                &format!("{ours}[[degradation]]\nfamily = 'telephone'\nvalues = [1]"),
                "degradation 1: telephone takes no `values`",
            ),
        ] {
            let error = open(&format!("{SETS}{more}\n")).unwrap_err();
            assert!(error.contains(says), "{more}: {error}");
        }
        assert!(open("name = ").unwrap_err().starts_with("line 1: "));
    }
}
