//! Turns what the engine tells into what users hear: first the worker's handle is changed, then the event is told.

use std::sync::Arc;

use allcores_core::exit::ExitStatus;
use allcores_core::worker::{Rung, WorkerId};

use super::{Event, ListeningAddress, Shared, WorkerHandle, WorkerState};
use crate::channel::End;
use crate::error::{Error, ErrorKind};
use crate::primary::{self, Said, WorkerRef};

impl Shared {
    /// What a worker said over its channel.
    pub(super) fn hear(&self, worker: WorkerRef, said: Said<'_>) {
        if let Said::Linked(link) = said {
            let handle = WorkerHandle::new(worker, link.clone(), self.commands.clone());
            self.table().insert(worker.id, handle);
            return;
        }
        let Some(worker) = self.find(worker.id) else { return };
        match said {
            Said::Linked(_) => {}
            Said::Listening { address, port, kind, fd } => {
                self.tell_listening(worker, ListeningAddress::said(address, port, kind, fd));
            }
            Said::Messages(messages) => {
                let of = |message| Event::Message { worker: worker.clone(), message };
                let events: Vec<Event> = messages.into_iter().map(of).collect();
                worker.push_all(events.iter().cloned());
                self.hub.push_all(events.into_iter());
            }
            Said::Unreceived => {
                let tried = format!(
                    "sending a message with a socket to worker {}, which could not take the socket in, for want of descriptors \
                     perhaps: both are lost",
                    worker.id()
                );
                self.tell(Event::Error {
                    worker: worker.clone(),
                    error: Arc::new(Error::new(ErrorKind::Handle, tried)),
                });
            }
            Said::Leaving => worker.note_leaving(),
            Said::Disconnected { end } => {
                let id = worker.id();
                let error = match end {
                    End::Closed => None,
                    End::Garbage(what) => {
                        let tried = format!("reading what worker {id} wrote to its channel");
                        Some(Error::new(ErrorKind::Message, tried).because(what.as_str()))
                    }
                    End::Neglect(what) => {
                        let tried = format!("writing to the channel of worker {id}, which {what}");
                        Some(Error::new(ErrorKind::Disconnected, tried))
                    }
                };
                if let Some(error) = error.map(Arc::new) {
                    self.tell(Event::Error { worker: worker.clone(), error });
                }
                let event = Event::Disconnect { worker: worker.clone() };
                self.leave(&worker, worker.is_dead(), WorkerHandle::note_disconnected, event);
            }
        }
    }

    /// What happened.
    pub(super) fn observe(&self, event: &primary::Event<'_>) {
        use primary::Event as Seen;
        match *event {
            Seen::Respawning { slot, delay } => self.hub.push(Event::Respawning { slot, delay }),
            Seen::CrashLoop { slot, exits, status, last_output, .. } => {
                self.hub.push(Event::CrashLoop { slot, exits, status, last_output: last_output.to_vec() });
            }
            Seen::SpawnFailed { slot, reason } => {
                self.hub.push(Event::SpawnFailed { slot, reason: reason.to_owned() });
            }
            Seen::Notice { text } => self.hub.push(Event::Notice { text: text.to_owned() }),
            Seen::Stopping => self.hub.push(Event::Stopping),
            Seen::Scaling { before, workers } => self.hub.push(Event::Scaling { before, workers }),
            Seen::Reloading { generation, slots } => self.hub.push(Event::Reloading { generation, slots }),
            Seen::Replaced { slot, done, slots } => self.hub.push(Event::Replaced { slot, done, slots }),
            Seen::RollingBack { failure } => {
                self.hub.push(Event::RollingBack { failure: Box::new(failure.clone()) });
            }
            Seen::Reloaded { generation, took } => self.hub.push(Event::Reloaded { generation, took }),
            Seen::ReloadFailed { failure, .. } => {
                self.hub.push(Event::ReloadFailed { failure: Box::new(failure.clone()) });
            }
            // A part of a program is not upgraded: the program is.
            Seen::Upgrading { .. } | Seen::UpgradeRefused { .. } | Seen::Upgraded { .. } => {}
            Seen::Forked { worker }
            | Seen::Online { worker }
            | Seen::Listening { worker, .. }
            | Seen::Ready { worker }
            | Seen::Hung { worker, .. }
            | Seen::Draining { worker }
            | Seen::NotReady { worker, .. }
            | Seen::Unhealthy { worker, .. }
            | Seen::Renewing { worker, .. }
            | Seen::Watching { worker, .. }
            | Seen::Exited { worker, .. }
            | Seen::AddressUnavailable { worker, .. }
            | Seen::Output { worker, .. } => {
                if let Some(worker) = self.find(worker.id) {
                    self.observe_worker(worker, event);
                }
            }
        }
    }

    fn observe_worker(&self, worker: WorkerHandle, event: &primary::Event<'_>) {
        use primary::Event as Seen;
        match *event {
            Seen::Forked { .. } => self.tell(Event::Fork { worker }),
            Seen::Online { .. } => {
                worker.reach(WorkerState::Online);
                self.tell(Event::Online { worker });
            }
            // Who has a channel says so itself, of each server.
            Seen::Listening { address, rung: Rung::Adopted | Rung::Inherited, .. } => {
                self.tell_listening(worker, ListeningAddress::seen(address));
            }
            Seen::Ready { .. } => self.tell(Event::Ready { worker }),
            Seen::Hung { stalled, .. } => self.tell(Event::Hung { worker, stalled }),
            Seen::NotReady { lack, limit, .. } => self.tell(Event::NotReady { worker, lack, limit }),
            Seen::Unhealthy { reason, .. } => {
                self.tell(Event::Unhealthy { worker, reason: reason.to_owned() });
            }
            Seen::Renewing { reason, .. } => self.tell(Event::Renewing { worker, reason }),
            Seen::Watching { time, .. } => self.tell(Event::Watching { worker, time }),
            Seen::Draining { .. } => {
                worker.note_disconnect();
                self.tell(Event::Draining { worker });
            }
            Seen::Exited { status, .. } => {
                let event = Event::Exit { worker: worker.clone(), status };
                self.leave(&worker, !worker.is_connected(), |worker| worker.note_exited(status), event);
            }
            Seen::AddressUnavailable { address, reason, .. } => {
                let tried = format!("listening on {address} for worker {}", worker.id());
                let error = Arc::new(Error::new(ErrorKind::AddressUnavailable, tried).because(reason));
                self.tell(Event::Error { worker, error });
            }
            Seen::Output { stream, line, .. } => {
                self.tell(Event::Output { worker, stream, line: line.to_vec() });
            }
            _ => {}
        }
    }

    fn tell_listening(&self, worker: WorkerHandle, address: ListeningAddress) {
        worker.reach(WorkerState::Listening);
        self.tell(Event::Listening { worker, address });
    }

    /// Takes note of one half of a worker's end, and tells of it. With the second half it leaves the table, before anybody
    /// can know.
    fn leave(&self, worker: &WorkerHandle, is_gone: bool, note: impl FnOnce(&WorkerHandle), event: Event) {
        if is_gone {
            self.table().remove(&worker.id());
        }
        note(worker);
        self.tell(event);
        if is_gone {
            worker.end();
        }
    }

    /// Tells of a worker: to who listens to it, and to who listens to all.
    fn tell(&self, event: Event) {
        if let Some(worker) = event.worker() {
            worker.push(event.clone());
        }
        self.hub.push(event);
    }

    fn find(&self, id: WorkerId) -> Option<WorkerHandle> {
        self.table().get(&id).cloned()
    }

    /// The engine has ended. Nothing more will be told.
    pub(super) fn finish(&self, outcome: Result<(), Error>) {
        let left = std::mem::take(&mut *self.table());
        for worker in left.into_values() {
            // The engine's thread has died before it.
            worker.note_disconnected();
            worker.note_exited(ExitStatus::Code(255));
            worker.end();
        }
        self.ended.send_replace(Some(outcome.map_err(Arc::new)));
        self.hub.end();
    }
}
