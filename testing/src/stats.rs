//! The arithmetic of benchmarks: medians, fairness, and what a queue would do in theory.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

pub use fastrand::Rng;

/// Gives the element that this part of the sorted ones does not exceed (nearest rank).
///
/// # Panics
///
/// If `part` is not in 0 to 1.
pub fn quantile<T>(sorted: &[T], part: f64) -> Option<&T> {
    assert!((0.0..=1.0).contains(&part), "a quantile is in 0 to 1, not {part}");
    #[expect(clippy::cast_precision_loss, reason = "no sample has 2^52 elements")]
    let rank = (part * sorted.len() as f64).ceil();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 0 to the length")]
    sorted.get((rank as usize).saturating_sub(1))
}

/// Gives the median, the mean of the middle two if the number is even; NaN if there is none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.len(), sorted.len() / 2) {
        (0, _) => f64::NAN,
        (length, middle) if length % 2 == 1 => sorted[middle],
        (_, middle) => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// Gives Jain's index of fairness: 1 if all have the same, 1/n if one has all (Jain, Chiu, Hawe, 1984).
pub fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    #[expect(clippy::cast_precision_loss, reason = "no app has 2^52 workers")]
    let number = shares.len() as f64;
    sum * sum / (number * squares)
}

/// Tells whether counts may well have come from an even draw: false where chance alone would be as uneven less than
/// once in a thousand times (Pearson's chi-square test; quantile by Wilson and Hilferty).
pub fn is_plausibly_even(counts: &[f64]) -> bool {
    /// The 99.9 % quantile of the normal distribution.
    const Z: f64 = 3.090;
    #[expect(clippy::cast_precision_loss, reason = "no app has 2^52 workers")]
    let number = counts.len() as f64;
    let expected = counts.iter().sum::<f64>() / number;
    let chi_square: f64 = counts.iter().map(|count| (count - expected).powi(2) / expected).sum();
    let freedom = number - 1.0;
    let ninth = 2.0 / (9.0 * freedom);
    chi_square <= freedom * (1.0 - ninth + Z * ninth.sqrt()).powi(3)
}

/// Draws a time between two events of a Poisson process, in seconds.
pub fn exponential(rng: &mut Rng, rate_per_s: f64) -> f64 {
    -(1.0 - rng.f64()).ln() / rate_per_s
}

/// Gives the waiting times, sorted, of `n` arrivals at one queue with this many servers (M/G/n, first come first
/// served): what one shared listener would do if nothing else cost anything. Times are in seconds.
///
/// # Panics
///
/// If there are no servers.
pub fn simulate_queue(
    servers: usize,
    arrival_rate: f64,
    mut service: impl FnMut(&mut Rng) -> f64,
    n: usize,
) -> Vec<Duration> {
    let mut rng = Rng::with_seed(1);
    // Positive floats are ordered as their bits are.
    let mut free_at: BinaryHeap<Reverse<u64>> = (0..servers).map(|_| Reverse(0.0_f64.to_bits())).collect();
    let mut now = 0.0;
    let mut waits = Vec::with_capacity(n);
    for _ in 0..n {
        now += exponential(&mut rng, arrival_rate);
        let mut first_free = free_at.peek_mut().expect("at least one server");
        let start = f64::from_bits(first_free.0).max(now);
        *first_free = Reverse((start + service(&mut rng)).to_bits());
        waits.push(Duration::from_secs_f64(start - now));
    }
    waits.sort_unstable();
    waits
}

/// As [`simulate_queue`], with a queue for each server and arrivals that pick one blindly: lanes without steering.
///
/// # Panics
///
/// If there are no servers.
pub fn simulate_random_lanes(
    servers: usize,
    arrival_rate: f64,
    mut service: impl FnMut(&mut Rng) -> f64,
    n: usize,
) -> Vec<Duration> {
    let mut rng = Rng::with_seed(1);
    let mut free_at = vec![0.0_f64; servers];
    let mut now = 0.0;
    let mut waits = Vec::with_capacity(n);
    for _ in 0..n {
        now += exponential(&mut rng, arrival_rate);
        let lane = rng.usize(..servers);
        let start = free_at[lane].max(now);
        free_at[lane] = start + service(&mut rng);
        waits.push(Duration::from_secs_f64(start - now));
    }
    waits.sort_unstable();
    waits
}

#[cfg(test)]
mod tests;
