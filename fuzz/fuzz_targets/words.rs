//! Reads what a worker says of itself. What must hold is said in `allcores_testing::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    allcores_testing::fuzz::words(data);
});
