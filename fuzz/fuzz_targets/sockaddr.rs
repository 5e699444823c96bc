//! Reads an address that another process wants to bind. What must hold is said in `allcores::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    allcores::fuzz::sockaddr(data);
});
