//! Each kind of value, good and bad.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::time::Duration;

use super::{MAX_WORKERS, Workers, duration, env, listen, positive_duration, workers};

#[test]
fn workers_are_auto_a_number_or_fewer_than_cores() {
    assert_eq!(workers("auto"), Ok(Workers::Auto));
    assert_eq!(workers("1"), Ok(Workers::Exactly(1)));
    assert_eq!(workers("256"), Ok(Workers::Exactly(MAX_WORKERS)));
    assert_eq!(workers("-1"), Ok(Workers::Fewer(1)));
    assert_eq!(workers("-99999999"), Ok(Workers::Fewer(u16::MAX)));
}

#[test]
fn bad_workers_say_what_would_do() {
    for (text, part) in
        [("0", "at least one"), ("257", "256"), ("99999999999", "256"), ("x", "not a number"), ("", "-1")]
    {
        let error = workers(text).unwrap_err();
        assert!(error.contains(part) && error.contains("auto"), "{text}: {error}");
    }
}

#[test]
fn workers_are_at_least_one_and_at_most_the_limit() {
    assert_eq!(Workers::Auto.resolve(4), 4);
    assert_eq!(Workers::Auto.resolve(100_000), MAX_WORKERS);
    assert_eq!(Workers::Fewer(1).resolve(4), 3);
    assert_eq!(Workers::Fewer(9).resolve(4), 1);
    assert_eq!(Workers::Exactly(9).resolve(4), 9);
}

#[test]
fn addresses_may_be_a_port_alone() {
    for (text, address) in [
        ("8080", "0.0.0.0:8080"),
        (":8080", "0.0.0.0:8080"),
        ("127.0.0.1:8080", "127.0.0.1:8080"),
        ("[::1]:8080", "[::1]:8080"),
        ("[::]:65535", "[::]:65535"),
    ] {
        assert_eq!(listen(text), Ok(address.parse().unwrap()), "{text}");
    }
}

#[test]
fn bad_addresses_say_what_would_do() {
    for (text, part) in [
        ("localhost:80", "127.0.0.1:80"),
        ("::1:80", "[::1]:80"),
        ("127.0.0.1", "127.0.0.1:8080"),
        ("127.0.0.1:http", "no port"),
        ("70000", "not an address"),
        ("0", "port 0"),
        ("[::1]:0", "port 0"),
        ("", "not an address"),
    ] {
        let error = listen(text).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn variables_are_split_at_the_first_sign_in_any_encoding() {
    let pair = |key: &str, value: &str| Ok((key.into(), value.into()));
    assert_eq!(env(&"A=b=c".into()), pair("A", "b=c"));
    assert_eq!(env(&"A=".into()), pair("A", ""));
    let bytes = OsString::from_vec(b"A=\xff".to_vec());
    assert_eq!(env(&bytes).unwrap().1, OsString::from_vec(vec![0xff]));
    assert!(env(&"A".into()).unwrap_err().contains("KEY=VALUE"));
    assert!(env(&"=b".into()).unwrap_err().contains("KEY=VALUE"));
}

#[test]
fn durations_have_units() {
    assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
    assert_eq!(duration("2m 30s"), Ok(Duration::from_secs(150)));
    for text in ["5", "", "x", "-1s"] {
        assert!(duration(text).unwrap_err().contains("500ms, 5s"), "{text}");
    }
    assert!(positive_duration("0s").unwrap_err().contains("leave the option out"));
    assert_eq!(positive_duration("1s"), Ok(Duration::from_secs(1)));
}
