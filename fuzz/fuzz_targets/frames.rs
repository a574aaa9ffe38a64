//! The result for a client's frames does not depend on their split into reads.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fdpush::fuzz::fuzz_frames(data));
