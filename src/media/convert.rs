//! Decoded pictures to upright packed RGB, decoded sound to 16 kHz mono.

use std::ptr::NonNull;

use ffmpeg_next::ffi;
use ffmpeg_next::frame;
use libc::c_int;

/// Samples a second that the rest of the program works with.
pub(super) const SAMPLE_RATE: i64 = 16_000;

/// How stored pixels become displayed ones: columns and rows exchanged first, then mirrored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Orientation {
    transpose: bool,
    flip_x: bool,
    flip_y: bool,
}

impl Orientation {
    /// Exif's tag 0x0112, values 1 to 8.
    pub(super) fn from_exif(value: u64) -> Option<Self> {
        let (transpose, flip_x, flip_y) = match value {
            1 => (false, false, false),
            2 => (false, true, false),
            3 => (false, true, true),
            4 => (false, false, true),
            5 => (true, false, false),
            6 => (true, true, false),
            7 => (true, true, true),
            8 => (true, false, true),
            _ => return None,
        };
        Some(Self { transpose, flip_x, flip_y })
    }

    /// The matrix of ISO/IEC 14496-12 (8.5.2): x' = a x + c y, y' = b x + d y, with a, b, c, d at
    /// places 0, 1, 3 and 4. Angles that are no multiple of 90° go to the nearest.
    pub(super) fn from_matrix(matrix: &[i32; 9]) -> Self {
        let [a, b, _, c, d, ..] = *matrix;
        if a.unsigned_abs() >= b.unsigned_abs() {
            Self { transpose: false, flip_x: a < 0, flip_y: d < 0 }
        } else {
            Self { transpose: true, flip_x: c < 0, flip_y: b < 0 }
        }
    }

    /// Clockwise degrees, mirroring left aside.
    pub(super) fn degrees(self) -> i32 {
        match (self.transpose, self.flip_x, self.flip_y) {
            (false, _, false) => 0,
            (false, _, true) => 180,
            (true, _, false) => 90,
            (true, _, true) => 270,
        }
    }

    pub(super) fn size<T>(self, width: T, height: T) -> (T, T) {
        if self.transpose { (height, width) } else { (width, height) }
    }

    /// Turns a packed picture upright.
    fn apply(self, width: usize, height: usize, rgb: Vec<u8>) -> (usize, usize, Vec<u8>) {
        if self == Self::default() || width == 0 || height == 0 {
            return (width, height, rgb);
        }
        let (out_width, out_height) = self.size(width, height);
        let mut out = vec![0_u8; rgb.len()];
        // Blocks keep the transposed reads within the cache.
        const BLOCK: usize = 64;
        for y0 in (0..out_height).step_by(BLOCK) {
            for x0 in (0..out_width).step_by(BLOCK) {
                for y in y0..(y0 + BLOCK).min(out_height) {
                    let from_y = if self.flip_y { out_height - 1 - y } else { y };
                    let row = &mut out[(y * out_width) * 3..(y + 1) * out_width * 3];
                    for x in x0..(x0 + BLOCK).min(out_width) {
                        let from_x = if self.flip_x { out_width - 1 - x } else { x };
                        let at = if self.transpose {
                            from_x * width + from_y
                        } else {
                            from_y * width + from_x
                        };
                        row[x * 3..x * 3 + 3].copy_from_slice(&rgb[at * 3..at * 3 + 3]);
                    }
                }
            }
        }
        (out_width, out_height, out)
    }
}

/// What a scaler was made for; another picture needs another scaler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PictureFormat {
    width: c_int,
    height: c_int,
    pixel: ffi::AVPixelFormat,
    matrix: c_int,
    full_range: bool,
}

struct Scaler(NonNull<ffi::SwsContext>);

// SAFETY: the context is owned and not tied to a thread.
unsafe impl Send for Scaler {}

impl Scaler {
    fn new(format: &PictureFormat) -> Option<Self> {
        // Exact rounding costs about 5 ms a picture of 1080p. Interpolating subsampled chroma along
        // the row as well costs more than 20 ms; it is left to what has chroma for each pixel,
        // which would lose half of it otherwise.
        // SAFETY: descriptors are static; null where the format is unknown.
        let chroma_for_each_pixel = unsafe { ffi::av_pix_fmt_desc_get(format.pixel).as_ref() }
            .is_some_and(|d| d.log2_chroma_w == 0);
        let full_chroma = if chroma_for_each_pixel { ffi::SWS_FULL_CHR_H_INT } else { 0 };
        let flags = ffi::SWS_BILINEAR | ffi::SWS_ACCURATE_RND | full_chroma;
        // SAFETY: sws_getContext takes plain values and checks them; a null result is handled.
        // The coefficient tables are static.
        unsafe {
            let context = NonNull::new(ffi::sws_getContext(
                format.width,
                format.height,
                format.pixel,
                format.width,
                format.height,
                ffi::AVPixelFormat::AV_PIX_FMT_RGB24,
                flags,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                std::ptr::null(),
            ))?;
            // Refused, without harm, where the source is RGB and has no matrix.
            ffi::sws_setColorspaceDetails(
                context.as_ptr(),
                ffi::sws_getCoefficients(format.matrix),
                c_int::from(format.full_range),
                ffi::sws_getCoefficients(ffi::SWS_CS_DEFAULT),
                1,
                0,
                1 << 16,
                1 << 16,
            );
            Some(Self(context))
        }
    }
}

impl Drop for Scaler {
    fn drop(&mut self) {
        // SAFETY: owned, freed once.
        unsafe { ffi::sws_freeContext(self.0.as_ptr()) }
    }
}

/// Converts decoded pictures of any size and pixel format.
#[derive(Default)]
pub(super) struct PictureConverter {
    scaler: Option<(PictureFormat, Scaler)>,
}

pub(super) struct Rgb {
    pub width: usize,
    pub height: usize,
    pub rgb: Vec<u8>,
}

impl PictureConverter {
    /// `still` says that the picture comes from a picture file, where gray without a stated range
    /// is full range. Transparency is left out.
    pub(super) fn convert(
        &mut self,
        picture: &frame::Video,
        orientation: Orientation,
        still: bool,
    ) -> Result<Rgb, String> {
        let format = picture_format(picture, still);
        let (Ok(width), Ok(height)) =
            (usize::try_from(format.width), usize::try_from(format.height))
        else {
            return Err("picture of negative size".into());
        };
        let Some(bytes) = width.checked_mul(height).and_then(|n| n.checked_mul(3)) else {
            return Err("picture too large to convert".into());
        };
        if bytes == 0 {
            return Err("picture of no size".into());
        }
        let scaler = match &mut self.scaler {
            Some((made_for, scaler)) if *made_for == format => scaler,
            slot => {
                *slot = None;
                let scaler = Scaler::new(&format).ok_or_else(|| {
                    format!("pixel format {:?} cannot be converted", picture.format())
                })?;
                &mut slot.insert((format, scaler)).1
            }
        };
        // swscale's vector code may write a little past a row's end: into the next row, which is
        // written later, or into this padding.
        const PADDING: usize = 64;
        let mut rgb = vec![0_u8; bytes + PADDING];
        let stride = format.width.saturating_mul(3);
        // SAFETY: the frame's planes belong to the frame and fit its size and format, which the
        // scaler was made for; the target holds `height` rows of `stride` bytes and padding.
        let rows = unsafe {
            let source = picture.as_ptr();
            ffi::sws_scale(
                scaler.0.as_ptr(),
                (&raw const (*source).data).cast(),
                (&raw const (*source).linesize).cast(),
                0,
                format.height,
                [
                    rgb.as_mut_ptr(),
                    std::ptr::null_mut(),
                    std::ptr::null_mut(),
                    std::ptr::null_mut(),
                ]
                .as_ptr(),
                [stride, 0, 0, 0].as_ptr(),
            )
        };
        if rows != format.height {
            return Err("the picture could not be converted to RGB".into());
        }
        rgb.truncate(bytes);
        let (width, height, rgb) = orientation.apply(width, height, rgb);
        Ok(Rgb { width, height, rgb })
    }
}

fn picture_format(picture: &frame::Video, still: bool) -> PictureFormat {
    use ffi::AVPixelFormat::*;

    // SAFETY: only the pointer is taken.
    let frame = unsafe { picture.as_ptr() };
    // SAFETY: the frame is valid. Colour fields are read as numbers because a stream may carry
    // values that the bindings' enums do not know.
    let (width, height, space, range) = unsafe {
        (
            (*frame).width,
            (*frame).height,
            (&raw const (*frame).colorspace).cast::<u32>().read(),
            (&raw const (*frame).color_range).cast::<u32>().read(),
        )
    };
    let stored: ffi::AVPixelFormat = picture.format().into();
    // The J formats are old names for full range.
    let (pixel, named_full) = match stored {
        AV_PIX_FMT_YUVJ420P => (AV_PIX_FMT_YUV420P, true),
        AV_PIX_FMT_YUVJ422P => (AV_PIX_FMT_YUV422P, true),
        AV_PIX_FMT_YUVJ444P => (AV_PIX_FMT_YUV444P, true),
        AV_PIX_FMT_YUVJ440P => (AV_PIX_FMT_YUV440P, true),
        AV_PIX_FMT_YUVJ411P => (AV_PIX_FMT_YUV411P, true),
        other => (other, false),
    };
    // SAFETY: descriptors are static; null where the format is unknown.
    let gray = unsafe { ffi::av_pix_fmt_desc_get(pixel).as_ref() }
        .is_some_and(|d| d.nb_components <= 2 && d.flags & u64::from(RGB_FLAG) == 0);
    let full_range = named_full
        || range == ffi::AVColorRange::AVCOL_RANGE_JPEG as u32
        || (gray && still && range == ffi::AVColorRange::AVCOL_RANGE_UNSPECIFIED as u32);
    // ITU-T H.273 matrix coefficients, as FFmpeg numbers them.
    let matrix = match space {
        1 => ffi::SWS_CS_ITU709,
        4 => ffi::SWS_CS_FCC,
        5 | 6 => ffi::SWS_CS_ITU601,
        7 => ffi::SWS_CS_SMPTE240M,
        9 | 10 => ffi::SWS_CS_BT2020,
        // Nothing said: JFIF and WebP stills are BT.601 whatever their size; footage follows the
        // custom of its size.
        _ if still || height < 720 => ffi::SWS_CS_ITU601,
        _ => ffi::SWS_CS_ITU709,
    };
    PictureFormat { width, height, pixel, matrix, full_range }
}

/// `AV_PIX_FMT_FLAG_RGB | AV_PIX_FMT_FLAG_PAL`.
const RGB_FLAG: u32 = (1 << 5) | (1 << 1);

/// What a resampler was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SoundFormat {
    rate: c_int,
    sample: c_int,
    channels: c_int,
    mask: u64,
}

struct Swr(NonNull<ffi::SwrContext>);

// SAFETY: the context is owned and not tied to a thread.
unsafe impl Send for Swr {}

impl Drop for Swr {
    fn drop(&mut self) {
        let mut context = self.0.as_ptr();
        // SAFETY: owned, freed once.
        unsafe { ffi::swr_free(&mut context) }
    }
}

/// Brings sound of any rate, sample format and channel layout to 16 kHz mono. The mix is scaled
/// so that full scale in all channels stays full scale.
#[derive(Default)]
pub(super) struct SoundConverter {
    swr: Option<(SoundFormat, Swr)>,
}

/// Rates that sound is recorded at. Outside, a header is wrong, and the number of samples that
/// come out for those that go in would know no bound.
pub(super) const SAMPLE_RATES: std::ops::RangeInclusive<i64> = 1_000..=768_000;

impl SoundConverter {
    /// Whether `sound` continues in the format of what came before.
    pub(super) fn fits(&self, sound: &frame::Audio) -> bool {
        self.swr.as_ref().is_none_or(|(format, _)| *format == sound_format(sound))
    }

    /// Appends the converted samples that are ready to `out`.
    pub(super) fn push(&mut self, sound: &frame::Audio, out: &mut Vec<f32>) -> Result<(), String> {
        let format = sound_format(sound);
        if !SAMPLE_RATES.contains(&i64::from(format.rate)) {
            return Err(format!("sample rate of {} Hz", format.rate));
        }
        let swr = match &mut self.swr {
            Some((made_for, swr)) if *made_for == format => swr,
            slot => {
                *slot = None;
                let swr = new_swr(sound, format)
                    .ok_or_else(|| format!("{} channels cannot be mixed", format.channels))?;
                &mut slot.insert((format, swr)).1
            }
        };
        // SAFETY: the frame's planes hold `nb_samples` samples in the format that the context was
        // made for; extended_data lists all of them.
        unsafe {
            let source = sound.as_ptr();
            run_swr(swr, (*source).extended_data.cast(), (*source).nb_samples, out)
        }
    }

    /// Appends what the filter still holds and forgets the format.
    pub(super) fn drain(&mut self, out: &mut Vec<f32>) -> Result<(), String> {
        let Some((_, swr)) = self.swr.take() else { return Ok(()) };
        // SAFETY: no input stands for the end of the sound.
        unsafe { run_swr(&swr, std::ptr::null_mut(), 0, out) }
    }
}

/// # Safety
/// `input` is null, or lists planes of `count` samples in the context's input format.
unsafe fn run_swr(
    swr: &Swr,
    input: *mut *const u8,
    count: c_int,
    out: &mut Vec<f32>,
) -> Result<(), String> {
    let failed = || "the sound could not be resampled".to_string();
    // SAFETY: the context is valid; `room` is the bound that swr itself gives.
    unsafe {
        let room = ffi::swr_get_out_samples(swr.0.as_ptr(), count);
        let at = out.len();
        out.resize(at + usize::try_from(room).map_err(|_| failed())?, 0.0);
        let mut target = out.as_mut_ptr().add(at).cast::<u8>();
        let made = ffi::swr_convert(swr.0.as_ptr(), &mut target, room, input, count);
        out.truncate(at + usize::try_from(made).unwrap_or(0).min(out.len() - at));
        if made < 0 {
            return Err(failed());
        }
        for sample in &mut out[at..] {
            // Float sound may hold anything. One absurd sample would blind a recurrent network for
            // the rest of the stream; +18 dB over full scale is left as headroom.
            *sample = if sample.is_finite() { sample.clamp(-8.0, 8.0) } else { 0.0 };
        }
    }
    Ok(())
}

fn sound_format(sound: &frame::Audio) -> SoundFormat {
    // SAFETY: the frame is valid; the mask is read only where the layout has one.
    unsafe {
        let frame = sound.as_ptr();
        let layout = &raw const (*frame).ch_layout;
        let native = (&raw const (*layout).order).cast::<u32>().read()
            == ffi::AVChannelOrder::AV_CHANNEL_ORDER_NATIVE as u32;
        SoundFormat {
            rate: (*frame).sample_rate,
            sample: (*frame).format,
            channels: (*layout).nb_channels,
            mask: if native { (*layout).u.mask } else { 0 },
        }
    }
}

fn new_swr(sound: &frame::Audio, format: SoundFormat) -> Option<Swr> {
    let rate = c_int::try_from(SAMPLE_RATE).ok()?;
    // SAFETY: layouts are initialised by the calls that fill them, and none of them owns memory
    // (default and native layouts); the context is checked for null and freed by its owner.
    unsafe {
        let mut output: ffi::AVChannelLayout = std::mem::zeroed();
        ffi::av_channel_layout_default(&mut output, 1);
        let mut input: ffi::AVChannelLayout = std::mem::zeroed();
        if format.mask == 0
            || ffi::av_channel_layout_from_mask(&mut input, format.mask) < 0
            || input.nb_channels != format.channels
        {
            // Channels without a meaning: taken as the usual layout for their number.
            ffi::av_channel_layout_default(&mut input, format.channels);
        }
        let mut context = std::ptr::null_mut();
        ffi::swr_alloc_set_opts2(
            &mut context,
            &mut output,
            ffi::AVSampleFormat::AV_SAMPLE_FMT_FLT,
            rate,
            &mut input,
            sound.format().into(),
            format.rate,
            0,
            std::ptr::null_mut(),
        );
        let swr = Swr(NonNull::new(context)?);
        // For float samples swresample would otherwise let a mix exceed full scale.
        ffi::av_opt_set_double(swr.0.as_ptr().cast(), c"rematrix_maxval".as_ptr(), 1.0, 0);
        if ffi::swr_init(swr.0.as_ptr()) < 0 {
            return None;
        }
        Some(swr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 3 × 2: red green blue / white gray black, one byte a pixel repeated.
    fn picture() -> Vec<u8> {
        [1_u8, 2, 3, 4, 5, 6].iter().flat_map(|v| [*v; 3]).collect()
    }

    fn turned(exif: u64) -> (usize, usize, Vec<u8>) {
        let (w, h, rgb) = Orientation::from_exif(exif).unwrap().apply(3, 2, picture());
        (w, h, rgb.chunks(3).map(|p| p[0]).collect())
    }

    #[test]
    fn exif_orientations() {
        assert_eq!(turned(1), (3, 2, vec![1, 2, 3, 4, 5, 6]));
        assert_eq!(turned(2), (3, 2, vec![3, 2, 1, 6, 5, 4]));
        assert_eq!(turned(3), (3, 2, vec![6, 5, 4, 3, 2, 1]));
        assert_eq!(turned(4), (3, 2, vec![4, 5, 6, 1, 2, 3]));
        assert_eq!(turned(5), (2, 3, vec![1, 4, 2, 5, 3, 6]));
        assert_eq!(turned(6), (2, 3, vec![4, 1, 5, 2, 6, 3]));
        assert_eq!(turned(7), (2, 3, vec![6, 3, 5, 2, 4, 1]));
        assert_eq!(turned(8), (2, 3, vec![3, 6, 2, 5, 1, 4]));
        assert_eq!(Orientation::from_exif(0), None);
        assert_eq!(Orientation::from_exif(9), None);
    }

    #[test]
    fn matrices_equal_exif() {
        let one = 1 << 16;
        let matrix = |a, b, c, d| Orientation::from_matrix(&[a, b, 0, c, d, 0, 0, 0, 1 << 30]);
        assert_eq!(Some(matrix(one, 0, 0, one)), Orientation::from_exif(1));
        assert_eq!(Some(matrix(0, one, -one, 0)), Orientation::from_exif(6));
        assert_eq!(Some(matrix(-one, 0, 0, -one)), Orientation::from_exif(3));
        assert_eq!(Some(matrix(0, -one, one, 0)), Orientation::from_exif(8));
        assert_eq!(matrix(0, one, -one, 0).degrees(), 90);
        assert_eq!(matrix(0, -one, one, 0).degrees(), 270);
    }
}
