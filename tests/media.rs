//! The media room over files made by the `ffmpeg` command.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;
use veriscope::media::{
    Audio, DecodeOptions, DecoderKind, Event, Fault, Frame, Limits, MediaError, MediaInfo,
    MediaKind, Source, StreamKind,
};

/// Runs `ffmpeg -i … OUT`; the arguments stand in one string, without quoting.
fn ffmpeg(args: &str, out: &Path) {
    let result = Command::new("ffmpeg")
        .args(["-hide_banner", "-loglevel", "error", "-nostdin", "-y"])
        .args(args.split_whitespace())
        .arg(out)
        .stdin(Stdio::null())
        .output()
        .expect("the ffmpeg command is needed");
    assert!(
        result.status.success(),
        "ffmpeg {args} {}: {}",
        out.display(),
        String::from_utf8_lossy(&result.stderr)
    );
}

fn make(dir: &TempDir, name: &str, args: &str) -> PathBuf {
    let path = dir.path().join(name);
    ffmpeg(args, &path);
    path
}

/// What the `ffprobe` command says of the times of the pictures, from the container's start.
fn probed(path: &Path) -> Vec<i64> {
    let ask = |entries: &str| {
        let output = Command::new("ffprobe")
            .args([
                "-v",
                "error",
                "-select_streams",
                "v",
                "-of",
                "csv=p=0",
                "-show_entries",
                entries,
            ])
            .arg(path)
            .output()
            .expect("the ffprobe command is needed");
        String::from_utf8(output.stdout).unwrap()
    };
    let number = |line: &str| line.trim_matches(',').parse::<f64>().unwrap();
    let start = number(ask("format=start_time").trim()).max(0.0);
    let frames = ask("frame=best_effort_timestamp_time");
    frames
        .lines()
        .filter(|l| !l.is_empty())
        .map(|l| ((number(l) - start) * 1000.0).round() as i64)
        .collect()
}

/// The first picture as the `ffmpeg` command shows it, upright, in RGB.
fn shown(path: &Path) -> Vec<u8> {
    let output = Command::new("ffmpeg")
        .args(["-loglevel", "error", "-nostdin", "-i"])
        .arg(path)
        .args(["-frames:v", "1", "-pix_fmt", "rgb24", "-f", "rawvideo", "-"])
        .output()
        .unwrap();
    assert!(output.status.success());
    output.stdout
}

#[derive(Default)]
struct Decoded {
    frames: Vec<Frame>,
    audio: Vec<Audio>,
    faults: Vec<Fault>,
}

impl Decoded {
    fn times(&self) -> Vec<i64> {
        self.frames.iter().map(|f| f.time_ms).collect()
    }

    /// The sound of one stream on the presentation's timeline, gaps as silence.
    fn sound(&self, stream: usize) -> Vec<f32> {
        let mut all = Vec::new();
        for run in self.audio.iter().filter(|a| a.stream == stream) {
            let start = usize::try_from(run.start).unwrap();
            assert!(start >= all.len(), "runs come in order and do not overlap");
            assert!(run.samples.len() <= 16_000);
            all.resize(start, 0.0);
            all.extend_from_slice(&run.samples);
        }
        all
    }
}

fn options(fps: f64) -> DecodeOptions {
    DecodeOptions { fps, video: true, audio: true, threads: 2, hardware: None }
}

fn open(path: &Path) -> Source {
    Source::open(path, &Limits::default()).unwrap_or_else(|e| panic!("{e}"))
}

fn error(path: &Path) -> MediaError {
    match Source::open(path, &Limits::default()) {
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains(&path.display().to_string()), "{text}");
            error
        }
        Ok(source) => panic!("opened as {:?}", source.info()),
    }
}

fn decode_with(path: &Path, options: &DecodeOptions) -> (MediaInfo, Decoded) {
    let source = open(path);
    let info = source.info().clone();
    let mut all = Decoded::default();
    source
        .decode(options, &mut |event| {
            match event {
                Event::Frame(frame) => {
                    assert_eq!(frame.rgb.len(), frame.width * frame.height * 3);
                    assert!(frame.time_ms >= 0);
                    all.frames.push(frame);
                }
                Event::Audio(audio) => all.audio.push(audio),
                Event::Fault(fault) => all.faults.push(fault),
            }
            ControlFlow::Continue(())
        })
        .unwrap_or_else(|e| panic!("{e}"));
    (info, all)
}

fn decode(path: &Path, fps: f64) -> (MediaInfo, Decoded) {
    decode_with(path, &options(fps))
}

fn pixel(frame: &Frame, x: usize, y: usize) -> [u8; 3] {
    let at = (y * frame.width + x) * 3;
    frame.rgb[at..at + 3].try_into().unwrap()
}

#[track_caller]
fn assert_colour(found: [u8; 3], wanted: [u8; 3], tolerance: u8) {
    let near = found.iter().zip(&wanted).all(|(a, b)| a.abs_diff(*b) <= tolerance);
    assert!(near, "{found:?} is not {wanted:?}");
}

/// Where the loudest sample is.
fn loudest(sound: &[f32]) -> usize {
    (0..sound.len()).max_by(|a, b| sound[*a].abs().total_cmp(&sound[*b].abs())).unwrap()
}

/// One second of test picture and sound in every container and codec that is promised.
#[test]
fn containers_and_codecs() {
    let dir = TempDir::new().unwrap();
    let picture = "-f lavfi -i testsrc2=s=320x240:r=25:d=1.2";
    let both = format!("{picture} -f lavfi -i sine=f=440:r=48000:d=1.2 -pix_fmt yuv420p");
    let x264 = "-c:v libx264 -preset ultrafast -g 12";
    let cases = [
        ("a.mp4", format!("{both} {x264} -c:a aac"), "h264", "aac"),
        ("a.mov", format!("{both} {x264} -c:a pcm_s16le"), "h264", "pcm_s16le"),
        ("a.mkv", format!("{both} {x264} -c:a flac"), "h264", "flac"),
        (
            "b.mkv",
            format!(
                "{both} -c:v libx265 -preset ultrafast -x265-params log-level=0 -c:a libmp3lame"
            ),
            "hevc",
            "mp3",
        ),
        (
            "c.mp4",
            format!(
                "{both} -c:v libx265 -preset ultrafast -x265-params log-level=0 -tag:v hvc1 -c:a aac"
            ),
            "hevc",
            "aac",
        ),
        (
            "a.webm",
            format!("{both} -c:v libvpx-vp9 -deadline realtime -cpu-used 8 -c:a libopus"),
            "vp9",
            "opus",
        ),
        (
            "b.webm",
            format!("{both} -c:v libvpx -deadline realtime -cpu-used 8 -c:a libvorbis"),
            "vp8",
            "vorbis",
        ),
        (
            "b.mp4",
            format!("{both} -c:v libaom-av1 -cpu-used 8 -usage realtime -c:a libopus"),
            "av1",
            "opus",
        ),
        ("a.avi", format!("{both} -c:v mpeg4 -q:v 4 -c:a libmp3lame"), "mpeg4", "mp3"),
        ("b.avi", format!("{both} {x264} -c:a pcm_s16le"), "h264", "pcm_s16le"),
        ("a.flv", format!("{both} {x264} -c:a aac"), "h264", "aac"),
        ("a.ts", format!("{both} {x264} -c:a aac"), "h264", "aac"),
        ("a.mpg", format!("{both} -c:v mpeg2video -q:v 4 -c:a mp2"), "mpeg2video", "mp2"),
    ];
    for (name, args, video, sound) in cases {
        let path = make(&dir, name, &args);
        let (info, all) = decode(&path, 0.0);
        assert_eq!(info.kind, MediaKind::Video, "{name}");
        let stream = |kind| info.streams.iter().find(|s| s.kind == kind).unwrap();
        let (v, a) = (stream(StreamKind::Video), stream(StreamKind::Audio));
        assert_eq!((v.codec.as_str(), a.codec.as_str()), (video, sound), "{name}");
        assert_eq!((v.width, v.height, v.rotation), (Some(320), Some(240), Some(0)), "{name}");
        assert!((v.frame_rate.unwrap() - 25.0).abs() < 0.5, "{name}: {:?}", v.frame_rate);
        let duration = info.duration_ms.unwrap();
        assert!((1150..1330).contains(&duration), "{name}: {duration} ms");
        assert!(all.faults.is_empty(), "{name}: {:?}", all.faults);
        assert!((29..=30).contains(&all.frames.len()), "{name}: {}", all.frames.len());
        let times = all.times();
        assert!(times[0] <= 80, "{name}: {times:?}");
        assert!(
            times.iter().zip(probed(&path)).all(|(a, b)| (a - b).abs() <= 1),
            "{name}: {times:?}"
        );
        let samples = all.sound(a.index);
        assert!((18_800..=20_600).contains(&samples.len()), "{name}: {} samples", samples.len());
        // A 440 Hz tone crosses zero 880 times a second.
        let middle = &samples[4_000..16_000];
        let crossings = middle.windows(2).filter(|w| (w[0] < 0.0) != (w[1] < 0.0)).count();
        assert!((650..=670).contains(&crossings), "{name}: {crossings} zero crossings");
    }
    for (name, args) in [
        ("a.wav", "-c:a pcm_s24le"),
        ("a.flac", "-c:a flac"),
        ("a.mp3", "-c:a libmp3lame"),
        ("a.ogg", "-c:a libopus"),
        ("a.m4a", "-c:a aac"),
        ("a.aac", "-c:a aac"),
        ("a.ac3", "-c:a ac3"),
    ] {
        let args = format!("-f lavfi -i sine=f=440:r=44100:d=1.2 -ac 2 {args}");
        let (info, all) = decode(&make(&dir, name, &args), 4.0);
        assert_eq!(info.kind, MediaKind::Audio, "{name}");
        assert!(all.faults.is_empty() && all.frames.is_empty(), "{name}: {:?}", all.faults);
        let samples = all.sound(0).len();
        assert!((19_100..=20_600).contains(&samples), "{name}: {samples} samples");
    }
}

#[test]
fn sampling_takes_the_first_picture_at_or_after_each_point() {
    let dir = TempDir::new().unwrap();
    let path = make(
        &dir,
        "a.mp4",
        "-f lavfi -i testsrc2=s=160x120:r=25:d=3 -pix_fmt yuv420p -c:v libx264 -preset medium",
    );
    let (_, slow) = decode(&path, 4.0);
    assert_eq!(slow.times()[0], 0);
    // B pictures may be passed over, so that a sample is late by the length of such a run.
    for (i, time) in slow.times().iter().enumerate() {
        let late = time - 250 * i as i64;
        assert!((0..=160).contains(&late), "{:?}", slow.times());
    }
    assert_eq!(slow.frames.len(), 12);
    let (_, quick) = decode(&path, 12.0);
    let wanted: Vec<i64> =
        (0..36).map(|i| (f64::from(i) / 12.0 * 25.0 - 1e-6).ceil() as i64 * 40).collect();
    assert_eq!(quick.times(), wanted);
    let (_, every) = decode(&path, 1000.0);
    assert_eq!(every.frames.len(), 75);
    let silent = DecodeOptions { video: false, ..options(0.0) };
    let (_, none) = decode_with(&path, &silent);
    assert!(none.frames.is_empty() && none.faults.is_empty());
}

/// A stream whose pictures nobody refers to must still be sampled at the rate that was asked for.
#[test]
fn long_runs_of_unreferenced_pictures_do_not_thin_the_samples() {
    let dir = TempDir::new().unwrap();
    let args = "-f lavfi -i color=gray:s=160x120:r=25:d=8 -pix_fmt yuv420p -c:v libx264 \
                -bf 16 -b_strategy 0 -x264-params b-pyramid=none:keyint=250:scenecut=0";
    let (_, all) = decode(&make(&dir, "a.mp4", args), 8.0);
    let gaps: Vec<i64> = all.times().windows(2).map(|w| w[1] - w[0]).collect();
    // Only the first gap shows that something was missing.
    assert!(gaps.iter().skip(6).all(|g| *g <= 160), "{gaps:?}");
}

#[test]
fn variable_frame_rate_and_start_offset() {
    let dir = TempDir::new().unwrap();
    // Pictures 0 to 9 at 10 a second, then one a second.
    let vfr = "-f lavfi -i testsrc2=s=160x120:r=10:d=2 -vf setpts=if(lt(N\\,10)\\,N/10\\,N-9)/TB \
               -vsync vfr -pix_fmt yuv420p -c:v libx264 -preset ultrafast";
    let wanted: Vec<i64> = (0..20).map(|n| if n < 10 { n * 100 } else { (n - 9) * 1000 }).collect();
    for name in ["vfr.mkv", "vfr.mp4"] {
        let (_, all) = decode(&make(&dir, name, vfr), 0.0);
        assert_eq!(all.times(), wanted[..all.frames.len()], "{name}");
        assert!(all.frames.len() >= 19, "{name}: {}", all.frames.len());
        assert!(all.faults.is_empty(), "{name}: {:?}", all.faults);
    }
    // Sound begins at once, the picture half a second later.
    let late = "-f lavfi -i sine=r=48000:d=2 -itsoffset 0.4 -f lavfi -i testsrc2=s=160x120:r=25:d=1 \
                -map 1:v -map 0:a -vsync passthrough -pix_fmt yuv420p -c:v libx264 -preset ultrafast -c:a";
    for (name, codec) in [("late.mkv", "flac"), ("late.mp4", "aac"), ("late.ts", "mp2")] {
        let (_, all) = decode(&make(&dir, name, &format!("{late} {codec}")), 0.0);
        let first = all.times()[0];
        // A transport stream does not say which of the sound is a codec's priming.
        let early = if name == "late.ts" { 12 } else { 1 };
        assert!((first - 400).abs() <= early, "{name}: first picture at {first} ms");
        assert_eq!(all.audio[0].start, 0, "{name}");
    }
    // A clock that begins at an hour is no offset of the presentation.
    let hour = "-f lavfi -i testsrc2=s=160x120:r=25:d=1 -pix_fmt yuv420p -c:v libx264 \
                -preset ultrafast -output_ts_offset 3600";
    let (_, all) = decode(&make(&dir, "hour.ts", hour), 0.0);
    assert_eq!((all.times()[0], all.times()[24]), (0, 960));
}

#[test]
fn edit_lists() {
    let dir = TempDir::new().unwrap();
    let whole = make(
        &dir,
        "whole.mp4",
        "-f lavfi -i testsrc2=s=160x120:r=25:d=4 -pix_fmt yuv420p -c:v libx264 -preset ultrafast -g 50",
    );
    // A copy from 1.0 s must begin with the key picture at 0 s, which the edit list hides.
    let cut = make(&dir, "cut.mp4", &format!("-ss 1.0 -i {} -c copy", whole.display()));
    let (_, of_whole) = decode(&whole, 0.0);
    let (_, of_cut) = decode(&cut, 0.0);
    assert_eq!(of_cut.times()[0], 0);
    assert_eq!(of_cut.frames.len(), 75);
    assert!(of_cut.frames[0].rgb == of_whole.frames[25].rgb, "begins with the picture of 1.0 s");
}

#[test]
fn rotation() {
    let dir = TempDir::new().unwrap();
    let flat = make(
        &dir,
        "flat.mp4",
        "-f lavfi -i color=red:s=64x32:r=10:d=1 -f lavfi -i color=blue:s=64x32:r=10:d=1 \
         -filter_complex [0][1]hstack -pix_fmt yuv444p -c:v libx264 -preset ultrafast",
    );
    let (_, all) = decode(&flat, 0.0);
    assert_colour(pixel(&all.frames[0], 5, 5), [254, 0, 0], 4);
    assert_colour(pixel(&all.frames[0], 120, 5), [0, 0, 254], 4);
    // Red stands on the left. Turned clockwise by 90° it is on top. The muxer counts the other way.
    for (rotate, degrees, size, red, blue) in [
        ("270", 90, (32, 128), (5, 5), (5, 120)),
        ("180", 180, (128, 32), (120, 5), (5, 5)),
        ("90", 270, (32, 128), (5, 120), (5, 5)),
    ] {
        let turned = make(
            &dir,
            "turned.mp4",
            &format!("-i {} -c copy -metadata:s:v rotate={rotate}", flat.display()),
        );
        let (info, all) = decode(&turned, 0.0);
        let stream = &info.streams[0];
        assert_eq!(stream.rotation, Some(degrees));
        assert_eq!((stream.width, stream.height), (Some(size.0), Some(size.1)));
        let frame = &all.frames[0];
        assert_eq!((frame.width, frame.height), (size.0 as usize, size.1 as usize));
        assert_colour(pixel(frame, red.0, red.1), [254, 0, 0], 4);
        assert_colour(pixel(frame, blue.0, blue.1), [0, 0, 254], 4);
        let differs = frame.rgb.iter().zip(shown(&turned)).filter(|(a, b)| a.abs_diff(*b) > 4);
        assert_eq!(differs.count(), 0, "ffmpeg turns it the same way");
    }
}

#[test]
fn jpeg_orientation() {
    let dir = TempDir::new().unwrap();
    let plain = make(
        &dir,
        "plain.jpg",
        "-f lavfi -i color=red:s=32x32 -f lavfi -i color=blue:s=32x32 -filter_complex \
         [0][1]hstack -frames:v 1 -pix_fmt yuvj444p -q:v 2",
    );
    let bytes = std::fs::read(&plain).unwrap();
    let exif =
        b"\xFF\xE1\0\x22Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let turned = dir.path().join("turned.jpg");
    std::fs::write(&turned, [&bytes[..2], exif, &bytes[2..]].concat()).unwrap();
    let (info, all) = decode(&turned, 4.0);
    assert_eq!((info.streams[0].width, info.streams[0].height), (Some(32), Some(64)));
    assert_colour(pixel(&all.frames[0], 16, 5), [254, 0, 0], 6);
    assert_colour(pixel(&all.frames[0], 16, 60), [0, 0, 254], 6);
}

#[test]
fn several_sound_tracks() {
    let dir = TempDir::new().unwrap();
    let path = make(
        &dir,
        "two.mkv",
        "-f lavfi -i testsrc2=s=160x120:r=25:d=2 -f lavfi -i sine=f=300:r=48000:d=2 \
         -f lavfi -i sine=f=1200:r=44100:d=2 -map 0 -map 1 -map 2 -pix_fmt yuv420p -c:v libx264 \
         -preset ultrafast -c:a flac -metadata:s:a:0 language=eng -metadata:s:a:1 language=deu",
    );
    let (info, all) = decode(&path, 1.0);
    let languages: Vec<_> = info.streams.iter().map(|s| s.language.as_deref()).collect();
    assert_eq!(languages, [None, Some("eng"), Some("deu")]);
    for (stream, hertz) in [(1, 300), (2, 1200)] {
        let sound = all.sound(stream);
        assert_eq!(sound.len(), 32_000);
        let crossings = sound.windows(2).filter(|w| (w[0] < 0.0) != (w[1] < 0.0)).count();
        assert!(crossings.abs_diff(hertz * 4) <= 4, "{crossings} for {hertz} Hz");
    }
}

#[test]
fn cover_art_is_not_a_video() {
    let dir = TempDir::new().unwrap();
    let path = make(
        &dir,
        "cover.mp3",
        "-f lavfi -i sine=r=44100:d=1 -f lavfi -i color=red:s=64x64:d=1 -map 0 -map 1 -c:v mjpeg \
         -frames:v 1 -disposition:v attached_pic -c:a libmp3lame",
    );
    let (info, all) = decode(&path, 4.0);
    assert_eq!(info.kind, MediaKind::Audio);
    assert!(info.streams.iter().any(|s| s.kind == StreamKind::Cover));
    assert!(all.frames.is_empty() && !all.audio.is_empty());
}

/// A click at 0.7 s arrives there, whatever a codec puts before its first sample.
#[test]
fn sound_positions() {
    let dir = TempDir::new().unwrap();
    let click =
        "-f lavfi -i aevalsrc=0.9*sin(2*PI*2000*t)*exp(-pow((t-0.7)/0.0015\\,2)):s=48000:d=1.5";
    for (name, codec) in [
        ("a.wav", "pcm_s16le"),
        ("a.flac", "flac"),
        ("a.mp3", "libmp3lame -b:a 192k"),
        ("a.m4a", "aac -b:a 192k"),
        ("a.ogg", "libvorbis -q:a 7"),
        ("a.opus", "libopus -b:a 128k"),
        ("a.webm", "libopus -b:a 128k"),
        ("a.mka", "flac"),
        ("8k.wav", "pcm_s16le -ar 8000"),
        ("44k.wav", "pcm_f32le -ar 44100"),
    ] {
        let (_, all) = decode(&make(&dir, name, &format!("{click} -c:a {codec}")), 0.0);
        let sound = all.sound(0);
        // The envelope's centre is steadier than its loudest sample.
        let (sum, weighted) = sound.iter().enumerate().fold((0.0, 0.0), |(s, w), (i, v)| {
            let energy = f64::from(*v) * f64::from(*v);
            (s + energy, w + energy * i as f64)
        });
        let ms = weighted / sum / 16.0;
        assert!((ms - 700.0).abs() <= 2.0, "{name}: click at {ms:.2} ms");
        let peak = loudest(&sound) as f64 / 16.0;
        assert!((peak - 700.0).abs() <= 2.0, "{name}: peak at {peak:.2} ms");
    }
}

#[test]
fn gaps_in_sound_show_as_jumps() {
    let dir = TempDir::new().unwrap();
    let path = make(
        &dir,
        "gap.mkv",
        "-f lavfi -i sine=r=48000:d=3 -af aselect=not(between(t\\,1\\,2)) -c:a pcm_s16le",
    );
    let (_, all) = decode(&path, 0.0);
    let mut ends = 0;
    let mut jumps = Vec::new();
    for run in &all.audio {
        if run.start != ends {
            jumps.push((ends, run.start));
        }
        ends = run.start + run.samples.len() as i64;
    }
    let [(from, to)] = jumps[..] else { panic!("one jump, not {jumps:?}") };
    assert!((from - 16_000).abs() < 600 && (to - 32_000).abs() < 600, "{from} to {to}");
    assert!((ends - 48_000).abs() <= 32, "{ends}");
}

#[test]
fn mixing_keeps_full_scale() {
    let dir = TempDir::new().unwrap();
    for (name, args) in [
        ("mono.wav", "-ac 1"),
        ("stereo.wav", "-af pan=stereo|c0=c0|c1=c0"),
        ("float.wav", "-af pan=stereo|c0=c0|c1=c0 -c:a pcm_f32le"),
        ("six.wav", "-af pan=5.1|FL=c0|FR=c0|FC=c0|LFE=c0|BL=c0|BR=c0"),
    ] {
        let args = format!("-f lavfi -i aevalsrc=0.8*sin(2*PI*500*t):s=16000:d=0.5 {args}");
        let (_, all) = decode(&make(&dir, name, &args), 0.0);
        let peak = all.sound(0).iter().fold(0.0_f32, |m, s| m.max(s.abs()));
        assert!((0.75..=0.81).contains(&peak), "{name}: {peak}");
    }
}

#[test]
fn a_fifth_of_a_second_of_sound_and_silence() {
    let dir = TempDir::new().unwrap();
    for (name, codec) in [("a.wav", "pcm_s16le"), ("a.mp3", "libmp3lame"), ("a.opus", "libopus")] {
        let path =
            make(&dir, name, &format!("-f lavfi -i anullsrc=r=48000:d=0.2 -t 0.2 -c:a {codec}"));
        let (info, all) = decode(&path, 4.0);
        assert_eq!(info.kind, MediaKind::Audio, "{name}");
        let sound = all.sound(0);
        assert!((3_100..=3_700).contains(&sound.len()), "{name}: {} samples", sound.len());
        assert!(sound.iter().all(|s| s.abs() < 1e-3), "{name}");
    }
}

#[test]
fn stills() {
    let dir = TempDir::new().unwrap();
    let cases = [
        ("a.jpg", "-frames:v 1 -q:v 2", 6),
        ("gray.jpg", "-vf format=gray -frames:v 1 -q:v 2", 6),
        ("a.png", "-frames:v 1", 1),
        ("alpha.png", "-frames:v 1 -pix_fmt rgba", 1),
        ("pal.png", "-frames:v 1 -pix_fmt pal8", 3),
        ("deep.png", "-frames:v 1 -pix_fmt rgb48be", 1),
        ("gray.png", "-frames:v 1 -pix_fmt gray", 2),
        ("lossless.webp", "-frames:v 1 -c:v libwebp -lossless 1 -pix_fmt bgra", 1),
        ("lossy.webp", "-frames:v 1 -c:v libwebp -q:v 95 -pix_fmt yuv420p", 8),
        ("a.bmp", "-frames:v 1", 1),
        ("a.tiff", "-frames:v 1", 1),
        ("a.gif", "-frames:v 1", 3),
    ];
    for (name, args, tolerance) in cases {
        let gray = name.starts_with("gray");
        let colour = if gray { "0x6E6E6E" } else { "0xC86432" };
        let wanted = if gray { [110; 3] } else { [200, 100, 50] };
        let args = format!("-f lavfi -i color={colour}:s=48x32,format=rgb24 {args}");
        let path = make(&dir, name, &args);
        let (info, all) = decode(&path, 4.0);
        assert_eq!(info.kind, MediaKind::Image, "{name}");
        assert_eq!(info.duration_ms, Some(0), "{name}");
        assert!(all.faults.is_empty(), "{name}: {:?}", all.faults);
        assert_eq!(all.times(), [0], "{name}");
        assert_eq!((all.frames[0].width, all.frames[0].height), (48, 32), "{name}");
        // A palette may not hold the colour.
        let paletted = name == "pal.png" || name == "a.gif";
        let wanted = if paletted { shown(&path)[..3].try_into().unwrap() } else { wanted };
        assert_colour(pixel(&all.frames[0], 0, 0), wanted, tolerance);
    }
    // One pixel, and the largest picture that is allowed.
    for name in ["one.png", "one.jpg", "one.webp", "one.bmp", "one.gif"] {
        let path = make(&dir, name, "-f lavfi -i color=0xC86432:s=1x1,format=rgb24 -frames:v 1");
        let (_, all) = decode(&path, 4.0);
        assert_eq!((all.frames[0].width, all.frames[0].height), (1, 1), "{name}");
        let wanted = shown(&path)[..3].try_into().unwrap();
        assert_colour(pixel(&all.frames[0], 0, 0), wanted, 4);
    }
    let large =
        make(&dir, "large.jpg", "-f lavfi -i color=0xC86432:s=8192x8192 -frames:v 1 -q:v 20");
    let (_, all) = decode(&large, 4.0);
    assert_eq!((all.frames[0].width, all.frames[0].height), (8192, 8192));
    assert_colour(pixel(&all.frames[0], 8191, 8191), [200, 100, 50], 8);
    let too_large = make(&dir, "too.jpg", "-f lavfi -i color=red:s=8194x8192 -frames:v 1 -q:v 20");
    assert!(matches!(error(&too_large), MediaError::Limit { .. }));
}

#[test]
fn moving_pictures_without_sound() {
    let dir = TempDir::new().unwrap();
    for (name, args) in [("a.gif", ""), ("a.apng", "-plays 0")] {
        let args = format!("-f lavfi -i testsrc2=s=64x64:r=10:d=1 {args}");
        let (info, all) = decode(&make(&dir, name, &args), 0.0);
        assert_eq!(info.kind, MediaKind::Video, "{name}");
        let wanted: Vec<i64> = (0..10).map(|i| i * 100).collect();
        assert_eq!(all.times(), wanted, "{name}: each picture once, however often it loops");
    }
}

#[test]
fn avif_or_a_clear_answer() {
    let dir = TempDir::new().unwrap();
    let path = make(
        &dir,
        "a.avif",
        "-f lavfi -i color=0xC86432:s=64x48 -frames:v 1 -c:v libaom-av1 -still-picture 1 -cpu-used 8",
    );
    let readable = veriscope::media::installed::installed()
        .unwrap()
        .abilities
        .iter()
        .any(|a| a.what == "AVIF" && a.by.is_some());
    if readable {
        let (info, all) = decode(&path, 4.0);
        assert_eq!(info.kind, MediaKind::Image);
        assert_eq!(all.times(), [0]);
        assert_colour(pixel(&all.frames[0], 20, 20), [200, 100, 50], 6);
    } else {
        assert!(matches!(error(&path), MediaError::NoStreams { .. }));
    }
}

#[test]
fn a_slideshow_of_ninety_minutes() {
    let dir = TempDir::new().unwrap();
    for name in ["a.mp4", "a.mkv"] {
        let path = make(
            &dir,
            name,
            "-f lavfi -i testsrc2=s=160x120:r=1/60:d=5400 -pix_fmt yuv420p -c:v libx264 -preset ultrafast",
        );
        let (info, all) = decode(&path, 4.0);
        let wanted: Vec<i64> = (0..90).map(|i| i * 60_000).collect();
        assert_eq!(all.times(), wanted, "{name}");
        assert_eq!(info.duration_ms.map(|d| d / 1000), Some(5400), "{name}");
        assert!(all.faults.is_empty(), "{name}: {:?}", all.faults);
    }
}

#[test]
fn colours() {
    let dir = TempDir::new().unwrap();
    let colours = [
        ("0xC83232", [200, 50, 50]),
        ("0x32C832", [50, 200, 50]),
        ("0x3232C8", [50, 50, 200]),
        ("0x808080", [128, 128, 128]),
    ];
    let x264 = "-c:v libx264 -preset ultrafast -qp 4";
    let variants = [
        // Nothing said: by size.
        (
            "sd",
            "640x480",
            "scale=out_color_matrix=bt601:out_range=tv,format=yuv420p",
            String::new(),
        ),
        (
            "hd",
            "1280x720",
            "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p",
            String::new(),
        ),
        // Said, against the size.
        (
            "told",
            "640x480",
            "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p",
            "-colorspace bt709 -color_range tv".into(),
        ),
        (
            "full",
            "640x480",
            "scale=out_color_matrix=bt601:out_range=pc,format=yuv420p",
            "-colorspace smpte170m -color_range pc".into(),
        ),
        (
            "422",
            "640x480",
            "scale=out_color_matrix=bt601:out_range=tv,format=yuv422p",
            String::new(),
        ),
        (
            "deep",
            "640x480",
            "scale=out_color_matrix=bt601:out_range=tv,format=yuv420p10le",
            String::new(),
        ),
    ];
    for (colour, wanted) in colours {
        for (name, size, filter, args) in &variants {
            let args = format!(
                "-f lavfi -i color={colour}:s={size}:r=1:d=1,format=gbrp -vf {filter} {x264} {args}"
            );
            let (_, all) = decode(&make(&dir, &format!("{name}.mp4"), &args), 0.0);
            let found = pixel(&all.frames[0], 100, 100);
            println!("{name} {wanted:?} {found:?}");
            assert_colour(found, wanted, 4);
        }
        let jpeg = format!(
            "-f lavfi -i color={colour}:s=64x64,format=gbrp -vf scale=out_color_matrix=bt601:out_range=pc,format=yuvj420p -frames:v 1 -q:v 2"
        );
        let (_, all) = decode(&make(&dir, "c.jpg", &jpeg), 0.0);
        assert_colour(pixel(&all.frames[0], 30, 30), wanted, 4);
    }
}

fn truncate(path: &Path, to: &Path, part: f64) {
    let bytes = std::fs::read(path).unwrap();
    std::fs::write(to, &bytes[..(bytes.len() as f64 * part) as usize]).unwrap();
}

#[test]
fn cut_short_gives_the_good_part_and_the_place() {
    let dir = TempDir::new().unwrap();
    let args = "-f lavfi -i testsrc2=s=320x240:r=25:d=10 -f lavfi -i sine=r=48000:d=10 \
                -pix_fmt yuv420p -c:v libx264 -preset ultrafast -c:a aac";
    for (name, extra) in [("a.mp4", "-movflags +faststart"), ("a.mkv", ""), ("a.flv", "")] {
        let whole = make(&dir, name, &format!("{args} {extra}"));
        let cut = dir.path().join(format!("cut-{name}"));
        truncate(&whole, &cut, 0.5);
        let (info, all) = decode(&cut, 5.0);
        if name != "a.flv" {
            assert_eq!(info.duration_ms.map(|d| (d + 50) / 1000), Some(10), "{name}");
        }
        let fault = all.faults.last().unwrap_or_else(|| panic!("{name}: a fault"));
        assert!(fault.message.starts_with("cut short at "), "{name}: {fault:?}");
        assert!(fault.message.contains(" s of 10.0 s declared"), "{name}: {fault:?}");
        let place = fault.time_ms.unwrap();
        assert!((3_500..6_500).contains(&place), "{name}: {fault:?}");
        let last = *all.times().last().unwrap();
        assert!((place - last).abs() < 700, "{name}: last picture {last} ms, fault {place} ms");
        let sound = all.sound(1).len() as i64 / 16;
        assert!((place - sound).abs() < 700, "{name}: sound to {sound} ms, fault {place} ms");
    }
    let wav = make(&dir, "a.wav", "-f lavfi -i sine=r=16000:d=4");
    let cut = dir.path().join("cut.wav");
    truncate(&wav, &cut, 0.5);
    let (_, all) = decode(&cut, 5.0);
    let last = all.faults.last().expect("a fault");
    assert!(last.message.starts_with("cut short at 2.0 s: "), "{last:?}");
    assert!((1_990..=2_010).contains(&last.time_ms.unwrap()), "{last:?}");
    assert!((31_900..=32_000).contains(&all.sound(0).len()));
}

#[test]
fn a_broken_stretch_is_one_fault_and_decoding_goes_on() {
    let dir = TempDir::new().unwrap();
    let whole = make(
        &dir,
        "a.mp4",
        "-f lavfi -i testsrc2=s=320x240:r=25:d=10 -pix_fmt yuv420p -c:v libx264 -preset ultrafast \
         -g 25 -bf 0",
    );
    let mut bytes = std::fs::read(&whole).unwrap();
    let mdat = bytes.windows(4).position(|w| w == b"mdat").unwrap();
    let (from, to) = (mdat + bytes.len() * 45 / 100, mdat + bytes.len() * 55 / 100);
    let mut state = 1_u32;
    for byte in &mut bytes[from..to] {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (state >> 24) as u8;
    }
    let broken = dir.path().join("broken.mp4");
    std::fs::write(&broken, bytes).unwrap();
    let (_, of_whole) = decode(&whole, 0.0);
    let (_, of_broken) = decode(&broken, 0.0);
    assert!(!of_broken.faults.is_empty() && of_broken.faults.len() <= 33);
    let first = of_broken.faults[0].time_ms.unwrap();
    assert!((3_500..6_000).contains(&first), "{:?}", of_broken.faults);
    assert!(of_broken.faults[0].message.starts_with("h264: "), "{:?}", of_broken.faults);
    assert_eq!(of_broken.times().last(), of_whole.times().last());
    assert!(of_broken.frames.len() < of_whole.frames.len(), "damaged pictures are left out");
    assert!(of_broken.frames.len() > of_whole.frames.len() * 3 / 4);
}

#[test]
fn what_cannot_be_opened_says_why() {
    let dir = TempDir::new().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let text = "Just some words.\nAnd a second line of them.\n".repeat(50);
    for (name, content) in [
        ("text.mp4", text.as_str()),
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nfile:///etc/passwd\n"),
        ("concat.mp4", "ffconcat version 1.0\nfile '/etc/hostname'\n"),
        ("a.srt", "1\n00:00:01,000 --> 00:00:02,000\nHello\n"),
        (
            "a.sdp",
            "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
        ),
        ("a.svg", "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"9\" height=\"9\"></svg>\n"),
        ("ansi.mp3", "\x1b[31mred\x1b[0m \x1b[32mgreen\x1b[0m \x1b[1mbold\x1b[0m\n"),
        ("x%03d.png", "no picture"),
    ] {
        let found = error(&write(name, content.as_bytes()));
        assert!(matches!(found, MediaError::Unrecognised { .. }), "{name}: {found}");
    }
    let noise: Vec<u8> =
        (0..20_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let found = error(&write("noise.mp4", &noise));
    assert!(
        matches!(found, MediaError::Unrecognised { .. } | MediaError::NoStreams { .. }),
        "{found}"
    );

    assert!(matches!(error(&write("empty.mp4", b"")), MediaError::Empty { .. }));
    assert!(matches!(error(dir.path()), MediaError::NotAFile { what: "directory", .. }));
    assert!(matches!(error(Path::new("/dev/null")), MediaError::NotAFile { what: "device", .. }));
    let absent = error(&dir.path().join("absent.mp4"));
    assert!(matches!(&absent, MediaError::Io { .. }), "{absent}");
    assert!(absent.to_string().contains("cannot be read"), "{absent}");
    let fifo = dir.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    assert!(matches!(error(&fifo), MediaError::NotAFile { what: "FIFO", .. }));
    let socket = dir.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert!(matches!(error(&socket), MediaError::NotAFile { what: "socket", .. }));

    let unreadable = write("secret.mp4", b"x");
    std::fs::set_permissions(&unreadable, std::os::unix::fs::PermissionsExt::from_mode(0o0))
        .unwrap();
    if std::fs::File::open(&unreadable).is_err() {
        assert!(matches!(error(&unreadable), MediaError::Io { .. }));
    } else {
        println!("this user may read everything; the unreadable file was not tried");
    }

    // The index comes last and is lost with the end.
    let whole = make(
        &dir,
        "whole.mp4",
        "-f lavfi -i testsrc2=s=160x120:r=25:d=2 -pix_fmt yuv420p -c:v libx264 -preset ultrafast",
    );
    let cut = dir.path().join("cut.mp4");
    truncate(&whole, &cut, 0.7);
    let found = error(&cut);
    assert!(matches!(&found, MediaError::Damaged { .. }), "{found}");
    assert!(found.to_string().contains("moov"), "{found}");

    // Subtitles alone are nothing to scan.
    let srt = write("s.srt", b"1\n00:00:01,000 --> 00:00:02,000\nHello\n");
    let only = make(&dir, "only.mkv", &format!("-i {} -c:s srt", srt.display()));
    let found = error(&only);
    assert!(matches!(&found, MediaError::NoStreams { .. }), "{found}");
}

#[test]
fn a_name_means_nothing() {
    let dir = TempDir::new().unwrap();
    let path = make(&dir, "a.wav", "-f lavfi -i sine=r=16000:d=0.5");
    for name in ["a.txt", "a.m3u8", "img%03d.png", "concat:x|y", "http:x.mp4", "noext"] {
        let other = dir.path().join(name);
        std::fs::copy(&path, &other).unwrap();
        let (info, all) = decode(&other, 4.0);
        assert_eq!((info.container.as_str(), all.sound(0).len()), ("wav", 8_000), "{name}");
    }
}

#[test]
fn broken_pictures() {
    let dir = TempDir::new().unwrap();
    let whole = make(&dir, "a.jpg", "-f lavfi -i testsrc2=s=256x256 -frames:v 1 -q:v 2");
    let cut = dir.path().join("cut.jpg");
    truncate(&whole, &cut, 0.6);
    let (_, all) = decode(&cut, 4.0);
    assert_eq!(all.faults.len(), 1, "{:?}", all.faults);
    assert!(all.faults[0].message.contains("cut short"), "{:?}", all.faults);

    let whole = make(&dir, "a.png", "-f lavfi -i testsrc2=s=256x256 -frames:v 1");
    truncate(&whole, &cut, 0.01);
    let answer = Source::open(&cut, &Limits::default())
        .and_then(|s| s.decode(&options(4.0), &mut |_| ControlFlow::Continue(())));
    let found = answer.expect_err("a picture without pixels");
    assert!(matches!(found, MediaError::Damaged { .. } | MediaError::NoStreams { .. }), "{found}");
}

#[test]
fn the_sink_and_the_flag_stop_decoding() {
    let dir = TempDir::new().unwrap();
    let path = make(
        &dir,
        "a.mp4",
        "-f lavfi -i testsrc2=s=160x120:r=25:d=4 -pix_fmt yuv420p -c:v libx264 -preset ultrafast",
    );
    let mut seen = 0;
    open(&path)
        .decode(&options(0.0), &mut |_| {
            seen += 1;
            if seen == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!(seen, 3);
    let source = open(&path);
    source.stop_flag().store(true, std::sync::atomic::Ordering::Relaxed);
    source.decode(&options(0.0), &mut |_| panic!("nothing comes after the flag")).unwrap();
    let hurried = Limits { open_timeout: std::time::Duration::ZERO, ..Limits::default() };
    assert!(matches!(Source::open(&path, &hurried), Err(MediaError::TimedOut { .. })));
}

/// Prints the cost of decoding beside FFmpeg's own: `cargo test --release --test media -- --ignored
/// --nocapture speed`.
#[test]
#[ignore = "a measurement"]
fn speed() {
    let dir = TempDir::new().unwrap();
    let path = make(
        &dir,
        "a.mp4",
        "-f lavfi -i testsrc2=s=1920x1080:r=25:d=30 -f lavfi -i sine=r=48000:d=30 \
         -vf noise=alls=6:allf=t -pix_fmt yuv420p -c:v libx264 -preset veryfast -b:v 5M -c:a aac",
    );
    for threads in [1, 2] {
        for fps in [4.0, 0.0] {
            let begin = std::time::Instant::now();
            let (_, all) = decode_with(&path, &DecodeOptions { threads, ..options(fps) });
            let spent = begin.elapsed().as_secs_f64();
            println!(
                "veriscope, {threads} threads, {fps} fps: {spent:.2} s, {} frames",
                all.frames.len()
            );
        }
        let begin = std::time::Instant::now();
        let args = ["-loglevel", "error", "-threads"];
        let status = Command::new("ffmpeg")
            .args(args)
            .arg(threads.to_string())
            .arg("-i")
            .arg(&path)
            .args(["-f", "null", "-"])
            .status()
            .unwrap();
        assert!(status.success());
        println!(
            "ffmpeg -i X -f null -, {threads} threads: {:.2} s",
            begin.elapsed().as_secs_f64()
        );
    }
}

/// No machine has a GPU of this number: with or without a driver, software decodes, and says why.
#[test]
fn a_gpu_that_is_not_there_leaves_the_pictures_to_software() {
    let dir = TempDir::new().unwrap();
    let film = make(
        &dir,
        "a.mp4",
        "-f lavfi -i testsrc2=s=320x240:r=25:d=2 -f lavfi -i sine=d=2 -c:v libx264 -c:a aac",
    );
    let (_, want) = decode(&film, 5.0);
    let mut found = Decoded::default();
    let asked = DecodeOptions { hardware: Some(60_000), ..options(5.0) };
    let used = open(&film)
        .decode(&asked, &mut |event| {
            match event {
                Event::Frame(frame) => found.frames.push(frame),
                Event::Audio(audio) => found.audio.push(audio),
                Event::Fault(fault) => found.faults.push(fault),
            }
            ControlFlow::Continue(())
        })
        .unwrap()
        .unwrap();
    assert_eq!(used.kind, DecoderKind::Software);
    let reason = used.reason.unwrap();
    assert!(reason.starts_with("h264: FFmpeg cannot use the GPU cuda:60000"), "{reason}");
    let pictures =
        |d: &Decoded| -> Vec<_> { d.frames.iter().map(|f| (f.time_ms, f.rgb.clone())).collect() };
    assert!(!want.frames.is_empty() && pictures(&found) == pictures(&want));
    assert_eq!(found.audio.len(), want.audio.len());
    assert_eq!(found.faults, []);
}
