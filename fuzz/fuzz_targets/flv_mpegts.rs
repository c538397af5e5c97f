//! FLV and MPEG-TS.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| -> libfuzzer_sys::Corpus {
    veriscope_fuzz::inspect(data, &["flv", "mpegts"])
});
