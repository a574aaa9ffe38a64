//! The answer to a client's stream does not depend on its split into reads.
//!
//! The answer to its upgrade is compared with the result of an independent check.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fdpush::fuzz::fuzz_upgrade(data));
