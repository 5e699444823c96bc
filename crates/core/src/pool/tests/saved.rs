//! A pool as data: what is refused, and that nothing that may come from outside brings it down.

use proptest::prelude::{ProptestConfig, Strategy, any, prop};
use proptest::{prop_oneof, proptest};
use serde_json::{Value, json};

use super::{Rig, ms};
use crate::pool::{Input, Pool, PoolSettings, ReloadPlan};
use crate::worker::WorkerId;

fn value(rig: &Rig) -> Value {
    serde_json::to_value(rig.pool.save()).unwrap()
}

fn restore(value: Value) -> Result<Pool, String> {
    let saved = serde_json::from_value(value).map_err(|error| error.to_string())?;
    Pool::restore(PoolSettings::default(), saved).map_err(|error| error.to_string())
}

/// Three workers, of which one is being replaced and another has crashed.
fn busy() -> Rig {
    let mut rig = Rig::ready(3);
    rig.give(Input::Reload(ReloadPlan::default()));
    rig.exit(2, crate::exit::ExitStatus::Code(1));
    rig
}

#[test]
fn what_a_later_version_adds_is_passed_over_and_what_it_may_leave_out_is_assumed() {
    let mut rig = Rig::ready(2);
    let mut value = value(&rig);
    value["added"] = json!({"later": true});
    value["workers"][0]["added"] = json!(1);
    for name in ["rollout", "queued"] {
        value.as_object_mut().unwrap().remove(name);
    }
    let mut pool = restore(value).unwrap();
    let mut effects = Vec::new();
    pool.handle(Input::Scale(3), rig.now, &mut effects);
    assert_eq!(effects, rig.give(Input::Scale(3)));
}

#[test]
fn what_contradicts_itself_is_refused() {
    let rig = busy();
    for (path, wrong) in [
        ("/workers/0/id", json!(3)),
        ("/last_id", json!(1)),
        ("/last_id", json!(u32::MAX)),
        ("/workers/0/generation", json!(9)),
        ("/last_generation", json!(0)),
        ("/phase", json!("finished")),
        ("/phase", json!("asleep")),
    ] {
        let mut value = value(&rig);
        *value.pointer_mut(path).unwrap() = wrong.clone();
        assert!(restore(value).is_err(), "{path}: {wrong}");
    }
    assert!(restore(value(&rig)).is_ok());
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
        prop::option::of("[a-z]{0,6}").prop_map(|text| text.map_or(Value::Null, Value::from)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn whatever_a_document_says_a_pool_made_of_it_never_panics(
        spoils in prop::collection::vec((0..120_usize, leaf()), 1..4), scale in 0..6_u16,
    ) {
        let mut value = value(&busy());
        for (at, by) in spoils {
            spoil(&mut value, &mut at.clone(), &by);
        }
        let Ok(mut pool) = restore(value) else { return Ok(()) };
        let mut effects = Vec::new();
        let mut now = ms(5000);
        for input in [Input::Wake, Input::Scale(scale), Input::Reload(ReloadPlan::default()), Input::Stop] {
            pool.handle(input, now, &mut effects);
            now += ms(20_000);
            for id in (1..8).map(WorkerId) {
                pool.handle(Input::Listening { id }, now, &mut effects);
                pool.handle(Input::Exited { id, status: crate::exit::ExitStatus::Code(0) }, now, &mut effects);
            }
            let _ = (pool.next_deadline(), pool.is_calm(), pool.reloading(), pool.workers().count());
        }
    }
}
