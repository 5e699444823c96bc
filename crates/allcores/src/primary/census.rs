//! Counting the connections that workers have: by what the kernel tells, on a thread of its own, since that takes as long as
//! there are processes and descriptors.

use std::collections::{BTreeMap, HashSet};

use allcores_core::worker::WorkerId;

use crate::proc;

/// Whose connections are counted, and which count.
#[derive(Debug)]
pub(super) struct Census {
    /// Workers and their processes.
    pub(super) workers: Vec<(WorkerId, u32)>,
    pub(super) tcp_ports: Vec<u16>,
    pub(super) unix_listeners: Vec<u64>,
}

impl Census {
    /// Counts, for each worker that is still there.
    pub(super) fn take(&self) -> BTreeMap<WorkerId, u64> {
        let tcp = proc::established_inodes(&self.tcp_ports);
        let unix = proc::connected_unix_inodes(&self.unix_listeners);
        // Those that wait to be accepted have no inode, and nobody has them.
        let open: HashSet<u64> = tcp.into_iter().chain(unix).filter(|inode| *inode != 0).collect();
        let sockets = proc::sockets_by_session(&self.workers.iter().map(|(_, pid)| *pid).collect());
        let count = |(id, pid): &(WorkerId, u32)| {
            let held = sockets.get(pid)?.intersection(&open).count();
            Some((*id, u64::try_from(held).unwrap_or(u64::MAX)))
        };
        self.workers.iter().filter_map(count).collect()
    }
}
