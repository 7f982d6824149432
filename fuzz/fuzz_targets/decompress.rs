//! Nothing inflates beyond its limit.
#![no_main]

use codec::{Encoding, decompress};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for encoding in [Encoding::Gzip, Encoding::Zstd] {
        assert!(decompress(encoding, bytes, 1 << 16).map_or(true, |out| out.len() <= 1 << 16));
    }
});
