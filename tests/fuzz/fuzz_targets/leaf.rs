//! Hands its input to the property `leaf`.

#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| jingwei_fuzz::leaf(input));
