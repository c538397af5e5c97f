//! `veriscope doctor`: what is there, what is missing, and the command that brings it.

use std::path::PathBuf;

use clap::Args;

use super::weights::{check, size};
use super::{EXIT_FAILED, EXIT_OK, print};
use crate::media::{self, Capability, Versions};
use crate::models::weights::WeightStore;

/// Say what is there (processor, device, FFmpeg, weights) and what is missing
///
/// Exit code 1 where something that a scan needs is missing; the command that brings it stands
/// beside it.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Folder with the weights and their manifest [default: the one that came with the program]
    #[arg(long, value_name = "DIR")]
    weights: Option<PathBuf>,
}

/// The weights travel with the source.
const BRING_WEIGHTS: &str = "git restore weights";
const BRING_DECODERS: &str = "sudo apt-get install --reinstall libavcodec59 libdav1d6";

/// What was found, line by line.
#[derive(Default)]
struct Findings {
    text: String,
    missing: usize,
}

impl Findings {
    fn head(&mut self, name: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text += &format!("{name}\n");
    }

    fn there(&mut self, name: &str, value: &str) {
        self.text += &format!("  {name:14} {value}\n");
    }

    fn missing(&mut self, name: &str, value: &str, bring: &str) {
        self.missing += 1;
        self.text += &format!("! {name:14} {value}\n  {:14} → {bring}\n", "");
    }
}

pub fn run(args: &DoctorArgs) -> u8 {
    let mut findings = Findings::default();
    findings.head("veriscope");
    findings.there("version", env!("CARGO_PKG_VERSION"));
    findings.there("built for", &format!("{} {}", std::env::consts::ARCH, std::env::consts::OS));
    processor(&mut findings);
    device(&mut findings);
    findings.head("FFmpeg");
    ffmpeg(&mut findings, &media::versions(), &media::decoders());
    weights(&mut findings, args);
    findings.text += &match findings.missing {
        0 => "\nEverything that a scan needs is there.\n".to_string(),
        1 => "\n1 thing is missing; the command that brings it stands beside it.\n".to_string(),
        n => format!("\n{n} things are missing; the commands that bring them stand beside them.\n"),
    };
    print(&findings.text, if findings.missing == 0 { EXIT_OK } else { EXIT_FAILED })
}

fn processor(findings: &mut Findings) {
    findings.head("processor");
    if let Some(model) = proc_value("/proc/cpuinfo", "model name") {
        findings.there("model", &model);
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    findings.there("threads", &threads.to_string());
    let features = cpu_features();
    if !features.is_empty() {
        let (have, lack): (Vec<_>, Vec<_>) = features.into_iter().partition(|(_, there)| *there);
        let names = |list: Vec<(&str, bool)>| {
            list.into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(" ")
        };
        findings.there("features", &names(have));
        if !lack.is_empty() {
            findings.there("without", &format!("{} (works, but slower)", names(lack)));
        }
    }
    let memory = |key| {
        let text = proc_value("/proc/meminfo", key)?;
        let kib: u64 = text.split_whitespace().next()?.parse().ok()?;
        Some(size(kib.saturating_mul(1024)))
    };
    if let (Some(total), Some(free)) = (memory("MemTotal"), memory("MemAvailable")) {
        findings.there("memory", &format!("{total}, {free} of it available"));
    }
}

#[cfg(target_arch = "x86_64")]
fn cpu_features() -> Vec<(&'static str, bool)> {
    vec![
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bw", is_x86_feature_detected!("avx512bw")),
        ("avx512vl", is_x86_feature_detected!("avx512vl")),
        ("avx512vnni", is_x86_feature_detected!("avx512vnni")),
        ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
    ]
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu_features() -> Vec<(&'static str, bool)> {
    Vec::new()
}

/// The value after `key` and a colon in a file of /proc.
fn proc_value(file: &str, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.trim() == key)
        .map(|(_, value)| value.trim().to_string())
}

fn device(findings: &mut Findings) {
    findings.head("device");
    findings.there("cpu", "there");
    let built = candle_core::utils::cuda_is_available();
    let driver = std::path::Path::new("/proc/driver/nvidia/version").exists();
    let cuda = match (built, driver) {
        (true, true) => "built in, NVIDIA driver there",
        (true, false) => "built in, no NVIDIA driver on this machine",
        (false, true) => "not built in, though this machine has an NVIDIA driver",
        (false, false) => "not built in, no NVIDIA driver on this machine",
    };
    findings.there("cuda", cuda);
}

/// What no FFmpeg of the stable distributions reads; its lack is said, but a scan runs without it.
const OPTIONAL: [&str; 1] = ["heif"];

fn ffmpeg(findings: &mut Findings, versions: &Versions, decoders: &[Capability]) {
    findings.there("release", &versions.ffmpeg);
    for (library, version) in [
        ("libavformat", &versions.libavformat),
        ("libavcodec", &versions.libavcodec),
        ("libavutil", &versions.libavutil),
        ("libswscale", &versions.libswscale),
        ("libswresample", &versions.libswresample),
    ] {
        findings.there(library, version);
    }
    let names = |wanted: &dyn Fn(&Capability) -> bool| -> String {
        let list: Vec<&str> = decoders.iter().filter(|c| wanted(c)).map(|c| c.name).collect();
        list.join(", ")
    };
    findings.there("reads", &names(&|c| c.decoder.is_some()));
    let optional = names(&|c| c.decoder.is_none() && OPTIONAL.contains(&c.name));
    if !optional.is_empty() {
        findings.there("cannot read", &format!("{optional} (needs FFmpeg 7 or newer)"));
    }
    let needed = names(&|c| c.decoder.is_none() && !OPTIONAL.contains(&c.name));
    if !needed.is_empty() {
        findings.missing("cannot read", &needed, BRING_DECODERS);
    }
}

fn weights(findings: &mut Findings, args: &DoctorArgs) {
    findings.head("weights");
    let store = match WeightStore::open(args.weights.as_deref()) {
        Ok(store) => store,
        Err(error) => return findings.missing("manifest", &error.to_string(), BRING_WEIGHTS),
    };
    for entry in store.entries() {
        let name = entry.name.to_string();
        let (said, whole) = check(std::slice::from_ref(&name), |name| store.verify(name));
        let said = said.trim().strip_prefix(name.as_str()).unwrap_or(&said).trim();
        if whole {
            findings.there(&name, said);
        } else {
            findings.missing(&name, said, BRING_WEIGHTS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_decoder_is_named_with_the_command_that_brings_it() {
        let mut findings = Findings::default();
        let version = || "5.1".to_string();
        let versions = Versions {
            ffmpeg: version(),
            libavformat: version(),
            libavcodec: version(),
            libavutil: version(),
            libswscale: version(),
            libswresample: version(),
        };
        let capability =
            |name, decoder: Option<&str>| Capability { name, decoder: decoder.map(str::to_owned) };
        let mut decoders = vec![capability("h264", Some("h264")), capability("heif", None)];
        ffmpeg(&mut findings, &versions, &decoders);
        assert_eq!(findings.missing, 0);
        assert!(
            findings.text.ends_with(
                "  reads          h264\n  cannot read    heif (needs FFmpeg 7 or newer)\n"
            )
        );
        decoders.push(capability("av1", None));
        let mut findings = Findings::default();
        ffmpeg(&mut findings, &versions, &decoders);
        assert_eq!(findings.missing, 1);
        let end = format!("! cannot read    av1\n  {:14} → {BRING_DECODERS}\n", "");
        assert!(findings.text.ends_with(&end), "{}", findings.text);
    }

    #[test]
    fn values_of_proc_files_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("meminfo");
        std::fs::write(&file, "MemTotal:       1024 kB\nMemFree: 5 kB\n").unwrap();
        let file = file.to_str().unwrap();
        assert_eq!(proc_value(file, "MemTotal").unwrap(), "1024 kB");
        assert_eq!(proc_value(file, "Swap"), None);
    }
}
