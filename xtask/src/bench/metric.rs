//! What is measured: the name of a number, which way is better, and how a number for each round becomes one.

use allcores_testing::stats::median;

/// A kind of number that a case takes of each contender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Metric {
    /// With its unit.
    pub(super) name: &'static str,
    pub(super) better: Better,
    fold: Fold,
    /// Whether it is one of those that the case is about, and has bars in its picture.
    pub(super) is_plotted: bool,
}

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Better {
    Lower,
    Higher,
    /// Neither: it helps to read the others.
    Neither,
}

/// How the samples of all rounds become one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fold {
    Median,
    /// For what must not happen at all: a median would hide what has happened in one round.
    Sum,
}

/// The rounds of one contender, as one number with its spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Figure {
    pub(super) value: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Metric {
    pub(super) const fn lower(name: &'static str) -> Self {
        Self::new(name, Better::Lower)
    }

    pub(super) const fn higher(name: &'static str) -> Self {
        Self::new(name, Better::Higher)
    }

    pub(super) const fn informative(name: &'static str) -> Self {
        Self::new(name, Better::Neither)
    }

    const fn new(name: &'static str, better: Better) -> Self {
        Self { name, better, fold: Fold::Median, is_plotted: false }
    }

    /// Adds the rounds up.
    pub(super) const fn summed(mut self) -> Self {
        self.fold = Fold::Sum;
        self
    }

    /// Has bars in the picture.
    pub(super) const fn plotted(mut self) -> Self {
        self.is_plotted = true;
        self
    }

    pub(super) fn is_summed(self) -> bool {
        self.fold == Fold::Sum
    }

    /// Makes one number of the samples; `None` if there are none.
    pub(super) fn figure(self, samples: &[f64]) -> Option<Figure> {
        let low = samples.iter().copied().reduce(f64::min)?;
        let high = samples.iter().copied().reduce(f64::max)?;
        let value = match self.fold {
            Fold::Median => median(samples),
            Fold::Sum => samples.iter().sum(),
        };
        Some(Figure { value, low, high })
    }

    /// Whether one number is worse than another.
    pub(super) fn is_worse(self, one: f64, other: f64) -> bool {
        match self.better {
            Better::Lower => one > other,
            Better::Higher => one < other,
            Better::Neither => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_shows_what_a_median_would_hide() {
        let samples = [0.0, 7.0, 0.0];
        let median = Metric::lower("lost").figure(&samples).unwrap();
        let sum = Metric::lower("lost").summed().figure(&samples).unwrap();
        assert_eq!((median.value, sum.value), (0.0, 7.0));
        assert_eq!((sum.low, sum.high), (0.0, 7.0));
        assert_eq!(Metric::lower("lost").figure(&[]), None);
    }

    #[test]
    fn what_only_informs_is_never_worse() {
        assert!(Metric::lower("p99 ms").is_worse(2.0, 1.0));
        assert!(Metric::higher("requests/s").is_worse(1.0, 2.0));
        assert!(!Metric::informative("hostile").is_worse(1.0, 2.0));
        assert!(!Metric::informative("hostile").is_worse(2.0, 1.0));
    }
}
