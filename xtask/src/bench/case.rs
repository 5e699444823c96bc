//! What a case is.

use std::time::Duration;

use clap::ValueEnum;
use clap::builder::PossibleValue;

use super::contender::Contender;
use super::metric::Metric;
use super::record::LeftOut;
use super::{Arguments, cases};

/// Something that can be measured. What there is to know of it stands in one file, below `cases`.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) name: &'static str,
    /// What it is, in one line.
    pub(super) about: &'static str,
    /// In the order in which they are shown.
    pub(super) metrics: &'static [Metric],
    /// What has to hold however short the measurement is.
    pub(super) expected: &'static [Expected],
    /// How to read the figures, and why they are as they are: Markdown. Gives no figures, which age.
    pub(super) remarks: &'static str,
    pub(super) plan: fn(&Arguments) -> Plan,
}

/// A case that is ready to be run.
#[derive(Debug)]
pub(super) struct Plan {
    /// Who does what how often, in one line.
    pub(super) title: String,
    /// What has to be built besides allcores.
    pub(super) packages: &'static [&'static str],
    pub(super) contenders: Vec<Contender>,
    /// Who is not compared on any machine, and why.
    pub(super) left_out: Vec<LeftOut>,
    /// About how long one measurement of one contender takes, with its start.
    pub(super) each: Duration,
}

/// A direction, which does not depend on how long is measured.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expected {
    /// This never happens to any of ours.
    Never(&'static str),
    /// In every group that has both, and whose name contains this, one of ours is not worse than another contender.
    NotWorse { metric: &'static str, ours: &'static str, than: &'static str, group: &'static str },
}

impl Case {
    pub(super) fn metric(&self, name: &str) -> Option<Metric> {
        self.metrics.iter().copied().find(|metric| metric.name == name)
    }
}

impl ValueEnum for &'static Case {
    fn value_variants<'a>() -> &'a [Self] {
        cases::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name).help(self.about))
    }
}
