//! An upgrade request gets one correct answer for every division.
//!
//! The answer is compared with that of an independent check.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fdpush::fuzz::fuzz_upgrade(data));
