//! Score and key files of one line a file: ASVspoof 2019, 2021 and 5, plain CSV and TSV.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::lines::Lines;
use super::{
    Groups, MAX_NOT_JUDGED, MAX_TRIALS, Names, ReadCode, ReadError, Reading, Trials, short,
};
use crate::bench::metrics::tandem::SasvClass;

/// A benchmark of one line a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Benchmark {
    Asvspoof2019,
    Asvspoof2021La,
    Asvspoof2021Pa,
    Asvspoof2021Df,
    Asvspoof5,
    /// With a header; commas or tabs.
    Csv,
}

/// What is to be read, and how.
#[derive(Debug, Clone)]
pub struct Options {
    pub benchmark: Benchmark,
    pub reading: Reading,
    /// Part of the key that counts; None: all of it.
    pub subset: Option<String>,
    /// Columns of a CSV.
    pub columns: Columns,
    /// What the bootstrap draws: None: speakers where known; `file`: files; else a CSV's column.
    pub groups: Option<String>,
}

/// Names of a CSV's columns.
#[derive(Debug, Clone)]
pub struct Columns {
    /// None: `file`, `path`, `filename` or `name`, whichever is there.
    pub file: Option<String>,
    pub score: String,
    pub label: String,
    /// The label that means fake; None: the field's words for it.
    pub fake_label: Option<String>,
}

impl Default for Columns {
    fn default() -> Self {
        Self { file: None, score: "score".into(), label: "label".into(), fake_label: None }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bench) enum Separator {
    Whitespace,
    Tab,
    Comma,
}

/// Where things stand in a line, counted from 0.
#[derive(Debug, Clone, Copy)]
struct Layout {
    separator: Separator,
    columns: usize,
    file: usize,
    score: Option<usize>,
    label: Option<usize>,
    group: Option<usize>,
    subset: Option<usize>,
}

impl Layout {
    fn plain(columns: usize, file: usize) -> Self {
        let separator = Separator::Whitespace;
        Self { separator, columns, file, score: None, label: None, group: None, subset: None }
    }

    fn key(columns: usize, label: usize, subset: Option<usize>) -> Self {
        Self { label: Some(label), group: Some(0), subset, ..Self::plain(columns, 1) }
    }
}

/// Reads scores, with the truth from `key`, or from the score file itself where it holds it.
///
/// # Errors
///
/// Everything that would make a number mean something else than it says: see [`ReadCode`].
pub fn read(scores: &Path, key: Option<&Path>, options: &Options) -> Result<Trials, ReadError> {
    let key = key.map(|path| Key::read(path, options)).transpose()?;
    let (trials, first_missing) = read_scores(scores, key, options)?;
    trials.check(scores, first_missing)
}

/// What is true of files, where no key file says it.
#[derive(Debug, Clone, Default)]
pub struct Truth {
    /// Where it comes from, for messages.
    pub source: std::path::PathBuf,
    /// Name and whether it is fake; no name twice.
    pub files: Vec<(Box<str>, bool)>,
    /// Names that may have scores and do not count.
    pub outside: HashSet<Box<str>>,
}

/// Reads scores beside a known truth. Unlike [`read`] it takes what one finds: few of the files, one
/// class, one score for all.
///
/// # Errors
///
/// As [`read`] besides those.
pub fn read_beside(scores: &Path, truth: Truth, options: &Options) -> Result<Trials, ReadError> {
    let mut key = Key {
        path: truth.source,
        index: HashMap::new(),
        fake: Vec::new(),
        lines: vec![0; truth.files.len()],
        groups: Vec::new(),
        group_names: Names::default(),
        outside: truth.outside,
    };
    for (at, (name, fake)) in (0..).zip(truth.files) {
        key.index.insert(name, at);
        key.fake.push(fake);
    }
    read_scores(scores, Some(key), options).map(|(trials, _)| trials)
}

/// A key file.
struct Key {
    path: std::path::PathBuf,
    index: HashMap<Box<str>, u32>,
    fake: Vec<bool>,
    lines: Vec<u64>,
    groups: Vec<u32>,
    group_names: Names,
    outside: HashSet<Box<str>>,
}

impl Key {
    fn read(path: &Path, options: &Options) -> Result<Self, ReadError> {
        let mut lines = Lines::open(path)?;
        let mut labels = Labels::new(options);
        let mut key = Self {
            path: path.to_owned(),
            index: HashMap::new(),
            fake: Vec::new(),
            lines: Vec::new(),
            groups: Vec::new(),
            group_names: Names::default(),
            outside: HashSet::new(),
        };
        let mut layout = None;
        while let Some((number, line)) = lines.next()? {
            let layout = match layout {
                Some(layout) => layout,
                None => {
                    let (found, header) = key_layout(line, path, number, options)?;
                    layout = Some(found);
                    if header {
                        continue;
                    }
                    found
                }
            };
            let fields = split(line, layout, path, number)?;
            let file = &fields[layout.file];
            if let (Some(at), Some(wanted)) = (layout.subset, &options.subset)
                && fields[at] != wanted.as_str()
            {
                limit(key.fake.len() + key.outside.len(), path, number)?;
                key.outside.insert(file.as_ref().into());
                continue;
            }
            let label = layout.label.map_or("", |at| fields[at].as_ref());
            let fake = labels.fake(label, path, number)?;
            let at = u32::try_from(key.fake.len()).unwrap_or(u32::MAX);
            if let Some(&before) = key.index.get(file.as_ref()) {
                let first = key.lines[before as usize];
                return Err(duplicate(path, number, file, first));
            }
            limit(key.fake.len() + key.outside.len(), path, number)?;
            key.index.insert(file.as_ref().into(), at);
            key.fake.push(fake);
            key.lines.push(number);
            if let Some(group) = layout.group {
                key.groups.push(key.group_names.number(&fields[group]));
            }
        }
        if key.fake.is_empty() {
            let message = match &options.subset {
                Some(subset) if !key.outside.is_empty() => format!("no file of subset '{subset}'"),
                _ => "no files".to_owned(),
            };
            return Err(ReadError::new(path, None, ReadCode::Empty, message));
        }
        Ok(key)
    }
}

/// Reads a score file beside its key; also what to say where too many files have no score.
fn read_scores(
    path: &Path,
    key: Option<Key>,
    options: &Options,
) -> Result<(Trials, Option<ReadError>), ReadError> {
    let mut lines = Lines::open(path)?;
    let mut labels = Labels::new(options);
    let mut trials = Trials::default();
    // Where a name was seen: with a key, by its number there.
    let mut seen: HashMap<Box<str>, u64> = HashMap::new();
    let mut seen_in_key = vec![0_u64; key.as_ref().map_or(0, |k| k.fake.len())];
    let mut group_names = Names::default();
    let mut groups: Vec<u32> = Vec::new();
    let mut grouped = false;
    let mut first_empty = None;
    let mut layout = None;
    while let Some((number, line)) = lines.next()? {
        let layout = match layout {
            Some(layout) => layout,
            None => {
                let (found, header) = score_layout(line, path, number, key.is_some(), options)?;
                layout = Some(found);
                if header {
                    continue;
                }
                found
            }
        };
        let fields = split(line, layout, path, number)?;
        let file = &fields[layout.file];
        let place = match &key {
            None => None,
            Some(key) => match key.index.get(file.as_ref()) {
                Some(&at) => Some(at as usize),
                None if key.outside.contains(file.as_ref()) => {
                    trials.outside_subset += 1;
                    continue;
                }
                None => {
                    let message =
                        format!("'{}' is not in the key {}", short(file), key.path.display());
                    return Err(ReadError::new(path, number, ReadCode::NotInKey, message));
                }
            },
        };
        limit(trials.scores.len() + trials.not_judged as usize, path, number)?;
        match place {
            Some(at) if seen_in_key[at] != 0 => {
                return Err(duplicate(path, number, file, seen_in_key[at]));
            }
            Some(at) => seen_in_key[at] = number,
            None => {
                if let Some(first) = seen.insert(file.as_ref().into(), number) {
                    return Err(duplicate(path, number, file, first));
                }
            }
        }
        let own = match layout.label {
            Some(at) => Some(labels.read(&fields, at, layout, path, number)?),
            None => None,
        };
        let fake = match (place.and_then(|at| Some(key.as_ref()?.fake[at])), own) {
            (Some(key), Some(own)) if key != own => {
                let class = |fake| if fake { "fake" } else { "real" };
                let message = format!(
                    "'{}' is {} here and {} in the key",
                    short(file),
                    class(own),
                    class(key)
                );
                return Err(ReadError::new(path, number, ReadCode::ConflictingLabel, message));
            }
            (Some(fake), _) | (None, Some(fake)) => fake,
            // `score_layout` gives no layout without a label where there is no key.
            (None, None) => continue,
        };
        let score = layout.score.map_or("", |at| fields[at].as_ref());
        if score.is_empty() && options.benchmark == Benchmark::Csv {
            trials.not_judged += 1;
            first_empty.get_or_insert(number);
            if let Some(at) = place {
                seen_in_key[at] = number;
            }
            continue;
        }
        let column = format!("column {}", layout.score.unwrap_or_default() + 1);
        let score = options
            .reading
            .score(score, path, number, &column)
            .map_err(|e| mixed_up(e, &fields, layout))?;
        trials.names.push(file.as_ref().into());
        trials.scores.push(score);
        trials.fake.push(fake);
        match (&key, place, layout.group) {
            (Some(key), Some(at), _) if !key.groups.is_empty() => {
                grouped = true;
                groups.push(key.groups[at]);
            }
            (_, _, Some(at)) => {
                grouped = true;
                groups.push(group_names.number(&fields[at]));
            }
            _ => {}
        }
    }
    let mut first_missing = first_empty.map(|line| {
        let all = trials.not_judged + trials.scores.len() as u64;
        let message = format!(
            "{} of {all} files have no score, more than {} %; this is the first",
            trials.not_judged,
            MAX_NOT_JUDGED * 100.0
        );
        ReadError::new(path, line, ReadCode::MissingScores, message)
    });
    if let Some(key) = &key {
        let without: Vec<usize> =
            (0..seen_in_key.len()).filter(|&at| seen_in_key[at] == 0).collect();
        trials.not_judged += without.len() as u64;
        if let Some(&first) = without.first() {
            let message = format!(
                "{} of {} files of the key have no score in {}; this line's is the first",
                without.len(),
                seen_in_key.len(),
                path.display()
            );
            let line = key.lines[first];
            first_missing = Some(ReadError::new(&key.path, line, ReadCode::MissingScores, message));
        }
    }
    if grouped && options.groups.as_deref() != Some("file") {
        let kind = match &options.groups {
            Some(column) if options.benchmark == Benchmark::Csv => column.clone(),
            _ => "speaker".to_owned(),
        };
        // Numbered anew: a key's speakers without scores are not drawn.
        let mut used = HashMap::new();
        for group in &mut groups {
            let next = u32::try_from(used.len()).unwrap_or(u32::MAX);
            *group = *used.entry(*group).or_insert(next);
        }
        trials.groups = Some(Groups { kind, of: groups, count: used.len() });
    }
    Ok((trials, first_missing))
}

fn limit(already: usize, path: &Path, line: u64) -> Result<(), ReadError> {
    if already < MAX_TRIALS {
        return Ok(());
    }
    let message = format!("more than {MAX_TRIALS} files");
    Err(ReadError::new(path, line, ReadCode::TooLarge, message))
}

fn duplicate(path: &Path, line: u64, file: &str, first: u64) -> ReadError {
    let message = format!("'{}' was in line {first} already", short(file));
    ReadError::new(path, line, ReadCode::DuplicateFile, message)
}

/// Says so where the score stands in another column.
fn mixed_up(error: ReadError, fields: &[Cow<str>], layout: Layout) -> ReadError {
    let at = layout.score.unwrap_or_default();
    let is_score = |i: usize| fields[i].parse::<f64>().is_ok_and(f64::is_finite);
    match (0..fields.len()).find(|&i| i != at && is_score(i)) {
        Some(other) if error.code == ReadCode::NotANumber => ReadError {
            message: format!(
                "{}, and column {} one ('{}'): columns are mixed up",
                error.message,
                other + 1,
                short(&fields[other])
            ),
            code: ReadCode::MixedUpColumns,
            ..error
        },
        _ => error,
    }
}

/// Splits a line into the layout's columns.
fn split<'a>(
    line: &'a str,
    layout: Layout,
    path: &Path,
    number: u64,
) -> Result<Vec<Cow<'a, str>>, ReadError> {
    let fields = fields(line, layout.separator)
        .map_err(|message| ReadError::new(path, number, ReadCode::WrongColumns, message))?;
    if fields.len() != layout.columns {
        let message = format!("{} columns, {} expected", fields.len(), layout.columns);
        return Err(ReadError::new(path, number, ReadCode::WrongColumns, message));
    }
    Ok(fields)
}

/// Splits a line; quotes as in RFC 4180, without line breaks inside.
pub(in crate::bench) fn fields(
    line: &str,
    separator: Separator,
) -> Result<Vec<Cow<'_, str>>, String> {
    let separator = match separator {
        Separator::Whitespace => {
            return Ok(line.split_ascii_whitespace().map(Cow::Borrowed).collect());
        }
        Separator::Tab => '\t',
        Separator::Comma => ',',
    };
    if !line.contains('"') {
        return Ok(line.split(separator).map(|f| Cow::Borrowed(f.trim())).collect());
    }
    // RFC 4180 without line breaks inside quotes.
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let Some(quoted) = rest.trim_start().strip_prefix('"') else {
            let (field, after) = match rest.split_once(separator) {
                Some((field, after)) => (field, Some(after)),
                None => (rest, None),
            };
            fields.push(Cow::Borrowed(field.trim()));
            match after {
                Some(after) => rest = after,
                None => return Ok(fields),
            }
            continue;
        };
        let mut field = String::new();
        let mut text = quoted;
        let after = loop {
            let Some((inside, after)) = text.split_once('"') else {
                return Err("a quote is not closed".to_owned());
            };
            field.push_str(inside);
            match after.strip_prefix('"') {
                Some(more) => {
                    field.push('"');
                    text = more;
                }
                None => break after.trim_start(),
            }
        };
        fields.push(Cow::Owned(field));
        match after.strip_prefix(separator) {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(fields),
            None => return Err("text after a closing quote".to_owned()),
        }
    }
}

/// The layout of a key, from its first line; true: that line is a header.
fn key_layout(
    line: &str,
    path: &Path,
    number: u64,
    options: &Options,
) -> Result<(Layout, bool), ReadError> {
    let count = line.split_ascii_whitespace().count();
    let layout = match options.benchmark {
        // speaker file - attack key
        Benchmark::Asvspoof2019 => Layout::key(5, 4, None),
        // speaker file codec transmission attack key trim subset
        Benchmark::Asvspoof2021La => Layout::key(8, 5, Some(7)),
        // speaker file, seven conditions, key trim subset
        Benchmark::Asvspoof2021Pa => Layout::key(12, 9, Some(11)),
        // speaker file compression source attack key trim subset vocoder, and four more in full keys
        Benchmark::Asvspoof2021Df => Layout::key(if count == 9 { 9 } else { 13 }, 5, Some(7)),
        Benchmark::Asvspoof5 => {
            if let Some(layout) = headed(line, path, number, "filename", None, Some("cm-label"))? {
                return Ok((layout, true));
            }
            // speaker file gender codec quality seed attack-tag attack key, and a last one unused
            Layout::key(10, 8, None)
        }
        Benchmark::Csv => return csv_layout(line, path, number, options, false, true),
    };
    Ok((layout, false))
}

/// The layout of a score file, from its first line; true: that line is a header.
fn score_layout(
    line: &str,
    path: &Path,
    number: u64,
    has_key: bool,
    options: &Options,
) -> Result<(Layout, bool), ReadError> {
    if options.benchmark == Benchmark::Csv {
        return csv_layout(line, path, number, options, true, !has_key);
    }
    if options.benchmark == Benchmark::Asvspoof5
        && let Some(layout) = headed(line, path, number, "filename", Some("cm-score"), None)?
    {
        return with_truth(layout, has_key, path).map(|layout| (layout, true));
    }
    let layout = match line.split_ascii_whitespace().count() {
        2 => Layout { score: Some(1), ..Layout::plain(2, 0) },
        // file attack key score
        4 if options.benchmark == Benchmark::Asvspoof2019 => {
            Layout { label: Some(2), score: Some(3), ..Layout::plain(4, 0) }
        }
        // speaker file score key
        4 if options.benchmark == Benchmark::Asvspoof5 => {
            Layout { group: Some(0), score: Some(2), label: Some(3), ..Layout::plain(4, 1) }
        }
        other => {
            let known = match options.benchmark {
                Benchmark::Asvspoof2019 => "2 (file score) or 4 (file attack key score)",
                Benchmark::Asvspoof5 => "2 (filename cm-score) or 4 (speaker file score key)",
                _ => "2 (file score)",
            };
            let message = format!("{other} columns, expected are {known}");
            return Err(ReadError::new(path, number, ReadCode::WrongColumns, message));
        }
    };
    with_truth(layout, has_key, path).map(|layout| (layout, false))
}

fn with_truth(layout: Layout, has_key: bool, path: &Path) -> Result<Layout, ReadError> {
    if layout.label.is_some() || has_key {
        return Ok(layout);
    }
    let message = "holds no labels: the key is needed (--key)";
    Err(ReadError::new(path, None, ReadCode::NeedsKey, message))
}

/// The layout of a tab-separated file whose first line is a header that has `file`.
fn headed(
    line: &str,
    path: &Path,
    number: u64,
    file: &str,
    score: Option<&str>,
    label: Option<&str>,
) -> Result<Option<Layout>, ReadError> {
    let separator = if line.contains('\t') { Separator::Tab } else { Separator::Whitespace };
    let names = fields(line, separator)
        .map_err(|message| ReadError::new(path, number, ReadCode::WrongColumns, message))?;
    let Some(file) = names.iter().position(|name| name == file) else {
        return Ok(None);
    };
    let place =
        |name: Option<&str>| name.map(|name| column(&names, name, path, number)).transpose();
    Ok(Some(Layout {
        separator,
        columns: names.len(),
        file,
        score: place(score)?,
        label: place(label)?,
        group: None,
        subset: None,
    }))
}

fn column(names: &[Cow<str>], name: &str, path: &Path, number: u64) -> Result<usize, ReadError> {
    names.iter().position(|found| found == name).ok_or_else(|| {
        let there: Vec<String> = names.iter().map(|n| short(n)).collect();
        let message = format!("no column '{name}'; there are {}", there.join(", "));
        ReadError::new(path, number, ReadCode::MissingColumn, message)
    })
}

fn csv_layout(
    line: &str,
    path: &Path,
    number: u64,
    options: &Options,
    score: bool,
    truth: bool,
) -> Result<(Layout, bool), ReadError> {
    let separator = if line.contains('\t') { Separator::Tab } else { Separator::Comma };
    let names = fields(line, separator)
        .map_err(|message| ReadError::new(path, number, ReadCode::WrongColumns, message))?;
    let columns = &options.columns;
    let file = match &columns.file {
        Some(name) => column(&names, name, path, number)?,
        None => ["file", "path", "filename", "name"]
            .iter()
            .find_map(|known| names.iter().position(|name| name == known))
            .map_or_else(|| column(&names, "file", path, number), Ok)?,
    };
    let score = score.then(|| column(&names, &columns.score, path, number)).transpose()?;
    let found = names.iter().position(|name| *name == columns.label);
    let label = match found {
        None if truth => Some(column(&names, &columns.label, path, number)?),
        found => found,
    };
    // Whoever holds the truth holds the groups.
    let group = match options.groups.as_deref() {
        Some(name) if name != "file" && truth => Some(column(&names, name, path, number)?),
        _ => None,
    };
    let subset = None;
    Ok((Layout { separator, columns: names.len(), file, score, label, group, subset }, true))
}

/// Reads labels.
pub(in crate::bench) struct Labels {
    asvspoof: bool,
    fake: Option<String>,
    /// The one label beside `fake`, and where it was first seen.
    other: Option<(String, u64)>,
}

const FAKE_WORDS: [&str; 5] = ["fake", "spoof", "spoofed", "deepfake", "synthetic"];
const REAL_WORDS: [&str; 5] = ["real", "bonafide", "bona-fide", "genuine", "original"];

impl Labels {
    fn new(options: &Options) -> Self {
        let fake = options.columns.fake_label.clone();
        Self { asvspoof: options.benchmark != Benchmark::Csv, fake, other: None }
    }

    /// ASVspoof's two words.
    pub(in crate::bench) fn asvspoof() -> Self {
        Self { asvspoof: true, fake: None, other: None }
    }

    /// The field's words, or `fake` and any one other.
    pub(in crate::bench) fn words(fake: Option<String>) -> Self {
        Self { asvspoof: false, fake, other: None }
    }

    fn read(
        &mut self,
        fields: &[Cow<str>],
        at: usize,
        layout: Layout,
        path: &Path,
        line: u64,
    ) -> Result<bool, ReadError> {
        self.fake(&fields[at], path, line).map_err(|error| {
            // A label where the score should be says more than the label that is not known.
            let known = |i: &usize| {
                FAKE_WORDS.contains(&fields[*i].as_ref())
                    || REAL_WORDS.contains(&fields[*i].as_ref())
            };
            match (0..fields.len()).filter(|&i| i != at && i != layout.file).find(known) {
                Some(other) => ReadError {
                    code: ReadCode::MixedUpColumns,
                    message: format!(
                        "{}, and column {} holds '{}': columns are mixed up",
                        error.message,
                        other + 1,
                        fields[other]
                    ),
                    ..error
                },
                None => error,
            }
        })
    }

    pub(in crate::bench) fn fake(
        &mut self,
        label: &str,
        path: &Path,
        line: u64,
    ) -> Result<bool, ReadError> {
        let unknown = |expected: String| {
            let message = format!("unknown label '{}', {expected}", short(label));
            Err(ReadError::new(path, line, ReadCode::UnknownLabel, message))
        };
        if self.asvspoof {
            return match label {
                "spoof" => Ok(true),
                "bonafide" => Ok(false),
                _ => unknown("expected are bonafide and spoof".to_owned()),
            };
        }
        if let Some(fake) = &self.fake {
            if label == fake {
                return Ok(true);
            }
            return match &self.other {
                _ if label.is_empty() => unknown("the column is empty".to_owned()),
                Some((other, _)) if other == label => Ok(false),
                Some((other, first)) => unknown(format!(
                    "beside '{fake}' (fake) and '{}' (real, line {first})",
                    short(other)
                )),
                None => {
                    self.other = Some((label.to_owned(), line));
                    Ok(false)
                }
            };
        }
        let lower = label.to_ascii_lowercase();
        if FAKE_WORDS.contains(&lower.as_str()) {
            return Ok(true);
        }
        if REAL_WORDS.contains(&lower.as_str()) {
            return Ok(false);
        }
        unknown(
            "expected is real or fake; --fake-label (in a manifest: fake_label) says which label \
             means fake"
                .to_owned(),
        )
    }
}

/// Scores of a speaker verifier: target, non-target, spoofed trials.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AsvScores {
    pub targets: Vec<f64>,
    pub nontargets: Vec<f64>,
    pub spoofs: Vec<f64>,
}

/// Reads the verifier's scores in the form of ASVspoof 2019: `bonafide-or-attack
/// target|nontarget|spoof score`, three columns.
pub fn read_asv(path: &Path) -> Result<AsvScores, ReadError> {
    let reading = Reading {
        direction: super::Direction::HigherIsFake,
        scale: crate::bench::evaluate::Scale::Raw,
    };
    let layout = Layout { label: Some(1), score: Some(2), ..Layout::plain(3, 0) };
    let mut lines = Lines::open(path)?;
    let mut asv = AsvScores::default();
    let mut count = 0;
    while let Some((number, line)) = lines.next()? {
        let fields = split(line, layout, path, number)?;
        limit(count, path, number)?;
        count += 1;
        let score = reading
            .score(&fields[2], path, number, "column 3")
            .map_err(|e| mixed_up(e, &fields, layout))?;
        match sasv_class(&fields[1], path, number)? {
            SasvClass::Target => asv.targets.push(score),
            SasvClass::Nontarget => asv.nontargets.push(score),
            SasvClass::Spoof => asv.spoofs.push(score),
        }
    }
    for (scores, what) in
        [(&asv.targets, "target"), (&asv.nontargets, "nontarget"), (&asv.spoofs, "spoof")]
    {
        if scores.is_empty() {
            let message = format!("no {what} trials");
            return Err(ReadError::new(path, None, ReadCode::OneClass, message));
        }
    }
    Ok(asv)
}

fn sasv_class(label: &str, path: &Path, line: u64) -> Result<SasvClass, ReadError> {
    match label {
        "target" => Ok(SasvClass::Target),
        "nontarget" => Ok(SasvClass::Nontarget),
        "spoof" => Ok(SasvClass::Spoof),
        _ => {
            let message = format!(
                "unknown label '{}', expected are target, nontarget and spoof",
                short(label)
            );
            Err(ReadError::new(path, line, ReadCode::UnknownLabel, message))
        }
    }
}

/// Trials of spoofing-robust speaker verification.
#[derive(Debug, Clone, Default)]
pub struct SasvScores {
    /// Higher speaks for the target.
    pub scores: Vec<f64>,
    pub classes: Vec<SasvClass>,
    /// Claimed speaker of each.
    pub groups: Groups,
}

/// Reads `speaker file score target|nontarget|spoof`, four columns (github.com/shimhz/a_DCF, ASVspoof
/// 5 track 2). A file may be tried against several speakers.
pub fn read_sasv(path: &Path) -> Result<SasvScores, ReadError> {
    let reading = Reading {
        direction: super::Direction::HigherIsFake,
        scale: crate::bench::evaluate::Scale::Raw,
    };
    let layout = Layout { score: Some(2), label: Some(3), group: Some(0), ..Layout::plain(4, 1) };
    let mut lines = Lines::open(path)?;
    let mut sasv = SasvScores::default();
    let mut speakers = Names::default();
    let mut seen: HashMap<(u32, Box<str>), u64> = HashMap::new();
    while let Some((number, line)) = lines.next()? {
        let fields = split(line, layout, path, number)?;
        limit(sasv.scores.len(), path, number)?;
        let score = reading
            .score(&fields[2], path, number, "column 3")
            .map_err(|e| mixed_up(e, &fields, layout))?;
        let class = sasv_class(&fields[3], path, number)?;
        let speaker = speakers.number(&fields[0]);
        if let Some(first) = seen.insert((speaker, fields[1].as_ref().into()), number) {
            let trial = format!("{} {}", fields[0], fields[1]);
            return Err(duplicate(path, number, &trial, first));
        }
        sasv.scores.push(score);
        sasv.classes.push(class);
        sasv.groups.of.push(speaker);
    }
    if sasv.scores.is_empty() {
        return Err(ReadError::new(path, None, ReadCode::Empty, "no scores"));
    }
    for (class, name) in [
        (SasvClass::Target, "target"),
        (SasvClass::Nontarget, "nontarget"),
        (SasvClass::Spoof, "spoof"),
    ] {
        if !sasv.classes.contains(&class) {
            let message = format!("no {name} trials");
            return Err(ReadError::new(path, None, ReadCode::OneClass, message));
        }
    }
    sasv.groups.kind = "speaker".to_owned();
    sasv.groups.count = speakers.0.len();
    Ok(sasv)
}
