//! Hands its input to the property `evidence`.

#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| jingwei_fuzz::evidence(input));
