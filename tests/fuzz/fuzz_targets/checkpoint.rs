//! Hands its input to the property `checkpoint`.

#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| jingwei_fuzz::checkpoint(input));
