//! Sends bytes to the control API. What must hold is said in `allcores_cli::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    allcores_cli::fuzz::control(data);
});
