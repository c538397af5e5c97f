//! Sound: through a codec and back, or changed sample by sample. The copy is a 16-bit WAV of the
//! original's rate and number of channels, which every detector can read.

use std::f64::consts::TAU;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use realfft::RealFftPlanner;

use super::ffmpeg::Call;
use super::{Degradation, Family, Fault, Gaussian, Maker, Original};
use crate::bench::metrics::bootstrap::Random;
use crate::media::{Limits, Source, StreamKind};

/// AMR-NB's, in kbit/s.
pub(super) const AMR_RATES: [f64; 8] = [4.75, 5.15, 5.9, 6.7, 7.4, 7.95, 10.2, 12.2];
/// Samples of all channels together: 11 minutes of stereo at 48 kHz, half an hour of speech at 16 kHz.
const MAX_SAMPLES: usize = 64 << 20;
/// Bytes that a codec may make of them.
const MAX_CODED: usize = 128 << 20;
/// Talkers in the babble.
const TALKERS: usize = 6;

/// False: it was stopped.
pub(super) fn make(
    degradation: Degradation,
    original: Original,
    out: &Path,
    maker: &Maker,
) -> Result<bool, Fault> {
    let (rate, channels) = form(original.path)?;
    let samples = match coded(degradation) {
        Some(codec) => {
            let coded = coded_sound(original.path, &codec, maker)?;
            let Some(coded) = coded else { return Ok(false) };
            let call = Call::new().bytes(&codec.read, coded).args(["-vn"]);
            decode(call, rate, channels, maker)?
        }
        None => {
            let call = Call::new().media(original.path).args(["-map", "0:a:0", "-vn"]);
            let Some(mut samples) = decode(call, rate, channels, maker)? else { return Ok(false) };
            let random = degradation.random(original, maker);
            let value = degradation.value();
            let channels = channels as usize;
            match degradation.family {
                Family::Reverb => reverberate(&mut samples, channels, rate, value, random),
                Family::WhiteNoise => {
                    let mut gaussian = Gaussian::new(random);
                    let noise = (0..samples.len() / channels).map(|_| gaussian.next()).collect();
                    add_noise(&mut samples, channels, noise, value);
                }
                _ => {
                    let noise = babble(samples.len() / channels, rate, random);
                    add_noise(&mut samples, channels, noise, value);
                }
            }
            Some(samples)
        }
    };
    let Some(samples) = samples else { return Ok(false) };
    if samples.is_empty() {
        return Err(Fault::failed("the stream of sound holds no sound"));
    }
    wav(out, &samples, rate, channels)
        .map_err(|e| Fault::failed(format!("the copy cannot be written: {e}")))?;
    Ok(true)
}

/// Rate and channels of the first stream of sound.
fn form(path: &Path) -> Result<(u32, u32), Fault> {
    let source = Source::open(path, &Limits::default())
        .map_err(|e| Fault { code: e.code().to_owned(), message: e.to_string() })?;
    let first = source.info().streams.iter().find(|s| s.kind == StreamKind::Audio);
    match first.map(|s| (s.sample_rate, s.channels)) {
        Some((Some(rate @ 1..=768_000), Some(channels @ 1..=64))) => Ok((rate, channels)),
        Some(_) => Err(Fault::failed("neither rate nor channels of its sound are known")),
        None => Err(Fault { code: "no_audio".to_owned(), message: "no sound in it".to_owned() }),
    }
}

/// How a codec is asked for, and how its bytes are read again.
struct Codec {
    write: Vec<String>,
    format: &'static str,
    read: Vec<&'static str>,
}

fn coded(degradation: Degradation) -> Option<Codec> {
    let bits = format!("{}k", degradation.value());
    let plain = |encoder: &str, format| Codec {
        write: ["-c:a", encoder, "-b:a", &bits].map(str::to_owned).to_vec(),
        format,
        read: vec!["-f", format],
    };
    Some(match degradation.family {
        Family::Mp3 => plain("libmp3lame", "mp3"),
        Family::Aac => Codec { read: vec!["-f", "aac"], ..plain("aac", "adts") },
        Family::Opus => plain("libopus", "ogg"),
        Family::Amr => {
            let mut codec = plain("libopencore_amrnb", "amr");
            codec.write.extend(["-ar", "8000", "-ac", "1"].map(str::to_owned));
            codec
        }
        Family::Telephone => Codec {
            write: [
                "-af",
                "highpass=f=300,lowpass=f=3400",
                "-ar",
                "8000",
                "-ac",
                "1",
                "-c:a",
                "pcm_mulaw",
            ]
            .map(str::to_owned)
            .to_vec(),
            format: "mulaw",
            read: vec!["-f", "mulaw", "-ar", "8000", "-ac", "1"],
        },
        _ => return None,
    })
}

fn coded_sound(path: &Path, codec: &Codec, maker: &Maker) -> Result<Option<Vec<u8>>, Fault> {
    let call = Call::new().media(path).args(["-map", "0:a:0", "-vn"]).args(&codec.write);
    let made = maker.ffmpeg.make(call.into_stdout(codec.format), MAX_CODED, maker.stop);
    match made.map_err(|e| Fault::failed(format!("ffmpeg: {e}")))? {
        Some(bytes) if bytes.is_empty() => Err(Fault::failed("the codec gave nothing")),
        made => Ok(made),
    }
}

/// Interleaved samples from -1 to 1.
fn decode(call: Call, rate: u32, channels: u32, maker: &Maker) -> Result<Option<Vec<f32>>, Fault> {
    let form = ["-ar", &rate.to_string(), "-ac", &channels.to_string(), "-c:a", "pcm_f32le"];
    let call = call.args(form).into_stdout("f32le");
    let made = maker.ffmpeg.make(call, 4 * MAX_SAMPLES, maker.stop);
    let Some(bytes) = made.map_err(|e| Fault::failed(format!("ffmpeg: {e}")))? else {
        return Ok(None);
    };
    let whole = 4 * channels as usize;
    let bytes = &bytes[..bytes.len() / whole * whole];
    let samples = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    // A decoder of floats may give what is no number.
    Ok(Some(samples.map(|s| if s.is_finite() { s } else { 0.0 }).collect()))
}

fn wav(path: &Path, samples: &[f32], rate: u32, channels: u32) -> std::io::Result<()> {
    let block = 2 * channels as u16;
    let bytes = 2 * samples.len() as u32;
    let mut out = BufWriter::new(File::create(path)?);
    out.write_all(b"RIFF")?;
    out.write_all(&(36 + bytes).to_le_bytes())?;
    out.write_all(b"WAVEfmt \x10\0\0\0\x01\0")?;
    out.write_all(&(channels as u16).to_le_bytes())?;
    out.write_all(&rate.to_le_bytes())?;
    out.write_all(&(rate * u32::from(block)).to_le_bytes())?;
    out.write_all(&block.to_le_bytes())?;
    out.write_all(b"\x10\0data")?;
    out.write_all(&bytes.to_le_bytes())?;
    for sample in samples {
        let step = (f64::from(*sample) * 32768.0).round().clamp(-32768.0, 32767.0) as i16;
        out.write_all(&step.to_le_bytes())?;
    }
    out.flush()
}

fn power(samples: &[f32]) -> f64 {
    samples.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / samples.len().max(1) as f64
}

/// What would be clipped is made quieter as a whole, which no ratio depends on.
fn fit(samples: &mut [f32]) {
    let peak = samples.iter().fold(0.0_f32, |peak, s| peak.max(s.abs()));
    if peak > 1.0 {
        samples.iter_mut().for_each(|s| *s /= peak);
    }
}

/// Adds the same noise to all channels, `snr` dB below the mean power of the whole sound. Silence
/// stays silence.
fn add_noise(samples: &mut [f32], channels: usize, noise: Vec<f64>, snr: f64) {
    let signal = power(samples);
    let loud = noise.iter().map(|n| n * n).sum::<f64>() / noise.len().max(1) as f64;
    if loud == 0.0 {
        return;
    }
    let gain = (signal / loud / 10.0_f64.powf(snr / 10.0)).sqrt();
    for (frame, noise) in samples.chunks_exact_mut(channels).zip(noise) {
        frame.iter_mut().for_each(|s| *s += (gain * noise) as f32);
    }
    fit(samples);
}

/// A room that does not exist: a direct impulse and a tail of Gaussian noise that falls by 60 dB in
/// `seconds` and has the same energy as the direct sound. The power of the sound stays.
fn reverberate(samples: &mut [f32], channels: usize, rate: u32, seconds: f64, random: Random) {
    let length = ((f64::from(rate) * seconds) as usize).max(1);
    let mut gaussian = Gaussian::new(random);
    let decay = |n: usize| 10.0_f64.powf(-3.0 * n as f64 / length as f64);
    let mut impulse: Vec<f64> = (0..length).map(|n| gaussian.next() * decay(n)).collect();
    impulse[0] = 0.0;
    let tail: f64 = impulse.iter().map(|h| h * h).sum();
    if tail > 0.0 {
        impulse.iter_mut().for_each(|h| *h /= tail.sqrt());
    }
    impulse[0] = 1.0;
    let before = power(samples);
    let frames = samples.len() / channels;
    for channel in 0..channels {
        let dry: Vec<f64> =
            samples.iter().skip(channel).step_by(channels).map(|s| f64::from(*s)).collect();
        let wet = convolve(&dry, &impulse);
        for (frame, wet) in wet.into_iter().take(frames).enumerate() {
            samples[frame * channels + channel] = wet as f32;
        }
    }
    let after = power(samples);
    if after > 0.0 {
        let gain = (before / after).sqrt() as f32;
        samples.iter_mut().for_each(|s| *s *= gain);
    }
    fit(samples);
}

/// The first `signal.len()` samples of the convolution, block by block (overlap-add).
fn convolve(signal: &[f64], impulse: &[f64]) -> Vec<f64> {
    let size = (2 * impulse.len()).next_power_of_two().max(1 << 12);
    let block = size - impulse.len() + 1;
    let mut planner = RealFftPlanner::<f64>::new();
    let (forward, back) = (planner.plan_fft_forward(size), planner.plan_fft_inverse(size));
    let mut time = forward.make_input_vec();
    let mut filter = forward.make_output_vec();
    let mut spectrum = forward.make_output_vec();
    time[..impulse.len()].copy_from_slice(impulse);
    let mut out = vec![0.0; signal.len()];
    // Sizes fit, as both vectors are the planner's own: no error can come.
    if forward.process(&mut time, &mut filter).is_err() {
        return out;
    }
    for (at, piece) in signal.chunks(block).enumerate() {
        time.fill(0.0);
        time[..piece.len()].copy_from_slice(piece);
        if forward.process(&mut time, &mut spectrum).is_err() {
            return out;
        }
        for (value, filter) in spectrum.iter_mut().zip(&filter) {
            *value *= *filter / size as f64;
        }
        // A real signal's; rounding may have left something.
        if let [first, .., last] = &mut spectrum[..] {
            (first.im, last.im) = (0.0, 0.0);
        }
        if back.process(&mut spectrum, &mut time).is_err() {
            return out;
        }
        for (sum, value) in out[at * block..].iter_mut().zip(&time) {
            *sum += value;
        }
    }
    out
}

/// Six talkers who do not exist: each is Gaussian noise with the slope of the long-term average
/// spectrum of speech (flat up to 500 Hz, then -12 dB an octave) whose loudness goes up and down like
/// syllables, at 3 to 5 Hz.
fn babble(length: usize, rate: u32, mut random: Random) -> Vec<f64> {
    let mut sum = vec![0.0; length];
    // Two first-order low passes at 500 Hz, and a first-order high pass at 100 Hz.
    let low = 1.0 - (-TAU * 500.0 / f64::from(rate)).exp();
    let high = 1.0 - (-TAU * 100.0 / f64::from(rate)).exp();
    for _ in 0..TALKERS {
        let pace = TAU * (3.0 + 2.0 * random.uniform()) / f64::from(rate);
        let phase = TAU * random.uniform();
        let seed = random.below(1 << 30) as u64;
        let mut gaussian = Gaussian::new(Random::new(seed, 1));
        let (mut first, mut second, mut slow) = (0.0, 0.0, 0.0);
        for (n, sum) in sum.iter_mut().enumerate() {
            first += low * (gaussian.next() - first);
            second += low * (first - second);
            slow += high * (second - slow);
            *sum += (second - slow) * (0.5 - 0.5 * (phase + pace * n as f64).cos());
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(seconds: f64) -> Vec<f32> {
        let n = (16_000.0 * seconds) as usize;
        (0..n).map(|i| (0.1 * (TAU * 440.0 * i as f64 / 16_000.0).sin()) as f32).collect()
    }

    #[test]
    fn noise_lies_as_far_below_the_sound_as_was_asked_for() {
        for snr in [-5.0, 0.0, 20.0] {
            let babble = babble(32_000, 16_000, Random::new(3, 0));
            let mut gaussian = Gaussian::new(Random::new(4, 0));
            let white = (0..32_000).map(|_| gaussian.next()).collect();
            for noise in [babble, white] {
                let dry = tone(2.0);
                let mut wet = dry.clone();
                add_noise(&mut wet, 1, noise, snr);
                // Where it was made quieter as a whole, the tone in it was, too.
                let along: f64 =
                    dry.iter().zip(&wet).map(|(d, w)| f64::from(*d) * f64::from(*w)).sum();
                let scale = along / dry.iter().map(|d| f64::from(*d).powi(2)).sum::<f64>();
                let rest: Vec<f32> =
                    dry.iter().zip(&wet).map(|(d, w)| w - (scale as f32) * d).collect();
                let found = 10.0 * (power(&dry) * scale * scale / power(&rest)).log10();
                assert!((found - snr).abs() < 0.3, "{found} {snr}");
            }
        }
    }

    #[test]
    fn blocks_of_a_convolution_make_the_whole() {
        let mut gaussian = Gaussian::new(Random::new(9, 0));
        let signal: Vec<f64> = (0..10_000).map(|_| gaussian.next()).collect();
        let impulse: Vec<f64> = (0..700).map(|_| gaussian.next()).collect();
        let fast = convolve(&signal, &impulse);
        for n in [0, 1, 699, 3_396, 3_397, 9_999] {
            let slow: f64 = (0..impulse.len().min(n + 1)).map(|k| impulse[k] * signal[n - k]).sum();
            assert!((fast[n] - slow).abs() < 1e-9, "{n}: {} {slow}", fast[n]);
        }
    }

    /// The tail after an impulse has fallen by 60 dB when the time is over.
    #[test]
    fn reverberation_lasts_as_long_as_was_asked_for() {
        let mut samples = vec![0.0; 32_000];
        samples[0] = 0.5;
        let before = power(&samples);
        reverberate(&mut samples, 1, 16_000, 1.0, Random::new(1, 0));
        assert!((power(&samples) / before - 1.0).abs() < 1e-3);
        let level = |from: usize| 10.0 * power(&samples[from..from + 1_600]).log10();
        // 60 dB a second: 48 dB between the first tenth after the start and 0.8 s later.
        assert!((level(800) - level(800 + 12_800) - 48.0).abs() < 2.0);
        assert!(samples[16_000..].iter().all(|s| s.abs() < 1e-6));
    }

    #[test]
    fn channels_stay_apart() {
        let left = tone(0.5);
        let mut both: Vec<f32> = left.iter().flat_map(|s| [*s, 0.0]).collect();
        reverberate(&mut both, 2, 16_000, 0.3, Random::new(1, 0));
        assert!(both.iter().skip(1).step_by(2).all(|s| s.abs() < 1e-9));
        assert!(power(&both) > 1e-4);
    }
}
