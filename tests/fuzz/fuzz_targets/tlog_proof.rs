//! Hands its input to the property `tlog_proof`.

#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| jingwei_fuzz::tlog_proof(input));
