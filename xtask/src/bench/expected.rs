//! Whether a record has the direction that its case expects: what `--quick` checks. Nothing is expected beside who was left
//! out, which the record tells with its reason.

use std::collections::BTreeSet;

use super::case::{Case, Expected};
use super::contender::Contender;
use super::metric::Metric;
use super::record::{Record, Role, Series};

/// Says what does not hold. What can't be looked at, as nobody was measured by it, does not hold either.
pub(super) fn broken(case: &Case, record: &Record) -> Vec<String> {
    case.expected.iter().flat_map(|expected| expected.broken(case, record)).collect()
}

/// Leaves those that the case's expectations are about: who is compared, and the first of ours in each group where something must
/// never happen.
pub(super) fn keep_asked(case: &Case, contenders: &mut Vec<Contender>) {
    let must_never = case.expected.iter().any(|expected| matches!(expected, Expected::Never(_)));
    let mut seen = BTreeSet::new();
    contenders.retain(|contender| {
        let is_first = contender.role == Role::Ours && seen.insert(contender.group.clone());
        is_first && must_never || case.expected.iter().any(|expected| expected.compares(contender))
    });
}

impl Expected {
    /// Whether it may be about this one. Which group a sample belongs to is known only when it is there.
    fn compares(self, contender: &Contender) -> bool {
        matches!(self, Self::NotWorse { ours, than, .. } if [ours, than].contains(&&*contender.name))
    }

    fn broken(self, case: &Case, record: &Record) -> Vec<String> {
        let (Self::Never(name) | Self::NotWorse { metric: name, .. }) = self;
        let Some(metric) = case.metric(name) else { return vec![format!("there is no metric `{name}`")] };
        match self {
            Self::Never(_) => never(metric, record),
            Self::NotWorse { ours, than, group, .. } => not_worse(metric, (ours, than), group, record),
        }
    }
}

fn never(metric: Metric, record: &Record) -> Vec<String> {
    let ours = record.results.iter().filter(|series| series.role == Role::Ours);
    let figures: Vec<_> = ours.filter_map(|series| Some((series, series.figure(metric)?))).collect();
    if figures.is_empty() {
        return vec![format!("nobody of ours was measured by {}", metric.name)];
    }
    let has_happened = figures.iter().filter(|(_, figure)| figure.high > 0.0);
    has_happened
        .map(|(series, figure)| format!("{}: {} {}", place(series), metric.name, figure.high))
        .collect()
}

fn not_worse(metric: Metric, (ours, other): (&str, &str), name: &str, record: &Record) -> Vec<String> {
    let groups = record.groups();
    let pairs: Vec<_> = groups
        .iter()
        .filter(|group| group[0].group.contains(name))
        .filter_map(|group| {
            let of = |name: &str| {
                let series = group.iter().find(|series| series.contender == name)?;
                Some((*series, series.figure(metric)?.value))
            };
            Some((of(ours)?, of(other)?))
        })
        .collect();
    let is_left_out = record.left_out.iter().any(|left_out| [ours, other].contains(&&*left_out.contender));
    if pairs.is_empty() && !is_left_out {
        return vec![format!("{} of `{ours}` and `{other}` was not measured together", metric.name)];
    }
    let worse = pairs.iter().filter(|((_, own), (_, value))| metric.is_worse(*own, *value));
    worse
        .map(|((series, own), (_, value))| {
            format!("{}: {} {own:.3}, that of `{other}` {value:.3}", place(series), metric.name)
        })
        .collect()
}

fn place(series: &Series) -> String {
    let Series { contender, group, .. } = series;
    if group.is_empty() { contender.clone() } else { format!("{contender} ({group})") }
}

#[cfg(test)]
mod tests {
    use super::super::record::LeftOut;
    use super::super::record::tests::{CASE, record, series};
    use super::*;

    const FASTER: Expected =
        Expected::NotWorse { metric: "requests/s", ours: "allcores", than: "peer", group: "g" };

    fn rates(own: f64, peer: f64) -> Record {
        record(vec![
            series("allcores", Role::Ours, "g", "requests/s", &[own]),
            series("peer", Role::Peer, "g", "requests/s", &[peer]),
        ])
    }

    #[test]
    fn a_wrong_direction_is_told_with_its_figures() {
        assert_eq!(FASTER.broken(&CASE, &rates(2.0, 1.0)), [""; 0]);
        let told = FASTER.broken(&CASE, &rates(1.0, 2.0));
        assert_eq!(told, ["allcores (g): requests/s 1.000, that of `peer` 2.000"]);
    }

    #[test]
    fn another_group_is_not_looked_at() {
        let elsewhere =
            Expected::NotWorse { metric: "requests/s", ours: "allcores", than: "peer", group: "h" };
        let told = elsewhere.broken(&CASE, &rates(1.0, 2.0));
        assert_eq!(told, ["requests/s of `allcores` and `peer` was not measured together"]);
    }

    #[test]
    fn who_was_not_measured_is_told() {
        let told = FASTER.broken(&CASE, &record(vec![]));
        assert_eq!(told, ["requests/s of `allcores` and `peer` was not measured together"]);
        let told = Expected::Never("failed").broken(&CASE, &rates(1.0, 1.0));
        assert_eq!(told, ["nobody of ours was measured by failed"]);
    }

    #[test]
    fn a_quick_look_is_at_who_is_compared_and_at_one_of_ours_that_must_never_fail() {
        let asked = |expected: &'static [Expected]| {
            let contender = |name, role, group| Contender::new(name, role, |_| Ok(Vec::new())).group(group);
            let mut contenders = vec![
                contender("allcores", Role::Ours, "g"),
                contender("other", Role::Ours, "g"),
                contender("peer", Role::Peer, "g"),
                contender("bystander", Role::Peer, "g"),
                contender("other", Role::Ours, "h"),
                contender("allcores", Role::Ours, "h"),
            ];
            keep_asked(&Case { expected, ..CASE }, &mut contenders);
            contenders.into_iter().map(|it| format!("{}: {}", it.group, it.name)).collect::<Vec<_>>()
        };
        assert_eq!(asked(&[FASTER]), ["g: allcores", "g: peer", "h: allcores"]);
        assert_eq!(asked(&[Expected::Never("failed")]), ["g: allcores", "h: other"]);
        assert_eq!(
            asked(&[Expected::Never("failed"), FASTER]),
            ["g: allcores", "g: peer", "h: other", "h: allcores"]
        );
    }

    #[test]
    fn nothing_is_expected_beside_who_was_left_out() {
        let mut record = record(vec![series("allcores", Role::Ours, "g", "requests/s", &[1.0])]);
        assert_eq!(FASTER.broken(&CASE, &record).len(), 1);
        record.left_out = vec![LeftOut { contender: "peer".into(), why: "it can't be had".into() }];
        assert_eq!(FASTER.broken(&CASE, &record), [""; 0]);
    }

    #[test]
    fn one_failure_of_ours_is_too_many_and_a_peers_are_its_own() {
        let failures = record(vec![
            series("allcores", Role::Ours, "", "failed", &[0.0, 3.0, 0.0]),
            series("peer", Role::Peer, "", "failed", &[9.0]),
        ]);
        assert_eq!(Expected::Never("failed").broken(&CASE, &failures), ["allcores: failed 3"]);
    }
}
