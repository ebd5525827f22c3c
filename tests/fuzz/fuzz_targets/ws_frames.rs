//! WebSocket frames of a client. The body and what it asserts are in `tests/src/fuzz`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fellbeck_tests::fuzz::run("ws_frames", data);
});
