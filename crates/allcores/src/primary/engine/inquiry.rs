//! Finding out whether a worker takes anything at all, where what waits for it is taken by others.
//!
//! A worker whose queue stands still for the hang timeout hangs. But where workers can be handed connections, those that
//! wait for a busy one are served by others, and its queue is empty: so it is handed one of our own, about which nobody
//! waits. Whoever is only busy takes it in the end, and shows by that that it is well.

use std::collections::BTreeSet;
use std::time::Duration;

use allcores_core::worker::WorkerId;
use tokio::sync::oneshot;

use super::Engine;
use crate::ports::{Passage, Reach};
use crate::primary::worker::Seen;

/// Who is being asked, and who has not answered.
#[derive(Debug, Default)]
pub(super) struct Inquiries {
    asked: BTreeSet<WorkerId>,
    pub(super) mute: BTreeSet<WorkerId>,
}

impl Inquiries {
    /// Those that have taken nothing for the hang timeout.
    pub(super) fn mute(&self) -> impl Iterator<Item = WorkerId> {
        self.mute.iter().copied()
    }

    /// Forgets a worker that is gone.
    pub(super) fn forget(&mut self, id: WorkerId) {
        self.asked.remove(&id);
        self.mute.remove(&id);
    }
}

impl Engine {
    /// Asks those that others have relieved, and that have shown no life since.
    pub(super) fn inquire(&mut self, limit: Duration) {
        let now = self.now();
        for (id, since) in self.ports.relieved(now) {
            if !self.inquiries.asked.contains(&id) {
                self.ask_for_life(id, limit.saturating_sub(now.saturating_sub(since)));
            }
        }
    }

    fn ask_for_life(&mut self, id: WorkerId, limit: Duration) {
        let Some(Reach::Own(lane)) = self.ports.reach(id) else { return };
        let Ok(Passage { socket, handed: Some(connection), .. }) = self.ports.open_passage(lane, true) else {
            return;
        };
        let Some(mut taken) = self.hand_question(id, lane, connection) else { return };
        self.inquiries.asked.insert(id);
        let seen = self.seen.clone();
        tokio::spawn(async move {
            if tokio::time::timeout(limit, &mut taken).await.is_err() {
                let _ = seen.send(Seen::Took(id, false)).await;
                if taken.await.is_err() {
                    // It is gone.
                    return;
                }
            }
            drop(socket);
            let _ = seen.send(Seen::Took(id, true)).await;
        });
    }

    /// Waits for the word of a worker that is known to be mute.
    pub(super) fn await_life(&mut self, id: WorkerId, taken: oneshot::Receiver<bool>) {
        self.inquiries.asked.insert(id);
        let seen = self.seen.clone();
        tokio::spawn(async move {
            if taken.await.is_ok() {
                let _ = seen.send(Seen::Took(id, true)).await;
            }
        });
    }

    /// A worker that was asked has answered, or has not in time.
    pub(super) fn take_life(&mut self, id: WorkerId, has_taken: bool) {
        if !self.inquiries.asked.contains(&id) {
            return;
        }
        if has_taken {
            self.inquiries.forget(id);
            let now = self.now();
            self.ports.note_life(id, now);
        } else {
            self.inquiries.mute.insert(id);
        }
        self.find_hung();
    }
}
