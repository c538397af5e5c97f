//! MP4, MOV, M4A, fragmented files, HEIF and AVIF.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| -> libfuzzer_sys::Corpus {
    veriscope_fuzz::inspect(data, &["mp4", "heif"])
});
