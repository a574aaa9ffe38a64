//! Gives the server the records of a TLS client, cut at arbitrary positions. Some records are changed.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fdpush::fuzz::fuzz_tls(data));
