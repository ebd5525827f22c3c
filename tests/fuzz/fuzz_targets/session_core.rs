//! The session core under a script of clients, store and crashes. The body and what it asserts are in `tests/src/fuzz`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fellbeck_tests::fuzz::run("session_core", data);
});
