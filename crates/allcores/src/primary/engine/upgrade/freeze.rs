//! Calling back what watches workers, and having it go on.
//!
//! Each task ends where it has nothing in its hands, and returns what it owns.

use std::collections::BTreeMap;
use std::time::Duration;

use allcores_core::worker::WorkerId;
use tokio::sync::mpsc;

use crate::primary::engine::rendezvous::Rendezvous;
use crate::primary::engine::{Command, Engine, Sources};
use crate::primary::relay::Relay;
use crate::primary::worker::{Part, Seen, Task};

/// How long signals that have come before they were blocked may take to be told of.
const SETTLING: Duration = Duration::from_millis(1);

/// How often what has come meanwhile is taken in before the next program has to.
const ROUNDS: usize = 8;

/// What watches workers, while it does not.
#[derive(Debug, Default)]
pub(in crate::primary::engine) struct Frozen {
    pub(super) parts: BTreeMap<WorkerId, Vec<Part>>,
    pub(super) rendezvous: Option<Rendezvous>,
    pub(super) relays: Vec<Relay>,
    /// Nothing was told that has not been taken in.
    pub(super) is_quiet: bool,
}

impl Engine {
    /// Calls back all that watches workers, and takes in what it has seen before.
    pub(super) async fn freeze(&mut self, sources: &mut Sources) -> Frozen {
        self.recaller.call();
        let mut frozen = Frozen::default();
        for _ in 0..ROUNDS {
            // What has begun since the last time was called back before it could see anything.
            self.collect(&mut frozen, &mut sources.sightings).await;
            tokio::time::sleep(SETTLING).await;
            // Who was told of a signal by now has its turn before us.
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            frozen.is_quiet = !self.take_answers();
            while let Ok(sighting) = sources.sightings.try_recv() {
                frozen.is_quiet = false;
                self.take_in(sighting);
            }
            while let Ok(command) = sources.commands.try_recv() {
                // Who only looks disturbs nothing.
                frozen.is_quiet &= matches!(command, Command::Snapshot(_));
                self.obey(command);
            }
            if frozen.is_quiet {
                break;
            }
        }
        sources.ask_all();
        frozen.parts.retain(|id, _| self.workers.contains_key(id));
        frozen
    }

    /// Waits until everything has come back, and takes in what is seen until then.
    async fn collect(&mut self, frozen: &mut Frozen, sightings: &mut mpsc::Receiver<Seen>) {
        if let Some(mut rendezvous) = self.rendezvous.take() {
            let back = self.wait_for(&mut rendezvous, sightings).await;
            frozen.rendezvous = back.or(frozen.rendezvous.take());
        }
        while let Some((id, mut task)) = self.take_task() {
            if let Some(part) = self.wait_for(&mut task, sightings).await {
                frozen.parts.entry(id).or_default().push(part);
            }
        }
        // They tell nobody of anything.
        frozen.relays.append(&mut self.relays.back().await);
        while !self.ports.has_all_back() {
            let Some(sighting) = sightings.recv().await else { return };
            self.take_in(sighting);
        }
    }

    async fn wait_for<T>(
        &mut self,
        task: &mut tokio::task::JoinHandle<Option<T>>,
        sightings: &mut mpsc::Receiver<Seen>,
    ) -> Option<T> {
        loop {
            tokio::select! {
                biased;
                back = &mut *task => return back.ok().flatten(),
                // It can't come back before it has told what it has in its hands.
                Some(sighting) = sightings.recv() => self.take_in(sighting),
            }
        }
    }

    fn take_task(&mut self) -> Option<(WorkerId, Task)> {
        self.workers.iter_mut().find_map(|(id, worker)| Some((*id, worker.take_task()?)))
    }

    /// Goes on with what was called back.
    pub(super) fn thaw(&mut self, frozen: Frozen) {
        self.recaller.relent();
        if let Some(rendezvous) = frozen.rendezvous {
            self.watch_rendezvous(rendezvous);
        }
        for relay in frozen.relays {
            self.relay(relay);
        }
        for (id, parts) in frozen.parts {
            for part in parts {
                self.watch_part(id, part);
            }
        }
    }
}
