//! A client's frame stream in any portions gives the same messages and the same error.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fdpush::fuzz::fuzz_frames(data));
