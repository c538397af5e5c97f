//! One pass over a file: packets in, sampled pictures and sound out.

use std::ops::ControlFlow;

use ffmpeg_next as ffmpeg;
use ffmpeg_next::codec::decoder::{self, Check};
use ffmpeg_next::{Codec, Discard, Packet, Rational, ffi, frame};

use super::convert::{Orientation, PictureConverter, SAMPLE_RATE, SoundConverter};
use super::hardware::{Broken, Hardware, Nvdec, PictureDecoder};
use super::source::{Source, Track, known, to_us};
use super::{
    Audio, DecodeOptions, DecoderKind, DecoderUse, Event, Fault, Frame, MediaError, MediaKind,
};

/// Faults that are told one by one; the rest are counted.
const MAX_FAULTS: usize = 32;
/// Reading is given up after this many errors without a packet between them.
const MAX_READ_ERRORS: usize = 64;
/// Decoders are given up while they are emptied after this many errors in a row.
const MAX_DRAIN_ERRORS: usize = 256;
/// Timestamps of sound that differ from the count of samples by less are jitter.
const SOUND_JITTER_US: i64 = 40_000;
/// An overlap of sound up to this is cut off; timestamps that go back further are wrong.
const MAX_SOUND_OVERLAP: i64 = 2 * SAMPLE_RATE;
/// A jump in a transport stream's clock; FFmpeg's own threshold.
const DISCONTINUITY_US: i64 = 10_000_000;
/// Samples in one [`Audio`].
const SOUND_CHUNK: usize = SAMPLE_RATE as usize;
/// Containers round times to a millisecond, so that a picture may seem that much too early.
const TIME_TOLERANCE_US: i64 = 1_000;

impl Source {
    /// Goes through the file once, pictures and sound together, and hands to `sink` what comes, in
    /// file order, until it returns [`ControlFlow::Break`].
    ///
    /// Of the pictures, the first at or after each multiple of `1 / fps` from the first picture is
    /// handed out, each at most once. Pictures that were damaged are not. Where the samples lie far
    /// enough apart, pictures that no other refers to are skipped undecoded; a sample may then be
    /// the next reference picture.
    ///
    /// Says what decoded the video, where a GPU was to do it.
    ///
    /// # Errors
    /// Broken places are [`Event::Fault`]s, at most 33 a file, and no errors. An error means that
    /// nothing could be decoded: a still whose picture is broken, or decoders that did not start.
    pub fn decode(
        self,
        options: &DecodeOptions,
        sink: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<Option<DecoderUse>, MediaError> {
        let hardware = |source: &Source, index: usize| {
            let nvdec = options.hardware.map(|ordinal| Nvdec::new(source, index, ordinal))?;
            Some(nvdec.map(|decoder| Box::new(decoder) as Box<dyn PictureDecoder>))
        };
        self.decode_with(options, &hardware, sink)
    }

    /// As [`decode`](Self::decode), with what `hardware` opens in the place of the GPU's decoder.
    pub(super) fn decode_with(
        self,
        options: &DecodeOptions,
        hardware: OpenHardware<'_>,
        sink: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<Option<DecoderUse>, MediaError> {
        let mut pass = Pass::new(self, options, hardware, sink)?;
        // A break is the caller's wish, not a failure.
        let _ = pass.run();
        pass.finish()
    }
}

/// Opens the GPU's decoder for a stream, or says why there is none; `None` where none is wanted.
pub(super) type OpenHardware<'a> =
    &'a dyn Fn(&Source, usize) -> Option<Result<Box<dyn PictureDecoder>, String>>;

/// The way out to the caller. Counts faults.
struct Out<'a> {
    sink: &'a mut dyn FnMut(Event) -> ControlFlow<()>,
    faults: usize,
    frames: usize,
    first_fault: Option<String>,
}

impl Out<'_> {
    fn fault(
        &mut self,
        stream: Option<usize>,
        time_us: Option<i64>,
        message: String,
    ) -> ControlFlow<()> {
        self.faults += 1;
        if self.first_fault.is_none() {
            self.first_fault = Some(message.clone());
        }
        if self.faults > MAX_FAULTS {
            return ControlFlow::Continue(());
        }
        (self.sink)(Event::Fault(Fault { stream, time_ms: time_us.map(to_ms), message }))
    }

    fn summary(&mut self, time_us: Option<i64>) -> ControlFlow<()> {
        if self.faults <= MAX_FAULTS {
            return ControlFlow::Continue(());
        }
        let message = format!("{} more broken places", self.faults - MAX_FAULTS);
        (self.sink)(Event::Fault(Fault { stream: None, time_ms: time_us.map(to_ms), message }))
    }
}

fn to_ms(us: i64) -> i64 {
    us.saturating_add(500).div_euclid(1000)
}

struct Pass<'a> {
    source: Source,
    out: Out<'a>,
    video: Option<VideoTrack>,
    audio: Vec<AudioTrack>,
    clock: Clock,
}

impl<'a> Pass<'a> {
    fn new(
        mut source: Source,
        options: &DecodeOptions,
        hardware: OpenHardware<'_>,
        sink: &'a mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<Self, MediaError> {
        let mut problems = Vec::new();
        let video = match &source.video {
            Some(track) if options.video => {
                match VideoTrack::new(&source, track, options, hardware) {
                    Ok(track) => Some(track),
                    Err(problem) => {
                        problems.push((track.index, problem));
                        None
                    }
                }
            }
            _ => None,
        };
        let mut audio = Vec::new();
        for track in source.audio.iter().filter(|_| options.audio) {
            match AudioTrack::new(&source, track) {
                Ok(track) => audio.push(track),
                Err(problem) => problems.push((track.index, problem)),
            }
        }
        if video.is_none() && audio.is_empty() && !problems.is_empty() {
            let problems: Vec<String> = problems.into_iter().map(|(_, p)| p).collect();
            return Err(MediaError::NoStreams { path: source.path, detail: problems.join(", ") });
        }
        let mut out = Out { sink, faults: 0, frames: 0, first_fault: None };
        for (stream, problem) in problems {
            if out.fault(Some(stream), None, problem).is_break() {
                break;
            }
        }
        let clock = Clock::new(&source);
        // What nobody will look at need not be parsed. Pictures and sound are read even where
        // they were not asked for: how far they reach tells whether the file is whole.
        for mut stream in source.input.streams_mut() {
            use ffmpeg::media::Type;
            let looked_at = matches!(stream.parameters().medium(), Type::Video | Type::Audio);
            if !looked_at {
                // SAFETY: the stream belongs to the open context, and `discard` is the user's.
                unsafe { (*stream.as_mut_ptr()).discard = ffi::AVDiscard::AVDISCARD_ALL };
            }
        }
        Ok(Self { source, out, video, audio, clock })
    }

    fn run(&mut self) -> ControlFlow<()> {
        if self.video.is_none() && self.audio.is_empty() {
            return ControlFlow::Continue(());
        }
        let still = self.source.info.kind == MediaKind::Image;
        let mut read_errors = 0;
        let mut read_error: Option<String> = None;
        loop {
            if self.source.guard.stopped() {
                return ControlFlow::Break(());
            }
            let mut packet = Packet::empty();
            match packet.read(&mut self.source.input) {
                Ok(()) => {}
                Err(ffmpeg::Error::Eof) => break,
                Err(error) => {
                    read_errors += 1;
                    read_error.get_or_insert_with(|| error.to_string());
                    if read_errors >= MAX_READ_ERRORS || self.source.guard.read_error().is_some() {
                        break;
                    }
                    continue;
                }
            }
            if let Some(error) = read_error.take() {
                self.out.fault(
                    None,
                    self.clock.end_us,
                    format!("skipped what cannot be read: {error}"),
                )?;
            }
            read_errors = 0;
            self.clock.follow(&mut packet);
            self.feed(&packet)?;
            if still && self.out.frames > 0 {
                return ControlFlow::Continue(());
            }
        }
        if let Some(video) = &mut self.video {
            video.feed(None, &mut self.out)?;
        }
        for audio in &mut self.audio {
            audio.feed(None, &mut self.out)?;
        }
        if !still {
            let error = self.source.guard.read_error().or(read_error);
            self.ending(error)?;
        }
        self.out.summary(self.clock.end_us)
    }

    fn feed(&mut self, packet: &Packet) -> ControlFlow<()> {
        let index = packet.stream();
        if let Some(video) = self.video.as_mut().filter(|v| v.index == index) {
            return video.feed(Some(packet), &mut self.out);
        }
        if let Some(audio) = self.audio.iter_mut().find(|a| a.index == index) {
            return audio.feed(Some(packet), &mut self.out);
        }
        ControlFlow::Continue(())
    }

    /// Tells where reading ended if that was not the end that the container states.
    fn ending(&mut self, error: Option<String>) -> ControlFlow<()> {
        let end = self.clock.end_us.unwrap_or(0);
        let missing = self
            .source
            .declared_us
            .filter(|declared| declared - end > (declared / 20).max(1_000_000));
        let seconds = |us: i64| us as f64 / 1e6;
        let cause = error.as_ref().map(|e| format!(" ({e})")).unwrap_or_default();
        let place = format!("{:.1} s", seconds(end));
        let message = if let Some(declared) = missing {
            format!("cut short at {place} of {:.1} s declared{cause}", seconds(declared))
        } else if let Some((there, stated)) = self.source.missing_bytes {
            format!("cut short at {place}: {there} of {stated} bytes are there{cause}")
        } else if let Some(error) = error {
            format!("reading ended at {place}: {error}")
        } else {
            return ControlFlow::Continue(());
        };
        self.out.fault(None, self.clock.end_us, message)
    }

    fn finish(self) -> Result<Option<DecoderUse>, MediaError> {
        let wanted = self.video.is_some() && !self.source.guard.stopped();
        if self.source.info.kind == MediaKind::Image && wanted && self.out.frames == 0 {
            let detail = self.out.first_fault.unwrap_or_else(|| "it holds no picture".into());
            return Err(MediaError::Damaged { path: self.source.path, detail });
        }
        Ok(self.video.and_then(|video| video.decoder_use))
    }
}

/// Follows the packets' timestamps: how far the file has been read, and jumps of its clock.
struct Clock {
    bases: Vec<Rational>,
    start_us: i64,
    /// Whether the container's clock may jump (transport and program streams).
    may_jump: bool,
    /// Added to timestamps, in microseconds.
    shift_us: i64,
    last_dts_us: Vec<Option<i64>>,
    /// End of what was read so far, on the presentation's timeline.
    end_us: Option<i64>,
}

impl Clock {
    fn new(source: &Source) -> Self {
        let bases: Vec<Rational> = source.input.streams().map(|s| s.time_base()).collect();
        // SAFETY: an open input has a format, which is static.
        let flags = unsafe { (*(*source.input.as_ptr()).iformat).flags };
        Self {
            last_dts_us: vec![None; bases.len()],
            bases,
            start_us: source.start_us,
            may_jump: flags & ffi::AVFMT_TS_DISCONT != 0,
            shift_us: 0,
            end_us: None,
        }
    }

    fn follow(&mut self, packet: &mut Packet) {
        let index = packet.stream();
        let (Some(base), Some(last)) =
            (self.bases.get(index).copied(), self.last_dts_us.get_mut(index))
        else {
            return;
        };
        if base.numerator() <= 0 || base.denominator() <= 0 {
            return;
        }
        if let (true, Some(dts)) = (self.may_jump, packet.dts()) {
            let dts_us = to_us(dts, base);
            let jump = last.map_or(0, |last| dts_us.saturating_add(self.shift_us) - last);
            if jump.abs() > DISCONTINUITY_US {
                self.shift_us -= jump;
            }
            *last = Some(dts_us.saturating_add(self.shift_us));
        }
        if self.shift_us != 0 {
            let den = i128::from(base.denominator());
            let units =
                i128::from(self.shift_us) * den / (i128::from(base.numerator()) * 1_000_000);
            let units = i64::try_from(units).unwrap_or(0);
            packet.set_pts(packet.pts().map(|t| t.saturating_add(units)));
            packet.set_dts(packet.dts().map(|t| t.saturating_add(units)));
        }
        if let Some(begin) = packet.pts().or(packet.dts()) {
            let end = to_us(begin.saturating_add(packet.duration().max(0)), base);
            let end = end.saturating_sub(self.start_us);
            self.end_us = Some(self.end_us.map_or(end, |known| known.max(end)));
        }
    }
}

/// FFmpeg's first choice of a decoder for a stream.
fn usual_codec(source: &Source, index: usize) -> Result<Codec, String> {
    let stream = source.input.stream(index).ok_or("the stream is gone")?;
    ffmpeg::decoder::find(stream.parameters().id()).ok_or_else(|| "there is none".to_owned())
}

/// Prepares a decoder for a stream; not yet started.
pub(super) fn new_decoder(
    source: &Source,
    index: usize,
    threads: usize,
    codec: Codec,
) -> Result<decoder::Decoder, String> {
    let stream = source.input.stream(index).ok_or("the stream is gone")?;
    let mut context = ffmpeg::codec::Context::new_with_codec(codec);
    context.set_parameters(stream.parameters()).map_err(|e| e.to_string())?;
    // SAFETY: the context is valid and not opened yet, when these fields may be set.
    unsafe {
        let raw = context.as_mut_ptr();
        (*raw).max_pixels = i64::try_from(source.limits.max_pixels).unwrap_or(i64::MAX);
        (*raw).thread_count = libc::c_int::try_from(threads).unwrap_or(0);
        (*raw).thread_type = ffi::FF_THREAD_FRAME | ffi::FF_THREAD_SLICE;
    }
    let mut decoder = context.decoder();
    decoder.set_packet_time_base(stream.time_base());
    decoder.check(Check::CRC);
    Ok(decoder)
}

fn codec_name(source: &Source, index: usize) -> String {
    source.info.streams.get(index).map(|s| s.codec.clone()).unwrap_or_default()
}

/// Turns a run of errors into one fault.
struct FaultRun {
    index: usize,
    codec: String,
    in_run: bool,
    /// Time of the last good picture or sample.
    last_good_us: Option<i64>,
}

impl FaultRun {
    fn bad(&mut self, out: &mut Out<'_>, what: &str) -> ControlFlow<()> {
        if std::mem::replace(&mut self.in_run, true) {
            return ControlFlow::Continue(());
        }
        out.fault(Some(self.index), self.last_good_us, format!("{}: {what}", self.codec))
    }

    fn good(&mut self, time_us: i64) {
        self.in_run = false;
        self.last_good_us = Some(time_us);
    }
}

/// What a decoder has after being asked.
pub(super) enum Received {
    Frame,
    Nothing,
    Error(String),
}

pub(super) fn receive(decoder: &mut decoder::Opened, frame: &mut ffmpeg::Frame) -> Received {
    match decoder.receive_frame(frame) {
        Ok(()) => Received::Frame,
        Err(ffmpeg::Error::Eof) => Received::Nothing,
        Err(ffmpeg::Error::Other { errno }) if errno == libc::EAGAIN => Received::Nothing,
        Err(error) => Received::Error(error.to_string()),
    }
}

pub(super) fn send(decoder: &mut decoder::Opened, packet: Option<&Packet>) -> Result<(), String> {
    let sent = match packet {
        Some(packet) => decoder.send_packet(packet),
        None => decoder.send_eof(),
    };
    match sent {
        // A decoder may have ended by itself, as after a still.
        Ok(()) | Err(ffmpeg::Error::Eof) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Picks the first picture at or after each point of a grid that begins at the first picture.
#[derive(Clone)]
struct Sampler {
    interval_us: Option<f64>,
    first_us: Option<i64>,
    next_us: f64,
}

impl Sampler {
    fn new(fps: f64) -> Self {
        let interval_us = (fps.is_finite() && fps > 0.0).then(|| 1e6 / fps);
        Self { interval_us, first_us: None, next_us: 0.0 }
    }

    fn takes(&mut self, time_us: i64) -> bool {
        let Some(interval) = self.interval_us else { return true };
        let first = *self.first_us.get_or_insert(time_us);
        // The grid is finer than the tolerance only for rates beyond any camera's.
        let time = (time_us - first) as f64 + (TIME_TOLERANCE_US as f64).min(interval / 4.0);
        if time < self.next_us {
            return false;
        }
        self.next_us = ((time / interval).floor() + 1.0) * interval;
        true
    }

    /// Whether a whole point of the grid went by before a picture at `time_us`.
    fn missed_one(&self, time_us: i64) -> bool {
        match (self.interval_us, self.first_us) {
            (Some(interval), Some(first)) => (time_us - first) as f64 > self.next_us + interval,
            _ => false,
        }
    }
}

/// What a decoder need not decode.
fn discard(skipping: bool) -> Discard {
    if skipping { Discard::NonReference } else { Discard::Default }
}

fn software(codec: &str, reason: &str) -> DecoderUse {
    DecoderUse { kind: DecoderKind::Software, reason: Some(format!("{codec}: {reason}")) }
}

struct VideoTrack {
    index: usize,
    decoder: decoder::Opened,
    /// The GPU's decoder, until it fails.
    hardware: Option<Hardware>,
    decoder_use: Option<DecoderUse>,
    /// Times of pictures that the GPU's decoder gave before it failed, and that software decodes
    /// again.
    shown: Vec<i64>,
    base: Rational,
    start_us: i64,
    frame_us: i64,
    orientation: Orientation,
    still: bool,
    skipping: bool,
    sampler: Sampler,
    converter: PictureConverter,
    run: FaultRun,
    /// End of the last picture on the presentation's timeline.
    expected_us: i64,
}

impl VideoTrack {
    fn new(
        source: &Source,
        track: &Track,
        options: &DecodeOptions,
        hardware: OpenHardware<'_>,
    ) -> Result<Self, String> {
        let codec = codec_name(source, track.index);
        let start = || {
            let still = source.info.kind == MediaKind::Image;
            let stream = source.input.stream(track.index).ok_or("the stream is gone")?;
            let threads = if still { 1 } else { options.threads };
            let usual = usual_codec(source, track.index)?;
            let mut decoder = new_decoder(source, track.index, threads, usual)?;
            let rate = stream.avg_frame_rate();
            let frame_us = match (rate.numerator(), rate.denominator()) {
                (num, den) if num > 0 && den > 0 => 1_000_000 * i64::from(den) / i64::from(num),
                _ => 40_000,
            };
            let sampler = Sampler::new(options.fps);
            let skipping = !still
                && sampler.interval_us.is_some_and(|interval| interval >= 2.5 * frame_us as f64);
            decoder.skip_frame(discard(skipping));
            // A single picture is not worth the way to a GPU.
            let opened = if still { None } else { hardware(source, track.index) };
            let (hardware, decoder_use) = match opened {
                Some(Ok(mut opened)) => {
                    opened.skip(discard(skipping));
                    let nvdec = DecoderUse { kind: DecoderKind::Nvdec, reason: None };
                    (Some(Hardware::new(opened)), Some(nvdec))
                }
                Some(Err(reason)) => (None, Some(software(&codec, &reason))),
                None => (None, None),
            };
            Ok::<_, String>(Self {
                index: track.index,
                decoder: decoder.open().map_err(|e| e.to_string())?,
                hardware,
                decoder_use,
                shown: Vec::new(),
                base: stream.time_base(),
                start_us: source.start_us,
                frame_us,
                orientation: track.orientation,
                still,
                skipping,
                sampler,
                converter: PictureConverter::default(),
                run: FaultRun {
                    index: track.index,
                    codec: codec.clone(),
                    in_run: false,
                    last_good_us: None,
                },
                expected_us: 0,
            })
        };
        start().map_err(|problem| format!("{codec}: the decoder does not start: {problem}"))
    }

    fn feed(&mut self, packet: Option<&Packet>, out: &mut Out<'_>) -> ControlFlow<()> {
        if let Some(packet) = packet
            && self.still
            && self.run.codec == "mjpeg"
            && !packet.data().is_some_and(jpeg_is_whole)
        {
            self.run.bad(out, "cut short: the picture's end marker is missing")?;
        }
        let Some(mut hardware) = self.hardware.take() else {
            return self.feed_software(packet, out);
        };
        match self.feed_hardware(&mut hardware, packet, out) {
            Ok(flow) => {
                self.hardware = Some(hardware);
                flow
            }
            Err(reason) => {
                let Broken { reason, packets, shown } = hardware.give_up(reason);
                self.decoder_use = Some(software(&self.run.codec, &self.told(&reason)));
                self.decoder.skip_frame(discard(self.skipping));
                self.shown = shown;
                for packet in &packets {
                    self.feed_software(Some(packet), out)?;
                }
                match packet {
                    Some(_) => ControlFlow::Continue(()),
                    None => self.feed_software(None, out),
                }
            }
        }
    }

    /// Why the GPU's decoder was given up, and when.
    fn told(&self, reason: &str) -> String {
        match self.run.last_good_us {
            Some(us) => {
                format!("the GPU's decoder broke off after {:.3} s: {reason}", us as f64 / 1e6)
            }
            None => format!("the GPU's decoder gave no picture: {reason}"),
        }
    }

    /// An error is why software must go on.
    fn feed_hardware(
        &mut self,
        hardware: &mut Hardware,
        packet: Option<&Packet>,
        out: &mut Out<'_>,
    ) -> Result<ControlFlow<()>, String> {
        hardware.send(packet)?;
        let mut picture = frame::Video::empty();
        loop {
            match hardware.receive(&mut picture) {
                Received::Frame => {}
                Received::Nothing => return Ok(ControlFlow::Continue(())),
                Received::Error(reason) => return Err(reason),
            }
            if let Some(reason) = hardware.refusal() {
                // FFmpeg would go on in software, but in this decoder, which has one thread.
                return Err(reason.to_owned());
            }
            let skipping = self.skipping;
            let flow = self.picture(&mut picture, Some(hardware), out)?;
            hardware.done_with(&picture);
            if flow.is_break() {
                return Ok(flow);
            }
            if skipping != self.skipping {
                hardware.skip(discard(self.skipping));
            }
        }
    }

    fn feed_software(&mut self, packet: Option<&Packet>, out: &mut Out<'_>) -> ControlFlow<()> {
        if let Err(error) = send(&mut self.decoder, packet) {
            self.run.bad(out, &error)?;
        }
        let mut errors = 0;
        let mut picture = frame::Video::empty();
        loop {
            match receive(&mut self.decoder, &mut picture) {
                Received::Frame => {
                    errors = 0;
                    // Software's pictures are on the host already.
                    if let Ok(flow) = self.picture(&mut picture, None, out) {
                        flow?;
                    }
                    if self.still && out.frames > 0 {
                        return ControlFlow::Continue(());
                    }
                }
                Received::Nothing => return ControlFlow::Continue(()),
                Received::Error(error) => {
                    self.run.bad(out, &error)?;
                    errors += 1;
                    // Each error while the decoder is emptied stands for one packet it held.
                    if packet.is_some() || errors >= MAX_DRAIN_ERRORS {
                        return ControlFlow::Continue(());
                    }
                }
            }
        }
    }

    /// An error is why software must decode this picture again: it could not be brought to the
    /// host from `hardware`, where it is.
    fn picture(
        &mut self,
        picture: &mut frame::Video,
        hardware: Option<&Hardware>,
        out: &mut Out<'_>,
    ) -> Result<ControlFlow<()>, String> {
        if !self.shown.is_empty()
            && let Some(at) = self.shown.iter().position(|t| Some(*t) == picture.timestamp())
        {
            self.shown.swap_remove(at);
            return Ok(ControlFlow::Continue(()));
        }
        let time_us = match picture.timestamp() {
            _ if self.still => 0,
            Some(time) => to_us(time, self.base).saturating_sub(self.start_us),
            None => self.expected_us,
        };
        // SAFETY: the frame is valid.
        let duration = unsafe { (*picture.as_ptr()).pkt_duration };
        let duration_us = if duration > 0 { to_us(duration, self.base) } else { self.frame_us };
        self.expected_us = time_us.saturating_add(duration_us);
        if picture.is_corrupt() || picture.has_decode_errors() {
            return Ok(self.run.bad(out, "damaged picture"));
        }
        // Before the presentation's beginning, as where an edit list cuts into a group.
        if time_us < -TIME_TOLERANCE_US / 2 {
            return Ok(ControlFlow::Continue(()));
        }
        let time_us = time_us.max(0);
        self.run.good(time_us);
        if self.skipping && self.sampler.missed_one(time_us) {
            // Reference pictures are too sparse here for the rate that was asked for.
            self.skipping = false;
            self.decoder.skip_frame(Discard::Default);
        }
        let before = self.sampler.clone();
        if !self.sampler.takes(time_us) {
            return Ok(ControlFlow::Continue(()));
        }
        // Only the pictures that are looked at make the way from the GPU.
        if let Some(Err(reason)) = hardware.map(|hardware| hardware.to_host(picture)) {
            self.sampler = before;
            return Err(reason);
        }
        let flow = match self.converter.convert(picture, self.orientation, self.still) {
            Ok(rgb) => {
                out.frames += 1;
                (out.sink)(Event::Frame(Frame {
                    stream: self.index,
                    time_ms: to_ms(time_us),
                    width: rgb.width,
                    height: rgb.height,
                    rgb: rgb.rgb,
                }))
            }
            Err(error) => self.run.bad(out, &error),
        };
        Ok(flow)
    }
}

struct AudioTrack {
    index: usize,
    decoder: decoder::Opened,
    base: Rational,
    /// Taken off timestamps. Grows where a stream's clock is found to have jumped back.
    start_us: i64,
    converter: SoundConverter,
    run: FaultRun,
    /// Where the next samples should begin by what was counted: begin of the current run in
    /// microseconds, samples since, and their rate.
    counted: Option<(i64, i64, i64)>,
    /// Samples to drop before the next that is kept.
    drop: usize,
    /// Position of `samples[0]`; with an empty buffer, of the next sample.
    position: i64,
    samples: Vec<f32>,
}

impl AudioTrack {
    fn new(source: &Source, track: &Track) -> Result<Self, String> {
        let codec = codec_name(source, track.index);
        let start = || {
            let stream = source.input.stream(track.index).ok_or("the stream is gone")?;
            let usual = usual_codec(source, track.index)?;
            let decoder = new_decoder(source, track.index, 1, usual)?;
            Ok::<_, String>(Self {
                index: track.index,
                decoder: decoder.open().map_err(|e| e.to_string())?,
                base: stream.time_base(),
                start_us: source.start_us,
                converter: SoundConverter::default(),
                run: FaultRun {
                    index: track.index,
                    codec: codec.clone(),
                    in_run: false,
                    last_good_us: None,
                },
                counted: None,
                drop: 0,
                position: 0,
                samples: Vec::new(),
            })
        };
        start().map_err(|problem| format!("{codec}: the decoder does not start: {problem}"))
    }

    fn feed(&mut self, packet: Option<&Packet>, out: &mut Out<'_>) -> ControlFlow<()> {
        if let Err(error) = send(&mut self.decoder, packet) {
            self.run.bad(out, &error)?;
        }
        let mut errors = 0;
        let mut sound = frame::Audio::empty();
        loop {
            match receive(&mut self.decoder, &mut sound) {
                Received::Frame => {
                    errors = 0;
                    self.sound(&sound, out)?;
                }
                Received::Nothing => break,
                Received::Error(error) => {
                    self.run.bad(out, &error)?;
                    errors += 1;
                    if packet.is_some() || errors >= MAX_DRAIN_ERRORS {
                        break;
                    }
                }
            }
        }
        if packet.is_none() {
            self.end_run(out)?;
        }
        ControlFlow::Continue(())
    }

    fn sound(&mut self, sound: &frame::Audio, out: &mut Out<'_>) -> ControlFlow<()> {
        let rate = i64::from(sound.rate());
        let count = i64::try_from(sound.samples()).unwrap_or(0);
        if rate <= 0 || count == 0 {
            return ControlFlow::Continue(());
        }
        let expected_us =
            self.counted.map(|(begin, samples, rate)| begin + samples * 1_000_000 / rate);
        let stamped_us = known(sound.timestamp().unwrap_or(ffi::AV_NOPTS_VALUE))
            .map(|t| to_us(t, self.base).saturating_sub(self.start_us));
        let time_us = stamped_us.or(expected_us).unwrap_or(0);
        if sound.is_corrupt() || sound.has_decode_errors() {
            // What is left out shows as a gap before the next good sound.
            return self.run.bad(out, "damaged sound");
        }
        let continues = expected_us.is_some_and(|e| (time_us - e).abs() <= SOUND_JITTER_US)
            && self.converter.fits(sound);
        if !continues {
            self.end_run(out)?;
            self.begin_run(time_us, rate);
        }
        if let Err(error) = self.converter.push(sound, &mut self.samples) {
            return self.run.bad(out, &error);
        }
        if let Some((_, samples, _)) = &mut self.counted {
            *samples += count;
        }
        self.run.good(time_us + count * 1_000_000 / rate);
        self.cut_beginning();
        self.emit(out, SOUND_CHUNK)
    }

    fn begin_run(&mut self, time_us: i64, rate: i64) {
        let mut time_us = time_us;
        let mut at = position_of(time_us);
        // `position` is where the last run ended, 0 at first: nothing may come before it.
        let overlap = self.position.saturating_sub(at);
        if overlap > MAX_SOUND_OVERLAP && self.run.last_good_us.is_some() {
            let wanted_us = self.position * 1_000_000 / SAMPLE_RATE;
            self.start_us = self.start_us.saturating_sub(wanted_us.saturating_sub(time_us));
            time_us = wanted_us;
            at = self.position;
        }
        self.drop = usize::try_from(self.position.saturating_sub(at)).unwrap_or(0);
        self.position = self.position.max(at);
        self.counted = Some((time_us, 0, rate));
    }

    fn cut_beginning(&mut self) {
        let cut = self.drop.min(self.samples.len());
        if cut > 0 {
            self.samples.drain(..cut);
            self.drop -= cut;
        }
    }

    fn end_run(&mut self, out: &mut Out<'_>) -> ControlFlow<()> {
        if let Err(error) = self.converter.drain(&mut self.samples) {
            self.run.bad(out, &error)?;
        }
        self.cut_beginning();
        self.counted = None;
        self.emit(out, 1)
    }

    /// Hands out chunks while at least `least` samples are there.
    fn emit(&mut self, out: &mut Out<'_>, least: usize) -> ControlFlow<()> {
        while self.samples.len() >= least {
            let rest = self.samples.split_off(self.samples.len().min(SOUND_CHUNK));
            let samples = std::mem::replace(&mut self.samples, rest);
            let start = self.position;
            self.position += i64::try_from(samples.len()).unwrap_or(0);
            (out.sink)(Event::Audio(Audio { stream: self.index, start, samples }))?;
        }
        ControlFlow::Continue(())
    }
}

/// Whether the end marker follows the last scan. FFmpeg fills what is missing with gray, without a
/// word.
fn jpeg_is_whole(data: &[u8]) -> bool {
    let last = |marker| data.windows(2).rposition(|w| w == [0xFF, marker]);
    last(0xD9) > last(0xDA)
}

/// The nearest 16 kHz sample.
fn position_of(time_us: i64) -> i64 {
    let samples = i128::from(time_us) * i128::from(SAMPLE_RATE);
    i64::try_from((samples + 500_000).div_euclid(1_000_000)).unwrap_or(i64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(fps: f64, times_us: &[i64]) -> Vec<i64> {
        let mut sampler = Sampler::new(fps);
        times_us.iter().copied().filter(|t| sampler.takes(*t)).collect()
    }

    #[test]
    fn the_grid_begins_at_the_first_picture() {
        let times: Vec<i64> = (0..25).map(|i| 100_000 + i * 40_000).collect();
        assert_eq!(taken(4.0, &times), [100_000, 380_000, 620_000, 860_000]);
    }

    #[test]
    fn every_picture_where_none_is_too_many() {
        let slides: Vec<i64> = (0..5).map(|i| i * 60_000_000).collect();
        assert_eq!(taken(4.0, &slides), slides);
        assert_eq!(taken(0.0, &[0, 1, 2]), [0, 1, 2]);
        assert_eq!(taken(f64::NAN, &[0, 1, 2]), [0, 1, 2]);
        // 24 pictures a second as Matroska rounds them.
        let rounded = [0, 42_000, 83_000, 125_000, 167_000];
        assert_eq!(taken(24.0, &rounded), rounded);
    }

    #[test]
    fn positions_round_to_the_nearest_sample() {
        assert_eq!(position_of(1_000_000), 16_000);
        assert_eq!(position_of(-1_000), -16);
        assert_eq!(position_of(31), 0);
        assert_eq!(position_of(32), 1);
    }
}
