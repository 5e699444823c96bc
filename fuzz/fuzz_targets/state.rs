//! Reads what a primary leaves to its next program. What must hold is said in `allcores::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    allcores::fuzz::state(data);
});
