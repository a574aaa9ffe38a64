//! A request head has one end and one meaning.
//!
//! Its end does not depend on the division of the input. A head that is written out again has the same meaning.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fdpush::fuzz::fuzz_head(data));
