//! Connections that this primary passes on by itself: a task for each.

use std::time::Duration;

use tokio::task::JoinSet;

use super::Engine;
use crate::ports::Stray;
use crate::primary::Event;
use crate::primary::recall::Recall;
use crate::primary::relay::Relay;

/// How long what the last workers have written may take to reach their clients.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Connections that are passed on.
#[derive(Debug, Default)]
pub(super) struct Relays {
    tasks: JoinSet<Option<Relay>>,
    /// It was said that some had to be.
    pub(super) is_told: bool,
}

impl Relays {
    fn begin(&mut self, relay: Relay, recall: Recall) {
        while self.tasks.try_join_next().is_some() {}
        self.tasks.spawn(relay.carry(recall));
    }

    /// Waits until those that were called back are back.
    pub(super) async fn back(&mut self) -> Vec<Relay> {
        let mut back = Vec::new();
        while let Some(ended) = self.tasks.join_next().await {
            back.extend(ended.ok().flatten());
        }
        back
    }

    /// Waits until clients have what workers that are gone have written.
    pub(super) async fn finish(&mut self) {
        let _ =
            tokio::time::timeout(LAST_WORDS, async { while self.tasks.join_next().await.is_some() {} }).await;
    }
}

impl Engine {
    /// Takes connections out of lanes that nobody accepts from and passes them on.
    pub(super) fn pass_on_strays(&mut self) {
        let now = self.now();
        let strays = self.ports.take_strays(now);
        self.pass_on_all(strays);
    }

    /// Takes connections that starve in a worker's lane to workers that have time.
    pub(super) fn feed_starving(&mut self) {
        let now = self.now();
        let starving = self.ports.take_starving(now);
        if starving.is_empty() {
            return;
        }
        if !std::mem::replace(&mut self.relays.is_told, true) {
            let text = "connections waited for seconds in the queue of a worker that took none, while others had time: \
                        they are passed on to those, which see this machine's own address as the client's; a program \
                        that takes no more connections than it has threads is served better by `--policy shared`";
            (self.observe)(Event::Notice { text });
        }
        self.pass_on_all(starving);
    }

    fn pass_on_all(&mut self, strays: Vec<Stray>) {
        for relay in strays.into_iter().filter_map(|stray| Relay::new(stray).ok()) {
            self.relay(relay);
        }
    }

    pub(super) fn relay(&mut self, relay: Relay) {
        self.relays.begin(relay, self.recaller.recall());
    }
}
