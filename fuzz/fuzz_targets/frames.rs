//! A client's frames in any portions give the same result.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fdpush::fuzz::fuzz_frames(data));
