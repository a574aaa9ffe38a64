//! Checks that the output to a client does not depend on how the client's stream is split.
//!
//! The response to an upgrade is compared with the result of an independent check.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fdpush::fuzz::fuzz_upgrade(data));
