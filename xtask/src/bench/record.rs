//! What was measured, as it is stored and read back: one format for all cases.
//!
//! Whole runs are stored with the pages of the project, everything else below `target/bench`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fmt, fs};

use anyhow::{Context, ensure};
use clap::{Args, value_parser};
use serde::{Deserialize, Serialize};

use super::case::Case;
use super::machine::Machine;
use super::metric::{Figure, Metric};

/// Named numbers of one measurement.
pub(super) type Metrics = Vec<(&'static str, f64)>;

/// What one measurement has found under one load. A case that has one load only does not name it.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) load: String,
    pub(super) metrics: Metrics,
}

impl Sample {
    /// For a case that has one load.
    pub(super) fn only(metrics: Metrics) -> Vec<Self> {
        vec![Self { load: String::new(), metrics }]
    }
}

/// What a contender is to allcores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Role {
    Ours,
    /// Another way to the same end.
    Peer,
    /// Nobody manages workers there, or it is a theory: it tells how much there is to be had.
    Limit,
}

/// What was measured of one contender under one load, a sample for each round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Series {
    pub(super) contender: String,
    pub(super) role: Role,
    /// Who is compared with whom: ratios are to the first of the group. Empty where there is one group.
    pub(super) group: String,
    pub(super) samples: Vec<BTreeMap<String, f64>>,
}

/// Who was not measured, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LeftOut {
    pub(super) contender: String,
    pub(super) why: String,
}

/// How much is measured.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Given {
    /// How many rounds; each contender is measured once in each
    #[arg(long, default_value_t = Self::default().rounds, value_parser = value_parser!(u64).range(1..))]
    pub(super) rounds: u64,
    /// How long each measurement takes, in seconds
    #[arg(long, default_value_t = Self::default().seconds, value_parser = seconds)]
    pub(super) seconds: f64,
    /// How many clients the mixed load has
    #[arg(long, default_value_t = Self::default().clients)]
    pub(super) clients: usize,
    /// How many connections the fairness case holds
    #[arg(long, default_value_t = Self::default().connections)]
    pub(super) connections: usize,
}

/// One run of one case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) case: String,
    pub(super) title: String,
    pub(super) given: Given,
    pub(super) machine: Machine,
    pub(super) results: Vec<Series>,
    pub(super) left_out: Vec<LeftOut>,
}

impl Given {
    /// The options that ask for this, as far as they are not as usual.
    pub(super) fn options(&self) -> String {
        let usual = Self::default();
        let mut options = String::new();
        let mut add = |is_usual: bool, name: &str, value: &dyn fmt::Display| {
            if !is_usual {
                options = format!("{options} --{name} {value}");
            }
        };
        add(self.rounds == usual.rounds, "rounds", &self.rounds);
        add(self.seconds.total_cmp(&usual.seconds).is_eq(), "seconds", &self.seconds);
        add(self.clients == usual.clients, "clients", &self.clients);
        add(self.connections == usual.connections, "connections", &self.connections);
        options
    }
}

impl Default for Given {
    fn default() -> Self {
        Self { rounds: 3, seconds: 2.0, clients: 16, connections: 300 }
    }
}

/// Reads a time that can be measured for.
fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "it is no number".to_owned())?;
    if (0.05..=3600.0).contains(&seconds) { Ok(seconds) } else { Err("it must be 0.05 to 3600".to_owned()) }
}

impl Series {
    /// The samples of one metric.
    pub(super) fn values(&self, name: &str) -> Vec<f64> {
        self.samples.iter().filter_map(|sample| sample.get(name).copied()).collect()
    }

    pub(super) fn figure(&self, metric: Metric) -> Option<Figure> {
        metric.figure(&self.values(metric.name))
    }
}

impl Record {
    /// The groups, in the order in which they were measured.
    pub(super) fn groups(&self) -> Vec<Vec<&Series>> {
        let mut groups: Vec<Vec<&Series>> = Vec::new();
        for series in &self.results {
            match groups.iter_mut().find(|group| group[0].group == series.group) {
                Some(group) => group.push(series),
                None => groups.push(vec![series]),
            }
        }
        groups
    }

    /// Writes it into a folder, which is made if need be, and says where it is.
    pub(super) fn write(&self, folder: &Path) -> anyhow::Result<PathBuf> {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        let path = folder.join(format!("{}.json", self.case));
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    /// Reads the record of a case; `None` if none is stored.
    pub(super) fn read(folder: &Path, case: &Case) -> anyhow::Result<Option<Self>> {
        let path = folder.join(format!("{}.json", case.name));
        if !path.try_exists().with_context(|| format!("look for {}", path.display()))? {
            return Ok(None);
        }
        let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let record: Self =
            serde_json::from_slice(&text).with_context(|| format!("{} is no record", path.display()))?;
        record.check(case).with_context(|| path.display().to_string())?;
        Ok(Some(record))
    }

    /// Fails where the record has what the case does not know: it would not be shown.
    pub(super) fn check(&self, case: &Case) -> anyhow::Result<()> {
        ensure!(self.case == case.name, "it is of the case {}, not of {}", self.case, case.name);
        for series in &self.results {
            for name in series.samples.iter().flat_map(BTreeMap::keys) {
                let is_known = case.metrics.iter().any(|metric| metric.name == name);
                ensure!(is_known, "the case {} has no metric `{name}`", case.name);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A case that has a metric of each kind.
    pub(in crate::bench) const CASE: Case = Case {
        name: "made-up",
        about: "made up",
        metrics: &[
            Metric::higher("requests/s").plotted(),
            Metric::lower("p99 ms"),
            Metric::lower("failed").summed(),
        ],
        expected: &[],
        remarks: "Nothing of this was measured.",
        plan: |_| unreachable!("nothing of this is measured"),
    };

    pub(in crate::bench) fn series(
        contender: &str,
        role: Role,
        group: &str,
        metric: &str,
        values: &[f64],
    ) -> Series {
        let samples = values.iter().map(|value| [(metric.to_owned(), *value)].into()).collect();
        Series { contender: contender.into(), role, group: group.into(), samples }
    }

    pub(in crate::bench) fn record(results: Vec<Series>) -> Record {
        Record {
            case: "made-up".into(),
            title: "made up".into(),
            given: Given { rounds: 4, seconds: 1.0, clients: 16, connections: 300 },
            machine: Machine {
                cpu: "a processor".into(),
                cpus: 2,
                memory: "8 GB".into(),
                kernel: "6.1".into(),
                has_session_shares: false,
                versions: [("node".to_owned(), "v20.0.0".to_owned())].into(),
                commit: "0123456789abcdef".into(),
                is_dirty: false,
                date: "2026-01-01".into(),
            },
            results,
            left_out: Vec::new(),
        }
    }

    #[test]
    fn a_record_is_read_back_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let written = record(vec![series("allcores", Role::Ours, "a", "requests/s", &[0.1, 1e9])]);
        assert_eq!(Record::read(folder.path(), &CASE).unwrap(), None);
        written.write(folder.path()).unwrap();
        assert_eq!(Record::read(folder.path(), &CASE).unwrap(), Some(written));
    }

    #[test]
    fn a_metric_that_the_case_does_not_know_is_an_error() {
        let record = super::tests::record(vec![series("allcores", Role::Ours, "a", "requests/h", &[1.0])]);
        let error = record.check(&CASE).unwrap_err().to_string();
        assert_eq!(error, "the case made-up has no metric `requests/h`");
    }
}
