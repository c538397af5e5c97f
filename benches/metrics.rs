//! A million scores through all metrics with 1,000 bootstrap rounds.
//!
//! `cargo bench --bench metrics [-- ROUNDS]` prints wall time and processor time. One run is some
//! seconds long, so it is timed once and not by criterion.

#![allow(clippy::unwrap_used)]

use std::time::Instant;

use veriscope::bench::evaluate::{Options, Scale, evaluate};
use veriscope::bench::metrics::Ranked;
use veriscope::bench::metrics::bootstrap::Units;
use veriscope::bench::metrics::tandem::ASVSPOOF5_ASV;

const TRIALS: usize = 1_000_000;
const PEOPLE: usize = 5_000;

/// Processor time of all threads so far, in seconds.
fn processor() -> f64 {
    // SAFETY: getrusage only writes to the struct that it is given, for which all zeros is valid.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 * 1e-6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

fn main() {
    let rounds = std::env::args().filter_map(|a| a.parse().ok()).next().unwrap_or(1000);
    let mut state = 1_u64;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    // Two bells that overlap (AUC 0.89): many turns of the ROC, which is what costs.
    let (scores, fake): (Vec<f64>, Vec<bool>) = (0..TRIALS)
        .map(|_| {
            let fake = uniform() < 0.5;
            let bell = (0..4).map(|_| uniform()).sum::<f64>() / 4.0;
            (0.1 + 0.6 * bell + if fake { 0.15 } else { 0.0 }, fake)
        })
        .unzip();
    let people = (0..TRIALS).map(|i| (i % PEOPLE) as u32).collect();
    let options = Options {
        scale: Scale::Probability,
        threshold: Some(0.5),
        asv: Some(ASVSPOOF5_ASV),
        rounds,
        seed: 1,
    };
    for (what, units) in
        [("files", Units::Trials(TRIALS)), ("people", Units::Groups { of: people, count: PEOPLE })]
    {
        let (wall, cpu) = (Instant::now(), processor());
        let ranked = Ranked::new(&scores, &fake).unwrap();
        let found = evaluate(&ranked, &units, &options).unwrap();
        println!(
            "{TRIALS} scores, {} metrics, {rounds} rounds over {what}: {:.2} s, {:.2} s of processors",
            found.metrics.iter().filter(|m| m.value.is_ok()).count(),
            wall.elapsed().as_secs_f64(),
            processor() - cpu
        );
    }
}
