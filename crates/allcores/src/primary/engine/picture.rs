//! A look at everything.

use std::time::SystemTime;

use allcores_core::pool::{LastExit as PoolExit, SlotView, WorkerView};
use allcores_core::worker::State;

use super::{Engine, Subject};
use crate::primary::census::Census;
use crate::primary::{AppSnapshot, LaneSnapshot, LastExit, ReloadSnapshot, WorkerSnapshot};

impl Engine {
    /// All but what workers use, which is measured for who asks.
    pub(super) fn picture(&self) -> AppSnapshot {
        let slots: Vec<SlotView> = self.pool.slots().collect();
        let mut workers: Vec<WorkerSnapshot> =
            self.pool.workers().map(|view| self.worker_picture(view, &slots)).collect();
        let is_empty = |slot: &&SlotView| !workers.iter().any(|worker| worker.slot == slot.slot);
        let waiting: Vec<WorkerSnapshot> =
            slots.iter().filter(is_empty).filter_map(|slot| self.empty_slot(slot)).collect();
        workers.extend(waiting);
        workers.sort_by_key(|worker| (worker.slot, worker.id));
        AppSnapshot {
            name: self.settings.name.clone(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION"),
            upgrades: self.upgrades.count,
            generation: self.pool.generation(),
            reload: self.pool.reloading().map(|view| ReloadSnapshot {
                generation: view.generation,
                done: view.done,
                is_rolling_back: view.is_rolling_back,
                is_queued: view.is_queued,
            }),
            policy: self.settings.policy.clone(),
            hint: self.hints.text.clone().or_else(|| self.unseen()),
            listening: self.ports.addresses().map(|address| address.address).collect(),
            addresses: self.ports.addresses().collect(),
            target: self.pool.target(),
            stopping: self.pool.is_stopping(),
            strays: self.ports.strays(),
            health: self.care.picture(Subject::App),
            since: self.started_at,
            workers,
        }
    }

    /// What it takes to count connections elsewhere.
    pub(super) fn census(&self) -> Census {
        Census {
            workers: self.workers.values().map(|worker| (worker.about.id, worker.about.pid)).collect(),
            tcp_ports: self.ports.tcp_ports(),
            unix_listeners: self.ports.unix_listeners(),
        }
    }

    fn worker_picture(&self, view: WorkerView, slots: &[SlotView]) -> WorkerSnapshot {
        let worker = self.workers.get(&view.id);
        let slot = slots.iter().find(|slot| slot.slot == view.slot);
        // Early exits are counted until the next worker exits late; one that serves for long enough will.
        let has_recovered = view.state == State::Ready
            && self.now().saturating_sub(view.started) >= self.settings.pool.min_uptime;
        let lanes = self.ports.lanes_of(view.id).map(|(address, depth)| LaneSnapshot { address, depth });
        WorkerSnapshot {
            id: view.id,
            slot: view.slot,
            generation: view.generation,
            pid: view.pid,
            state: view.state,
            rung: worker.and_then(|worker| worker.rung),
            since: self.started_at + view.since,
            restarts: slot.map_or(0, |slot| slot.restarts),
            is_crash_looping: !has_recovered && slot.is_some_and(|slot| slot.is_crash_looping),
            respawn_at: slot.and_then(|slot| self.respawn_at(slot)),
            lanes: lanes.collect(),
            rss_bytes: None,
            cpu: None,
            health: self.care.picture(Subject::Worker(view.id)),
            said_status: worker.and_then(|worker| worker.said_status.clone()),
            last_exit: slot.and_then(|slot| slot.last_exit).map(|exit| self.last_exit(exit)),
        }
    }

    /// A slot between two workers is shown as what its last one left.
    fn empty_slot(&self, slot: &SlotView) -> Option<WorkerSnapshot> {
        let exit = slot.last_exit?;
        Some(WorkerSnapshot {
            id: self.last_ids.get(&slot.slot).copied()?,
            slot: slot.slot,
            generation: slot.generation,
            pid: None,
            state: State::Exited,
            rung: None,
            since: self.started_at + exit.at,
            restarts: slot.restarts,
            is_crash_looping: slot.is_crash_looping,
            respawn_at: self.respawn_at(slot),
            lanes: Vec::new(),
            rss_bytes: None,
            cpu: None,
            health: None,
            said_status: None,
            last_exit: Some(self.last_exit(exit)),
        })
    }

    /// When another is started there. `None` also beyond the end of all calendars, where a very long `--backoff` may lead.
    fn respawn_at(&self, slot: &SlotView) -> Option<SystemTime> {
        self.started_at.checked_add(slot.waiting_until?)
    }

    fn last_exit(&self, exit: PoolExit) -> LastExit {
        let is_oom = self.oom_exits.contains(&exit.at);
        LastExit { status: exit.status, is_oom, at: self.started_at + exit.at }
    }
}
