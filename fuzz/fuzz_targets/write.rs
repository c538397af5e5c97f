//! Labels written into hostile files of every container. What is written was read back and found
//! compliant by the writer itself; then a platform's elements are added to it.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use veriscope_fuzz::provenance::write::{
    Producer, Propagator, WriteError, WriteOptions, add_bytes, propagate_bytes,
};
use veriscope_fuzz::{bounded, check, provenance::inspect_bytes};

const PRODUCER: Producer<'_> =
    Producer { label: "1", code: "001191110102MACQD9K64010000", id: "made/p-1", reserved: "" };
const PLATFORM: Propagator<'_> =
    Propagator { code: "00119144030008867405X220001", id: "spread:q&<>'2", reserved: Some("r") };
const OPTIONS: WriteOptions = WriteOptions { force: false, break_c2pa: true };

fuzz_target!(|data: &[u8]| -> Corpus {
    match bounded(|| add_bytes(data, &PRODUCER, OPTIONS)) {
        Ok(output) => {
            // Not every place that can be written can be changed again, so a refusal is no failure.
            if let Ok(output) = bounded(|| propagate_bytes(&output, &PLATFORM, None, OPTIONS)) {
                let found = inspect_bytes(&output).expect("bytes in memory do not fail");
                check(&found);
                let label = found.labels.iter().find(|l| l.system == "aigc");
                assert!(label.is_some_and(|l| l.content.contains("spread:q&<>'2")), "{label:?}");
            }
            Corpus::Keep
        }
        Err(WriteError::Labelled { .. }) => {
            let _ = bounded(|| propagate_bytes(data, &PLATFORM, None, OPTIONS));
            Corpus::Keep
        }
        Err(WriteError::Container { .. }) => Corpus::Reject,
        Err(_) => Corpus::Keep,
    }
});
