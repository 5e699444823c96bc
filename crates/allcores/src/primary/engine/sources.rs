//! What the engine waits for.
//!
//! Answers for connections that were handed over come up to tens of thousands of times in a second, all else seldom. To ask
//! every source whenever one of them has something would cost more than to take in the answer. So those that are seldom
//! have a bell in common: while it does not ring, and nothing but answers is taken in, they are not asked.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use tokio::signal::unix::Signal;
use tokio::sync::mpsc;
use tokio::time::Sleep;

use super::Command;
use super::clock::Clock;
use crate::ports::{LaneId, Ports, Touched};
use crate::primary::answers::Answers;
use crate::primary::worker::Seen;

/// What has come.
pub(super) enum News {
    /// Answers, to be taken from where they wait.
    Answers,
    Sighting(Seen),
    Command(Command),
    /// Something was done to files of ours.
    Touched(Vec<Touched>),
    /// These lanes have connections waiting.
    Ready(Vec<LaneId>),
    /// It is time for another look at the lanes' queues.
    Tick,
    /// The time has come that was set.
    Alarm,
    /// A child has ended, or stopped.
    Child,
}

/// In the order in which they are asked, beginning behind the one that had something last.
const ALL: [Source; 8] = [
    Source::Answers,
    Source::Sightings,
    Source::Commands,
    Source::Touched,
    Source::Ready,
    Source::Tick,
    Source::Alarm,
    Source::Children,
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Answers,
    Sightings,
    Commands,
    Touched,
    Ready,
    Tick,
    Alarm,
    Children,
}

impl Source {
    fn is_seldom(self) -> bool {
        !matches!(self, Self::Answers | Self::Sightings)
    }
}

/// See the module.
pub(super) struct Sources {
    pub(super) commands: mpsc::UnboundedReceiver<Command>,
    pub(super) sightings: mpsc::Receiver<Seen>,
    pub(super) children: Option<Signal>,
    answers: Answers,
    alarm: Pin<Box<Sleep>>,
    bell: Arc<Bell>,
    /// Who is asked first.
    first: usize,
    /// Those that are seldom have to be asked.
    is_due: bool,
}

impl Sources {
    pub(super) fn new(
        commands: mpsc::UnboundedReceiver<Command>,
        sightings: mpsc::Receiver<Seen>,
        answers: Answers,
        children: Option<Signal>,
    ) -> Self {
        Self {
            commands,
            sightings,
            children,
            answers,
            alarm: Box::pin(tokio::time::sleep_until(Instant::now().into())),
            bell: Arc::default(),
            first: 0,
            is_due: true,
        }
    }

    /// Has the alarm ring at this time. One that is set to an earlier time than any other wakes the runtime from the sleep that
    /// it is about to begin, and the earliest deadline comes and goes with every connection: so to a later time it is
    /// only set once it has rung.
    pub(super) fn set_alarm(&mut self, deadline: Instant) {
        let deadline = deadline.into();
        if self.alarm.is_elapsed() || deadline < self.alarm.deadline() {
            self.alarm.as_mut().reset(deadline);
        }
    }

    /// Has all be asked: something has been taken in otherwise, which may change what there is to wait for.
    pub(super) fn ask_all(&mut self) {
        self.is_due = true;
    }

    /// Waits for what comes next. Nobody's news keep others' from being heard.
    pub(super) async fn next(&mut self, ports: &Ports, clock: &Clock) -> News {
        poll_fn(|context| self.poll_next(ports, clock, context)).await
    }

    fn poll_next(&mut self, ports: &Ports, clock: &Clock, context: &mut Context<'_>) -> Poll<News> {
        self.is_due |= self.bell.take(context.waker());
        let bell = Waker::from(Arc::clone(&self.bell));
        for nth in self.first..self.first + ALL.len() {
            let source = ALL[nth % ALL.len()];
            let polled = if !source.is_seldom() {
                self.poll_source(source, ports, clock, context)
            } else if self.is_due {
                self.poll_source(source, ports, clock, &mut Context::from_waker(&bell))
            } else {
                continue;
            };
            if let Poll::Ready(news) = polled {
                self.first = (nth + 1) % ALL.len();
                // Whatever else is taken in may change what there is to wait for.
                self.is_due |= source != Source::Answers;
                return Poll::Ready(news);
            }
        }
        // All know the bell now.
        self.is_due = false;
        Poll::Pending
    }

    fn poll_source(
        &mut self,
        source: Source,
        ports: &Ports,
        clock: &Clock,
        context: &mut Context<'_>,
    ) -> Poll<News> {
        match source {
            Source::Answers => self.answers.poll_any(context).map(|()| News::Answers),
            Source::Sightings => some(self.sightings.poll_recv(context)).map(News::Sighting),
            Source::Commands => some(self.commands.poll_recv(context)).map(News::Command),
            Source::Touched => pin!(ports.next_touched()).poll(context).map(News::Touched),
            Source::Ready => ports.poll_ready(context).map(News::Ready),
            Source::Tick => clock.poll_tick(context).map(|()| News::Tick),
            // It has rung until it is set again.
            Source::Alarm => self.alarm.as_mut().poll(context).map(|()| News::Alarm),
            Source::Children => match &mut self.children {
                Some(children) => some(children.poll_recv(context)).map(|()| News::Child),
                None => Poll::Pending,
            },
        }
    }
}

/// From a source that has ended nothing will come any more.
fn some<T>(polled: Poll<Option<T>>) -> Poll<T> {
    match polled {
        Poll::Ready(Some(it)) => Poll::Ready(it),
        Poll::Ready(None) | Poll::Pending => Poll::Pending,
    }
}

/// Rung by any of several sources.
#[derive(Debug, Default)]
struct Bell {
    has_rung: AtomicBool,
    hearer: Mutex<Option<Waker>>,
}

impl Bell {
    /// Whether it has rung since this was last asked. From now on it wakes this one.
    fn take(&self, hearer: &Waker) -> bool {
        let mut known = self.hearer.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref().is_none_or(|known| !known.will_wake(hearer)) {
            *known = Some(hearer.clone());
        }
        drop(known);
        self.has_rung.swap(false, Ordering::AcqRel)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.has_rung.store(true, Ordering::Release);
        let hearer = self.hearer.lock().unwrap_or_else(PoisonError::into_inner).clone();
        hearer.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests;
