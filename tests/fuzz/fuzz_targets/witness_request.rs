//! Hands its input to the property `witness_request`.

#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| jingwei_fuzz::witness_request(input));
