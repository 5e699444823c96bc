//! One address with its sockets as data.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use allcores_core::selector::Chosen;
use allcores_core::steering::LaneWatchSaved;
use allcores_core::worker::{Slot, WorkerId};
use serde::{Deserialize, Serialize};

use super::{Group, Served, Standing};
use crate::address::Address;
use crate::carry::{BytesSaved, FdSaved, Inherited, Manifest};
use crate::ports::LaneId;
use crate::ports::desk::{Desk, DeskSaved};
use crate::ports::lane::{Kind, Lane, Manner, Vacancy};
use crate::ports::saved::AddressSaved;
use crate::ports::socket_file::SocketFile;
use crate::ports::table::{Key, Lanes};
use crate::primary::Policy;

/// How many lanes an address can have had at most.
const MOST: u64 = 1 << 27;

/// One address with its sockets as data.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a field of its own in what is written")]
pub(in crate::ports) struct GroupSaved {
    key: u64,
    address: AddressSaved,
    #[serde(default)]
    asked: Option<(AddressSaved, u64)>,
    policy: String,
    is_reuse_address: bool,
    /// Options to be set before `bind`: level, name, value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    before_bind: Vec<(i32, i32, i32)>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    has_copies: bool,
    desk: DeskSaved,
    #[serde(default)]
    data: Option<String>,
    lanes: Vec<LaneSaved>,
    next_lane: u64,
    order: Vec<u64>,
    #[serde(default)]
    attached: Option<Vec<u32>>,
    #[serde(default)]
    leaving: Vec<u32>,
    #[serde(default)]
    held_up_until: Duration,
    #[serde(default)]
    file: Option<(BytesSaved, BytesSaved)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    given: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_unsettled: bool,
    is_held: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct LaneSaved {
    kind: KindSaved,
    id: u64,
    socket: FdSaved,
    inode: u64,
    slot: u16,
    users: Vec<u32>,
    free_since: Duration,
    vacancy: VacancySaved,
    is_listening: bool,
    is_stream: bool,
    backlog: i32,
    watch: LaneWatchSaved,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KindSaved {
    Own,
    Handed,
    Waiting,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum VacancySaved {
    Awaited,
    Parked,
    GivenUp,
}

impl GroupSaved {
    pub(in crate::ports) fn number(&self) -> u64 {
        self.key
    }

    pub(in crate::ports) fn lanes(&self) -> impl Iterator<Item = u64> + '_ {
        self.lanes.iter().map(|lane| lane.id)
    }

    pub(in crate::ports) fn check(&self) -> Result<(), String> {
        let policy = self.policy()?;
        let lanes: BTreeSet<u64> = self.lanes.iter().map(|lane| lane.id).collect();
        let order: BTreeSet<u64> = self.order.iter().copied().collect();
        if order.len() != self.order.len() || !order.is_subset(&lanes) {
            return Err("the kernel numbers a lane twice, or one that there is not".into());
        }
        let own =
            Key::of_number(self.key).lane(0).number()..Key::of_number(self.key).lane(self.next_lane).number();
        if self.next_lane > MOST || !self.lanes.iter().map(|lane| lane.id).is_sorted_by(|a, b| a < b) {
            return Err("the lanes of an address are not in order".into());
        }
        if self.lanes.iter().any(|lane| !own.contains(&lane.id)) {
            return Err("an address has a lane that is not its own".into());
        }
        if self.lanes.is_empty() {
            return Err("an address has no socket".into());
        }
        Desk::check(&policy, &self.desk)
    }

    fn policy(&self) -> Result<Policy, String> {
        let policy = self.policy.parse().map_err(|error| format!("{}: {error}", self.policy))?;
        match policy {
            Policy::Auto => Err("an address is served by no policy of its own".into()),
            policy => Ok(policy),
        }
    }
}

impl Group {
    pub(in crate::ports) fn save(&self, manifest: &mut Manifest) -> GroupSaved {
        let bytes = |path: &Path| path.as_os_str().into();
        GroupSaved {
            key: self.key.number(),
            address: (&self.address).into(),
            asked: self.asked.as_ref().map(|(address, index)| (address.into(), *index)),
            policy: self.policy.to_string(),
            is_reuse_address: self.manner.is_shared,
            before_bind: self.manner.options.clone(),
            has_copies: self.has_copies,
            desk: self.desk.save(manifest),
            data: self.data.clone(),
            lanes: self.lanes.iter().map(|lane| lane.save(manifest)).collect(),
            next_lane: self.next_lane,
            order: self.order.iter().map(|lane| lane.0).collect(),
            attached: self.attached.as_ref().map(|chosen| chosen.indices().to_vec()),
            leaving: self.leaving.iter().map(|worker| worker.0).collect(),
            held_up_until: self.held_up_until,
            file: self.file.names().map(|(path, spare)| (bytes(path), bytes(spare))),
            given: self.given.clone(),
            is_unsettled: self.is_unsettled,
            is_held: self.held.is_some(),
        }
    }

    pub(in crate::ports) fn restore(
        saved: GroupSaved,
        pending: usize,
        inherited: &mut Inherited,
    ) -> io::Result<Self> {
        let policy = saved.policy().map_err(io::Error::other)?;
        let path = |bytes: BytesSaved| PathBuf::from(std::ffi::OsString::from(bytes));
        let lanes = saved.lanes.into_iter().map(|lane| Lane::restore(lane, inherited));
        let lanes = lanes.collect::<io::Result<Vec<_>>>()?;
        let address: Address = saved.address.into();
        let names = saved.file.map(|(named, spare)| (path(named), path(spare)));
        Ok(Self {
            key: Key::of_number(saved.key),
            next_lane: saved.next_lane,
            file: SocketFile::resume(address.path(), names, saved.given.is_some()),
            address,
            asked: saved.asked.map(|(address, index)| (address.into(), index)),
            desk: Desk::restore(&policy, pending, saved.desk, inherited)?,
            policy,
            is_unsettled: saved.is_unsettled,
            manner: Manner { is_shared: saved.is_reuse_address, options: saved.before_bind },
            has_copies: saved.has_copies,
            data: saved.data,
            lanes: Lanes::new(lanes),
            order: saved.order.into_iter().map(LaneId).collect(),
            served: Served::default(),
            attached: saved.attached.and_then(Chosen::of),
            leaving: saved.leaving.into_iter().map(WorkerId).collect(),
            held_up_until: saved.held_up_until,
            alert_until: saved.held_up_until,
            given: saved.given,
            openings: Vec::new(),
            // So many sockets are never held: what is in force is put in line with what is to be.
            held: saved.is_held.then(|| (usize::MAX, Vec::new())),
            // An upgrade waits for a reload, and for workers on their way out.
            standing: Standing::Kept,
        })
    }
}

impl Group {
    /// For so long nobody could look at it.
    pub(in crate::ports) fn excuse(&mut self, time: Duration) {
        self.desk.excuse(time);
        for lane in &mut self.lanes {
            lane.watch.excuse(time);
        }
    }
}

impl Lane {
    fn save(&self, manifest: &mut Manifest) -> LaneSaved {
        LaneSaved {
            kind: match self.kind {
                Kind::Own => KindSaved::Own,
                Kind::Handed => KindSaved::Handed,
                Kind::Waiting => KindSaved::Waiting,
            },
            id: self.id.0,
            socket: manifest.note(&self.socket),
            inode: self.inode,
            slot: self.slot.0,
            users: self.users.iter().map(|user| user.0).collect(),
            free_since: self.free_since,
            vacancy: match self.vacancy {
                Vacancy::Awaited => VacancySaved::Awaited,
                Vacancy::Parked => VacancySaved::Parked,
                Vacancy::GivenUp => VacancySaved::GivenUp,
            },
            is_listening: self.is_listening,
            is_stream: self.is_stream,
            backlog: self.backlog,
            watch: self.watch.into(),
        }
    }

    fn restore(saved: LaneSaved, inherited: &mut Inherited) -> io::Result<Self> {
        let socket = inherited.take(saved.socket)?;
        let inode = rustix::fs::fstat(&socket)?.st_ino;
        if inode != saved.inode {
            return Err(io::Error::other(format!("the socket of lane {} is another", saved.id)));
        }
        Ok(Self {
            kind: match saved.kind {
                KindSaved::Own => Kind::Own,
                KindSaved::Handed => Kind::Handed,
                KindSaved::Waiting => Kind::Waiting,
            },
            id: LaneId(saved.id),
            socket: Arc::new(socket),
            inode,
            slot: Slot(saved.slot),
            users: saved.users.into_iter().map(WorkerId).collect(),
            free_since: saved.free_since,
            vacancy: match saved.vacancy {
                VacancySaved::Awaited => Vacancy::Awaited,
                VacancySaved::Parked => Vacancy::Parked,
                VacancySaved::GivenUp => Vacancy::GivenUp,
            },
            is_listening: saved.is_listening,
            is_stream: saved.is_stream,
            backlog: saved.backlog,
            doubted_at: Duration::ZERO,
            watch: saved.watch.into(),
        })
    }
}
