//! Records of a TLS client in arbitrary portions, changed or not.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fdpush::fuzz::fuzz_tls(data));
