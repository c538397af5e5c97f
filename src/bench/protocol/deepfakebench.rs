//! DeepfakeBench: frame scores as JSON, with its data set JSON as key.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{Groups, MAX_TRIALS, Names, ReadCode, ReadError, Reading, Trials, lines, short};

/// Levels of nesting in a data set's JSON: data set, label, split, compression, video.
const MAX_DEPTH: usize = 16;

/// Reads frame scores. Without a key: `{"pred": […], "label": […], "image": […]}`, what DeepfakeBench's
/// `get_test_metrics` takes (1: fake). With one: `{"frame path": score, …}`, and the key is a data
/// set's JSON as `preprocessing/rearrange.py` writes it, of which the frames of the split `split` count.
///
/// Trials are frames; their groups are videos: the folder that a frame lies in.
pub fn read(
    scores: &Path,
    key: Option<&Path>,
    split: &str,
    reading: Reading,
) -> Result<Trials, ReadError> {
    let (trials, first_missing) = frames(scores, key, split, reading)?;
    trials.check(scores, first_missing)
}

/// The same without asking whether anything can be told apart by them; also what to say where too
/// many videos have no score.
///
/// # Errors
///
/// As [`read`] besides that.
pub fn frames(
    scores: &Path,
    key: Option<&Path>,
    split: &str,
    reading: Reading,
) -> Result<(Trials, Option<ReadError>), ReadError> {
    let file: ScoreFile = parse(scores, ScoreSeed)?;
    let (rows, key) = match (file, key) {
        (ScoreFile::Arrays { pred, label, image }, None) => {
            let rows = arrays(scores, pred, label, image)?;
            (rows, None)
        }
        (ScoreFile::Map(map), Some(path)) => {
            let key = read_key(path, split)?;
            let mut rows = Vec::with_capacity(map.len());
            for (frame, score) in map {
                let Some(&(fake, _)) = key.frames.get(frame.as_ref()) else {
                    let message = format!(
                        "'{}' is not among the frames of split '{split}' in {}",
                        short(&frame),
                        path.display()
                    );
                    return Err(ReadError::new(scores, None, ReadCode::NotInKey, message));
                };
                rows.push((frame, score, fake));
            }
            (rows, Some((path, key)))
        }
        (ScoreFile::Arrays { .. }, Some(_)) => {
            let message = "holds its own labels: it takes no key";
            return Err(ReadError::new(scores, None, ReadCode::WrongColumns, message));
        }
        (ScoreFile::Map(_), None) => {
            let message = "holds no labels: the data set's JSON is needed (--key)";
            return Err(ReadError::new(scores, None, ReadCode::NeedsKey, message));
        }
    };
    let mut trials = Trials::default();
    let mut videos = Names::default();
    let mut groups = Groups { kind: "video".to_owned(), ..Groups::default() };
    let mut seen: HashMap<Box<str>, ()> = HashMap::new();
    let mut truth: Vec<bool> = Vec::new();
    for (frame, score, fake) in rows {
        let Some(video) = video(&frame) else {
            let message = format!("'{}' names no folder: its video is not known", short(&frame));
            return Err(ReadError::new(scores, None, ReadCode::WrongColumns, message));
        };
        let group = videos.number(video);
        match truth.get(group as usize) {
            None => truth.push(fake),
            Some(&before) if before != fake => {
                let message = format!("video '{}' has frames of both labels", short(video));
                return Err(ReadError::new(scores, None, ReadCode::ConflictingLabel, message));
            }
            Some(_) => {}
        }
        if seen.insert(frame.clone(), ()).is_some() {
            let message = format!("'{}' is there twice", short(&frame));
            return Err(ReadError::new(scores, None, ReadCode::DuplicateFile, message));
        }
        trials.scores.push(reading.checked(score, scores, None).map_err(|e| ReadError {
            message: format!("'{}': {}", short(&frame), e.message),
            ..e
        })?);
        trials.names.push(frame);
        trials.fake.push(fake);
        groups.of.push(group);
    }
    groups.count = truth.len();
    let mut first_missing = None;
    if let Some((path, key)) = key {
        // Only some frames of a video are scored by design; a video without any was not judged.
        let mut without: Vec<&str> =
            key.videos.iter().map(AsRef::as_ref).filter(|v| !videos.0.contains_key(*v)).collect();
        without.sort_unstable();
        if let Some(first) = without.first() {
            let share = without.len() as f64 / key.videos.len() as f64;
            if share > super::MAX_NOT_JUDGED {
                let message = format!(
                    "{} of {} videos have no score in {}, the first is '{}'",
                    without.len(),
                    key.videos.len(),
                    scores.display(),
                    short(first)
                );
                return Err(ReadError::new(path, None, ReadCode::MissingScores, message));
            }
            let message = "videos without scores";
            first_missing = Some(ReadError::new(path, None, ReadCode::MissingScores, message));
            trials.not_judged = without.len() as u64;
        }
    }
    trials.groups = Some(groups);
    Ok((trials, first_missing))
}

/// Pools frames: a video's score is the mean of its frames', as in DeepfakeBench.
pub fn videos(frames: &Trials) -> Trials {
    let Some(groups) = &frames.groups else { return frames.clone() };
    let mut sums = vec![(0.0, 0_u64, false); groups.count];
    let mut names: Vec<Box<str>> = vec!["".into(); groups.count];
    for (i, &group) in groups.of.iter().enumerate() {
        let sum = &mut sums[group as usize];
        sum.0 += frames.scores[i];
        sum.1 += 1;
        sum.2 = frames.fake[i];
        let name = &mut names[group as usize];
        if name.is_empty() {
            *name = video(&frames.names[i]).unwrap_or_default().into();
        }
    }
    Trials {
        names,
        scores: sums.iter().map(|(sum, count, _)| sum / *count as f64).collect(),
        fake: sums.iter().map(|(.., fake)| *fake).collect(),
        groups: None,
        not_judged: frames.not_judged,
        outside_subset: 0,
    }
}

/// The folder that a frame lies in, by its whole path: two data sets may have videos of one name.
pub(crate) fn video(frame: &str) -> Option<&str> {
    let (folder, _) = frame.rsplit_once(['/', '\\'])?;
    (!folder.is_empty()).then_some(folder)
}

fn arrays(
    path: &Path,
    pred: Vec<f64>,
    label: Vec<u64>,
    image: Vec<Box<str>>,
) -> Result<Vec<(Box<str>, f64, bool)>, ReadError> {
    if pred.len() != label.len() || pred.len() != image.len() {
        let message =
            format!("pred has {} values, label {}, image {}", pred.len(), label.len(), image.len());
        return Err(ReadError::new(path, None, ReadCode::WrongColumns, message));
    }
    image
        .into_iter()
        .zip(pred)
        .zip(label)
        .map(|((image, score), label)| match label {
            0 | 1 => Ok((image, score, label == 1)),
            _ => {
                let message =
                    format!("unknown label {label} of '{}', expected are 0 and 1", short(&image));
                Err(ReadError::new(path, None, ReadCode::UnknownLabel, message))
            }
        })
        .collect()
}

/// Reads a JSON file as a stream; errors carry its line.
pub(super) fn parse<T, S>(path: &Path, seed: S) -> Result<T, ReadError>
where
    S: for<'de> DeserializeSeed<'de, Value = T>,
{
    let mut json = serde_json::Deserializer::from_reader(lines::open(path)?);
    let value = seed.deserialize(&mut json).and_then(|value| json.end().map(|()| value));
    value.map_err(|e| {
        let line = (e.line() > 0).then_some(e.line() as u64);
        let code = if e.is_io() { ReadCode::Unreadable } else { ReadCode::BadJson };
        ReadError::new(path, line, code, e.to_string())
    })
}

enum ScoreFile {
    Arrays { pred: Vec<f64>, label: Vec<u64>, image: Vec<Box<str>> },
    Map(Vec<(Box<str>, f64)>),
}

struct ScoreSeed;

impl<'de> DeserializeSeed<'de> for ScoreSeed {
    type Value = ScoreFile;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<ScoreFile, D::Error> {
        d.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ScoreSeed {
    type Value = ScoreFile;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object of frames and scores, or of the arrays pred, label and image")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ScoreFile, A::Error> {
        let (mut pred, mut label, mut image) = (None, None, None);
        let mut frames = Vec::new();
        while let Some(key) = map.next_key::<Box<str>>()? {
            match key.as_ref() {
                "pred" => pred = Some(map.next_value_seed(Array::default())?),
                "label" => label = Some(map.next_value_seed(Array::default())?),
                "image" | "img_names" => image = Some(map.next_value_seed(Array::default())?),
                // A frame's path has a folder; metrics that were saved beside the arrays have none.
                _ if video(&key).is_none() => {
                    map.next_value::<de::IgnoredAny>()?;
                }
                _ => {
                    if frames.len() == MAX_TRIALS {
                        return Err(de::Error::custom(format!("more than {MAX_TRIALS} frames")));
                    }
                    let score = map.next_value::<f64>()?;
                    frames.push((key, score));
                }
            }
        }
        match (pred, label, image) {
            (Some(pred), Some(label), Some(image)) => Ok(ScoreFile::Arrays { pred, label, image }),
            (None, None, None) => Ok(ScoreFile::Map(frames)),
            _ => Err(de::Error::custom("of pred, label and image one is missing")),
        }
    }
}

/// An array with a limit on its length.
struct Array<T>(std::marker::PhantomData<T>);

impl<T> Default for Array<T> {
    fn default() -> Self {
        Self(std::marker::PhantomData)
    }
}

impl<'de, T: de::Deserialize<'de>> DeserializeSeed<'de> for Array<T> {
    type Value = Vec<T>;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Vec<T>, D::Error> {
        d.deserialize_seq(self)
    }
}

impl<'de, T: de::Deserialize<'de>> Visitor<'de> for Array<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element()? {
            if values.len() == MAX_TRIALS {
                return Err(de::Error::custom(format!("more than {MAX_TRIALS} values")));
            }
            values.push(value);
        }
        Ok(values)
    }
}

/// Frames of a split, whether they are fake, and their videos.
struct KeyFile {
    frames: HashMap<Box<str>, (bool, ())>,
    videos: std::collections::HashSet<Box<str>>,
}

fn read_key(path: &Path, split: &str) -> Result<KeyFile, ReadError> {
    let mut key = KeyFile { frames: HashMap::new(), videos: std::collections::HashSet::new() };
    let seed = Node { key: &mut key, split, inside: false, depth: 0 };
    let mut json = serde_json::Deserializer::from_reader(lines::open(path)?);
    seed.deserialize(&mut json).and_then(|_| json.end()).map_err(|e| {
        let line = (e.line() > 0).then_some(e.line() as u64);
        let text = e.to_string();
        let code = match () {
            () if e.is_io() => ReadCode::Unreadable,
            () if text.starts_with("unknown label") => ReadCode::UnknownLabel,
            () if text.contains("both labels") => ReadCode::ConflictingLabel,
            () => ReadCode::BadJson,
        };
        ReadError::new(path, line, code, text)
    })?;
    if key.frames.is_empty() {
        let message = format!("no frames in split '{split}'");
        return Err(ReadError::new(path, None, ReadCode::Empty, message));
    }
    Ok(key)
}

/// One object of the data set's tree; a video is one that has a label and frames.
struct Node<'a> {
    key: &'a mut KeyFile,
    split: &'a str,
    /// Below the split that counts.
    inside: bool,
    depth: usize,
}

/// What stands under a name.
enum Value {
    Nothing,
    Text(String),
    Texts(Vec<Box<str>>),
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a data set's tree of objects, with label and frames at a video")
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
        Ok(Value::Nothing)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
        Ok(Value::Nothing)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Value, E> {
        Ok(Value::Nothing)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Nothing)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Nothing)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Value, A::Error> {
        Array::<Box<str>>::default().visit_seq(seq).map(Value::Texts)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        if self.depth == MAX_DEPTH {
            return Err(de::Error::custom(format!("objects more than {MAX_DEPTH} levels deep")));
        }
        let (mut label, mut frames) = (None, None);
        while let Some(name) = map.next_key::<String>()? {
            let inside = self.inside || name == self.split;
            let node =
                Node { key: &mut *self.key, split: self.split, inside, depth: self.depth + 1 };
            match (name.as_str(), map.next_value_seed(node)?) {
                ("label", Value::Text(text)) => label = Some(text),
                ("frames", Value::Texts(paths)) => frames = Some(paths),
                _ => {}
            }
        }
        if let (Some(label), Some(frames), true) = (label, frames, self.inside) {
            let fake = fake(&label)
                .ok_or_else(|| de::Error::custom(format!("unknown label '{}'", short(&label))))?;
            for frame in frames {
                if self.key.frames.len() == MAX_TRIALS {
                    return Err(de::Error::custom(format!("more than {MAX_TRIALS} frames")));
                }
                if let Some(video) = video(&frame)
                    && !self.key.videos.contains(video)
                {
                    self.key.videos.insert(video.into());
                }
                if let Some((before, ())) = self.key.frames.insert(frame.clone(), (fake, ()))
                    && before != fake
                {
                    let message = format!("'{}' has both labels", short(&frame));
                    return Err(de::Error::custom(message));
                }
            }
        }
        Ok(Value::Nothing)
    }
}

/// DeepfakeBench's labels (`label_dict` in `training/config/train_config.yaml`): reals end in
/// `_real` or `-real`, fakes say so or are one of FaceForensics++'s methods.
fn fake(label: &str) -> Option<bool> {
    let label = label.to_ascii_lowercase();
    let (_, last) = label.rsplit_once(['_', '-']).unwrap_or(("", &label));
    match last {
        "real" => Some(false),
        _ if last.starts_with("fake") => Some(true),
        "df" | "f2f" | "fs" | "nt" | "fh" | "sh" if label.starts_with("ff-") => Some(true),
        _ => None,
    }
}
