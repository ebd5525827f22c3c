//! The dialogue of AUTH packets. The body and what it asserts are in `tests/src/fuzz`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fellbeck_tests::fuzz::run("mqtt_auth", data);
});
