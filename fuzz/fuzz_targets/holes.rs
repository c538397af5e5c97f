//! Every reader over files far larger than the input: a stretch is repeated up to gigabytes, as in
//! sparse files, so that the bounds of time and memory are reached.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use veriscope_fuzz::{Holes, bounded, check, provenance::inspect_stream};

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some(mut file) = Holes::new(data) else { return Corpus::Reject };
    let found = bounded(|| inspect_stream(&mut file)).expect("made-up files do not fail");
    check(&found);
    if found.container.is_some() { Corpus::Keep } else { Corpus::Reject }
});
