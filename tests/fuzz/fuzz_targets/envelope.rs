//! Hands its input to the property `envelope`.

#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| jingwei_fuzz::envelope(input));
