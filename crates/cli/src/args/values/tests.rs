//! Each kind of value, good and bad.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::time::{Duration, SystemTime};

use allcores::Signal;

use super::{
    Change, MAX_WORKERS, Moment, SecretSource, Workers, change, duration, env, listen, moment, path,
    positive_duration, seconds, secret, size, stop_signal, workers,
};

#[test]
fn workers_are_auto_a_number_or_fewer_than_cores() {
    assert_eq!(workers("auto"), Ok(Workers::Auto));
    assert_eq!(workers("1"), Ok(Workers::Exactly(1)));
    assert_eq!(workers("256"), Ok(Workers::Exactly(MAX_WORKERS)));
    assert_eq!(workers("-1"), Ok(Workers::Fewer(1)));
    assert_eq!(workers("-99999999"), Ok(Workers::Fewer(u16::MAX)));
}

#[test]
fn a_change_is_a_number_or_a_difference() {
    assert_eq!(change("4"), Ok(Change::To(4)));
    assert_eq!((change("+2"), change("-1")), (Ok(Change::By(2)), Ok(Change::By(-1))));
    for text in ["0", "257", "+0", "-257", "+999999", "x", ""] {
        assert!(change(text).is_err(), "{text}");
    }
    assert_eq!((Change::To(3).from(9), Change::By(2).from(2)), (Some(3), Some(4)));
    assert_eq!((Change::By(-2).from(2), Change::By(1).from(MAX_WORKERS)), (None, None));
}

#[test]
fn sizes_have_units_of_1024() {
    for (text, bytes) in
        [("1048576", 1 << 20), ("512M", 512 << 20), ("2g", 2 << 30), ("3 KiB", 3072), ("1TB", 1 << 40)]
    {
        assert_eq!(size(text), Ok(bytes), "{text}");
    }
    for text in ["", "M", "0", "1.5G", "-1", "12X", "99999999999999999999", "99999999999T"] {
        assert!(size(text).unwrap_err().contains("512M"), "{text}");
    }
}

#[test]
fn a_path_begins_with_a_slash_and_is_plain() {
    assert_eq!(path("/healthz?a=b%20c"), Ok("/healthz?a=b%20c".into()));
    for text in ["", "healthz", "http://a/b", "/a b", "/a\r\nb", "/ä"] {
        assert!(path(text).is_err(), "{text}");
    }
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
        ("70000", "from 1 to 65535"),
        ("localhost:99999", "no port 99999: give one from 1 to 65535"),
        ("127.0.0.1:99999999999", "from 1 to 65535"),
        ("localhost:0", "from 1 to 65535"),
        ("localhost:http", "no port"),
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
fn a_stop_signal_has_a_name_or_a_number() {
    for text in ["INT", "SIGINT", "int", "2"] {
        assert_eq!(stop_signal(text), Ok(Signal::INT), "{text}");
    }
    for text in ["STOP", "SEGV", "19", "TERMINATE", ""] {
        assert!(stop_signal(text).unwrap_err().contains("TERM, INT"), "{text}");
    }
}

#[test]
fn a_secret_is_in_a_file_or_a_credential() {
    let file = |path: &str| SecretSource::File(path.into());
    assert_eq!(secret("A=b=c"), Ok(("A".into(), file("b=c"))));
    assert_eq!(secret("A=credential:db"), Ok(("A".into(), SecretSource::Credential("db".into()))));
    assert_eq!(file("b").below("/etc".as_ref()), file("/etc/b"));
    assert_eq!(file("/b").below("/etc".as_ref()), file("/b"));
    for (text, part) in
        [("A", "KEY=SOURCE"), ("=b", "KEY=SOURCE"), ("A=", "no source"), ("A=credential:", "credential:db")]
    {
        assert!(secret(text).unwrap_err().contains(part), "{text}");
    }
    assert!(secret("A=credential:../x").is_err());
}

#[test]
fn a_moment_is_some_time_ago_or_a_time() {
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_323_045);
    for text in ["2026-01-02T03:04:05Z", "2026-01-02 03:04:05"] {
        assert_eq!(moment(text), Ok(Moment::At(at)), "{text}");
    }
    assert_eq!(moment("10m"), Ok(Moment::Ago(Duration::from_mins(10))));
    assert!(Moment::Ago(Duration::from_secs(u64::MAX / 2)).time() == SystemTime::UNIX_EPOCH);
    for text in ["", "yesterday", "10", "2026-13-02T03:04:05Z"] {
        assert!(moment(text).unwrap_err().contains("10m"), "{text}");
    }
}

#[test]
fn durations_have_units() {
    assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
    assert_eq!(duration("2m 30s"), Ok(Duration::from_secs(150)));
    for text in ["5", "", "x", "-1s"] {
        assert!(duration(text).unwrap_err().contains("500ms, 5s"), "{text}");
    }
    assert!(duration("36500d").is_ok());
    for text in ["101y", "500000000000y"] {
        assert!(duration(text).unwrap_err().contains("100 years"), "{text}");
        assert!(positive_duration(text).unwrap_err().contains("100 years"), "{text}");
    }
    assert_eq!(seconds(0.5), Ok(Duration::from_millis(500)));
    for number in [1e12, f64::INFINITY, f64::NAN, -1.0] {
        assert!(seconds(number).unwrap_err().contains("seconds: "), "{number}");
    }
    assert!(positive_duration("0s").unwrap_err().contains("leave the option out"));
    assert_eq!(positive_duration("1s"), Ok(Duration::from_secs(1)));
}
