//! What a reviewer sees of a file whose media may be gone: a film strip, spectrograms and the faces
//! of judged segments. Made while the engine works, out of what it decodes anyway, in memory that does
//! not grow with the file's length.
//!
//! A content's folder holds `index.json` ([`Index`]) and the JPEG files that it names.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use jpeg_encoder::{ColorType, Encoder};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    engine::CloseUp,
    face::{
        Rect,
        resample::{Picture, resample},
    },
    media::{Audio, Frame},
    report::{Report, Segment},
    speech::{
        mel_bank::{FFT, MelBank},
        to_ms,
    },
};

/// Pictures of a film strip, and their width.
pub const THUMBNAILS: usize = 60;
pub const THUMBNAIL_WIDTH: usize = 160;
/// No thumbnail is higher, however high the picture.
const HIGHEST: usize = 320;
/// Columns and rows of a spectrogram, the lowest band last.
pub const COLUMNS: usize = 2_048;
pub const BANDS: usize = 96;
/// Between two thumbnails, and of a column, at first. Both double where a file has no room.
const THUMBNAIL_MS: i64 = 1_000;
const COLUMN_MS: i64 = 10;
/// Frames of sound that a column is made of at most.
const FRAMES_A_COLUMN: i64 = 4;
/// What a spectrogram shows below its loudest value.
const RANGE_DB: f32 = 80.0;
const QUALITY: u8 = 75;
pub const INDEX: &str = "index.json";

/// What a content's folder holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Index {
    /// In order of time.
    pub thumbnails: Vec<Thumbnail>,
    /// One a stream of sound.
    pub spectrograms: Vec<Spectrogram>,
    /// Faces of judged segments, near the segments' peaks.
    pub crops: Vec<Crop>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Thumbnail {
    pub time_ms: i64,
    pub file: String,
    pub width: usize,
    pub height: usize,
}

/// Grey, brighter is louder; mel bands from 0 to 8 kHz, the highest at the top.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Spectrogram {
    /// Index of the container's stream.
    pub stream: usize,
    pub file: String,
    pub width: usize,
    pub height: usize,
    pub start_ms: i64,
    pub ms_per_column: i64,
}

/// A face as the networks see it: a segment's heat map lies over all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Crop {
    /// Its place among the report's segments.
    pub segment: usize,
    pub file: String,
    pub time_ms: i64,
    pub width: usize,
    pub height: usize,
}

#[derive(Debug)]
struct Small {
    time_ms: i64,
    width: usize,
    height: usize,
    jpeg: Vec<u8>,
}

/// Pictures of a file evenly spread over it.
#[derive(Debug)]
struct FilmStrip {
    step_ms: i64,
    pictures: Vec<Small>,
}

impl FilmStrip {
    fn push(&mut self, frame: &Frame) {
        let slot = frame.time_ms / self.step_ms;
        if self.pictures.last().is_some_and(|last| last.time_ms / self.step_ms >= slot) {
            return;
        }
        let Some(small) = small(frame) else { return };
        self.pictures.push(small);
        if self.pictures.len() > THUMBNAILS {
            self.step_ms *= 2;
            let step_ms = self.step_ms;
            self.pictures.dedup_by_key(|picture| picture.time_ms / step_ms);
        }
    }
}

/// None where a picture has no pixels.
fn small(frame: &Frame) -> Option<Small> {
    let picture = Picture::new(frame.width, frame.height, &frame.rgb)?;
    let width = THUMBNAIL_WIDTH.min(frame.width);
    let height = (frame.height * width / frame.width).clamp(1, HIGHEST);
    let (x1, y1) = (frame.width as f32, frame.height as f32);
    let rgb = resample(picture, Rect { x0: 0.0, y0: 0.0, x1, y1 }, width, height);
    let jpeg = jpeg(&rgb, width, height, ColorType::Rgb)?;
    Some(Small { time_ms: frame.time_ms, width, height, jpeg })
}

fn jpeg(pixels: &[u8], width: usize, height: usize, color: ColorType) -> Option<Vec<u8>> {
    let mut jpeg = Vec::new();
    let (w, h) = (u16::try_from(width).ok()?, u16::try_from(height).ok()?);
    Encoder::new(&mut jpeg, QUALITY).encode(pixels, w, h, color).ok()?;
    Some(jpeg)
}

static BANK: LazyLock<MelBank> = LazyLock::new(|| MelBank::new(BANDS));

/// One stream's sound in columns of equal length.
#[derive(Debug)]
struct Sound {
    column_ms: i64,
    /// Each column's power by bands, and of how many frames it is the sum.
    power: Vec<[f32; BANDS]>,
    frames: Vec<u32>,
    /// Sound that is not in a column yet, from the sample `at` on.
    at: i64,
    pending: Vec<f32>,
}

impl Sound {
    fn new(column_ms: i64) -> Self {
        let (power, frames, pending) = (Vec::new(), Vec::new(), Vec::new());
        Self { column_ms, power, frames, at: 0, pending }
    }

    /// Samples from one frame to the next.
    fn hop(&self) -> i64 {
        self.column_ms.max(COLUMN_MS * FRAMES_A_COLUMN) / FRAMES_A_COLUMN * 16
    }

    fn push(&mut self, audio: &Audio) {
        if audio.start != self.at + self.pending.len() as i64 {
            self.pending.clear();
            self.at = audio.start;
        }
        self.pending.extend_from_slice(&audio.samples);
        let mut taken = 0;
        while let Some(frame) = self.pending.get(taken..taken + FFT) {
            let mut bands = [0.0; BANDS];
            if BANK.power(frame, &mut bands).is_ok() {
                self.add(to_ms(self.at + taken as i64), &bands);
            }
            taken += self.hop() as usize;
        }
        let taken = taken.min(self.pending.len());
        self.pending.drain(..taken);
        self.at += taken as i64;
    }

    fn add(&mut self, time_ms: i64, bands: &[f32; BANDS]) {
        let Ok(time_ms) = u64::try_from(time_ms) else { return };
        let column = |column_ms: i64| (time_ms / column_ms.unsigned_abs()) as usize;
        while column(self.column_ms) >= COLUMNS {
            self.halve();
        }
        let column = column(self.column_ms);
        if column >= self.power.len() {
            self.power.resize(column + 1, [0.0; BANDS]);
            self.frames.resize(column + 1, 0);
        }
        self.frames[column] += 1;
        self.power[column].iter_mut().zip(bands).for_each(|(sum, v)| *sum += v);
    }

    /// Joins columns two by two.
    fn halve(&mut self) {
        self.column_ms *= 2;
        let joined = self.power.chunks(2).map(|pair| {
            let mut sum = [0.0; BANDS];
            for column in pair {
                sum.iter_mut().zip(column).for_each(|(sum, v)| *sum += v);
            }
            sum
        });
        self.power = joined.collect();
        self.frames = self.frames.chunks(2).map(|pair| pair.iter().sum()).collect();
    }

    /// Grey, row by row from the highest band; none where there was no sound.
    fn picture(&self) -> Option<(usize, Vec<u8>)> {
        let width = self.power.len();
        let db = |column: usize, band: usize| {
            let mean = self.power[column][band] / self.frames[column].max(1) as f32;
            10.0 * mean.max(1e-12).log10()
        };
        let rows = (0..BANDS).rev().flat_map(|b| (0..width).map(move |c| (c, b)));
        let values: Vec<f32> = rows.map(|(column, band)| db(column, band)).collect();
        let loudest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let grey = |db: f32| {
            let share = (db - loudest + RANGE_DB) / RANGE_DB;
            (share.clamp(0.0, 1.0) * 255.0).round() as u8
        };
        (width > 0).then(|| (width, values.into_iter().map(grey).collect()))
    }
}

#[derive(Debug)]
struct Face {
    track: String,
    start_ms: i64,
    end_ms: i64,
    picture: CloseUp,
}

/// One file's previews, as they are made.
#[derive(Debug)]
pub struct Previews {
    strip: FilmStrip,
    column_ms: i64,
    sound: BTreeMap<usize, Sound>,
    faces: Vec<Face>,
}

impl Default for Previews {
    fn default() -> Self {
        Self {
            strip: FilmStrip { step_ms: THUMBNAIL_MS, pictures: Vec::new() },
            column_ms: COLUMN_MS,
            sound: BTreeMap::new(),
            faces: Vec::new(),
        }
    }
}

impl Previews {
    /// Says how long the file is, before its first picture or sound, so that nothing is made that
    /// would have to go again.
    pub fn expect(&mut self, duration_ms: i64) {
        while duration_ms / self.strip.step_ms >= THUMBNAILS as i64 {
            self.strip.step_ms *= 2;
        }
        while duration_ms / self.column_ms >= COLUMNS as i64 {
            self.column_ms *= 2;
        }
    }

    pub fn frame(&mut self, frame: &Frame) {
        self.strip.push(frame);
    }

    pub fn sound(&mut self, audio: &Audio) {
        let column_ms = self.column_ms;
        self.sound.entry(audio.stream).or_insert_with(|| Sound::new(column_ms)).push(audio);
    }

    pub fn close_up(&mut self, segment: &Segment, picture: CloseUp) {
        let Segment { track, start_ms, end_ms, .. } = segment;
        let track = track.clone();
        self.faces.push(Face { track, start_ms: *start_ms, end_ms: *end_ms, picture });
    }

    /// Writes the folder of the content that `report` is about, unless it is there. It is there as a whole
    /// or not at all: `unfinished`, beside it, becomes it. True where it was written.
    ///
    /// # Errors
    /// Of the file system.
    pub fn write(self, folder: &Path, unfinished: &Path, report: &Report) -> io::Result<bool> {
        if folder.exists() {
            return Ok(false);
        }
        fs::create_dir_all(unfinished)?;
        let written = self.fill(unfinished, report).and_then(|()| fs::rename(unfinished, folder));
        if let Err(error) = written {
            // What cannot be removed either is removed when the service starts.
            let _ = fs::remove_dir_all(unfinished);
            // The same content, done at the same time.
            return if folder.exists() { Ok(false) } else { Err(error) };
        }
        Ok(true)
    }

    fn fill(self, folder: &Path, report: &Report) -> io::Result<()> {
        let mut index = Index::default();
        for (i, picture) in self.strip.pictures.into_iter().enumerate() {
            let Small { time_ms, width, height, jpeg } = picture;
            let file = format!("thumb-{i:03}.jpg");
            fs::write(folder.join(&file), jpeg)?;
            index.thumbnails.push(Thumbnail { time_ms, file, width, height });
        }
        for (stream, sound) in self.sound {
            let Some((width, grey)) = sound.picture() else { continue };
            let Some(jpeg) = jpeg(&grey, width, BANDS, ColorType::Luma) else { continue };
            let file = format!("spectrogram-{stream}.jpg");
            fs::write(folder.join(&file), jpeg)?;
            let (height, ms_per_column) = (BANDS, sound.column_ms);
            let start_ms = 0;
            let made = Spectrogram { stream, file, width, height, start_ms, ms_per_column };
            index.spectrograms.push(made);
        }
        for face in self.faces {
            let is_its = |s: &Segment| {
                (&s.track, s.start_ms, s.end_ms) == (&face.track, face.start_ms, face.end_ms)
            };
            let Some(segment) = report.segments.iter().position(is_its) else { continue };
            let CloseUp { time_ms, side, jpeg } = face.picture;
            let file = format!("crop-{segment}.jpg");
            fs::write(folder.join(&file), jpeg)?;
            index.crops.push(Crop { segment, file, time_ms, width: side, height: side });
        }
        index.crops.sort_by_key(|crop| crop.segment);
        fs::write(folder.join(INDEX), serde_json::to_vec(&index)?)
    }
}

/// The end of the names of folders that are being written.
const UNFINISHED: &str = ".part";

/// Where a job writes previews before they are whole: beside `folder`.
pub fn unfinished(folder: &Path, job: super::model::JobId) -> PathBuf {
    folder.with_file_name(format!("{job}{UNFINISHED}"))
}

/// Removes what an earlier server left unfinished under the folder of all tenants' contents.
///
/// # Errors
/// Of the file system, save that the folder is not there.
pub fn clear(contents: &Path) -> io::Result<()> {
    let tenants = match fs::read_dir(contents) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        tenants => tenants?,
    };
    for tenant in tenants {
        let tenant = tenant?;
        if !tenant.file_type()?.is_dir() {
            continue;
        }
        for content in fs::read_dir(tenant.path())? {
            let content = content?;
            if content.file_name().to_string_lossy().ends_with(UNFINISHED) {
                fs::remove_dir_all(content.path())?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{report::samples, speech::RATE};

    fn frame(time_ms: i64, width: usize, height: usize) -> Frame {
        Frame { stream: 0, time_ms, width, height, rgb: vec![120; width * height * 3] }
    }

    fn audio(start: i64, samples: Vec<f32>) -> Audio {
        Audio { stream: 1, start, samples }
    }

    fn tone(hertz: f32, seconds: usize) -> Vec<f32> {
        let step = std::f32::consts::TAU * hertz / RATE as f32;
        (0..seconds * RATE).map(|n| 0.5 * (n as f32 * step).sin()).collect()
    }

    #[test]
    fn a_film_strip_stays_short_and_even_however_long_the_film() {
        for expected in [None, Some(3_600_000)] {
            let mut previews = Previews::default();
            if let Some(ms) = expected {
                previews.expect(ms);
            }
            let mut made = 0;
            for time_ms in (0..3_600_000).step_by(250) {
                let before = previews.strip.pictures.last().map(|p| p.time_ms);
                previews.frame(&frame(time_ms, 32, 18));
                made += usize::from(previews.strip.pictures.last().map(|p| p.time_ms) != before);
                assert!(previews.strip.pictures.len() <= THUMBNAILS);
            }
            let times: Vec<i64> = previews.strip.pictures.iter().map(|p| p.time_ms).collect();
            assert_eq!(previews.strip.step_ms, 64_000);
            assert_eq!(times, (0..57).map(|i| i * 64_000).collect::<Vec<i64>>());
            // Few are made in vain, and none where the length is known.
            assert!(made <= if expected.is_some() { 57 } else { 250 }, "{made}");
        }
    }

    #[test]
    fn thumbnails_keep_their_shape_within_bounds() {
        let sizes = |w, h| small(&frame(0, w, h)).map(|s| (s.width, s.height));
        assert_eq!(sizes(1920, 1080), Some((160, 90)));
        assert_eq!(sizes(40, 30), Some((40, 30)));
        assert_eq!(sizes(10, 5_000), Some((10, 320)));
        assert_eq!(sizes(5_000, 10), Some((160, 1)));
        assert_eq!(sizes(0, 0), None);
    }

    #[test]
    fn a_tone_is_a_line_at_its_height_and_time() {
        let mut sound = Sound::new(COLUMN_MS);
        sound.push(&audio(0, vec![0.0; 2 * RATE]));
        // In pieces that are no whole frames.
        for (i, piece) in tone(1_000.0, 2).chunks(777).enumerate() {
            sound.push(&audio((2 * RATE + i * 777) as i64, piece.to_vec()));
        }
        let (width, grey) = sound.picture().unwrap();
        assert!((397..=400).contains(&width), "{width}");
        assert_eq!(grey.len(), width * BANDS);
        let column = |c: usize| -> Vec<u8> { (0..BANDS).map(|r| grey[r * width + c]).collect() };
        assert!(column(100).iter().all(|v| *v == 0));
        let loudest = (0..BANDS).max_by_key(|r| column(300)[*r]).unwrap();
        assert!(column(300)[loudest] > 250);
        // 1 kHz is at 15 of 45.25 units, which 97 steps divide; rows count from the top.
        assert_eq!(BANDS - 1 - loudest, 31);
    }

    #[test]
    fn hours_of_sound_and_gaps_of_days_fit() {
        let mut sound = Sound::new(COLUMN_MS);
        let second = tone(300.0, 1);
        for s in 0..7_200 {
            sound.push(&audio(s * RATE as i64, second.clone()));
            assert!(
                sound.power.len() <= COLUMNS && sound.pending.len() < FFT + sound.hop() as usize
            );
        }
        assert_eq!(sound.column_ms, 5_120);
        assert_eq!(sound.power.len(), 1_407);
        // Sound that jumps to some other day, and before the start.
        sound.push(&audio(300_000 * RATE as i64, second.clone()));
        sound.push(&audio(-5 * RATE as i64, second));
        assert!(sound.power.len() <= COLUMNS);
        assert_eq!(sound.column_ms, 163_840);
        assert!(sound.frames.iter().all(|n| *n < 20_000));
        assert!(Sound::new(COLUMN_MS).picture().is_none());
    }

    #[test]
    fn a_folder_is_written_whole_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let contents = folder.path().join("contents");
        let to = contents.join("a").join("content");
        let (job, report) = (super::super::model::JobId::now_v7(), samples::video());
        let judged = report.segments.iter().position(|s| s.peak_ms.is_some()).unwrap();
        let make = || {
            let mut previews = Previews::default();
            previews.frame(&frame(0, 32, 18));
            previews.frame(&frame(1_500, 32, 18));
            previews.sound(&audio(0, tone(440.0, 1)));
            let picture = CloseUp { time_ms: 7, side: 144, jpeg: vec![1, 2, 3] };
            previews.close_up(&report.segments[judged], picture.clone());
            let gone = Segment { track: "face-99".into(), ..report.segments[judged].clone() };
            previews.close_up(&gone, picture);
            previews
        };
        assert!(make().write(&to, &unfinished(&to, job), &report).unwrap());
        let index: Index = serde_json::from_slice(&fs::read(to.join(INDEX)).unwrap()).unwrap();
        assert_eq!(index.thumbnails.iter().map(|t| t.time_ms).collect::<Vec<_>>(), [0, 1_500]);
        let sound = &index.spectrograms[0];
        assert_eq!((sound.stream, sound.height, sound.ms_per_column), (1, BANDS, 10));
        assert_eq!(index.crops.len(), 1);
        assert_eq!(index.crops[0].segment, judged);
        assert_eq!(fs::read(to.join(&index.crops[0].file)).unwrap(), [1, 2, 3]);
        let files = index.thumbnails.iter().map(|t| &t.file).chain([&sound.file]);
        for file in files {
            assert!(fs::read(to.join(file)).unwrap().starts_with(&[0xFF, 0xD8]), "{file}");
        }
        // Again: nothing changes, nothing is left beside it.
        assert!(!make().write(&to, &unfinished(&to, job), &report).unwrap());
        assert_eq!(fs::read_dir(to.parent().unwrap()).unwrap().count(), 1);
        // Of a server that was killed.
        fs::create_dir_all(unfinished(&to, job).join("x")).unwrap();
        clear(&contents).unwrap();
        assert_eq!(fs::read_dir(to.parent().unwrap()).unwrap().count(), 1);
        clear(&folder.path().join("nowhere")).unwrap();
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("content");
        // A file where the unfinished folder is to be.
        let unfinished = folder.path().join("x.part");
        fs::write(&unfinished, b"").unwrap();
        let error = Previews::default().write(&to, &unfinished, &samples::video());
        assert!(error.is_err() && !to.exists());
    }
}
