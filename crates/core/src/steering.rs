//! Which of the lanes of one address should get new connections, from the depth of their accept queues.
//!
//! Pure: is told what was read and when, and says what should be. A lane whose queue was found non-empty at two
//! looks a tick apart, without having shrunk or its worker having been seen to work in between, belongs to a worker that is busy
//! with something else; it is left out until its queue has been emptied. When all are busy, all are in.

mod saved;

use std::time::Duration;

pub use saved::LaneWatchSaved;

/// One look at a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Connections that wait.
    pub depth: u32,
    /// A number that changes whenever the lane's worker does something, where that can be told cheaply, and where it takes
    /// several connections before it answers the first. Who does what it took is not held up by it.
    pub work: Option<u64>,
    /// The time on a core that the lane's worker has had since it was started, where the kernel tells cheaply.
    pub ran: Option<Duration>,
}

/// What is known of one lane from the readings so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct LaneWatch {
    depth: u32,
    /// When its queue was last seen empty or shorter than before; `None` while it is empty.
    waiting_since: Option<Duration>,
    /// When its worker was last seen to do anything at all while connections waited: to take one, or to work
    /// for one that it has. `None` while the queue is empty.
    still_since: Option<Duration>,
    work: Option<u64>,
    /// The time on a core that its worker had had by then, and at the last look.
    ran: Option<(Duration, Duration)>,
    is_busy: bool,
    /// When its worker last took a connection, as far as that was seen.
    alive_at: Duration,
    /// Until when it counts as busy though its queue is empty, because others took what waited there.
    relieved_until: Duration,
    /// Since when connections that waited for its worker were taken by others, and it has shown no life.
    relieved_since: Option<Duration>,
    open: u32,
    /// The fewest descriptors seen open in this window and the last.
    floor: Option<(u32, u32)>,
    window_ends: Duration,
    /// Until when its worker may still be opening what it needs itself.
    settled_at: Duration,
    /// What its worker had open when it was first looked at since it serves.
    first: u32,
    /// Connections known to have come since its worker began to serve: at least so many.
    came: u32,
}

/// How long a surplus of connections is remembered against a worker.
const WINDOW: Duration = Duration::from_secs(10);

/// How long a worker that begins to serve goes on opening what it needs: puma starts its threads after `listen`.
const SETTLING: Duration = Duration::from_millis(200);

/// How much it opens by then at most. Connections that come all at once are not counted one by one, so this is also how
/// many of them may be taken for its own.
const OWN: u32 = 12;

impl LaneWatch {
    /// Takes in a look at the lane.
    pub fn observe(&mut self, reading: Reading, now: Duration) {
        let moved = reading.depth < self.depth;
        let has_worked =
            moved || reading.work.is_some_and(|work| self.work.is_some_and(|before| before != work));
        self.work = reading.work;
        if moved {
            self.alive_at = now;
            self.relieved_until = self.relieved_until.min(now);
            self.relieved_since = None;
        }
        if has_worked {
            self.still_since = None;
        }
        if reading.depth == 0 {
            self.waiting_since = None;
            // Where others took what waited, that the queue is empty says nothing about its worker.
            self.still_since = self.still_since.filter(|_| self.relieved_since.is_some());
            self.is_busy = self.is_busy && now < self.relieved_until;
        } else if moved || self.waiting_since.is_none() {
            self.waiting_since = Some(now);
            // The time in which it could have had connections and none came says nothing about it.
            let idle = now.saturating_sub(self.relieved_until);
            let later = |since: Duration| since + idle;
            self.relieved_since = self.relieved_since.map(later);
            self.still_since = self.still_since.map(later).or(Some(now));
        } else if has_worked {
            // It took several at a time, and answers them: nobody waits for long.
            self.still_since = Some(now);
        } else {
            self.is_busy = true;
        }
        let until_now = self.ran.filter(|_| self.still_since.is_some_and(|since| since < now));
        self.ran = reading.ran.map(|ran| (until_now.map_or(ran, |(before, _)| before), ran));
        self.depth = reading.depth;
    }

    /// Takes in how many descriptors the lane's worker has open: an estimate of how many connections it holds.
    pub fn count(&mut self, open: u32, now: Duration) {
        self.open = open;
        if self.floor.is_none() {
            self.first = open;
        }
        self.floor = Some(match self.floor {
            None => (open, open),
            Some((current, _)) if now < self.settled_at => {
                let most = self.first.saturating_add(OWN);
                let own = current.max(open.saturating_sub(self.came).min(most));
                (own, own)
            }
            Some((current, _)) if now >= self.window_ends => (open, current),
            Some((current, last)) => (current.min(open), last),
        });
        if now >= self.window_ends {
            self.window_ends = now + WINDOW;
        }
    }

    /// Its worker begins to serve: what it opened until now, and what it opens in the next moments beyond the connections
    /// that come, is its own.
    pub fn begin(&mut self, now: Duration) {
        self.floor = None;
        self.came = 0;
        self.settled_at = now + SETTLING;
    }

    /// Takes in that others took one of the connections that waited. Says nothing about its worker, which is given
    /// this long before it is tried again.
    pub fn relieve(&mut self, until: Duration) {
        self.depth = self.depth.saturating_sub(1);
        self.relieved_until = until;
        self.relieved_since = self.relieved_since.or(self.waiting_since);
    }

    /// Since when others have taken what waited for its worker while that took nothing.
    pub fn relieved_since(&self) -> Option<Duration> {
        self.relieved_since
    }

    /// Takes in that a connection has come, which makes the queue one longer at least for a moment.
    pub fn note_arrival(&mut self) {
        self.depth = self.depth.max(1);
        self.came = self.came.saturating_add(1);
    }

    /// Takes in that its worker was handed a connection and has not answered: it gets no others until this time, or
    /// until it answers.
    pub fn distrust(&mut self, until: Duration) {
        self.is_busy = true;
        self.relieved_until = until;
    }

    /// Takes in that its worker has just done something.
    pub fn note_life(&mut self, now: Duration) {
        self.alive_at = now;
        self.relieved_until = now;
        self.relieved_since = None;
        self.still_since = (self.depth > 0).then_some(now);
        self.is_busy = self.is_busy && self.depth > 0;
    }

    /// When its worker last took a connection, as far as that was seen.
    pub fn alive_at(&self) -> Duration {
        self.alive_at
    }

    /// Whether it must be looked at though nothing waits there.
    pub fn is_relieved(&self) -> bool {
        self.is_busy && self.depth == 0
    }

    /// Forgets everything: another worker serves the lane from now on.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Connections that waited at the last look.
    pub fn depth(&self) -> u32 {
        self.depth
    }

    /// Whether its worker was found busy and has not emptied the queue since.
    pub fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// For how long connections have waited without any being taken.
    pub fn stalled_for(&self, now: Duration) -> Duration {
        self.waiting_since.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }

    /// For how long connections have waited while their worker did nothing that could be seen from outside.
    pub fn still_for(&self, now: Duration) -> Duration {
        self.still_since.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }

    /// For how long its worker has been busy with something else, while connections waited for it or others took them.
    pub fn held_up_for(&self, now: Duration) -> Duration {
        if self.is_busy { self.still_for(now) } else { Duration::ZERO }
    }

    /// How long its worker was on a core in that time, where that is known.
    pub fn ran_meanwhile(&self) -> Option<Duration> {
        self.ran.map(|(before, now)| now.saturating_sub(before))
    }

    /// For how long its worker has taken nothing though connections waited for it, be it that they still do or that others
    /// took them.
    pub fn standing_for(&self, now: Duration) -> Duration {
        let relieved = self.relieved_since.filter(|_| self.is_busy);
        self.stalled_for(now).max(relieved.map_or(Duration::ZERO, |since| now.saturating_sub(since)))
    }

    /// Connections gained beyond the fewest held lately. Forgets within two windows, so that a worker which keeps
    /// many files open for other reasons is not starved for ever.
    fn gained(&self) -> u32 {
        self.floor.map_or(0, |(current, last)| self.open.saturating_sub(current.min(last)))
    }
}

/// Which of `lanes` should get new connections: not those whose worker is busy, and not those that are ahead of the
/// others in connections gained. `lanes` are those that may get any at all; the answer is parallel to it and never all
/// `false`.
pub fn choose(lanes: &[&LaneWatch]) -> Vec<bool> {
    let mut chosen: Vec<bool> = lanes.iter().map(|lane| !lane.is_busy).collect();
    if !chosen.contains(&true) {
        return vec![true; lanes.len()];
    }
    let gained: Vec<u32> = lanes.iter().map(|lane| lane.gained()).collect();
    let free = || chosen.iter().zip(&gained).filter(|(is_chosen, _)| **is_chosen).map(|(_, gained)| *gained);
    let total: u32 = free().sum();
    let count = u32::try_from(free().count()).unwrap_or(u32::MAX).max(1);
    let most = total.div_ceil(count) + SLACK;
    for (is_chosen, gained) in chosen.iter_mut().zip(&gained) {
        *is_chosen = *is_chosen && *gained <= most;
    }
    chosen
}

/// How far a worker may be ahead of the mean in connections gained before it is passed over. Under short
/// connections the counts differ by this much all the time, and nobody should be passed over for that.
const SLACK: u32 = 2;

#[cfg(test)]
mod tests;
