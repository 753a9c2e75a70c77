//! Hands its input to the property `snapshot_proof`.

#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| jingwei_fuzz::snapshot_proof(input));
