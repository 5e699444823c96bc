use super::*;

fn mean(waits: &[Duration]) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let number = waits.len() as f64;
    waits.iter().map(Duration::as_secs_f64).sum::<f64>() / number
}

fn is_near(value: f64, expected: f64, part: f64) -> bool {
    (value - expected).abs() <= expected * part
}

#[test]
fn median_is_the_middle_or_the_mean_of_the_middle_two() {
    assert!(is_near(median(&[3.0, 1.0, 2.0]), 2.0, 1e-9));
    assert!(is_near(median(&[4.0, 1.0, 2.0, 3.0]), 2.5, 1e-9));
    assert!(median(&[]).is_nan());
}

#[test]
fn quantile_is_the_nearest_rank() {
    let sorted: Vec<u32> = (1..=100).collect();
    assert_eq!(quantile(&sorted, 0.0), Some(&1));
    assert_eq!(quantile(&sorted, 0.5), Some(&50));
    assert_eq!(quantile(&sorted, 0.99), Some(&99));
    assert_eq!(quantile(&sorted, 1.0), Some(&100));
    assert_eq!(quantile::<u32>(&[], 0.5), None);
}

#[test]
fn jain_is_one_for_equals_and_one_nth_for_one_who_has_all() {
    assert!(is_near(jain(&[5.0; 4]), 1.0, 1e-9));
    assert!(is_near(jain(&[8.0, 0.0, 0.0, 0.0]), 0.25, 1e-9));
}

#[test]
fn an_even_draw_is_plausible_and_a_lopsided_one_is_not() {
    let mut rng = Rng::with_seed(7);
    let mut counts = [0.0; 4];
    for _ in 0..4000 {
        counts[rng.usize(..4)] += 1.0;
    }
    assert!(is_plausibly_even(&counts));
    assert!(!is_plausibly_even(&[1200.0, 1000.0, 900.0, 900.0]));
}

#[test]
fn one_server_waits_as_the_theory_of_m_m_1_says() {
    // 70 % load: mean wait = ρ / (μ − λ).
    let waits = simulate_queue(1, 70.0, |rng| exponential(rng, 100.0), 400_000);
    assert!(is_near(mean(&waits), 0.7 / 30.0, 0.05), "{}", mean(&waits));
}

#[test]
fn four_servers_wait_as_erlang_c_says() {
    // Four servers at 70 % load: 0.428 of the arrivals wait (Erlang C), and 1 / (4 μ − λ) each.
    let waits = simulate_queue(4, 280.0, |rng| exponential(rng, 100.0), 400_000);
    assert!(is_near(mean(&waits), 0.4287 / 120.0, 0.05), "{}", mean(&waits));
}

#[test]
fn lanes_picked_blindly_wait_as_one_server_each() {
    let waits = simulate_random_lanes(4, 280.0, |rng| exponential(rng, 100.0), 400_000);
    assert!(is_near(mean(&waits), 0.7 / 30.0, 0.05), "{}", mean(&waits));
}
