//! Hands its input to the property `merkle`.

#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| jingwei_fuzz::merkle(input));
