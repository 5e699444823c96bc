//! Telling workers over their channel to go, at a moment at which nothing is lost by it.
//!
//! From 26.4 on, node that is told to go closes every connection from which it has read nothing, be its request there to
//! be read. What an event loop accepts in one turn it reads in the next. So a worker of node's is told when nothing is on
//! its way to it any more, and its loop has turned since. That it has is seen by its answers: of a connection for a
//! listener that it does not have, node says by itself that it refuses it, and its program sees nothing of that.
//!
//! When a worker is to go is not decided here, and neither is how long it may take for it.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use allcores_core::channel::Speaker;
use allcores_core::worker::{Rung, WorkerId};

use super::Engine;

/// The key of a listener that no worker has.
const NOBODYS: &str = "allcores:turn";

/// So many answers, each asked for after the one before, lie in different turns. What was accepted before the first was
/// asked for is registered by then, and read before anything that comes after the second.
const TURNS: u8 = 2;

/// How long the client of a connection that a worker has just taken has to send its request.
const SETTLING: Duration = Duration::from_millis(20);

/// How often it is looked whether something is still on its way to a worker.
const INTERVAL: Duration = Duration::from_millis(5);

/// When a worker that has not answered is asked once more: Deno may lose a question.
const REPEAT: Duration = Duration::from_millis(500);

/// A worker that answers nothing is told all the same after this, if it has not got the stop signal before.
const PATIENCE: Duration = Duration::from_secs(10);

/// Workers that are to be told to go.
#[derive(Debug, Default)]
pub(super) struct Farewells {
    leaving: BTreeMap<WorkerId, Farewell>,
}

#[derive(Clone, Copy, Debug)]
struct Farewell {
    /// When it is told in any case.
    until: Duration,
    step: Step,
}

/// ```text
/// Landing ──nothing is on its way──→ Turning ──it has turned, and nothing has come──→ told
///    │  ↑                              │  │                                           ↑
///    │  └─────something has come───────┘  └─────────────────time over─────────────────┤
///    └──────────────────────────────────────────────────────time over─────────────────┘
/// ```
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Something may be on its way to it.
    Landing { next_look: Duration },
    /// So many answers have come, and another is waited for.
    Turning { answers: u8, asked: Option<Asked> },
}

/// A question that a worker has not answered: the number of the message, and when it went out.
#[derive(Clone, Copy, Debug)]
struct Asked {
    number: u64,
    at: Duration,
}

impl Farewells {
    pub(super) fn forget(&mut self, id: WorkerId) {
        self.leaving.remove(&id);
    }

    /// Takes in a worker's answer; false if it is to something else.
    fn take_answer(&mut self, id: WorkerId, number: u64) -> bool {
        let Some(Farewell { step: Step::Turning { answers, asked }, .. }) = self.leaving.get_mut(&id) else {
            return false;
        };
        let is_it = asked.take_if(|asked| asked.number == number).is_some();
        *answers += u8::from(is_it);
        is_it
    }
}

impl Engine {
    /// Tells a worker to close its servers, finish its connections and go, as soon as nothing is lost by it.
    pub(super) fn say_goodbye(&mut self, id: WorkerId) {
        let now = self.now();
        let farewell = Farewell { until: now + PATIENCE, step: Step::Landing { next_look: now } };
        self.farewells.leaving.insert(id, farewell);
        self.let_go();
    }

    /// Tells those workers to go whose moment has come.
    pub(super) fn let_go(&mut self) {
        let now = self.now();
        for id in self.farewells.leaving.keys().copied().collect::<Vec<_>>() {
            if self.may_go(id, now) {
                self.farewells.forget(id);
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.say(Speaker::disconnect, None);
                }
            }
        }
    }

    /// When that is to be looked at, if nothing happens until then.
    pub(super) fn next_goodbye(&self) -> Option<Duration> {
        let next = |farewell: &Farewell| match farewell.step {
            Step::Landing { next_look } => next_look.min(farewell.until),
            Step::Turning { asked, .. } => {
                asked.map_or(Duration::ZERO, |asked| asked.at.saturating_add(REPEAT)).min(farewell.until)
            }
        };
        self.farewells.leaving.values().map(next).min()
    }

    /// A worker has answered a question that only shows that its loop has turned; false if it was none of those.
    pub(super) fn take_turn(&mut self, id: WorkerId, number: u64) -> bool {
        self.farewells.take_answer(id, number)
    }

    /// Goes on with a worker as far as that is possible now; true if it is to be told.
    fn may_go(&mut self, id: WorkerId, now: Duration) -> bool {
        let Some(Farewell { until, step }) = self.farewells.leaving.get(&id).copied() else { return false };
        let answers = match step {
            _ if now >= until => return true,
            Step::Landing { next_look } if now < next_look => return false,
            Step::Turning { asked: Some(asked), .. } if now < asked.at + REPEAT => return false,
            Step::Landing { .. } => 0,
            Step::Turning { answers, .. } => answers,
        };
        let step = if self.is_on_its_way(id, now) {
            Step::Landing { next_look: now + INTERVAL }
        } else if answers >= TURNS {
            return true;
        } else {
            let Some(number) = self.ask_for_a_turn(id) else { return true };
            Step::Turning { answers, asked: Some(Asked { number, at: now }) }
        };
        self.farewells.leaving.insert(id, Farewell { until, step });
        false
    }

    /// Whether a worker may have something still to accept, or to hear from a client whom it has just accepted.
    fn is_on_its_way(&self, id: WorkerId, now: Duration) -> bool {
        let has_settled = self.took_at(id).is_none_or(|took_at| took_at + SETTLING <= now);
        !has_settled || self.is_handing_over(id) || self.ports.has_last_waiting(id)
    }

    /// Asks a worker of node's for an answer; returns its number. Others need not be asked.
    fn ask_for_a_turn(&mut self, id: WorkerId) -> Option<u64> {
        let worker = self.workers.get_mut(&id).filter(|worker| worker.rung == Some(Rung::Node))?;
        let (socket, _) = UnixStream::pair().ok()?;
        worker.hand_over_to(NOBODYS, Arc::new(socket.into()))
    }
}
