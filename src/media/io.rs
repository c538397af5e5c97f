//! Hands a file to FFmpeg by its bytes alone.
//!
//! FFmpeg never learns the file's name and may open nothing else: it reads through a handle that
//! we opened, so that a name cannot choose the format, a `%d` or a URL in a name means nothing, and
//! a playlist or a reference inside the file leads nowhere.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ffmpeg_next as ffmpeg;
use ffmpeg_next::ffi;
use ffmpeg_next::format::context::{Input, StreamIo};
use libc::{c_char, c_int};

/// FFmpeg's names of the containers and picture formats that are opened. A format that is not here
/// (text, subtitles, playlists, raw samples, games' own formats, devices) counts as not recognised.
pub(crate) const FORMATS: &[&str] = &[
    // Containers.
    "mov,mp4,m4a,3gp,3g2,mj2",
    "matroska,webm",
    "avi",
    "flv",
    "live_flv",
    "mpegts",
    "mpeg",
    "asf",
    "ogg",
    "mxf",
    "nut",
    "ivf",
    // Bare video streams.
    "mpegvideo",
    "m4v",
    "h264",
    "hevc",
    "obu",
    "av1",
    "mjpeg",
    // Sound.
    "wav",
    "w64",
    "aiff",
    "au",
    "caf",
    "flac",
    "mp3",
    "aac",
    "loas",
    "ac3",
    "eac3",
    "amr",
    "ape",
    "wv",
    "tta",
    // Pictures.
    "jpeg_pipe",
    "png_pipe",
    "webp_pipe",
    "bmp_pipe",
    "tiff_pipe",
    "j2k_pipe",
    "jpegls_pipe",
    "jpegxl_pipe",
    "ppm_pipe",
    "pgm_pipe",
    "pam_pipe",
    "qoi_pipe",
    "gif",
    "apng",
];

/// Below this FFmpeg's certainty about a format is no better than chance. Five is what a
/// whole file of two MPEG audio frames, or the head of a large JPEG, gets.
const MIN_PROBE_SCORE: c_int = 5;

/// FFmpeg's own default; enough for the headers and first pictures of 4K material.
const PROBE_BYTES: i64 = 5_000_000;
const ANALYZE_MICROSECONDS: i64 = 5_000_000;
const BUFFER_BYTES: usize = 64 * 1024;

/// Stops reading on a deadline or on request, and remembers why reading failed.
#[derive(Debug)]
pub(super) struct Guard {
    deadline: Mutex<Option<Instant>>,
    stop: Arc<AtomicBool>,
    error: Mutex<Option<String>>,
}

impl Guard {
    pub(super) fn new(timeout: Duration, stop: Arc<AtomicBool>) -> Self {
        Self {
            deadline: Mutex::new(Instant::now().checked_add(timeout)),
            stop,
            error: Mutex::new(None),
        }
    }

    pub(super) fn clear_deadline(&self) {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn timed_out(&self) -> bool {
        let deadline = *self.deadline.lock().unwrap_or_else(PoisonError::into_inner);
        deadline.is_some_and(|at| Instant::now() >= at)
    }

    pub(super) fn stop_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn interrupted(&self) -> bool {
        self.stopped() || self.timed_out()
    }

    /// Why the operating system refused to read, if it did.
    pub(super) fn read_error(&self) -> Option<String> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct GuardedFile {
    file: File,
    guard: Arc<Guard>,
}

impl GuardedFile {
    fn checked<T>(&mut self, act: impl FnOnce(&mut File) -> io::Result<T>) -> io::Result<T> {
        if self.guard.interrupted() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        act(&mut self.file).inspect_err(|error| {
            if error.kind() != io::ErrorKind::Interrupted {
                *self.guard.error.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some(error.to_string());
            }
        })
    }
}

impl Read for GuardedFile {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.checked(|file| file.read(buf))
    }
}

impl Seek for GuardedFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        // FFmpeg tries positions that broken indexes name; a refused one is its business and not
        // a failure of the disk.
        self.file.seek(to)
    }
}

pub(super) enum OpenError {
    Unrecognised,
    /// FFmpeg knew the format, named here, but could not make sense of the rest.
    Damaged {
        format: String,
        error: ffmpeg::Error,
    },
    Internal(ffmpeg::Error),
}

unsafe extern "C" fn refuse_to_open(
    _: *mut ffi::AVFormatContext,
    _: *mut *mut ffi::AVIOContext,
    _: *const c_char,
    _: c_int,
    _: *mut *mut ffi::AVDictionary,
) -> c_int {
    ffi::AVERROR(libc::EPERM)
}

/// Recognises the file's format and reads its header. Stream parameters may still be incomplete:
/// see [`find_stream_info`].
pub(super) fn open_input(file: File, guard: &Arc<Guard>) -> Result<Input, OpenError> {
    let stream = GuardedFile { file, guard: Arc::clone(guard) };
    let mut io = StreamIo::from_read_seek_with_capacity(stream, BUFFER_BYTES)
        .map_err(OpenError::Internal)?;
    let mut format: *const ffi::AVInputFormat = std::ptr::null();
    // SAFETY: `io` owns a valid AVIOContext, `format` receives a pointer to a static table, and
    // the empty name is what keeps the file's name out of the decision.
    let score = unsafe {
        ffi::av_probe_input_buffer2(
            io.as_mut_ptr(),
            &mut format,
            c"".as_ptr(),
            std::ptr::null_mut(),
            0,
            0,
        )
    };
    if score < MIN_PROBE_SCORE || format.is_null() {
        return Err(OpenError::Unrecognised);
    }
    // SAFETY: `format` is not null and points to a static AVInputFormat, whose name is a C string.
    let name = unsafe { CStr::from_ptr((*format).name) }.to_string_lossy().into_owned();
    if !FORMATS.contains(&name.as_str()) {
        return Err(OpenError::Unrecognised);
    }

    let watch = Arc::clone(guard);
    let interrupt = ffmpeg::util::interrupt::new(Box::new(move || watch.interrupted()));
    let mut options = ffmpeg::Dictionary::new();
    options.set("protocol_whitelist", "none");
    options.set("format_whitelist", &FORMATS.join(","));
    // SAFETY: the context is freshly allocated and checked for null; `io` and the interrupt guard
    // go into the `Input` that owns the context, which drops them after closing it. On failure
    // avformat_open_input frees the context but not `pb` (AVFMT_FLAG_CUSTOM_IO), which `io` frees.
    // The dictionary is owned again whatever happens.
    unsafe {
        let mut context = ffi::avformat_alloc_context();
        if context.is_null() {
            return Err(OpenError::Internal(ffmpeg::Error::Other { errno: libc::ENOMEM }));
        }
        (*context).pb = io.as_mut_ptr();
        (*context).flags |= ffi::AVFMT_FLAG_CUSTOM_IO;
        (*context).interrupt_callback = interrupt.interrupt;
        (*context).io_open = Some(refuse_to_open);
        (*context).probesize = PROBE_BYTES;
        (*context).max_analyze_duration = ANALYZE_MICROSECONDS;
        let mut raw_options = options.disown();
        let result = ffi::avformat_open_input(&mut context, c"".as_ptr(), format, &mut raw_options);
        drop(ffmpeg::Dictionary::own(raw_options));
        if result < 0 {
            return Err(OpenError::Damaged { format: name, error: ffmpeg::Error::from(result) });
        }
        Ok(Input::wrap_with_custom_io_and_interrupt(context, io, interrupt.guard))
    }
}

/// Reads as much of the file as it takes to know each stream's parameters. No picture larger than
/// `max_pixels` is decoded for that.
pub(super) fn find_stream_info(input: &mut Input, max_pixels: u64) -> Result<(), ffmpeg::Error> {
    let max_pixels = max_pixels.to_string();
    let mut options: Vec<*mut ffi::AVDictionary> = (0..input.nb_streams())
        .map(|_| {
            let mut one = ffmpeg::Dictionary::new();
            one.set("max_pixels", &max_pixels);
            // SAFETY: ownership comes back below.
            unsafe { one.disown() }
        })
        .collect();
    // SAFETY: the array holds one dictionary for each stream that exists now, as the call wants;
    // each is owned again afterwards.
    let result = unsafe {
        let result = ffi::avformat_find_stream_info(input.as_mut_ptr(), options.as_mut_ptr());
        for one in options {
            drop(ffmpeg::Dictionary::own(one));
        }
        result
    };
    if result < 0 { Err(ffmpeg::Error::from(result)) } else { Ok(()) }
}
