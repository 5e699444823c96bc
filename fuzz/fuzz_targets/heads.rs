//! Looks for a client in the head of a request. What must hold is said in `allcores_testing::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    allcores_testing::fuzz::heads(data);
});
