//! Offers of permessage-deflate, checked by a naive parser.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fdpush::fuzz::fuzz_extension(data));
