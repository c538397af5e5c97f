//! JPEG with EXIF, XMP and C2PA in its segments.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| -> libfuzzer_sys::Corpus {
    veriscope_fuzz::inspect(data, &["jpeg"])
});
