//! What is kept is what was said, and little else with it.

use proptest::prelude::*;

use super::*;

#[test]
fn a_long_text_keeps_no_other_and_a_short_one_few() {
    let mut texts = Texts::default();
    let long = texts.keep(&"l".repeat(600)).into_bytes();
    assert!(long.is_unique());
    let mut short: Vec<_> = (0..100).map(|_| texts.keep(&"s".repeat(100)).into_bytes()).collect();
    // 40 of 100 bytes are in 4 KiB: of those around the 50th none is with the first or with the last.
    let kept = short.remove(50);
    assert!(!kept.is_unique(), "it has an allocation of its own");
    short.drain(10..89);
    assert!(kept.is_unique(), "it shares more than 4 KiB");
}

proptest! {
    #[test]
    fn every_text_is_kept_as_it_was(all in prop::collection::vec((any::<char>(), 0..200_usize), 0..100)) {
        let mut texts = Texts::default();
        let all: Vec<String> = all.into_iter().map(|(char, count)| char.to_string().repeat(count)).collect();
        let kept: Vec<_> = all.iter().map(|text| texts.keep(text)).collect();
        prop_assert_eq!(kept, all);
    }
}
