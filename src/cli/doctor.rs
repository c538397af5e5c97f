//! `veriscope doctor`: what is there, what is missing, and the command that brings it.

use std::path::PathBuf;

use clap::Args;

use super::weights::{check, size, verify};
use super::{EXIT_FAILED, EXIT_OK, print};
use crate::detect::{Tier, face_swap, voice_clone};
use crate::device::{self, Cuda, DeviceError, has_kernel_driver};
use crate::engine::self_test;
use crate::explicit::tesseract::Tesseract;
use crate::media::installed::{Installed, installed};
use crate::models::weights::{WeightStore, WeightsError};

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
const BRING_READER: &str =
    "sudo apt-get install tesseract-ocr tesseract-ocr-eng tesseract-ocr-chi-sim";
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
    let store = WeightStore::open(args.weights.as_deref());
    device(&mut findings, &device::cuda(), store.as_ref().ok());
    findings.head("FFmpeg");
    ffmpeg(&mut findings, installed());
    text_reader(&mut findings, Tesseract::installed());
    weights(&mut findings, store);
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

/// What there is of CUDA. None of it is needed: a scan runs on the CPU without.
fn device(findings: &mut Findings, cuda: &Cuda, weights: Option<&WeightStore>) {
    findings.head("device");
    findings.there("cpu", "there");
    let state = match (&cuda.driver, has_kernel_driver()) {
        (Ok(version), _) => format!("built in, the NVIDIA driver is for CUDA {version}"),
        (Err(DeviceError::NotBuilt), true) => {
            "not built in, though this machine has an NVIDIA driver: scripts/scan builds it in"
                .to_string()
        }
        (Err(DeviceError::NotBuilt), false) => {
            "not built in, no NVIDIA driver on this machine".to_string()
        }
        (Err(error), _) => format!("built in, not usable: {error}"),
    };
    findings.there("cuda", &state);
    for (name, place) in &cuda.libraries {
        match place {
            Ok(place) => findings.there(name, place),
            Err(reason) => findings.there(name, &format!("cannot be opened: {reason}")),
        }
    }
    if cuda.driver.is_ok() && cuda.gpus.is_empty() {
        findings.there("gpu", "none: the driver offers no device");
    }
    for gpu in &cuda.gpus {
        let (major, minor) = gpu.capability;
        let name = format!("cuda:{}", gpu.ordinal);
        let memory = size(gpu.memory);
        findings
            .there(&name, &format!("{}, {memory}, compute capability {major}.{minor}", gpu.name));
        let Some(weights) = weights else { continue };
        // On the GPU every network must answer as on the CPU, or no scan uses it.
        for tier in Tier::ALL.into_iter().filter(|tier| has(weights, *tier)) {
            let tested = match self_test(gpu.ordinal, weights, tier) {
                Ok(compared) => {
                    let worst = compared.iter().map(|c| c.difference).fold(0.0, f32::max);
                    format!(
                        "passed: {} networks, at most {worst:.6} from the CPU's probability",
                        compared.len()
                    )
                }
                Err(error) => format!("not passed, so scans use the CPU: {error}"),
            };
            findings.there("self-test", &format!("{}: {tested}", tier.name()));
        }
    }
}

/// Whether a tier's weights are there; that of every scan is tried in any case.
fn has(weights: &WeightStore, tier: Tier) -> bool {
    let names = [face_swap::weights(tier), voice_clone::weights(weights, tier)];
    tier == Tier::Fast || names.into_iter().all(|name| weights.missing(name).is_none())
}

/// What reads labels that stand in pictures as text.
fn text_reader(findings: &mut Findings, installed: Result<Tesseract, String>) {
    findings.head("text in pictures");
    match installed {
        Ok(reader) => {
            findings.there("reader", &reader.name);
            if let Some(lacks) = reader.lacks {
                findings.missing("languages", &lacks, BRING_READER);
            }
        }
        Err(error) => findings.missing("reader", &error, BRING_READER),
    }
}

fn ffmpeg(findings: &mut Findings, installed: Result<Installed, String>) {
    let installed = match installed {
        Ok(installed) => installed,
        Err(error) => return findings.missing("FFmpeg", &error, BRING_DECODERS),
    };
    for (library, version) in &installed.libraries {
        findings.there(library, version);
    }
    let there: Vec<&str> =
        installed.abilities.iter().filter(|a| a.by.is_some()).map(|a| a.what).collect();
    findings.there("reads", &there.join(", "));
    let not: Vec<&str> =
        installed.abilities.iter().filter(|a| a.by.is_none() && a.needed).map(|a| a.what).collect();
    if !not.is_empty() {
        findings.missing("cannot read", &not.join(", "), BRING_DECODERS);
    }
    let beyond: Vec<&str> = installed
        .abilities
        .iter()
        .filter(|a| a.by.is_none() && !a.needed)
        .map(|a| a.what)
        .collect();
    if !beyond.is_empty() {
        findings.there("needs newer", &beyond.join(", "));
    }
}

fn weights(findings: &mut Findings, store: Result<WeightStore, WeightsError>) {
    findings.head("weights");
    let store = match store {
        Ok(store) => store,
        Err(error) => return findings.missing("manifest", &error.to_string(), BRING_WEIGHTS),
    };
    for entry in store.entries() {
        let name = entry.name.to_string();
        let (said, whole) = check(std::slice::from_ref(&name), |name| verify(&store, name));
        let said = said.trim().strip_prefix(name.as_str()).unwrap_or(&said).trim();
        if whole {
            findings.there(&name, said);
        } else {
            let bring = entry.installed_by.as_deref().unwrap_or(BRING_WEIGHTS);
            findings.missing(&name, said, bring);
        }
    }
    if !voice_clone::has_accurate(&store) {
        let said = "voice-clone has none: its light network runs with --tier accurate too";
        findings.there("tier accurate", said);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::installed::Ability;

    #[test]
    fn a_missing_decoder_is_named_with_the_command_that_brings_it() {
        let mut findings = Findings::default();
        let ability = |what, by| Ability { what, by, needed: true };
        let installed = Installed {
            libraries: vec![("libavcodec", "59.37.100".into())],
            abilities: vec![ability("H.264", Some("h264")), ability("AV1", None)],
        };
        ffmpeg(&mut findings, Ok(installed));
        assert_eq!(findings.missing, 1);
        assert_eq!(
            findings.text,
            format!(
                "  libavcodec     59.37.100\n  reads          H.264\n! cannot read    AV1\n  \
                 {:14} → {BRING_DECODERS}\n",
                ""
            )
        );
    }

    #[test]
    fn what_there_is_of_cuda_is_told() {
        let library = |name: &str, place: Result<&str, &str>| {
            (name.to_string(), place.map(str::to_string).map_err(str::to_string))
        };
        let gpu = device::Gpu {
            ordinal: 0,
            name: "NVIDIA H200".into(),
            memory: 139 << 30,
            capability: (9, 0),
        };
        let cuda = Cuda {
            libraries: vec![
                library("libcuda.so.1", Ok("where the loader looks")),
                library("libcurand.so.10", Err("no such file")),
            ],
            driver: Ok("13.0".into()),
            gpus: vec![gpu],
        };
        let mut findings = Findings::default();
        device(&mut findings, &cuda, None);
        assert_eq!(
            findings.text,
            "device\n  cpu            there\n  cuda           built in, the NVIDIA driver is for \
             CUDA 13.0\n  libcuda.so.1   where the loader looks\n  libcurand.so.10 cannot be opened: \
             no such file\n  cuda:0         NVIDIA H200, 139.0 GiB, compute capability 9.0\n"
        );
        // A scan runs without any of it.
        assert_eq!(findings.missing, 0);
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
