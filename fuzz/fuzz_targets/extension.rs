//! Parses offers of permessage-deflate, and compares the result with that of a naive parser.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fdpush::fuzz::fuzz_extension(data));
