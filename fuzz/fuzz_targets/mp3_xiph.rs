//! MP3 with ID3 and APE tags, FLAC and Ogg.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| -> libfuzzer_sys::Corpus {
    veriscope_fuzz::inspect(data, &["mp3", "flac", "ogg"])
});
