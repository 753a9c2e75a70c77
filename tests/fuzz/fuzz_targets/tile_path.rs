//! Hands its input to the property `tile_path`.

#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| jingwei_fuzz::tile_path(input));
