//! What must hold of what reads the bytes of others, whatever comes. Each function says whether the bytes were what they should
//! be, and panics if a claim does not hold.
//!
//! Tests here spoil good ones by chance; `fuzz/` has libFuzzer look for others. No part of the API.

pub use crate::adopt::fuzz::sockaddr;
pub use crate::primary::fuzz_state as state;

#[cfg(test)]
mod tests {
    use allcores_testing::extent;
    use allcores_testing::fuzz::{Target, takes_anything};

    #[test]
    fn any_bytes_are_an_address_or_none() {
        takes_anything(&Target::new("sockaddr", super::sockaddr).longest(128), extent::of("INPUTS", 100_000));
    }

    #[test]
    fn any_bytes_are_a_state_that_can_be_gone_on_with_or_none() {
        takes_anything(&Target::new("state", super::state).longest(32 * 1024), extent::of("INPUTS", 3_000));
    }
}
