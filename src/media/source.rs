//! Opening a file and saying what it holds.

use std::ffi::CStr;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Once;
use std::sync::atomic::AtomicBool;

use ffmpeg_next as ffmpeg;
use ffmpeg_next::format::context::Input;
use ffmpeg_next::{Rational, Stream, ffi, format::stream::Disposition, media::Type};

use super::convert::{Orientation, SAMPLE_RATES};
use super::io::{Guard, OpenError, find_stream_info, open_input};
use super::still::{self, Sniffed};
use super::{Limits, MediaError, MediaInfo, MediaKind, StreamInfo, StreamKind};

/// At most this many sound streams of a file are decoded; further ones are listed only.
pub const MAX_AUDIO_STREAMS: usize = 8;

/// A stream that will be decoded.
pub(super) struct Track {
    pub index: usize,
    pub orientation: Orientation,
}

/// An opened file.
pub struct Source {
    pub(super) path: PathBuf,
    pub(super) input: Input,
    pub(super) guard: Arc<Guard>,
    pub(super) limits: Limits,
    pub(super) info: MediaInfo,
    pub(super) video: Option<Track>,
    pub(super) audio: Vec<Track>,
    /// Where the presentation begins on the container's clock, in microseconds.
    pub(super) start_us: i64,
    /// Length that the container states, in microseconds; `None` where it was only estimated.
    pub(super) declared_us: Option<i64>,
    /// Bytes that are there and bytes that the file states, where it has fewer.
    pub(super) missing_bytes: Option<(u64, u64)>,
    left_out: Vec<String>,
}

/// FFmpeg's own messages would go to stderr, unasked and without the file's name.
fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        ffmpeg::log::set_level(ffmpeg::log::Level::Quiet);
        // Without this, errors have no text.
        ffmpeg::util::error::register_all();
    });
}

impl Source {
    /// Opens a regular file by its content; its name plays no part.
    ///
    /// # Errors
    /// [`MediaError`] says what is wrong with the file; every variant can occur.
    pub fn open(path: &Path, limits: &Limits) -> Result<Self, MediaError> {
        Self::open_until(path, limits, Arc::default())
    }

    /// The same with the flag that [`stop_flag`](Self::stop_flag) is to give, which ends the
    /// opening, too, with any error.
    ///
    /// # Errors
    /// As of [`open`](Self::open).
    pub fn open_until(
        path: &Path,
        limits: &Limits,
        stop: Arc<AtomicBool>,
    ) -> Result<Self, MediaError> {
        prepare();
        let mut file = open_regular(path)?;
        let io_error = |source| MediaError::Io { path: path.to_owned(), source };
        let sniffed = still::sniff(&mut file).map_err(io_error)?;
        if let Sniffed::Still(header) = sniffed {
            check_size(path, header.width, header.height, limits)?;
        }
        let top_boxes = match sniffed {
            Sniffed::IsoMedia(_) => Some(top_boxes(&mut file).map_err(io_error)?),
            _ => None,
        };
        let length = file.seek(SeekFrom::End(0)).map_err(io_error)?;
        // One byte of padding may be counted and not written.
        let missing_bytes = match sniffed {
            Sniffed::Riff(stated) if length + 1 < stated => Some((length, stated)),
            _ => None,
        };
        file.seek(SeekFrom::Start(0)).map_err(io_error)?;

        let guard = Arc::new(Guard::new(limits.open_timeout, stop));
        let explain = |detail: String| {
            if let Some(error) = guard.read_error() {
                return io_error(io::Error::other(error));
            }
            if guard.timed_out() {
                let seconds = limits.open_timeout.as_secs_f64();
                return MediaError::TimedOut { path: path.to_owned(), seconds };
            }
            MediaError::Damaged { path: path.to_owned(), detail }
        };
        let mut input = open_input(file, &guard).map_err(|error| match error {
            OpenError::Unrecognised => match explain(String::new()) {
                MediaError::Damaged { path, .. } => MediaError::Unrecognised { path },
                other => other,
            },
            OpenError::Damaged { format, error } => match (&sniffed, &top_boxes) {
                (Sniffed::IsoMedia(brand), Some(boxes)) if !boxes.contains(b"moov") => {
                    if is_heif(brand) {
                        let brand = brand.escape_ascii();
                        MediaError::NoStreams {
                            path: path.to_owned(),
                            detail: format!("this FFmpeg cannot read HEIF pictures of brand {brand}"),
                        }
                    } else {
                        explain("the index (moov) is missing: the file was cut short or never finished".into())
                    }
                }
                _ => explain(format!("{format}: {error}")),
            },
            OpenError::Internal(error) => explain(error.to_string()),
        })?;
        for stream in input.streams() {
            if is_picture_stream(&stream) {
                let (width, height) = stored_size(&stream);
                check_size(path, width, height, limits)?;
            }
        }
        find_stream_info(&mut input, limits.max_pixels)
            .map_err(|error| explain(error.to_string()))?;
        if guard.timed_out() {
            return Err(explain(String::new()));
        }
        guard.clear_deadline();

        let orientation_of = |stream: &Stream<'_>| match sniffed {
            Sniffed::Still(header) => header.orientation,
            _ => display_matrix(stream),
        };
        let mut video: Option<(bool, u64, Track)> = None;
        let mut audio = Vec::new();
        let mut problems = Vec::new();
        let mut others = Vec::new();
        let mut streams = Vec::new();
        for stream in input.streams() {
            let info = stream_info(&stream, orientation_of(&stream));
            let track = Track { index: info.index, orientation: orientation_of(&stream) };
            let usable = usable(&stream, &info);
            match (info.kind, usable) {
                (StreamKind::Video | StreamKind::Audio, Err(problem)) => {
                    problems.push(format!("stream {}: {problem}", info.index));
                }
                (StreamKind::Video, Ok(())) => {
                    let (width, height) = stored_size(&stream);
                    check_size(path, width, height, limits)?;
                    let preferred = stream.disposition().contains(Disposition::DEFAULT);
                    let pixels = width.saturating_mul(height);
                    let index = track.index;
                    let other =
                        if video.as_ref().is_none_or(|(p, n, _)| (preferred, pixels) > (*p, *n)) {
                            video
                                .replace((preferred, pixels, track))
                                .map(|(_, _, t): (_, _, Track)| t.index)
                        } else {
                            Some(index)
                        };
                    // Said only where something is decoded, so it does not count as a problem there.
                    others.extend(
                        other.map(|i| format!("stream {i}: only one stream of pictures is judged")),
                    );
                }
                (StreamKind::Audio, Ok(())) if audio.len() < MAX_AUDIO_STREAMS => {
                    audio.push(track);
                }
                (StreamKind::Audio, Ok(())) => others.push(format!(
                    "stream {}: only the first {MAX_AUDIO_STREAMS} streams of sound are judged",
                    info.index
                )),
                _ => {}
            }
            streams.push(info);
        }
        let video = video.map(|(_, _, track)| track);
        let container = input.format().name().to_owned();
        if video.is_none() && audio.is_empty() {
            let detail = if !problems.is_empty() {
                problems.join(", ")
            } else if streams.is_empty() {
                format!("{container} without streams")
            } else {
                let listed: Vec<&str> = streams.iter().map(|s| s.codec.as_str()).collect();
                format!("only {}", listed.join(", "))
            };
            return Err(MediaError::NoStreams { path: path.to_owned(), detail });
        }

        let kind = match &video {
            None => MediaKind::Audio,
            Some(track) if audio.is_empty() && is_still(&input, track.index, &sniffed) => {
                MediaKind::Image
            }
            Some(_) => MediaKind::Video,
        };
        let start_us = start_time(&input);
        let declared_us = declared_duration(&input, &video, &audio);
        let duration_ms = match kind {
            MediaKind::Image => Some(0),
            _ => known(input.duration()).filter(|us| *us >= 0).map(|us| (us + 500) / 1000),
        };
        Ok(Self {
            path: path.to_owned(),
            input,
            guard,
            limits: limits.clone(),
            info: MediaInfo { container, kind, duration_ms, streams },
            video,
            audio,
            start_us,
            declared_us,
            missing_bytes,
            left_out: problems.into_iter().chain(others).collect(),
        })
    }

    pub fn info(&self) -> &MediaInfo {
        &self.info
    }

    /// Streams of pictures or sound that will not be decoded, and why: one sentence each, which
    /// names the stream's index.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// Setting this flag, from any thread, ends [`decode`](Self::decode) at the next packet, also
    /// while it has nothing to hand out.
    pub fn stop_flag(&self) -> Arc<AtomicBool> {
        self.guard.stop_flag()
    }
}

fn open_regular(path: &Path) -> Result<File, MediaError> {
    let io_error = |source| MediaError::Io { path: path.to_owned(), source };
    let check = |metadata: &Metadata| match not_a_file(metadata) {
        Some(what) => Err(MediaError::NotAFile { path: path.to_owned(), what }),
        None if metadata.len() == 0 => Err(MediaError::Empty { path: path.to_owned() }),
        None => Ok(()),
    };
    check(&std::fs::metadata(path).map_err(io_error)?)?;
    // Should the name have come to mean a FIFO since, opening it does not wait for a writer.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(io_error)?;
    check(&file.metadata().map_err(io_error)?)?;
    Ok(file)
}

fn not_a_file(metadata: &Metadata) -> Option<&'static str> {
    let kind = metadata.file_type();
    if kind.is_file() {
        None
    } else if kind.is_dir() {
        Some("directory")
    } else if kind.is_fifo() {
        Some("FIFO")
    } else if kind.is_socket() {
        Some("socket")
    } else if kind.is_block_device() || kind.is_char_device() {
        Some("device")
    } else {
        Some("special file")
    }
}

/// The kinds of the top-level boxes of an ISO media file, in order; the first 64.
fn top_boxes(file: &mut File) -> io::Result<Vec<[u8; 4]>> {
    let mut kinds = Vec::new();
    let mut at = 0_u64;
    while kinds.len() < 64 {
        file.seek(SeekFrom::Start(at))?;
        let mut head = Vec::with_capacity(16);
        file.by_ref().take(16).read_to_end(&mut head)?;
        let Some((size, rest)) = head.split_first_chunk::<4>() else { break };
        let Some((kind, rest)) = rest.split_first_chunk::<4>() else { break };
        kinds.push(*kind);
        let size = match (u32::from_be_bytes(*size), rest.first_chunk::<8>()) {
            (1, Some(large)) => u64::from_be_bytes(*large),
            (0 | 1, _) => break,
            (size, _) => u64::from(size),
        };
        match at.checked_add(size) {
            Some(next) if size >= 8 => at = next,
            _ => break,
        }
    }
    Ok(kinds)
}

fn is_heif(brand: &[u8; 4]) -> bool {
    [b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1", b"avif", b"avis"]
        .contains(&brand)
}

fn check_size(path: &Path, width: u64, height: u64, limits: &Limits) -> Result<(), MediaError> {
    if width.saturating_mul(height) <= limits.max_pixels {
        return Ok(());
    }
    Err(MediaError::Limit {
        path: path.to_owned(),
        detail: format!("a picture of {width}x{height} has more than {} pixels", limits.max_pixels),
    })
}

/// A value that FFmpeg may leave unknown.
pub(super) fn known(value: i64) -> Option<i64> {
    (value != ffi::AV_NOPTS_VALUE).then_some(value)
}

/// A time in a stream's units, in microseconds.
pub(super) fn to_us(time: i64, base: Rational) -> i64 {
    let (num, den) = (i128::from(base.numerator()), i128::from(base.denominator()).max(1));
    let us = i128::from(time) * num * 1_000_000;
    let half = den / 2;
    i64::try_from((us + half).div_euclid(den)).unwrap_or(if us < 0 { i64::MIN } else { i64::MAX })
}

fn positive(rate: Rational) -> Option<f64> {
    (rate.numerator() > 0 && rate.denominator() > 0).then(|| f64::from(rate))
}

fn is_picture_stream(stream: &Stream<'_>) -> bool {
    stream.parameters().medium() == Type::Video && !is_cover(stream)
}

fn is_cover(stream: &Stream<'_>) -> bool {
    stream
        .disposition()
        .intersects(Disposition::ATTACHED_PIC | Disposition::from_bits_retain(TIMED_THUMBNAILS))
}

const TIMED_THUMBNAILS: libc::c_int = ffi::AV_DISPOSITION_TIMED_THUMBNAILS;

/// A copy of the numbers of a stream's parameters.
struct Parameters {
    codec: ffi::AVCodecID,
    width: i32,
    height: i32,
    sample_rate: i32,
    channels: i32,
    initial_padding: i32,
    bit_rate: i64,
}

fn parameters(stream: &Stream<'_>) -> Parameters {
    // SAFETY: a stream always has codec parameters.
    unsafe {
        let p = (*stream.as_ptr()).codecpar;
        Parameters {
            codec: (*p).codec_id,
            width: (*p).width,
            height: (*p).height,
            sample_rate: (*p).sample_rate,
            channels: (*p).ch_layout.nb_channels,
            initial_padding: (*p).initial_padding,
            bit_rate: (*p).bit_rate,
        }
    }
}

fn stored_size(stream: &Stream<'_>) -> (u64, u64) {
    let p = parameters(stream);
    (u64::try_from(p.width).unwrap_or(0), u64::try_from(p.height).unwrap_or(0))
}

fn codec_name(codec: ffi::AVCodecID) -> String {
    // SAFETY: the call answers every number with a static string.
    unsafe { CStr::from_ptr(ffi::avcodec_get_name(codec)) }.to_string_lossy().into_owned()
}

fn display_matrix(stream: &Stream<'_>) -> Orientation {
    let mut size = 0_usize;
    // SAFETY: the side data belongs to the stream; its size is checked before it is read, and it
    // may lie at any alignment.
    unsafe {
        let data = ffi::av_stream_get_side_data(
            stream.as_ptr(),
            ffi::AVPacketSideDataType::AV_PKT_DATA_DISPLAYMATRIX,
            &mut size,
        );
        if data.is_null() || size < size_of::<[i32; 9]>() {
            return Orientation::default();
        }
        Orientation::from_matrix(&data.cast::<[i32; 9]>().read_unaligned())
    }
}

fn stream_info(stream: &Stream<'_>, orientation: Orientation) -> StreamInfo {
    let p = parameters(stream);
    let kind = match stream.parameters().medium() {
        Type::Video if is_cover(stream) => StreamKind::Cover,
        Type::Video => StreamKind::Video,
        Type::Audio => StreamKind::Audio,
        _ => StreamKind::Other,
    };
    let pictures = matches!(kind, StreamKind::Video | StreamKind::Cover);
    let size = match (u32::try_from(p.width), u32::try_from(p.height)) {
        (Ok(width), Ok(height)) if pictures && width > 0 && height > 0 => {
            Some(orientation.size(width, height))
        }
        _ => None,
    };
    let sound = kind == StreamKind::Audio;
    let count = |n: i32| u32::try_from(n).ok().filter(|n| sound && *n > 0);
    StreamInfo {
        index: stream.index(),
        kind,
        codec: codec_name(p.codec),
        duration_ms: known(stream.duration())
            .filter(|d| *d > 0)
            .map(|d| (to_us(d, stream.time_base()) + 500) / 1000),
        language: stream
            .metadata()
            .get("language")
            .filter(|l| !l.is_empty() && *l != "und")
            .map(str::to_owned),
        width: size.map(|s| s.0),
        height: size.map(|s| s.1),
        rotation: (kind == StreamKind::Video).then(|| orientation.degrees()),
        frame_rate: positive(stream.avg_frame_rate()).filter(|_| kind == StreamKind::Video),
        sample_rate: count(p.sample_rate),
        channels: count(p.channels),
        bit_rate: Some(p.bit_rate).filter(|b| *b > 0),
    }
}

/// Whether there is a decoder and what it needs is known; else what is missing.
fn usable(stream: &Stream<'_>, info: &StreamInfo) -> Result<(), String> {
    let codec = &info.codec;
    if ffmpeg::decoder::find(stream.parameters().id()).is_none() {
        return Err(format!("{codec}: this FFmpeg has no decoder for it"));
    }
    match info.kind {
        StreamKind::Video if info.width.is_none() => {
            Err(format!("{codec}: no picture size is known"))
        }
        StreamKind::Audio
            if !info.sample_rate.is_some_and(|r| SAMPLE_RATES.contains(&i64::from(r))) =>
        {
            Err(format!("{codec}: no usable sample rate"))
        }
        StreamKind::Audio if info.channels.is_none() => Err(format!("{codec}: no channels")),
        _ => Ok(()),
    }
}

fn is_still(input: &Input, video: usize, sniffed: &Sniffed) -> bool {
    let name = input.format().name().to_owned();
    if name.ends_with("_pipe") {
        return true;
    }
    let one = input.stream(video).is_some_and(|s| s.frames() == 1);
    match sniffed {
        Sniffed::IsoMedia(brand) => one && is_heif(brand),
        Sniffed::Still(_) => name == "mjpeg" || one,
        Sniffed::Riff(_) | Sniffed::Other => false,
    }
}

/// The earliest time of a stream that will be seen or heard. A codec's priming samples, which some
/// containers place before zero and which the decoder takes off, do not count.
fn start_time(input: &Input) -> i64 {
    // SAFETY: the context is valid.
    let start = known(unsafe { (*input.as_ptr()).start_time }).unwrap_or(0);
    if start >= 0 {
        return start;
    }
    input
        .streams()
        .filter(|s| matches!(s.parameters().medium(), Type::Video | Type::Audio) && !is_cover(s))
        .filter_map(|s| {
            let begin = to_us(known(s.start_time())?, s.time_base());
            let p = parameters(&s);
            let priming = match i64::from(p.sample_rate) {
                rate if rate > 0 && begin < 0 => {
                    i64::from(p.initial_padding.max(0)) * 1_000_000 / rate
                }
                _ => 0,
            };
            // Containers round the priming to their own units, such as a millisecond.
            Some(if priming > 0 && (begin + priming).abs() < 1000 { 0 } else { begin + priming })
        })
        .min()
        .unwrap_or(start)
}

/// The longest of the decoded streams as the container states it.
fn declared_duration(input: &Input, video: &Option<Track>, audio: &[Track]) -> Option<i64> {
    // SAFETY: the context is valid; the field is read as a number.
    let from_header = unsafe {
        (&raw const (*input.as_ptr()).duration_estimation_method).cast::<u32>().read()
            == ffi::AVDurationEstimationMethod::AVFMT_DURATION_FROM_STREAM as u32
    };
    if !from_header {
        return None;
    }
    let streams: Option<Vec<i64>> = video
        .iter()
        .chain(audio)
        .map(|track| {
            let stream = input.stream(track.index)?;
            Some(to_us(known(stream.duration()).filter(|d| *d > 0)?, stream.time_base()))
        })
        .collect();
    match streams.and_then(|s| s.into_iter().max()) {
        Some(longest) => Some(longest),
        None => known(input.duration()).filter(|d| *d > 0),
    }
}
