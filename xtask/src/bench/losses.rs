//! Where we lose, found from a record: every metric by which one of ours is worse than the best peer.
//!
//! Limits are no peers: nobody manages workers there, which is what one would be without.

use super::case::Case;
use super::metric::{Better, Figure, Metric};
use super::record::{Record, Role, Series};

/// One of ours, worse than the best peer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Loss<'a> {
    pub(super) group: &'a str,
    pub(super) metric: Metric,
    pub(super) contender: &'a str,
    pub(super) own: Figure,
    pub(super) peer: &'a str,
    pub(super) best: Figure,
    /// Whether even the best round of ours is worse than the peer's worst.
    pub(super) is_beyond_spread: bool,
}

/// Finds them all, in the order of groups, metrics and contenders.
pub(super) fn losses<'a>(case: &Case, record: &'a Record) -> Vec<Loss<'a>> {
    let groups = record.groups();
    let each = groups.iter().flat_map(|group| case.metrics.iter().map(move |metric| (group, *metric)));
    each.flat_map(|(group, metric)| in_group(metric, group)).collect()
}

fn in_group<'a>(metric: Metric, group: &[&'a Series]) -> Vec<Loss<'a>> {
    let of = |role| {
        let series = group.iter().filter(move |series| series.role == role);
        series.filter_map(|series| Some((*series, series.figure(metric)?)))
    };
    let best = of(Role::Peer).reduce(
        |best, other| {
            if metric.is_worse(best.1.value, other.1.value) { other } else { best }
        },
    );
    let Some((peer, best)) = best else { return Vec::new() };
    let is_lost = |(_, own): &(&Series, Figure)| metric.is_worse(own.value, best.value);
    of(Role::Ours)
        .filter(is_lost)
        .map(|(series, own)| Loss {
            group: &series.group,
            metric,
            contender: &series.contender,
            own,
            peer: &peer.contender,
            best,
            is_beyond_spread: is_beyond_spread(metric, own, best),
        })
        .collect()
}

/// Of what is added up a single one counts: there is no spread to be within.
fn is_beyond_spread(metric: Metric, own: Figure, best: Figure) -> bool {
    match metric.better {
        _ if metric.is_summed() => true,
        Better::Lower => own.low > best.high,
        Better::Higher => own.high < best.low,
        Better::Neither => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::{CASE, record, series};
    use super::*;

    fn found(results: Vec<Series>) -> Vec<(String, String, bool)> {
        let record = record(results);
        let losses = losses(&CASE, &record);
        let words = |loss: &Loss<'_>| {
            (format!("{} {}", loss.contender, loss.metric.name), loss.peer.to_owned(), loss.is_beyond_spread)
        };
        losses.iter().map(words).collect()
    }

    #[test]
    fn ours_is_compared_with_the_best_peer() {
        let found = found(vec![
            series("allcores", Role::Ours, "", "requests/s", &[90.0, 95.0]),
            series("slow", Role::Peer, "", "requests/s", &[50.0, 60.0]),
            series("fast", Role::Peer, "", "requests/s", &[100.0, 110.0]),
        ]);
        assert_eq!(found, [("allcores requests/s".into(), "fast".into(), true)]);
    }

    #[test]
    fn within_the_spread_it_is_said_so() {
        let found = found(vec![
            series("allcores", Role::Ours, "", "p99 ms", &[9.0, 12.0]),
            series("peer", Role::Peer, "", "p99 ms", &[8.0, 10.0]),
        ]);
        assert_eq!(found, [("allcores p99 ms".into(), "peer".into(), false)]);
    }

    #[test]
    fn a_single_failure_more_is_a_loss() {
        let found = found(vec![
            series("allcores", Role::Ours, "", "failed", &[0.0, 1.0]),
            series("peer", Role::Peer, "", "failed", &[0.0, 0.0]),
        ]);
        assert_eq!(found, [("allcores failed".into(), "peer".into(), true)]);
    }

    #[test]
    fn a_limit_is_no_peer_and_another_group_no_rival() {
        let found = found(vec![
            series("allcores", Role::Ours, "a", "requests/s", &[90.0]),
            series("nothing between", Role::Limit, "a", "requests/s", &[100.0]),
            series("peer", Role::Peer, "b", "requests/s", &[100.0]),
        ]);
        assert_eq!(found, []);
    }
}
