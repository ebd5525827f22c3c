//! Frame of the downlink stream of the link. The body and what it asserts are in `tests/src/fuzz`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fellbeck_tests::fuzz::run("link_downlink", data);
});
