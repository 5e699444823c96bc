//! What steering remembers, as data.

use std::io;

use allcores_core::worker::WorkerId;
use serde::{Deserialize, Serialize};

use super::{Misfit, Steering, Tuning};
use crate::ports::LaneId;

/// What steering remembers, as data.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::ports) struct SteeringSaved {
    arrivals: u64,
    misplaced: u64,
    emptied: Vec<u64>,
    hot: Vec<u64>,
    /// Of which process of each worker its readings are.
    processes: Vec<(u32, u32)>,
}

impl Steering {
    pub(in crate::ports) fn save(&self) -> SteeringSaved {
        let mut processes: Vec<(u32, u32)> =
            self.processes.iter().map(|(worker, process)| (worker.0, process.pid)).collect();
        processes.sort_unstable();
        SteeringSaved {
            arrivals: self.misfit.arrivals,
            misplaced: self.misfit.misplaced,
            emptied: self.emptied.iter().map(|lane| lane.0).collect(),
            hot: self.hot.iter().map(|lane| lane.0).collect(),
            processes,
        }
    }

    pub(in crate::ports) fn restore(tuning: Tuning, saved: SteeringSaved) -> io::Result<Self> {
        let mut steering = Self::new(tuning)?;
        steering.misfit = Misfit { arrivals: saved.arrivals, misplaced: saved.misplaced, gulps: 0 };
        steering.emptied = saved.emptied.into_iter().map(LaneId).collect();
        steering.hot = saved.hot.into_iter().map(LaneId).collect();
        for (worker, pid) in saved.processes {
            steering.set_process(WorkerId(worker), pid);
        }
        Ok(steering)
    }
}
