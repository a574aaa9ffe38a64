//! A client's stream in any portions gets the same answer.
//!
//! The answer to its upgrade is compared with that of an independent check.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fdpush::fuzz::fuzz_upgrade(data));
