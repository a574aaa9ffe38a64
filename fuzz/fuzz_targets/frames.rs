//! A client's stream of frames, cut anywhere, is the same messages and the same error.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fdpush::fuzz::fuzz_frames(data));
