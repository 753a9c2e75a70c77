//! Hands its input to the property `bundle`.

#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| jingwei_fuzz::bundle(input));
