//! Decoding on the GPU (NVDEC, through FFmpeg's CUDA hwaccel), with software behind it.
//!
//! A decoder on the GPU may refuse a stream, break off anywhere, or be lost with its device. So the
//! packets that software would need to take over are kept, and which of their pictures were handed
//! out: it then goes on from there, and no picture is lost or doubled.

use std::collections::VecDeque;

use ffmpeg_next as ffmpeg;
use ffmpeg_next::codec::decoder;
use ffmpeg_next::{Codec, Discard, Packet, ffi, frame};

use super::decode::{Received, new_decoder, receive, send};
use super::source::Source;

/// Packets kept behind a key picture at least: more than any decoder holds back.
const KEPT: usize = 64;
/// Bytes of packets kept at most. Where key pictures lie further apart, software takes over while
/// it still can.
const KEPT_BYTES: usize = 64 << 20;

/// Decodes packets to pictures that may lie on a device.
pub(super) trait PictureDecoder {
    fn send(&mut self, packet: Option<&Packet>) -> Result<(), String>;
    /// A picture on the device has its planes' device addresses and pitches in `data` and
    /// `linesize`, and its colour space and range, as one on the host has.
    fn receive(&mut self, picture: &mut frame::Video) -> Received;
    /// Brings a picture's pixels into the host's memory.
    fn to_host(&self, picture: &mut frame::Video) -> Result<(), String>;
    /// Which pictures may be skipped from here on.
    fn skip(&mut self, discard: Discard);
    /// Why the pictures do not come from the GPU, although nothing failed.
    fn refusal(&self) -> Option<&str>;
}

/// A decoder that may break off, and what software needs to go on in its place.
pub(super) struct Hardware {
    decoder: Box<dyn PictureDecoder>,
    packets: VecDeque<Packet>,
    /// Number of the first packet kept, counted from the stream's beginning.
    first: usize,
    /// Numbers of the key pictures' packets among those kept.
    keys: VecDeque<usize>,
    bytes: usize,
    /// Pictures that came out: how many packets had been sent, and the time.
    shown: VecDeque<(usize, i64)>,
}

/// Where a decoder broke off.
pub(super) struct Broken {
    pub reason: String,
    /// What to decode again, from a key picture on.
    pub packets: VecDeque<Packet>,
    /// Times of the pictures among it that came out already.
    pub shown: Vec<i64>,
}

impl Hardware {
    pub(super) fn new(decoder: Box<dyn PictureDecoder>) -> Self {
        Self {
            decoder,
            packets: VecDeque::new(),
            first: 0,
            keys: VecDeque::new(),
            bytes: 0,
            shown: VecDeque::new(),
        }
    }

    pub(super) fn send(&mut self, packet: Option<&Packet>) -> Result<(), String> {
        if let Some(packet) = packet {
            self.keep(packet);
            if self.bytes > KEPT_BYTES {
                return Err(format!(
                    "more than {} MiB would have to be kept for software to go on from",
                    KEPT_BYTES >> 20
                ));
            }
        }
        self.decoder.send(packet)
    }

    /// A picture that is whole and has a time, nothing, or why software must go on.
    pub(super) fn receive(&mut self, picture: &mut frame::Video) -> Received {
        let received = self.decoder.receive(picture);
        if !matches!(received, Received::Frame) {
            return received;
        }
        if picture.is_corrupt() || picture.has_decode_errors() {
            return Received::Error("damaged picture".to_owned());
        }
        if picture.timestamp().is_none() {
            return Received::Error("its pictures carry no times".to_owned());
        }
        received
    }

    pub(super) fn to_host(&self, picture: &mut frame::Video) -> Result<(), String> {
        self.decoder.to_host(picture)
    }

    /// Software will not have to decode this picture again.
    pub(super) fn done_with(&mut self, picture: &frame::Video) {
        let sent = self.first + self.packets.len();
        self.shown.extend(picture.timestamp().map(|time| (sent, time)));
    }

    pub(super) fn skip(&mut self, discard: Discard) {
        self.decoder.skip(discard);
    }

    pub(super) fn refusal(&self) -> Option<&str> {
        self.decoder.refusal()
    }

    pub(super) fn give_up(self, reason: String) -> Broken {
        let shown = self.shown.into_iter().map(|(_, time)| time).collect();
        Broken { reason, packets: self.packets, shown }
    }

    fn keep(&mut self, packet: &Packet) {
        let number = self.first + self.packets.len();
        if packet.is_key() {
            self.keys.push_back(number);
        }
        self.packets.push_back(packet.clone());
        self.bytes += packet.size();
        // What the decoder still holds back lies behind the last key picture that has enough
        // packets after it.
        while let Some(&key) = self.keys.front()
            && key + KEPT <= number
        {
            self.keys.pop_front();
            let keeps = self.keys.front().is_some_and(|next| next + KEPT <= number);
            if keeps {
                continue;
            }
            while self.first < key
                && let Some(old) = self.packets.pop_front()
            {
                self.first += 1;
                self.bytes -= old.size();
            }
            // A picture of these packets can have come out only after the first was sent.
            while self.shown.front().is_some_and(|(sent, _)| *sent <= key) {
                self.shown.pop_front();
            }
            self.keys.push_front(key);
            break;
        }
    }
}

/// FFmpeg's decoder with the CUDA hwaccel.
pub(super) struct Nvdec {
    decoder: decoder::Opened,
    codec: String,
    refusal: Option<String>,
}

impl Nvdec {
    /// Opens the decoder for a stream on the GPU `ordinal`.
    ///
    /// # Errors
    /// No such decoder, no driver, no device: in one sentence.
    pub(super) fn new(source: &Source, index: usize, ordinal: usize) -> Result<Self, String> {
        let stream = source.input.stream(index).ok_or("the stream is gone")?;
        let id: ffi::AVCodecID = stream.parameters().id().into();
        let codec = hardware_codec(id).ok_or("this FFmpeg decodes it in software only")?;
        let mut device = std::ptr::null_mut();
        let name = std::ffi::CString::new(ordinal.to_string()).map_err(|e| e.to_string())?;
        // SAFETY: the name ends in NUL; on success `device` is a reference that is ours. The
        // primary context is the one that networks run in.
        let made = unsafe {
            ffi::av_hwdevice_ctx_create(
                &mut device,
                ffi::AVHWDeviceType::AV_HWDEVICE_TYPE_CUDA,
                name.as_ptr(),
                std::ptr::null_mut(),
                ffi::AV_CUDA_USE_PRIMARY_CONTEXT,
            )
        };
        if made < 0 {
            return Err(format!(
                "FFmpeg cannot use the GPU cuda:{ordinal}, or its driver is missing: {}",
                ffmpeg::Error::from(made)
            ));
        }
        // One thread: the GPU does the work, and more would only hold pictures back.
        let mut decoder = match new_decoder(source, index, 1, codec) {
            Ok(decoder) => decoder,
            Err(error) => {
                // SAFETY: the reference is ours and not given away.
                unsafe { ffi::av_buffer_unref(&mut device) };
                return Err(error);
            }
        };
        // SAFETY: the context is valid and not opened yet; it takes the reference over and drops
        // it. FFmpeg's own choice of format then takes the device's wherever it can.
        unsafe { (*decoder.as_mut_ptr()).hw_device_ctx = device };
        Ok(Self {
            decoder: decoder.open().map_err(|e| e.to_string())?,
            codec: codec.name().to_owned(),
            refusal: None,
        })
    }
}

impl PictureDecoder for Nvdec {
    fn send(&mut self, packet: Option<&Packet>) -> Result<(), String> {
        send(&mut self.decoder, packet)
    }

    fn receive(&mut self, picture: &mut frame::Video) -> Received {
        let received = receive(&mut self.decoder, picture);
        if matches!(received, Received::Frame) && !on_device(picture) {
            // FFmpeg asked the driver and went on in software by itself.
            self.refusal.get_or_insert_with(|| {
                format!("the GPU does not decode this kind of {} (profile, size)", self.codec)
            });
        }
        received
    }

    fn to_host(&self, picture: &mut frame::Video) -> Result<(), String> {
        if !on_device(picture) {
            return Ok(());
        }
        let mut host = frame::Video::empty();
        // SAFETY: both frames are valid. The target is empty, so that FFmpeg allocates it in the
        // format that the device hands out (NV12, P010, …).
        let made = unsafe {
            let (target, from) = (host.as_mut_ptr(), picture.as_ptr());
            match ffi::av_hwframe_transfer_data(target, from, 0) {
                error if error < 0 => error,
                _ => match ffi::av_frame_copy_props(target, from) {
                    error if error < 0 => error,
                    // Frames on a device are cropped at the right and the bottom only.
                    _ => ffi::av_frame_apply_cropping(
                        target,
                        ffi::AV_FRAME_CROP_UNALIGNED as libc::c_int,
                    ),
                },
            }
        };
        if made < 0 {
            let error = ffmpeg::Error::from(made);
            return Err(format!("a picture cannot be brought to the host: {error}"));
        }
        *picture = host;
        Ok(())
    }

    fn skip(&mut self, discard: Discard) {
        self.decoder.skip_frame(discard);
    }

    fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref()
    }
}

fn on_device(picture: &frame::Video) -> bool {
    let stored: ffi::AVPixelFormat = picture.format().into();
    stored == ffi::AVPixelFormat::AV_PIX_FMT_CUDA
}

/// A decoder of FFmpeg's own that can use the CUDA hwaccel. NVIDIA's wrapped ones (cuvid) are left
/// out: they have no software to go on with inside.
fn hardware_codec(id: ffi::AVCodecID) -> Option<Codec> {
    let mut place = std::ptr::null_mut();
    loop {
        // SAFETY: the list of codecs is static, and `place` is only FFmpeg's to read.
        let codec = unsafe { ffi::av_codec_iterate(&mut place).as_ref() }?;
        // SAFETY: the codec is from the list.
        let decodes = unsafe { ffi::av_codec_is_decoder(codec) } != 0;
        let wrapped = codec.capabilities as u32 & ffi::AV_CODEC_CAP_HARDWARE != 0;
        if codec.id == id && decodes && !wrapped && uses_cuda(codec) {
            // SAFETY: as above.
            return Some(unsafe { Codec::wrap(codec) });
        }
    }
}

fn uses_cuda(codec: &ffi::AVCodec) -> bool {
    let method = ffi::AV_CODEC_HW_CONFIG_METHOD_HW_DEVICE_CTX as libc::c_int;
    (0..)
        // SAFETY: the codec is FFmpeg's; after the last configuration comes null.
        .map_while(|i| unsafe { ffi::avcodec_get_hw_config(codec, i).as_ref() })
        .any(|config| {
            config.device_type == ffi::AVHWDeviceType::AV_HWDEVICE_TYPE_CUDA
                && config.methods & method != 0
        })
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, ops::ControlFlow, path::Path, process::Command};

    use super::*;
    use crate::media::{DecodeOptions, DecoderKind, DecoderUse, Event, Limits};

    /// Where a decoder breaks off.
    #[derive(Debug, Clone, Copy)]
    enum Fails {
        /// At the picture of this number.
        Picture(usize),
        /// At this packet.
        Packet(usize),
        /// When this one of the pictures that are looked at is brought to the host.
        Host(usize),
        /// While it is emptied, after this many pictures.
        Emptied(usize),
        Never,
    }

    /// FFmpeg's software decoder in the place of the GPU's.
    struct Fake {
        decoder: decoder::Opened,
        fails: Fails,
        pictures: usize,
        packets: usize,
        brought: Cell<usize>,
        emptying: Option<usize>,
    }

    impl Fake {
        fn new(decoder: decoder::Opened, fails: Fails) -> Self {
            let brought = Cell::new(0);
            Self { decoder, fails, pictures: 0, packets: 0, brought, emptying: None }
        }
    }

    impl PictureDecoder for Fake {
        fn send(&mut self, packet: Option<&Packet>) -> Result<(), String> {
            self.packets += 1;
            if packet.is_none() {
                self.emptying = Some(0);
            }
            match self.fails {
                Fails::Packet(n) if n == self.packets => Err("as asked".to_owned()),
                _ => send(&mut self.decoder, packet),
            }
        }

        fn receive(&mut self, picture: &mut frame::Video) -> Received {
            let fails = match (self.fails, self.emptying) {
                (Fails::Picture(n), _) => n == self.pictures,
                (Fails::Emptied(n), Some(emptied)) => n == emptied,
                _ => false,
            };
            if fails {
                return Received::Error("as asked".to_owned());
            }
            let received = receive(&mut self.decoder, picture);
            if matches!(received, Received::Frame) {
                self.pictures += 1;
                self.emptying = self.emptying.map(|n| n + 1);
            }
            received
        }

        fn to_host(&self, _: &mut frame::Video) -> Result<(), String> {
            self.brought.set(self.brought.get() + 1);
            match self.fails {
                Fails::Host(n) if n == self.brought.get() => Err("as asked".to_owned()),
                _ => Ok(()),
            }
        }

        fn skip(&mut self, discard: Discard) {
            self.decoder.skip_frame(discard);
        }

        fn refusal(&self) -> Option<&str> {
            None
        }
    }

    type Shown = Vec<(i64, Vec<u8>)>;

    fn decode(path: &Path, fps: f64, fails: Option<Fails>) -> (Shown, Option<DecoderUse>) {
        let source = Source::open(path, &Limits::default()).unwrap();
        let hardware = |source: &Source, index: usize| {
            let fails = fails?;
            let id = source.input.stream(index).unwrap().parameters().id();
            let codec = ffmpeg::decoder::find(id).unwrap();
            let decoder = new_decoder(source, index, 3, codec).unwrap().open().unwrap();
            let fake = Fake::new(decoder, fails);
            Some(Ok(Box::new(fake) as Box<dyn PictureDecoder>))
        };
        let options = DecodeOptions { fps, video: true, audio: false, threads: 2, hardware: None };
        let mut shown = Vec::new();
        let used = source
            .decode_with(&options, &hardware, &mut |event| {
                match event {
                    Event::Frame(frame) => shown.push((frame.time_ms, frame.rgb)),
                    Event::Fault(fault) => panic!("{fault:?}"),
                    Event::Audio(_) => {}
                }
                ControlFlow::Continue(())
            })
            .unwrap();
        (shown, used)
    }

    fn film(dir: &Path, name: &str, coder: &[&str]) -> std::path::PathBuf {
        let path = dir.join(name);
        let source = "testsrc2=s=160x96:r=25:d=12,noise=alls=20:allf=t";
        let output = Command::new("ffmpeg")
            .args(["-v", "error", "-nostdin", "-y", "-f", "lavfi", "-i", source])
            .args(["-pix_fmt", "yuv420p"])
            .args(coder)
            .arg(&path)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        path
    }

    /// Key pictures far apart and near, references across them, pictures out of order, each a key.
    #[test]
    fn every_picture_comes_once_wherever_the_gpu_s_decoder_breaks_off() {
        let dir = tempfile::tempdir().unwrap();
        let h264 = |more: &[&'static str]| {
            [&["-c:v", "libx264", "-preset", "veryfast", "-threads", "1"], more].concat()
        };
        let films = [
            film(dir.path(), "far.mp4", &h264(&["-g", "1000", "-bf", "3"])),
            film(dir.path(), "near.mp4", &h264(&["-g", "30", "-bf", "3"])),
            film(
                dir.path(),
                "open.mkv",
                &h264(&["-g", "20", "-bf", "4", "-x264-params", "open-gop=1:b-pyramid=normal"]),
            ),
            film(dir.path(), "all.mp4", &h264(&["-g", "1"])),
            film(dir.path(), "mpeg2.ts", &["-c:v", "mpeg2video", "-g", "15", "-bf", "2"]),
            // No presentation times in the file: the decoder guesses them from those of decoding.
            film(dir.path(), "times.avi", &h264(&["-g", "30", "-bf", "3"])),
        ];
        for film in &films {
            let name = film.file_name().unwrap().display();
            for fps in [0.0, 4.0] {
                let (want, used) = decode(film, fps, None);
                assert_eq!(used, None);
                assert!(want.len() >= if fps > 0.0 { 40 } else { 295 }, "{name}: {}", want.len());
                let ends = [
                    Fails::Picture(0),
                    Fails::Picture(1),
                    Fails::Picture(99),
                    Fails::Picture(137),
                    Fails::Host(1),
                    Fails::Host(33),
                    Fails::Packet(1),
                    Fails::Packet(2),
                    Fails::Packet(151),
                    Fails::Packet(200),
                    Fails::Emptied(0),
                    Fails::Emptied(1),
                ];
                for fails in ends {
                    let (found, used) = decode(film, fps, Some(fails));
                    let times = |shown: &Shown| shown.iter().map(|s| s.0).collect::<Vec<_>>();
                    assert_eq!(times(&found), times(&want), "{name} {fps} {fails:?}");
                    assert!(found == want, "other pixels: {name} {fps} {fails:?}");
                    let used = used.unwrap();
                    // With few pictures wanted fewer are decoded, and some ends are not reached.
                    let reached = matches!(fails, Fails::Host(_))
                        || (fps == 0.0 && !matches!(fails, Fails::Emptied(_)));
                    if reached {
                        assert_eq!(used.kind, DecoderKind::Software, "{name} {fails:?}");
                    }
                    if used.kind == DecoderKind::Software {
                        assert!(used.reason.unwrap().ends_with("as asked"));
                    }
                }
                let (found, used) = decode(film, fps, Some(Fails::Never));
                assert!(found == want, "{name}");
                // The last pictures of the film without times have none at all; software, which
                // counts on from the ones before, is asked for those.
                if film.extension().is_none_or(|e| e != "avi") {
                    assert_eq!(used, Some(DecoderUse { kind: DecoderKind::Nvdec, reason: None }));
                }
            }
        }
    }

    #[test]
    fn few_packets_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let film =
            film(dir.path(), "a.mp4", &["-c:v", "libx264", "-preset", "ultrafast", "-g", "30"]);
        let mut source = Source::open(&film, &Limits::default()).unwrap();
        let codec = ffmpeg::decoder::find(ffmpeg::codec::Id::H264).unwrap();
        let decoder = new_decoder(&source, 0, 1, codec).unwrap().open().unwrap();
        let mut hardware = Hardware::new(Box::new(Fake::new(decoder, Fails::Never)));
        let mut number = 0;
        loop {
            let mut packet = Packet::empty();
            if packet.read(&mut source.input).is_err() {
                break;
            }
            hardware.keep(&packet);
            number += 1;
            // From the key picture before the last 64 packets on: at most 30 more.
            assert!(hardware.packets.len() <= 64 + 30, "{number}: {}", hardware.packets.len());
            assert!(hardware.packets.len() >= 64.min(number));
            assert!(hardware.packets[0].is_key());
            let bytes: usize = hardware.packets.iter().map(Packet::size).sum();
            assert_eq!(hardware.bytes, bytes);
            assert_eq!(hardware.first + hardware.packets.len(), number);
        }
        assert_eq!(number, 300);
    }
}
