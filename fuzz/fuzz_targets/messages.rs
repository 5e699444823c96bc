//! Reads one arbitrary line as a primary and as a worker do. What must hold is said in `allcores_testing::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    allcores_testing::fuzz::messages(data);
});
