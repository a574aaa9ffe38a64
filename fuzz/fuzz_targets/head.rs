//! A request head is found at the same place however it comes, and means the same when written out again.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fdpush::fuzz::fuzz_head(data));
