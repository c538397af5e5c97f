//! Batches on a device that may run out of memory or die: every request gets its answer.
//!
//! - Out of memory: half the batch, down to one, then that one on the CPU. The size that went
//!   through is kept for later batches.
//! - Any other error on an accelerator: requests are run one by one; what fails alone is run on
//!   the CPU. Where the CPU has an answer the fault is the accelerator's, which is given up for
//!   good; where the CPU fails too the fault is the request's own.
//! - An error on the CPU: requests are run one by one, so that only the one that causes it fails.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use candle_core::{Error, Result};

use crate::report::DetectorKind;

/// Why a network gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct InferenceError(pub(super) String);

pub type Answer<T> = std::result::Result<T, InferenceError>;

/// What a batch is for; each has its own limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Detect = 0,
    Swap = 1,
    Activity = 2,
    Clone = 3,
    Speaker = 4,
    Watermark = 5,
    Marks = 6,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Detect => "face detector",
            Self::Swap => DetectorKind::FaceSwap.name(),
            Self::Activity => "voice activity",
            Self::Clone => DetectorKind::VoiceClone.name(),
            Self::Speaker => "speaker encoder",
            Self::Watermark => "watermark detector",
            Self::Marks => "mark finder",
        }
    }
}

/// The networks on the CPU and, where there is one, on an accelerator. `B` is what runs a batch.
pub struct Runner<B> {
    cpu: B,
    accelerator: Option<B>,
    /// Why the accelerator was given up.
    lost: OnceLock<String>,
    /// What a batch may cost, by kind, in the units of the one who asks.
    limits: [AtomicUsize; 7],
    told_of_memory: AtomicBool,
}

impl<B> Runner<B> {
    pub fn new(cpu: B, accelerator: Option<B>) -> Self {
        Self {
            cpu,
            accelerator,
            lost: OnceLock::new(),
            limits: [const { AtomicUsize::new(usize::MAX) }; 7],
            told_of_memory: AtomicBool::new(false),
        }
    }

    pub fn cpu(&self) -> &B {
        &self.cpu
    }

    /// The accelerator, unless there is none or it was given up.
    pub fn accelerator(&self) -> Option<&B> {
        self.accelerator.as_ref().filter(|_| self.lost.get().is_none())
    }

    /// Why the accelerator was given up.
    pub fn lost(&self) -> Option<&str> {
        self.lost.get().map(String::as_str)
    }

    /// Runs the windows of several requests, `parts[i]` of them for request i, each of the given
    /// cost. The answers are those of the requests, in order.
    pub fn run<I, O>(
        &self,
        kind: Kind,
        windows: &[I],
        parts: &[usize],
        cost: usize,
        run: impl Fn(&B, &[I]) -> Result<Vec<O>>,
    ) -> Vec<Answer<Vec<O>>> {
        if parts.len() > 1
            && let Ok(answers) = self.batch(kind, windows, cost, &run)
        {
            let mut answers = answers.into_iter();
            return parts.iter().map(|n| Ok(answers.by_ref().take(*n).collect())).collect();
        }
        let mut rest = windows;
        let mut answers = Vec::with_capacity(parts.len());
        for n in parts {
            let (own, others) = rest.split_at((*n).min(rest.len()));
            rest = others;
            answers.push(self.request(kind, own, cost, &run));
        }
        answers
    }

    fn request<I, O>(
        &self,
        kind: Kind,
        windows: &[I],
        cost: usize,
        run: &impl Fn(&B, &[I]) -> Result<Vec<O>>,
    ) -> Answer<Vec<O>> {
        let told = |e: &Error| InferenceError(format!("{}: {}", kind.name(), line(e)));
        let error = match self.batch(kind, windows, cost, run) {
            Ok(answers) => return Ok(answers),
            Err(error) if self.accelerator().is_none() => return Err(told(&error)),
            Err(error) => error,
        };
        let answers = guarded(&self.cpu, windows, run).map_err(|e| told(&e))?;
        let why = told(&error).to_string();
        if self.lost.set(why.clone()).is_ok() {
            tracing::warn!("the device was lost ({why}); the CPU goes on with the rest");
        }
        Ok(answers)
    }

    /// Runs windows on the device in use, in batches as large as its memory allows.
    fn batch<I, O>(
        &self,
        kind: Kind,
        windows: &[I],
        cost: usize,
        run: &impl Fn(&B, &[I]) -> Result<Vec<O>>,
    ) -> Result<Vec<O>> {
        let Some(accelerator) = self.accelerator() else {
            return guarded(&self.cpu, windows, run);
        };
        let limit = &self.limits[kind as usize];
        let cost = cost.max(1);
        let mut answers = Vec::with_capacity(windows.len());
        while answers.len() < windows.len() {
            let rest = &windows[answers.len()..];
            let n = (limit.load(Ordering::Relaxed) / cost).clamp(1, rest.len());
            match guarded(accelerator, &rest[..n], run) {
                Ok(made) => answers.extend(made),
                Err(e) if !is_out_of_memory(&e) => return Err(e),
                Err(e) => {
                    if !self.told_of_memory.swap(true, Ordering::Relaxed) {
                        tracing::warn!(
                            "{}: the device has too little memory for a batch of {n} ({}); smaller \
                             batches from here on, and the CPU where one is too large",
                            kind.name(),
                            line(&e)
                        );
                    }
                    if n > 1 {
                        limit.fetch_min(n / 2 * cost, Ordering::Relaxed);
                    } else {
                        answers.extend(guarded(&self.cpu, &rest[..1], run)?);
                    }
                }
            }
        }
        Ok(answers)
    }
}

/// One answer a window, whatever happens inside.
fn guarded<B, I, O>(
    networks: &B,
    windows: &[I],
    run: &impl Fn(&B, &[I]) -> Result<Vec<O>>,
) -> Result<Vec<O>> {
    let answers = catch_unwind(AssertUnwindSafe(|| run(networks, windows)))
        .unwrap_or_else(|_| Err(Error::Msg("a defect in this program".to_owned())))?;
    if answers.len() != windows.len() {
        let message = format!("{} answers for {} windows", answers.len(), windows.len());
        return Err(Error::Msg(message));
    }
    Ok(answers)
}

/// candle's errors end in a backtrace where RUST_BACKTRACE asks for one; a report takes one line.
fn line(e: &Error) -> String {
    e.to_string().lines().next().unwrap_or_default().to_owned()
}

/// Whether the device had too little memory. The driver's and cuBLAS's codes stand in the text,
/// however the error was wrapped on its way.
fn is_out_of_memory(e: &Error) -> bool {
    let text = e.to_string();
    text.contains("CUDA_ERROR_OUT_OF_MEMORY") || text.contains("CUBLAS_STATUS_ALLOC_FAILED")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// Doubles numbers. -1 is a window that no device can take, -2 one that brings out a panic.
    #[derive(Default)]
    struct Fake {
        /// Batches over this run out of memory; 0 is no limit.
        holds: usize,
        /// From this call on, every one fails; 0 is never.
        dies_at: usize,
        calls: Cell<usize>,
        largest: Cell<usize>,
    }

    fn double(fake: &Fake, windows: &[i32]) -> Result<Vec<i32>> {
        fake.calls.set(fake.calls.get() + 1);
        if fake.dies_at > 0 && fake.calls.get() >= fake.dies_at {
            return Err(Error::wrap("DriverError(CUDA_ERROR_ILLEGAL_ADDRESS, \"x\")").bt());
        }
        if fake.holds > 0 && windows.len() > fake.holds {
            let cause = std::io::Error::other("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"x\")");
            return Err(Error::Cuda(Box::new(cause)));
        }
        assert!(!windows.contains(&-2), "as asked");
        if windows.contains(&-1) {
            return Err(Error::Msg("expected a number from 0\nbacktrace".into()));
        }
        fake.largest.set(fake.largest.get().max(windows.len()));
        Ok(windows.iter().map(|w| w * 2).collect())
    }

    fn answers(
        runner: &Runner<Fake>,
        requests: &[&[i32]],
    ) -> Vec<std::result::Result<Vec<i32>, String>> {
        let parts: Vec<usize> = requests.iter().map(|r| r.len()).collect();
        let answers = runner.run(Kind::Swap, &requests.concat(), &parts, 10, double);
        answers.into_iter().map(|a| a.map_err(|e| e.to_string())).collect()
    }

    const REQUESTS: [&[i32]; 4] = [&[1, 2, 3], &[], &[4], &[5, 6, 7, 8, 9]];

    fn right() -> Vec<std::result::Result<Vec<i32>, String>> {
        REQUESTS.iter().map(|r| Ok(r.iter().map(|w| w * 2).collect())).collect()
    }

    #[test]
    fn out_of_memory_halves_the_batch_for_good() {
        for holds in 1..=9 {
            let gpu = Fake { holds, ..Fake::default() };
            let runner = Runner::new(Fake::default(), Some(gpu));
            assert_eq!(answers(&runner, &REQUESTS), right(), "{holds}");
            let gpu = runner.accelerator().unwrap();
            let (calls, largest) = (gpu.calls.get(), gpu.largest.get());
            assert!((holds / 2..=holds).contains(&largest), "{largest} of {holds}");
            // The second time no batch is tried that is known to be too large.
            assert_eq!(answers(&runner, &REQUESTS), right());
            let again = gpu.calls.get() - calls;
            assert_eq!(again, 9usize.div_ceil(largest), "{holds}");
            assert_eq!(runner.cpu().calls.get(), 0);
        }
    }

    #[test]
    fn what_does_not_fit_alone_runs_on_the_cpu_and_the_device_stays() {
        // A device that holds nothing at all.
        let runner = Runner::new(Fake::default(), Some(Fake::default()));
        let run = |fake: &Fake, windows: &[i32]| {
            if std::ptr::eq(fake, runner.cpu()) {
                return double(fake, windows);
            }
            Err(Error::Msg("CublasError(CUBLAS_STATUS_ALLOC_FAILED)".into()))
        };
        let made = runner.run(Kind::Detect, &[1, 2, 3], &[2, 1], 7, run);
        let made: Vec<Vec<i32>> = made.into_iter().map(|a| a.unwrap()).collect();
        assert_eq!(made, [vec![2, 4], vec![6]]);
        assert!(runner.lost().is_none() && runner.cpu().calls.get() == 3);
    }

    #[test]
    fn a_device_that_dies_at_any_call_loses_no_request() {
        for dies_at in 1..=6 {
            let gpu = Fake { holds: 2, dies_at, ..Fake::default() };
            let runner = Runner::new(Fake::default(), Some(gpu));
            for _ in 0..3 {
                assert_eq!(answers(&runner, &REQUESTS), right(), "{dies_at}");
            }
            let why = runner.lost().unwrap();
            assert!(why.starts_with("face-swap: DriverError(CUDA_ERROR_ILLEGAL"), "{why}");
            assert!(runner.accelerator().is_none());
            // Once lost, it is not asked again.
            let calls = runner.accelerator.as_ref().unwrap().calls.get();
            answers(&runner, &REQUESTS);
            assert_eq!(runner.accelerator.as_ref().unwrap().calls.get(), calls);
        }
    }

    #[test]
    fn an_error_hits_only_the_request_that_causes_it() {
        let gpus = [None, Some(Fake::default()), Some(Fake { holds: 2, ..Fake::default() })];
        for gpu in gpus {
            let runner = Runner::new(Fake::default(), gpu);
            let made = answers(&runner, &[&[1, 2], &[3, -1], &[4], &[-2]]);
            assert_eq!(made[0], Ok(vec![2, 4]));
            let own = "face-swap: expected a number from 0";
            assert_eq!(made[1], Err(own.to_owned()));
            assert_eq!(made[2], Ok(vec![8]));
            assert_eq!(made[3], Err("face-swap: a defect in this program".to_owned()));
            // Not the device's fault.
            assert!(runner.lost().is_none());
        }
    }
}
