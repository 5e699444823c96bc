//! Reads the text of a config file. What must hold is said in `allcores_cli::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    allcores_cli::fuzz::config(data);
});
