//! Score and key files of the field's benchmarks. One line at a time, with limits; what is wrong is
//! named with file and line.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::evaluate::Scale;
use super::files::shown;
use super::metrics::bootstrap::Units;

pub mod av_deepfake1m;
pub mod deepfakebench;
pub(in crate::bench) mod lines;
pub mod table;

/// Files in one score file. Beyond it is an error, not a machine without memory.
pub const MAX_TRIALS: usize = 20_000_000;

/// More of the files without a score than this share is an error: what is left is another set.
pub const MAX_NOT_JUDGED: f64 = 0.05;

/// What is wrong with a file. The codes are part of the program's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ReadCode {
    Unreadable,
    TooLarge,
    Empty,
    BadJson,
    MissingColumn,
    WrongColumns,
    MixedUpColumns,
    NotANumber,
    NotFinite,
    NotAProbability,
    UnknownLabel,
    ConflictingLabel,
    DuplicateFile,
    NotInKey,
    MissingScores,
    NeedsKey,
    OneClass,
    ConstantScore,
}

impl ReadCode {
    /// As in JSON.
    fn name(self) -> String {
        let json = serde_json::to_value(self).ok();
        json.and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
    }
}

/// A file that cannot be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{}: {message} [{}]", .file.display(), .line.map_or(String::new(), |l| format!(":{l}")), .code.name())]
pub struct ReadError {
    pub file: PathBuf,
    /// From 1.
    pub line: Option<u64>,
    pub code: ReadCode,
    pub message: String,
}

impl ReadError {
    pub(crate) fn new(
        file: &Path,
        line: impl Into<Option<u64>>,
        code: ReadCode,
        message: impl Into<String>,
    ) -> Self {
        Self { file: file.to_owned(), line: line.into(), code, message: message.into() }
    }
}

/// Which end of a score means fake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    HigherIsFake,
    HigherIsReal,
}

/// How the scores of a file are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    pub direction: Direction,
    pub scale: Scale,
}

impl Reading {
    /// The file's score → higher means fake. Its own inverse.
    pub fn turn(self, score: f64) -> f64 {
        match (self.direction, self.scale) {
            (Direction::HigherIsFake, _) => score,
            (Direction::HigherIsReal, Scale::Probability) => 1.0 - score,
            (Direction::HigherIsReal, _) => -score,
        }
    }

    /// Reads a score; `column` says where it stood.
    fn score(self, text: &str, file: &Path, line: u64, column: &str) -> Result<f64, ReadError> {
        let error = |code, message: String| Err(ReadError::new(file, line, code, message));
        let Ok(score) = text.parse::<f64>() else {
            return error(
                ReadCode::NotANumber,
                format!("{column} holds '{}', no number", short(text)),
            );
        };
        self.checked(score, file, line)
    }

    fn checked(
        self,
        score: f64,
        file: &Path,
        line: impl Into<Option<u64>>,
    ) -> Result<f64, ReadError> {
        if !score.is_finite() {
            let message = format!("the score is {score}");
            return Err(ReadError::new(file, line, ReadCode::NotFinite, message));
        }
        if self.scale == Scale::Probability && !(0.0..=1.0).contains(&score) {
            let message = format!("the score {score} is no probability");
            return Err(ReadError::new(file, line, ReadCode::NotAProbability, message));
        }
        Ok(self.turn(score))
    }
}

/// A detector's scores beside the truth.
#[derive(Debug, Clone, Default)]
pub struct Trials {
    pub names: Vec<Box<str>>,
    /// Higher means fake.
    pub scores: Vec<f64>,
    pub fake: Vec<bool>,
    /// Speaker, identity or video of each, where known.
    pub groups: Option<Groups>,
    /// Files that have no score.
    pub not_judged: u64,
    /// Files that have a score and do not belong to the subset.
    pub outside_subset: u64,
}

/// Which trials belong together.
#[derive(Debug, Clone, Default)]
pub struct Groups {
    /// What they are: speaker, video, or the column's name.
    pub kind: String,
    pub of: Vec<u32>,
    pub count: usize,
}

impl Trials {
    /// What a bootstrap draws, and its name: groups where they are known, else single files.
    pub fn units(&self) -> (Units, &str) {
        match &self.groups {
            Some(groups) => {
                let units = Units::Groups { of: groups.of.clone(), count: groups.count };
                (units, &groups.kind)
            }
            None => (Units::Trials(self.scores.len()), "file"),
        }
    }

    /// What holds of all of them: both classes, two different scores, nearly all judged.
    fn check(self, file: &Path, first_missing: Option<ReadError>) -> Result<Self, ReadError> {
        let n = self.scores.len();
        let error = |code, message: String| Err(ReadError::new(file, None, code, message));
        if n == 0 {
            return error(ReadCode::Empty, "no scores".to_owned());
        }
        let share = self.not_judged as f64 / (self.not_judged as f64 + n as f64);
        if share > MAX_NOT_JUDGED {
            return Err(first_missing.unwrap_or_else(|| {
                let message = format!(
                    "{} of {} files have no score",
                    self.not_judged,
                    self.not_judged + n as u64
                );
                ReadError::new(file, None, ReadCode::MissingScores, message)
            }));
        }
        let fakes = self.fake.iter().filter(|&&f| f).count();
        if fakes == 0 || fakes == n {
            let class = if fakes == 0 { "real" } else { "fake" };
            let message = format!("all {n} files are {class}: nothing can be told apart");
            return error(ReadCode::OneClass, message);
        }
        if self.scores.iter().all(|s| *s == self.scores[0]) {
            let message = format!("all {n} files have the same score");
            return error(ReadCode::ConstantScore, message);
        }
        Ok(self)
    }
}

/// Numbers names in the order they come.
#[derive(Debug, Default)]
struct Names(HashMap<Box<str>, u32>);

impl Names {
    fn number(&mut self, name: &str) -> u32 {
        if let Some(&known) = self.0.get(name) {
            return known;
        }
        // MAX_TRIALS bounds them.
        let number = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0.insert(name.into(), number);
        number
    }
}

/// Text from a file, short enough for a message.
pub(crate) fn short(text: &str) -> String {
    shown(text, 40)
}
