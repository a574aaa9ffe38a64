//! A client's stream in any portions gives the same, correct answer to its upgrade.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fdpush::fuzz::fuzz_upgrade(data));
