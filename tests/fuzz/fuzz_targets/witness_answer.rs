//! Hands its input to the property `witness_answer`.

#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| jingwei_fuzz::witness_answer(input));
