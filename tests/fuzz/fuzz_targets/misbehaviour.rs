//! Hands its input to the property `misbehaviour`.

#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| jingwei_fuzz::misbehaviour(input));
