//! Which FFmpeg this program runs with, and what it can read.

use ffmpeg_next as ffmpeg;

/// The libraries that were found at run time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// Library and its version, such as `libavcodec`, `59.37.100`.
    pub libraries: Vec<(&'static str, String)>,
    pub abilities: Vec<Ability>,
}

/// Something that Veriscope wants to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ability {
    /// As people call it: `H.264`.
    pub what: &'static str,
    /// The decoder or demuxer that does it; none where there is none.
    pub by: Option<&'static str>,
    /// Whether every FFmpeg that this program supports has it.
    pub needed: bool,
}

/// Decoders by what they read; the first that is there counts. AV1 needs one of the libraries:
/// FFmpeg's own decoder works on hardware only.
const DECODERS: [(&str, &[&str]); 17] = [
    ("H.264", &["h264"]),
    ("HEVC", &["hevc"]),
    ("VP8", &["vp8"]),
    ("VP9", &["vp9"]),
    ("AV1", &["libdav1d", "libaom-av1", "libgav1"]),
    ("MPEG-4", &["mpeg4"]),
    ("MPEG-2", &["mpeg2video"]),
    ("AAC", &["aac"]),
    ("MP3", &["mp3float", "mp3"]),
    ("Opus", &["opus", "libopus"]),
    ("Vorbis", &["vorbis"]),
    ("FLAC", &["flac"]),
    ("PCM (WAV)", &["pcm_s16le"]),
    ("JPEG", &["mjpeg"]),
    ("PNG", &["png"]),
    ("WebP", &["webp"]),
    ("GIF", &["gif"]),
];

/// What the FFmpeg of this machine can do.
///
/// # Errors
/// FFmpeg's, where it cannot be initialised.
pub fn installed() -> Result<Installed, String> {
    ffmpeg::init().map_err(|e| format!("FFmpeg cannot be initialised: {e}"))?;
    // A picture in HEIF is an item and not a track. FFmpeg's demuxer reads single items since 5.1
    // (AVIF) and tiled ones since 7.0 (HEIC, as telephones write it).
    let format = ffmpeg::format::version();
    let newer = |what, since: (u32, u32), by| {
        let there = format >= (since.0 << 16) | (since.1 << 8);
        Ability { what, by: there.then_some(by), needed: false }
    };
    let version = |v: u32| format!("{}.{}.{}", v >> 16, v >> 8 & 0xff, v & 0xff);
    Ok(Installed {
        libraries: vec![
            ("libavformat", version(ffmpeg::format::version())),
            ("libavcodec", version(ffmpeg::codec::version())),
            ("libavutil", version(ffmpeg::util::version())),
            ("libswscale", version(ffmpeg::software::scaling::version())),
            ("libswresample", version(ffmpeg::software::resampling::version())),
        ],
        abilities: DECODERS
            .into_iter()
            .map(|(what, names)| Ability {
                what,
                by: names
                    .iter()
                    .find(|name| ffmpeg::decoder::find_by_name(name).is_some())
                    .copied(),
                needed: true,
            })
            .chain([newer("AVIF", (59, 16), "mov"), newer("HEIC (FFmpeg 7)", (61, 1), "mov")])
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_common_codecs_are_there() {
        let installed = installed().unwrap();
        for what in ["H.264", "AAC", "PNG"] {
            let ability = installed.abilities.iter().find(|a| a.what == what).unwrap();
            assert!(ability.by.is_some(), "{what}");
        }
        for (library, version) in installed.libraries {
            assert_eq!(version.split('.').count(), 3, "{library}");
            assert!(!version.starts_with("0."), "{library}");
        }
    }
}
