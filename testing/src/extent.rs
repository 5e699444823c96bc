//! How much of a test is run: little of it each time, and all of it when somebody asks.

/// How often something is done: as `ALLCORES_TEST_<what>` says, else as `usual`.
///
/// # Panics
///
/// If the variable is set and no number: a test that ran less than was asked for would pass for more than it is.
pub fn of(what: &str, usual: u32) -> u32 {
    let name = format!("ALLCORES_TEST_{what}");
    match std::env::var(&name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}, which is no number")),
        Err(_) => usual,
    }
}

/// Whether somebody asks for another extent of anything, which may take its time.
pub fn is_asked() -> bool {
    std::env::vars_os().any(|(name, _)| name.as_encoded_bytes().starts_with(b"ALLCORES_TEST_"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_nobody_asks_for_is_as_usual() {
        assert_eq!(super::of("NOTHING_OF_THE_KIND", 3), 3);
    }
}
