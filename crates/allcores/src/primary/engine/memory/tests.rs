//! When the workers' memory is measured.

use tokio::sync::mpsc;

use super::*;
use crate::primary::engine::notify::tests::settings;

/// As if so much time had passed.
fn pass(engine: &mut Engine, time: Duration) {
    engine.started = engine.started.checked_sub(time).unwrap();
}

#[tokio::test]
async fn memory_is_measured_once_at_a_time_and_a_second_apart_however_often_the_engine_wakes() {
    let (seen, mut sightings) = mpsc::channel(16);
    let mut settings = settings(None);
    settings.pool.hang_timeout = Some(Duration::from_millis(80));
    settings.upkeep.max_memory = Some(u64::MAX);
    let mut engine = Engine::new(settings, None, seen, Box::new(|_| {})).unwrap();
    for _ in 0..2 {
        pass(&mut engine, INTERVAL);
        for _ in 0..10 {
            engine.wake();
            pass(&mut engine, Duration::from_millis(20));
        }
        let Some(Seen::Measured(usage)) = sightings.recv().await else { panic!("nothing else is seen") };
        assert!(!usage.is_empty());
        engine.take_usage(&usage);
        let now = engine.now();
        engine.wake();
        assert!(engine.next_measuring().is_some_and(|next| next > now));
        assert!(sightings.try_recv().is_err());
    }
    engine.settings.upkeep.max_memory = None;
    assert_eq!(engine.next_measuring(), None);
}
