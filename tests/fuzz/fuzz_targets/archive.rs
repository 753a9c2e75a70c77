//! Hands its input to the property `archive`.

#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| jingwei_fuzz::archive(input));
