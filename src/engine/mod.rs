//! The schedule: decoders → batches across files → device → windows.
//!
//! Each file in work has a thread that decodes it, follows its faces and cuts its speech; one
//! [`owner`] thread a device runs the networks for all of them in batches. Every queue between
//! them is bounded, so a slow network slows the decoders instead of filling the memory.

mod closeups;
mod faces;
mod heat;
mod job;
mod networks;
mod owner;
mod pictures;
mod provisional;
mod runner;
pub mod score;
mod voices;
mod watermarks;

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use candle_core::Device;
use sha2::{Digest as _, Sha256};

pub use closeups::CloseUp;
use networks::Networks;
pub use networks::{Compared, TOLERANCE};
use runner::Runner;

use crate::{
    detect::{Tier, Tiers, face_swap, voice_clone},
    device::{self, DeviceError, Gpu},
    digest,
    explicit::tesseract::Tesseract,
    media::{Audio, Frame, Limits},
    models::weights::{PrecisionChoice, WeightStore, WeightsError},
    nn::Precision,
    provenance::{InspectOptions, c2pa::Worker},
    report::{DetectorKind, EngineInfo, Report, Segment, path_text},
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

/// What an observer is told of beside a file's progress and report. What nobody wants is not made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wants {
    /// Segments before the file's end: [`Observer::segments`].
    pub segments: bool,
    /// Pictures of judged faces: [`Observer::close_up`].
    pub close_ups: bool,
}

/// What the engine tells while it works. Calls come from the engine's threads, those of one file one
/// after the other; what they take, the file takes longer.
pub trait Observer: Sync {
    /// Asked once a file, before anything is done with it.
    fn wants(&self) -> Wants {
        Wants::default()
    }

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

    /// A sampled picture, in order of time, before it is judged.
    fn frame(&self, _path: &Path, _frame: &Frame) {}

    /// A stream's next run of sound, before it is judged.
    fn sound(&self, _path: &Path, _audio: &Audio) {}

    /// All segments as they would be if the file ended here, in the report's order, in the place of
    /// those told before; without heat maps. Tracks may be numbered otherwise in the report. At most
    /// once in 2 s of the media and 0.5 s of wall time.
    fn segments(&self, _path: &Path, _segments: Vec<Segment>) {}

    /// A face of a segment that the report will have, near the segment's peak.
    fn close_up(&self, _path: &Path, _segment: &Segment, _picture: CloseUp) {}

    /// A file is done, scanned or failed. The report's `status` says which.
    fn done(&self, report: Report);

    /// A file is left without a report: it was stopped, or is [`known`](Self::known).
    fn left(&self, _path: &Path) {}
}

/// Bounds on one file.
#[derive(Debug, Clone, Default)]
pub struct TaskLimits {
    pub media: Limits,
    /// A longer presentation, or one that turns out to be, gives a failed report with the code
    /// `over_limit`. None: no bound.
    pub max_duration_ms: Option<i64>,
}

/// A file to judge for somebody.
pub struct Task {
    pub path: PathBuf,
    pub limits: TaskLimits,
    /// Told of this file alone.
    pub observer: Arc<dyn Observer + Send + Sync>,
    /// Once it is set, the file is given up without a report, within a second.
    pub stop: Arc<AtomicBool>,
}

/// Where [`Engine::work`] gets its files.
pub trait Tasks: Sync {
    /// The next file for a worker, the workers counted from 0. Waits while there is none; `None`
    /// ends the worker.
    fn next(&self, worker: usize) -> Option<Task>;
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
        digest::hex(&Sha256::digest(text.to_string())[..16])
    }

    /// Threads of each file's decoder. Fixed for a machine, so that what a decoder may skip does not
    /// depend on how many files are in work; few, so that many cores do not multiply by many files.
    fn decoder_threads(&self) -> usize {
        cores().min(4)
    }

    /// Files that [`scan`](Self::scan) has in work at the same time.
    pub fn jobs(&self) -> usize {
        if self.options.jobs == 0 { cores() } else { self.options.jobs }
    }

    /// What a report of this engine says of it.
    pub fn info(&self) -> &EngineInfo {
        &self.info
    }

    /// Scans files, several at a time. Stops taking new files once `stop` is set; files in work
    /// are then given up without a report.
    pub fn scan(&self, paths: &[PathBuf], observer: &dyn Observer, stop: &AtomicBool) {
        let next = AtomicUsize::new(0);
        let limits = TaskLimits::default();
        followed(stop, |given_up| {
            self.with_owner(self.jobs().min(paths.len()), |_, client| {
                let client = client.until(given_up);
                while !stop.load(Ordering::Relaxed) {
                    let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) else {
                        return;
                    };
                    self.judge(&client, path, &limits, observer, given_up);
                }
            });
        });
    }

    /// Judges files as they come, `workers` at a time, until `tasks` has no more for any worker.
    pub fn work(&self, tasks: &dyn Tasks, workers: usize) {
        self.with_owner(workers, |worker, client| {
            while let Some(Task { path, limits, observer, stop }) = tasks.next(worker) {
                let client = client.until(&stop);
                self.judge(&client, &path, &limits, observer.as_ref(), &stop);
            }
        });
    }

    /// Runs `work` on as many threads, by their numbers, while this one runs networks for them.
    fn with_owner(&self, workers: usize, work: impl Fn(usize, &owner::Client) + Sync) {
        let (client, inbox) = owner::queue();
        std::thread::scope(|scope| {
            for worker in 0..workers {
                let (client, work) = (client.clone(), &work);
                scope.spawn(move || work(worker, &client));
            }
            // The owner ends with the last clone of the client.
            drop(client);
            inbox.serve(&self.runner);
        });
    }

    fn judge(
        &self,
        client: &owner::Client,
        path: &Path,
        limits: &TaskLimits,
        observer: &dyn Observer,
        stop: &Arc<AtomicBool>,
    ) {
        // A defect that one file brings out must not cost the others.
        let work = || job::scan(self, client, path, limits, observer, stop);
        let report = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
            let message = format!("{}: a defect in this program", path.display());
            let info = self.info.clone();
            Some(Report::failed(&path_text(path), "internal_error", message, info))
        });
        match report {
            Some(report) => observer.done(report),
            None => observer.left(path),
        }
    }
}

/// Runs `work` with a flag that is set soon after `stop` is.
fn followed<T>(stop: &AtomicBool, work: impl FnOnce(&Arc<AtomicBool>) -> T) -> T {
    /// Ends the thread that follows, even where `work` panics.
    struct End<'a>(&'a AtomicBool, std::thread::Thread);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
            self.1.unpark();
        }
    }
    let own = Arc::new(AtomicBool::new(stop.load(Ordering::Relaxed)));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let follow = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                if stop.load(Ordering::Relaxed) {
                    own.store(true, Ordering::Relaxed);
                    return;
                }
                std::thread::park_timeout(Duration::from_millis(100));
            }
        });
        let _end = End(&done, follow.thread().clone());
        work(&own)
    })
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

    /// Hands out tasks one after the other.
    struct Given(Mutex<Vec<Task>>);

    impl Tasks for Given {
        fn next(&self, _: usize) -> Option<Task> {
            self.0.lock().unwrap().pop()
        }
    }

    /// Follows one file.
    #[derive(Default)]
    struct Follower {
        defect: bool,
        /// Stops the file at its first picture.
        stop: Option<Arc<AtomicBool>>,
        reports: Mutex<Vec<Report>>,
        left: AtomicUsize,
        frames: AtomicUsize,
        segments: Mutex<Vec<Vec<Segment>>>,
        close_ups: Mutex<Vec<(Segment, CloseUp)>>,
    }

    impl Observer for Follower {
        fn wants(&self) -> Wants {
            Wants { segments: true, close_ups: true }
        }
        fn progress(&self, _: &Path, _: i64, _: Option<i64>) {}
        fn frame(&self, _: &Path, _: &Frame) {
            assert!(!self.defect, "this test's own defect");
            self.frames.fetch_add(1, Ordering::Relaxed);
            if let Some(stop) = &self.stop {
                stop.store(true, Ordering::Relaxed);
            }
        }
        fn segments(&self, _: &Path, segments: Vec<Segment>) {
            self.segments.lock().unwrap().push(segments);
        }
        fn close_up(&self, _: &Path, segment: &Segment, picture: CloseUp) {
            self.close_ups.lock().unwrap().push((segment.clone(), picture));
        }
        fn done(&self, report: Report) {
            self.reports.lock().unwrap().push(report);
        }
        fn left(&self, _: &Path) {
            self.left.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn task(name: &str, limits: TaskLimits, observer: &Arc<Follower>) -> Task {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo").join(name);
        let stop = observer.stop.clone().unwrap_or_default();
        Task { path, limits, observer: Arc::clone(observer) as _, stop }
    }

    #[test]
    fn each_task_has_its_own_end() {
        let engine = on(DeviceChoice::Cpu);
        let follower = |defect, stop| Arc::new(Follower { defect, stop, ..Follower::default() });
        let (good, bad) = (follower(false, None), follower(true, None));
        let stopped = follower(false, Some(Arc::default()));
        let (long, large, late) =
            (follower(false, None), follower(false, None), follower(false, None));
        let limits = TaskLimits::default;
        let media = Limits { max_pixels: 100, ..Limits::default() };
        let tasks = vec![
            task("label-stripped.mp4", limits(), &good),
            task("label-stripped.mp4", limits(), &bad),
            task("label-stripped.mp4", limits(), &stopped),
            task(
                "label-stripped.mp4",
                TaskLimits { max_duration_ms: Some(4_999), ..limits() },
                &long,
            ),
            task(
                "label-stripped.mp4",
                TaskLimits { max_duration_ms: Some(5_000), ..limits() },
                &late,
            ),
            task("label-intact.png", TaskLimits { media, ..limits() }, &large),
        ];
        engine.work(&Given(Mutex::new(tasks)), 3);

        let only = |follower: &Follower| {
            let reports = follower.reports.lock().unwrap();
            assert_eq!((reports.len(), follower.left.load(Ordering::Relaxed)), (1, 0));
            reports[0].clone()
        };
        let code = |follower: &Follower| only(follower).error.map(|e| e.code);
        assert_eq!(
            (stopped.reports.lock().unwrap().len(), stopped.left.load(Ordering::Relaxed)),
            (0, 1)
        );
        assert_eq!(code(&bad).as_deref(), Some("internal_error"));
        assert_eq!(code(&long).as_deref(), Some("over_limit"));
        assert_eq!(code(&large).as_deref(), Some("over_limit"));
        assert_eq!(code(&late), None);
        let (report, _, _) = judged(only(&good));
        // As a scan finds it.
        assert_eq!(report, judged(scan(&engine).remove(0)).0);
        assert_eq!(good.frames.load(Ordering::Relaxed), 10);
        // The labels are told before the first picture is judged.
        let told = good.segments.lock().unwrap();
        assert!(told[0].iter().all(|s| s.detector == DetectorKind::LabelStrip));
        assert!(!told[0].is_empty());
        for (segment, picture) in good.close_ups.lock().unwrap().iter() {
            assert!(report.segments.contains(segment) && segment.heat_map.is_some());
            assert!((segment.start_ms..=segment.end_ms).contains(&picture.time_ms));
        }
    }

    #[test]
    fn a_declaration_afterwards_is_the_engines_own() {
        let of = |declared_ai, detectors: &[DetectorKind]| {
            let detectors = detectors.to_vec();
            let options = ScanOptions { declared_ai, detectors, ..ScanOptions::default() };
            let engine = Engine::new(options, &WeightStore::open(None).unwrap()).unwrap();
            let mut reports = scan(&engine);
            reports.push(Report::failed("x", "empty", "x: empty".into(), engine.info.clone()));
            reports.iter_mut().for_each(|report| report.timings = Default::default());
            reports.sort_by(|a, b| a.media.path.cmp(&b.media.path));
            reports
        };
        for detectors in [&[DetectorKind::LabelStrip][..], &[]] {
            let mut reports = of(false, detectors);
            reports.iter_mut().for_each(crate::verdict::disposition::declare);
            assert_eq!(reports, of(true, detectors));
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
