//! What can be told about how well the policy, or how workers get their sockets, fits the program.

use std::time::Duration;

use allcores_core::pool::Lack;
use allcores_core::worker::{Rung, State, WorkerId};

use super::Engine;
use crate::primary::{Event, Policy};
use crate::proc;

/// What was said and measured so far.
#[derive(Debug, Default)]
pub(super) struct Hints {
    pub(super) text: Option<String>,
    /// That workers were given their sockets, and nothing shows that they serve.
    pub(super) is_unseen_told: bool,
    /// What a worker listens on that it was not seen to bind, in words.
    elsewhere: Option<(WorkerId, String)>,
    /// When the next look is due at what a worker has that is not seen to bind anything.
    next_look: Duration,
}

/// Arrivals that must have been counted before anything is concluded.
const ENOUGH: u64 = 500;

/// The share, in percent, of arrivals at a worker that was busy while another was free. A program that takes one
/// connection at a time has half of them under load; an event loop that is held up now and then, or a machine that is
/// short of cores, a quarter at the most.
const TELLING: u64 = 33;

/// One that takes one connection at a time has taken several between two looks in one of so many of these cases at most: looks may come
/// late.
const RARELY: u64 = 10;

/// How long a worker that was given its sockets may have taken nothing before that is worth a word: programs need some
/// seconds to load, and where there are clients, one of them comes.
const UNSEEN: Duration = Duration::from_secs(5);

impl Engine {
    /// Says once if connections keep waiting for busy workers while others are free: the sign of a program that takes
    /// one connection at a time, which one shared listener serves better.
    pub(super) fn hint(&mut self) {
        let is_relieved = self.has_channels();
        if self.hints.text.is_some() || self.settings.policy != Policy::Auto || is_relieved {
            return;
        }
        let misfit = self.ports.misfit();
        let takes_several = misfit.gulps * RARELY > misfit.misplaced;
        if takes_several || misfit.arrivals < ENOUGH || misfit.misplaced * 100 < misfit.arrivals * TELLING {
            return;
        }
        let text = format!(
            "{} of {} times that connections were seen to wait, their worker was busy with another one while a third was \
             free: if the program takes one connection at a time, `--policy shared` serves it better",
            misfit.misplaced, misfit.arrivals
        );
        (self.observe)(Event::Notice { text: &text });
        self.hints.text = Some(text);
    }

    /// Says once what a worker lacks that was given its sockets and does not become ready: its program may well serve.
    pub(super) fn note_unseen(&mut self) {
        if self.hints.is_unseen_told {
            return;
        }
        self.look_elsewhere();
        if let Some(text) = self.unseen() {
            (self.observe)(Event::Notice { text: &text });
            self.hints.is_unseen_told = true;
        }
    }

    /// Why a worker is not ready that was given its sockets, or listens where we do not see it, and what to do; `None` where
    /// there is no such worker.
    pub(super) fn unseen(&self) -> Option<String> {
        self.unseen_at_what_it_was_given().or_else(|| {
            let (id, text) = self.hints.elsewhere.as_ref()?;
            self.has_bound_nothing(*id).then(|| format!("worker {id} {text}"))
        })
    }

    fn unseen_at_what_it_was_given(&self) -> Option<String> {
        if self.is_gated() {
            return None;
        }
        let now = self.now();
        let mut late = self.pool.workers().filter(|view| {
            view.state == State::Online
                && now.saturating_sub(view.started) >= UNSEEN
                && self.is_given_and_unseen(view.id)
        });
        let id = late.next()?.id;
        Some(format!(
            "worker {id} was given its sockets and has not been seen to accept a connection; nothing else shows that a \
             program serves which does not call listen(2) itself. To have it ready before anybody connects, say \
             `--health-http PATH`, by which it is asked, or `--wait-ready`, if it says READY=1 (sd_notify)"
        ))
    }

    /// Looks now and then at one that has not bound anything for long.
    fn look_elsewhere(&mut self) {
        let now = self.now();
        if now < self.hints.next_look {
            return;
        }
        let mut late = self
            .pool
            .workers()
            .filter(|view| now.saturating_sub(view.started) >= UNSEEN && self.has_bound_nothing(view.id));
        let Some(id) = late.next().map(|view| view.id) else { return };
        self.hints.elsewhere = self.elsewhere(id).map(|text| (id, text));
        self.hints.next_look = now + UNSEEN;
    }

    /// Whether a worker would have been seen to bind something and was not.
    fn has_bound_nothing(&self, id: WorkerId) -> bool {
        let is_online = self.pool.worker(id).is_some_and(|view| view.state == State::Online);
        let worker = self.workers.get(&id).filter(|_| is_online && !self.is_adoption_reported);
        worker.is_some_and(|worker| worker.listener.is_some() && worker.lanes.is_empty())
    }

    /// What a worker listens on that it was not seen to bind, as it is to be told of it; `None` if there is nothing.
    pub(super) fn elsewhere(&self, id: WorkerId) -> Option<String> {
        let worker = self.workers.get(&id).filter(|_| self.has_bound_nothing(id))?;
        let addresses = proc::listened_on(&proc::open_sockets(&proc::session_members(worker.about.pid)));
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let text = || {
            format!(
                "listens on {}, which allcores did not see it bind (port 0, or io_uring): give it a fixed port",
                addresses.join(", ")
            )
        };
        (!addresses.is_empty()).then(text)
    }

    /// Whether a worker was given its sockets and nothing has shown yet that it serves.
    pub(super) fn is_given_and_unseen(&self, id: WorkerId) -> bool {
        let worker = self.workers.get(&id);
        worker.is_some_and(|worker| worker.rung == Some(Rung::Inherited) && worker.announced.is_empty())
    }

    /// What a worker lacks, to be told. Of one that was given its sockets nobody expects that it listens by itself.
    pub(super) fn lack_in_truth(&self, id: WorkerId, lack: Lack) -> Lack {
        match lack {
            Lack::Listening if self.is_given_and_unseen(id) && self.settings.pool.wait_ready => Lack::Word,
            Lack::Listening if self.is_given_and_unseen(id) && self.settings.pool.wait_healthy => {
                Lack::Health
            }
            _ => lack,
        }
    }
}
