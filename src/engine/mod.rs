//! The schedule: decoders → batches across files → device → windows.
//!
//! Each file in work has a thread that decodes it, follows its faces and cuts its speech; one
//! [`owner`] thread a device runs the networks for all of them in batches. Every queue between
//! them is bounded, so a slow network slows the decoders instead of filling the memory.

mod faces;
mod heat;
mod job;
mod networks;
mod owner;
mod pictures;
mod runner;
pub mod score;
mod voices;
mod watermarks;

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use candle_core::Device;
use sha2::{Digest, Sha256};

use networks::Networks;
pub use networks::{Compared, TOLERANCE};
use runner::Runner;

use crate::{
    detect::{Tier, Tiers, face_swap, voice_clone},
    device::{self, DeviceError, Gpu},
    explicit::tesseract::Tesseract,
    models::weights::{PrecisionChoice, WeightStore, WeightsError},
    nn::Precision,
    provenance::{InspectOptions, c2pa::Worker},
    report::{DetectorKind, EngineInfo, Report, path_text},
};

/// What a scan is asked to do.
#[derive(Debug, Clone)]
pub struct ScanOptions {
    pub detectors: Vec<DetectorKind>,
    /// Pictures a second that are looked at; every picture where it is not positive.
    pub fps: f64,
    /// Files in work at the same time; 0 lets the engine choose.
    pub jobs: usize,
    pub device: DeviceChoice,
    /// None: for each detector [`Tier::Accurate`] where its weights are installed, else [`Tier::Fast`].
    pub tier: Option<Tier>,
    /// How labels are read, and what verifies C2PA manifests.
    pub inspect: InspectOptions,
    /// Whoever uploaded the files declared them to be made by AI.
    pub declared_ai: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first GPU where the program was built with CUDA and all that it takes is there, and
    /// where the networks answer there as on the CPU; else the CPU.
    Auto,
    Cpu,
    /// This GPU and no other device.
    Cuda(usize),
}

const CPU: &str = "cpu";

/// Pictures a second that are looked at unless told otherwise.
pub const DEFAULT_FPS: f64 = 4.0;

impl Default for ScanOptions {
    fn default() -> Self {
        Self {
            detectors: DetectorKind::ALL.to_vec(),
            fps: DEFAULT_FPS,
            jobs: 0,
            device: DeviceChoice::Auto,
            tier: None,
            inspect: InspectOptions::default(),
            declared_ai: false,
        }
    }
}

/// What the engine tells while it works. Calls come from the engine's threads.
pub trait Observer: Sync {
    /// A file is being worked on; `media_ms` of its `duration_ms` have been looked at.
    fn progress(&self, path: &Path, media_ms: i64, duration_ms: Option<i64>);

    /// Asked once a file, as soon as its content is hashed (`sha256` in lower-case hex) and before
    /// anything else is done with it. True where the observer has the content's report already,
    /// or waits for the one that another path with the same content is getting: the engine then
    /// leaves the file alone and does not call `done` for it.
    ///
    /// After the answer false the engine owes a call of `done` whose report carries this
    /// `sha256`, unless it is stopped.
    fn known(&self, _path: &Path, _sha256: &str) -> bool {
        false
    }

    /// A file is done, scanned or failed. The report's `status` says which.
    fn done(&self, report: Report);
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error("device cuda:{ordinal} is not available: {cause}")]
    Device { ordinal: usize, cause: DeviceError },
    #[error("device cuda:{ordinal} cannot take the networks: {cause}")]
    Load { ordinal: usize, cause: WeightsError },
    /// With both figures.
    #[error("device cuda:{ordinal} failed the self-test: {detail}")]
    SelfTest { ordinal: usize, detail: String },
}

/// Networks loaded on one device, and on the CPU in any case.
pub struct Engine {
    options: ScanOptions,
    runner: Runner<Networks>,
    /// What reads text in pictures, or why nothing does. None: nobody asked for labels.
    reader: Option<Result<Tesseract, String>>,
    gpu: Option<Gpu>,
    info: EngineInfo,
}

/// A GPU that answers as the CPU does.
struct Accelerator {
    gpu: Gpu,
    networks: Networks,
    /// The same in f32, as the GPU has them: what it is compared with and what stands in for it.
    cpu: Networks,
    compared: Vec<Compared>,
}

/// Starts a GPU, loads the networks there and compares their answers with the CPU's.
fn accelerator(
    ordinal: usize,
    weights: &WeightStore,
    detectors: &[DetectorKind],
    tiers: Tiers,
) -> Result<Accelerator, EngineError> {
    let (device, gpu) =
        device::start(ordinal).map_err(|cause| EngineError::Device { ordinal, cause })?;
    let exact = weights.clone().with_precision(PrecisionChoice::F32);
    let cpu = Networks::load(&exact, &Device::Cpu, detectors, tiers, None)?;
    // What the device does here was never seen before on this machine: a defect in a kernel must
    // not end the program where the CPU could do the work.
    catch_unwind(AssertUnwindSafe(|| {
        let networks = Networks::load(weights, &device, detectors, tiers, None)
            .map_err(|cause| EngineError::Load { ordinal, cause })?;
        let compared = networks::self_test(&networks, &cpu)
            .map_err(|detail| EngineError::SelfTest { ordinal, detail })?;
        Ok((networks, compared))
    }))
    .unwrap_or_else(|_| {
        let detail = "a defect in this program".to_owned();
        Err(EngineError::SelfTest { ordinal, detail })
    })
    .map(|(networks, compared)| Accelerator { gpu, networks, cpu, compared })
}

/// Whether all networks of a tier answer on the GPU `ordinal` as they do on the CPU, and how far apart.
///
/// # Errors
/// Weights that cannot be loaded, a GPU that cannot be used, or the first answer that differs.
pub fn self_test(
    ordinal: usize,
    weights: &WeightStore,
    tier: Tier,
) -> Result<Vec<Compared>, EngineError> {
    accelerator(ordinal, weights, &DetectorKind::ALL, tier.into()).map(|a| a.compared)
}

/// For each detector the best tier whose weights are there. Where that is not the best there could
/// be, the log says what is missing; the reports name the weights. Weights that are there and broken
/// are no reason to take others: loading them says what is wrong.
fn best_tiers(detectors: &[DetectorKind], weights: &WeightStore) -> Tiers {
    let best = |kind: DetectorKind, name: &str| match weights.missing(name) {
        None => Tier::Accurate,
        Some(missing) => {
            if detectors.contains(&kind) {
                let kind = kind.name();
                tracing::warn!("{missing}; {kind} runs its light network alone (--tier fast)");
            }
            Tier::Fast
        }
    };
    Tiers {
        face_swap: best(DetectorKind::FaceSwap, face_swap::weights(Tier::Accurate)),
        voice_clone: if voice_clone::has_accurate(weights) {
            best(DetectorKind::VoiceClone, voice_clone::weights(weights, Tier::Accurate))
        } else {
            // There is no better one that could be missing.
            Tier::Fast
        },
    }
}

/// What a report says of how C2PA manifests are verified.
fn c2pa(options: &InspectOptions) -> serde_json::Value {
    let anchors = |worker: &Worker| worker.trust_anchors.as_ref().map(|a| a.sha256().to_owned());
    match &options.c2pa {
        Some(worker) => serde_json::json!({ "trust_anchors": anchors(worker) }),
        None => serde_json::json!("not verified"),
    }
}

/// What a report says: the best of the tiers that the detectors run.
fn best_used(detectors: &[DetectorKind], tiers: Tiers) -> Tier {
    let used =
        [(DetectorKind::FaceSwap, tiers.face_swap), (DetectorKind::VoiceClone, tiers.voice_clone)];
    let accurate =
        |(kind, tier): &(DetectorKind, Tier)| *tier == Tier::Accurate && detectors.contains(kind);
    if used.iter().any(accurate) { Tier::Accurate } else { Tier::Fast }
}

impl Engine {
    /// Loads and verifies the weights that the detectors need, and starts the device. Where the
    /// choice of it was left open and a GPU cannot be used, the cause goes to the log and into
    /// every report.
    ///
    /// # Errors
    /// Weights that cannot be loaded; a GPU that was asked for and cannot be used.
    pub fn new(options: ScanOptions, weights: &WeightStore) -> Result<Self, EngineError> {
        Self::with_faces_judged_by(None, options, weights)
    }

    /// With a published network's weights in the place of our face-swap networks, on the CPU.
    fn with_faces_judged_by(
        published: Option<&str>,
        options: ScanOptions,
        weights: &WeightStore,
    ) -> Result<Self, EngineError> {
        let tiers = match options.tier {
            Some(tier) => tier.into(),
            None => best_tiers(&options.detectors, weights),
        };
        let start = |ordinal| accelerator(ordinal, weights, &options.detectors, tiers);
        let mut device_note = None;
        let found = match options.device {
            _ if published.is_some() => None,
            DeviceChoice::Cpu => None,
            DeviceChoice::Cuda(ordinal) => Some(start(ordinal)?),
            DeviceChoice::Auto => match start(0) {
                Ok(found) => Some(found),
                // What was never meant to run on a GPU need not say that it does not.
                Err(EngineError::Device { cause: DeviceError::NotBuilt, .. }) => None,
                Err(error) => {
                    let surprising = match &error {
                        EngineError::Device { cause, .. } => cause.is_surprising(),
                        _ => true,
                    };
                    if surprising {
                        tracing::warn!("{error}; the CPU does the work");
                    } else {
                        tracing::info!("{error}; the CPU does the work");
                    }
                    device_note = Some(error.to_string());
                    None
                }
            },
        };
        let (gpu, runner) = match found {
            Some(found) => {
                for Compared { network, difference } in &found.compared {
                    tracing::info!("{network}: at most {difference:.6} from the CPU's answer");
                }
                (Some(found.gpu), Runner::new(found.cpu, Some(found.networks)))
            }
            None => {
                let detectors = &options.detectors;
                let cpu = Networks::load(weights, &Device::Cpu, detectors, tiers, published)?;
                (None, Runner::new(cpu, None))
            }
        };
        let networks = runner.cpu();
        let mut sums = BTreeMap::new();
        let mut precisions = BTreeMap::new();
        for name in networks.names() {
            let entry = weights.entry(name)?;
            sums.insert(name.to_owned(), entry.sha256.clone());
            if let Some(base) = &entry.base {
                sums.insert(base.clone(), weights.entry(base)?.sha256.clone());
            }
            let precision = match &gpu {
                Some(_) => Precision::F32,
                None => weights.precision(name, &Device::Cpu)?,
            };
            precisions.insert(name, precision);
        }
        let mut kinds = options.detectors.clone();
        kinds.sort();
        kinds.dedup();
        let names: Vec<&str> = kinds.iter().map(|k| k.name()).collect();
        let reader = kinds.contains(&DetectorKind::LabelStrip).then(Tesseract::installed);
        if let Some(Err(why)) = &reader {
            tracing::warn!("text in pictures is not read: {why}");
        }
        let read_by = reader.as_ref().and_then(|r| r.as_ref().ok()).map(|r| r.name.clone());
        let info = EngineInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            weights: sums,
            device: match &gpu {
                Some(gpu) => format!("cuda:{} {}", gpu.ordinal, gpu.name),
                None => CPU.to_owned(),
            },
            device_note,
            decoder: None,
            options: BTreeMap::from([
                ("c2pa".to_owned(), c2pa(&options.inspect)),
                ("declared_ai".to_owned(), serde_json::json!(options.declared_ai)),
                ("detectors".to_owned(), serde_json::json!(names)),
                ("fps".to_owned(), serde_json::json!(options.fps)),
                ("text_reader".to_owned(), serde_json::json!(read_by)),
                ("precision".to_owned(), serde_json::json!(precisions)),
                ("tier".to_owned(), serde_json::json!(best_used(&options.detectors, tiers).name())),
            ]),
        };
        Ok(Self { options, runner, reader, gpu, info })
    }

    /// The networks' calibrations, the same on every device.
    fn networks(&self) -> &Networks {
        self.runner.cpu()
    }

    /// The GPU that runs networks, unless it was given up.
    fn active_gpu(&self) -> Option<usize> {
        self.runner.accelerator()?;
        self.gpu.as_ref().map(|gpu| gpu.ordinal)
    }

    /// What identifies results of this engine: version, weights, device, FFmpeg and options. Two engines
    /// with the same fingerprint give the same report for the same bytes.
    pub fn fingerprint(&self) -> String {
        let mut digest = Sha256::new();
        // Maps are ordered, so the text is the same for the same content.
        let text = serde_json::json!({
            "schema": crate::report::SCHEMA_VERSION,
            "version": self.info.version,
            "weights": self.info.weights,
            // Equal GPUs give equal results, wherever they are plugged in.
            "device": self.gpu.as_ref().map_or(CPU.to_owned(), |gpu| format!("cuda {}", gpu.name)),
            "ffmpeg": crate::media::installed::installed().map(|i| i.libraries).ok(),
            "options": self.info.options,
        });
        digest.update(text.to_string());
        digest.finalize().iter().take(16).map(|b| format!("{b:02x}")).collect()
    }

    /// Threads of each file's decoder. Fixed for a machine, so that what a decoder may skip does not
    /// depend on how many files are in work; few, so that many cores do not multiply by many files.
    fn decoder_threads(&self) -> usize {
        cores().min(4)
    }

    fn jobs(&self) -> usize {
        if self.options.jobs == 0 { cores() } else { self.options.jobs }
    }

    /// Scans files, several at a time. Stops taking new files once `stop` is set; files in work
    /// are then given up without a report.
    pub fn scan(&self, paths: &[PathBuf], observer: &dyn Observer, stop: &AtomicBool) {
        let (client, inbox) = owner::queue();
        let jobs = self.jobs();
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..jobs.min(paths.len()) {
                let client = client.clone();
                let next = &next;
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) else {
                            return;
                        };
                        // A defect that one file brings out must not cost the others.
                        let work = || job::scan(self, &client, path, observer, stop);
                        let report = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
                            let message = format!("{}: a defect in this program", path.display());
                            Some(Report::failed(
                                &path_text(path),
                                "internal_error",
                                message,
                                self.info.clone(),
                            ))
                        });
                        if let Some(report) = report {
                            observer.done(report);
                        }
                    }
                });
            }
            // The owner ends with the last clone of the client.
            drop(client);
            inbox.serve(&self.runner);
        });
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::{
        media::DecoderKind,
        report::{Reason, ReasonCode, Status},
    };

    #[derive(Default)]
    struct Reports(Mutex<Vec<Report>>);

    impl Observer for Reports {
        fn progress(&self, _: &Path, _: i64, _: Option<i64>) {}
        fn done(&self, report: Report) {
            self.0.lock().unwrap().push(report);
        }
    }

    fn scan(engine: &Engine) -> Vec<Report> {
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo");
        let paths = ["label-stripped.mp4", "label-intact.png"].map(|name| demo.join(name));
        let reports = Reports::default();
        engine.scan(&paths, &reports, &AtomicBool::new(false));
        reports.0.into_inner().unwrap()
    }

    /// Without timings, and without what says which device it was.
    fn judged(mut report: Report) -> (Report, EngineInfo, Vec<Reason>) {
        report.timings = Default::default();
        let engine = std::mem::replace(
            &mut report.engine,
            EngineInfo {
                version: String::new(),
                weights: BTreeMap::new(),
                device: String::new(),
                device_note: None,
                decoder: None,
                options: BTreeMap::new(),
            },
        );
        let lost = |r: &Reason| r.code == ReasonCode::DeviceLost;
        let told = report.reasons.iter().filter(|r| lost(r)).cloned().collect();
        report.reasons.retain(|r| !lost(r));
        (report, engine, told)
    }

    fn on(device: DeviceChoice) -> Engine {
        let tier = Some(Tier::Fast);
        let options = ScanOptions { device, jobs: 1, fps: 2.0, tier, ..ScanOptions::default() };
        Engine::new(options, &WeightStore::open(None).unwrap()).unwrap()
    }

    /// A device that has none of the networks fails at the first request, as one that is lost.
    #[test]
    fn a_lost_device_costs_no_file_and_is_told() {
        let cpu = on(DeviceChoice::Cpu);
        let mut engine = on(DeviceChoice::Cpu);
        let store = WeightStore::open(None).unwrap();
        let broken = Networks::load(&store, &Device::Cpu, &[], Tier::Fast.into(), None).unwrap();
        let networks =
            Networks::load(&store, &Device::Cpu, &DetectorKind::ALL, Tier::Fast.into(), None)
                .unwrap();
        engine.runner = Runner::new(networks, Some(broken));
        engine.gpu = Some(Gpu {
            ordinal: 60_000,
            name: "NVIDIA Nothing".to_owned(),
            memory: 1 << 30,
            capability: (8, 0),
        });
        engine.info.device = "cuda:60000 NVIDIA Nothing".to_owned();
        assert_ne!(engine.fingerprint(), cpu.fingerprint());

        let (want, found) = (scan(&cpu), scan(&engine));
        assert_eq!((want.len(), found.len()), (2, 2));
        for (i, (want, found)) in want.into_iter().zip(found).enumerate() {
            let (want, plain, _) = judged(want);
            let (found, info, told) = judged(found);
            assert_eq!(found, want);
            assert_eq!(found.status, Status::Ok);
            assert_eq!((plain.device.as_str(), plain.decoder), ("cpu", None));
            assert_eq!(told.len(), 1);
            let said = "cuda:60000 NVIDIA Nothing was lost: ";
            assert!(told[0].detail.starts_with(said), "{}", told[0].detail);
            if i == 0 {
                assert_eq!(info.device, "cuda:60000 NVIDIA Nothing + cpu");
                // The device was to decode the video too.
                let decoder = info.decoder.unwrap();
                assert_eq!(decoder.kind, DecoderKind::Software);
                assert!(decoder.reason.is_some());
            } else {
                assert_eq!((info.device.as_str(), info.decoder), ("cpu", None));
            }
        }
    }

    #[test]
    fn the_choice_left_open_finds_a_device_or_says_why_not() {
        let engine = on(DeviceChoice::Auto);
        match (&engine.gpu, &engine.info.device_note) {
            (Some(gpu), None) => assert!(engine.info.device.ends_with(&gpu.name)),
            (None, Some(why)) => {
                assert!(cfg!(feature = "cuda") && engine.info.device == "cpu", "{why}");
            }
            (None, None) => assert!(!cfg!(feature = "cuda") && engine.info.device == "cpu"),
            (Some(_), Some(why)) => panic!("a device and a cause against it: {why}"),
        }
        if engine.gpu.is_none() {
            assert_eq!(engine.fingerprint(), on(DeviceChoice::Cpu).fingerprint());
        }
    }
}
