//! That policies are read as they are written, and what is none is refused with what would be.

use super::{NAMES, Policy, StickyBy};

#[test]
fn what_is_written_is_read_back() {
    for text in ["sticky:cookie=sid", "sticky:header=X-Session", "sticky:query=sid"].iter().chain(&NAMES) {
        assert_eq!(text.parse::<Policy>().unwrap().to_string(), *text);
    }
    assert_eq!("sticky:header=X-A".parse(), Ok(Policy::Sticky(StickyBy::Header("X-A".into()))));
}

#[test]
fn what_is_no_policy_is_refused() {
    for (text, needle) in [
        ("fastest", "auto, lanes, shared, round-robin, sticky"),
        ("rr", "round-robin"),
        ("", "give one of"),
        ("Sticky", "give one of"),
        ("sticky:", "cookie=NAME"),
        ("sticky:ip", "cookie=NAME"),
        ("sticky:cookie", "sticky:cookie=sid"),
        ("sticky:cookie=", "sticky:cookie=sid"),
        ("sticky:cookie=a b", "no cookie"),
        ("sticky:header=a:b", "no header"),
        ("sticky:query=a&b", "no query"),
    ] {
        let error = text.parse::<Policy>().unwrap_err().to_string();
        assert!(error.contains(needle), "{text}: {error}");
    }
}

#[test]
fn nodes_own_names_are_known_to_its_variable_alone() {
    assert_eq!(Policy::from_node("rr"), Some(Policy::RoundRobin));
    assert_eq!(Policy::from_node("none"), Some(Policy::Shared));
    assert_eq!(Policy::from_node("lanes"), None);
}
