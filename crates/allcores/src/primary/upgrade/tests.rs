//! Documents that are hostile, and documents of other versions.
//!
//! `format-1.json` is what allcores 0.1.0 wrote under load: it has to be read for as long as format 1 is.

use proptest::prelude::{ProptestConfig, Strategy, any, prop};
use proptest::{prop_oneof, proptest};
use serde_json::{Value, json};

use super::answer::Answer;
use super::*;

const FORMAT_1: &str = include_str!("tests/format-1.json");

fn value() -> Value {
    serde_json::from_str(FORMAT_1).unwrap()
}

fn read(value: &Value) -> Result<Document, Unreadable> {
    Document::read(value.to_string().as_bytes())
}

#[test]
fn a_document_of_the_first_format_is_read_and_written_the_same() {
    let document = read(&value()).unwrap();
    let written: Value = serde_json::from_slice(&document.write().unwrap()).unwrap();
    assert_eq!(written, value());
    let mut left = String::new();
    let line = check(FORMAT_1.as_bytes(), |program| {
        left.push_str(program);
        Ok(())
    });
    let answer: Value = serde_json::from_str(&line.unwrap()).unwrap();
    assert_eq!((&answer["app"], &answer["workers"]), (&json!("web"), &json!([1, 2])));
    assert!(left.contains("listener"));
    assert!(check(FORMAT_1.as_bytes(), |_| Err("it can't be read".into())).is_err());
}

#[test]
fn a_later_format_is_refused_by_its_number_whatever_else_is_in_it() {
    let later = json!({"format": 7, "version": "9.8.7", "engine": "of another kind"});
    let why = read(&later).unwrap_err().to_string();
    assert!(why.contains("allcores 9.8.7 wrote it in format 7"), "{why}");
    for format in [json!(0), json!("1"), Value::Null] {
        let mut value = value();
        value["format"] = format;
        assert!(read(&value).is_err());
    }
}

#[test]
fn what_a_later_version_of_the_format_adds_is_passed_over() {
    let mut value = value();
    value["added"] = json!([1]);
    value["engine"]["added"] = json!({"later": true});
    value["engine"]["workers"][0]["added"] = json!(true);
    value["engine"]["told"] = json!(["checks", "something_new"]);
    assert!(read(&value).is_ok());
}

#[test]
fn a_document_that_contradicts_itself_is_refused() {
    for (path, wrong) in [
        ("/descriptors/0", json!(2)),
        ("/descriptors/0", json!(10)),
        ("/engine/workers/0/id", json!(7)),
        ("/engine/workers/0/id", json!(2)),
        ("/engine/workers/0/lanes/0/0", json!(99)),
        ("/engine/handoffs/sent/0/lane", json!(99)),
        ("/engine/pool/phase", json!("finished")),
        ("/engine/pool/workers/0/life", json!({"spawning": "serve"})),
        (
            "/engine/pool/workers/0/life",
            json!({"running": [7, {"retiring": {"until": {"secs": 1, "nanos": 0}}}]}),
        ),
        ("/engine/generations/known/0/number", json!(2)),
        ("/engine/generations/known/0/settings/command", json!([])),
        ("/engine/settings/policy", json!("fair")),
        ("/engine/ports/last_group", json!(0)),
    ] {
        let mut value = value();
        *value.pointer_mut(path).unwrap_or_else(|| panic!("{path}")) = wrong.clone();
        assert!(read(&value).is_err(), "{path}: {wrong}");
    }
}

#[test]
fn only_who_has_read_the_document_gives_the_right_answer() {
    let document = read(&value()).unwrap();
    let right = Answer::to(&document);
    assert_eq!(Answer::read(right.line().as_bytes(), &document), Ok(right.clone()));
    let mut other = serde_json::to_value(&right).unwrap();
    other["workers"] = json!([1]);
    let why = Answer::read(other.to_string().as_bytes(), &document).unwrap_err();
    assert!(why.contains("with 1 workers"), "{why}");
    for wrong in ["", "ok", "{}", "[]", "{\"allcores\":1}"] {
        assert!(Answer::read(wrong.as_bytes(), &document).is_err(), "{wrong}");
    }
}

#[test]
fn who_would_be_allowed_less_is_refused() {
    let document = read(&value()).unwrap();
    let mut less = serde_json::to_value(Answer::to(&document)).unwrap();
    let has_some = less["capabilities"] != "0";
    less["capabilities"] = json!("0");
    let answer = Answer::read(less.to_string().as_bytes(), &document);
    assert_eq!(answer.is_err(), has_some);
    assert!(answer.is_ok_and(|_| true) || has_some);
}

/// Replaces the nth leaf of a document.
fn spoil(value: &mut Value, at: &mut usize, by: &Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| spoil(item, at, by)),
        Value::Object(fields) => fields.values_mut().for_each(|field| spoil(field, at, by)),
        leaf => {
            if *at == 0 {
                *leaf = by.clone();
            }
            *at = at.wrapping_sub(1);
        }
    }
}

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u64>().prop_map(Value::from),
        (0..4_u64).prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        prop::option::of("\\PC{0,6}").prop_map(|text| text.map_or(Value::Null, Value::from)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn whatever_bytes_are_left_reading_them_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = check(&bytes, |_| Ok(()));
    }

    #[test]
    fn a_document_that_is_cut_is_refused(length in 0..FORMAT_1.len() - 2) {
        assert!(Document::read(&FORMAT_1.as_bytes()[..length]).is_err());
    }

    #[test]
    fn whatever_a_document_says_reading_it_never_panics(
        spoils in prop::collection::vec((0..900_usize, leaf()), 1..4),
    ) {
        let mut value = value();
        for (at, by) in spoils {
            spoil(&mut value, &mut at.clone(), &by);
        }
        if let Ok(document) = read(&value) {
            // What is believed can be written and read again.
            assert!(Document::read(&document.write().unwrap()).is_ok());
        }
    }
}
