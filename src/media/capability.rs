//! What the FFmpeg that the program runs with can do.

use std::ffi::CStr;

use ffmpeg_next as ffmpeg;
use ffmpeg_next::codec::Id;
use ffmpeg_next::ffi;

/// Versions of FFmpeg and its libraries, as loaded at run time.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Versions {
    /// The release, such as `5.1.9-0+deb12u1`.
    pub ffmpeg: String,
    pub libavformat: String,
    pub libavcodec: String,
    pub libavutil: String,
    pub libswscale: String,
    pub libswresample: String,
}

/// Whether one kind of media can be decoded.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Capability {
    /// What is decoded, such as `h264`, `pcm` or `heif`.
    pub name: &'static str,
    /// FFmpeg's name of the decoder that would be used; `None` where there is none.
    pub decoder: Option<String>,
}

/// The FFmpeg libraries' versions.
pub fn versions() -> Versions {
    let text = |v: u32| format!("{}.{}.{}", v >> 16, (v >> 8) & 0xFF, v & 0xFF);
    // SAFETY: these calls have no preconditions; the string is static.
    let ffmpeg = unsafe { CStr::from_ptr(ffi::av_version_info()) }.to_string_lossy().into_owned();
    Versions {
        ffmpeg,
        libavformat: text(ffmpeg::format::version()),
        libavcodec: text(ffmpeg::codec::version()),
        libavutil: text(ffmpeg::util::version()),
        libswscale: text(ffmpeg::software::scaling::version()),
        libswresample: text(ffmpeg::software::resampling::version()),
    }
}

/// The codecs that a scan meets most, each with the decoder that this FFmpeg has for it.
pub fn decoders() -> Vec<Capability> {
    let decoder = |id| ffmpeg::decoder::find(id).map(|codec| codec.name().to_owned());
    let mut all: Vec<Capability> = [
        ("h264", Id::H264),
        ("hevc", Id::HEVC),
        ("vp8", Id::VP8),
        ("vp9", Id::VP9),
        ("av1", Id::AV1),
        ("mpeg4", Id::MPEG4),
        ("aac", Id::AAC),
        ("mp3", Id::MP3),
        ("opus", Id::OPUS),
        ("vorbis", Id::VORBIS),
        ("flac", Id::FLAC),
        ("pcm", Id::PCM_S16LE),
        ("mjpeg", Id::MJPEG),
        ("png", Id::PNG),
        ("webp", Id::WEBP),
        ("gif", Id::GIF),
    ]
    .into_iter()
    .map(|(name, id)| Capability { name, decoder: decoder(id) })
    .collect();
    // A picture in HEIF is an item and not a track. FFmpeg's demuxer reads single items (AVIF) in
    // 5.1, the oldest release that is tested here, and tiled ones (HEIC, as telephones write it)
    // since 7.0.
    let format = ffmpeg::format::version();
    let since = |major: u32, minor: u32| format >= (major << 16) | (minor << 8);
    all.push(Capability { name: "avif", decoder: decoder(Id::AV1).filter(|_| since(59, 27)) });
    all.push(Capability { name: "heif", decoder: decoder(Id::HEVC).filter(|_| since(61, 1)) });
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_linked_ffmpeg_decodes_what_scans_need() {
        assert!(versions().libavformat.starts_with(char::is_numeric));
        for name in ["h264", "hevc", "vp9", "av1", "aac", "mp3", "opus", "flac", "pcm", "mjpeg"] {
            let found = decoders().into_iter().find(|c| c.name == name).unwrap();
            assert!(found.decoder.is_some(), "{name}");
        }
    }
}
