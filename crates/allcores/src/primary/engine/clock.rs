//! What wakes the engine besides messages: ticks of steering, deadlines, the once-a-second look.

use std::io;
use std::os::fd::BorrowedFd;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use allcores_core::pool::Input;
use allcores_core::worker::WorkerId;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use super::Engine;
use super::look::Purpose;
use crate::ports::{LaneId, Tuning};
use crate::sys::Watch;

/// How often what workers may have changed is put back, and counts are read anew.
const MAINTENANCE: Duration = Duration::from_secs(1);

/// And at most, as `--hang-timeout` asks for.
const OFTEN: Duration = Duration::from_millis(20);

/// How long a lane must have stood still before it is worth a look whether its worker has closed it, and how long it takes until
/// it is worth another.
const SUSPICIOUS: Duration = Duration::from_millis(500);

/// How long after a connection came its lane is looked at again while somebody is held up. Chosen by `cargo xtask bench
/// steering mixed`: at half of it the tail is no shorter, and the primary takes more of a core.
const TICK: Duration = Duration::from_millis(2);

/// A timer finer than the runtime's, which counts in whole milliseconds.
#[derive(Debug)]
pub(super) struct Clock {
    timer: Watch,
    is_armed: bool,
    maintenance: Duration,
    has_forgotten_start: bool,
    /// When suspicious lanes may be looked at next; `None` while they are.
    next_look: Option<Duration>,
}

impl Clock {
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self {
            timer: Watch::readable(timer)?,
            is_armed: false,
            maintenance: MAINTENANCE,
            has_forgotten_start: false,
            next_look: Some(Duration::ZERO),
        })
    }

    /// Suspicious lanes have been looked at, and not sooner than they could be again.
    pub(super) fn note_looked(&mut self, since: Duration) {
        self.next_look = Some(since + SUSPICIOUS);
    }

    pub(super) fn arm(&mut self, after: Duration) {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = Timespec::try_from(after).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        let once = Itimerspec { it_interval: zero, it_value: value };
        self.is_armed = rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once).is_ok();
    }

    /// Ready once for each time that the timer was armed.
    pub(super) fn poll_tick(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut expirations = [0; 8];
        let read = |fd: BorrowedFd<'_>| Ok((rustix::io::read(fd, &mut expirations)?, true));
        match ready!(self.timer.poll_read_part(context, read)) {
            Ok(_) => Poll::Ready(()),
            Err(_) => Poll::Pending,
        }
    }
}

impl Engine {
    /// Connections wait at these lanes.
    pub(super) fn take_ready(&mut self, lanes: &[LaneId]) {
        let now = self.now();
        self.ports.note_ready(lanes, now);
        self.tick_on();
    }

    /// Looks at the lanes' queues.
    pub(super) fn tick(&mut self) {
        self.clock.is_armed = false;
        let now = self.now();
        self.distrust_silent();
        self.ports.tick(now);
        self.relieve_busy();
        self.feed_starving();
        self.note_first_accepts();
        self.tick_on();
    }

    /// When the engine must wake by itself.
    pub(super) fn next_deadline(&self) -> Duration {
        let hand_off = self.ports.next_hand_off(self.now());
        let deadlines = [
            self.pool.next_deadline(),
            self.drains.next_look(),
            self.care.next_due(),
            self.hearts.next_due(),
            self.next_measuring(),
            hand_off,
            self.ports.next_look_at_full(),
            self.next_goodbye(),
        ];
        deadlines.into_iter().flatten().fold(self.clock.maintenance, Duration::min)
    }

    pub(super) fn wake(&mut self) {
        let now = self.now();
        if self.pool.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.tell(Input::Wake);
        }
        self.look_at_drains();
        self.look_at_health();
        self.look_at_hearts();
        self.look_at_memory();
        self.ports.look_at_full(now);
        if now >= self.clock.maintenance {
            let hang = self.settings.pool.hang_timeout;
            self.clock.maintenance =
                now + hang.map_or(MAINTENANCE, |limit| (limit / 4).clamp(OFTEN, MAINTENANCE));
            self.maintain();
        }
    }

    fn maintain(&mut self) {
        let now = self.now();
        self.ports.maintain(now);
        self.forget_spoilt();
        self.pass_on_strays();
        self.relieve_busy();
        self.find_deserted();
        self.find_hung();
        self.hint();
        self.note_unseen();
        self.forget_start();
        self.tick_on();
    }

    /// Gives back the code that only the start needed, once all workers are there.
    pub(super) fn forget_start(&mut self) {
        if self.owns_process() && !self.clock.has_forgotten_start && self.pool.is_settled() {
            self.clock.has_forgotten_start = true;
            crate::sys::process::release_code();
        }
    }

    /// Ticks for as long as there is something to look at.
    pub(super) fn tick_on(&mut self) {
        if self.ports.is_hot() && !self.clock.is_armed {
            self.clock.arm(self.ports.tick_interval());
        }
    }

    pub(super) fn find_hung(&mut self) {
        use allcores_core::worker::State;
        let Some(limit) = self.settings.pool.hang_timeout else { return };
        let now = self.now();
        let mut stalled: Vec<_> = self.ports.stalled(limit, now).iter().map(|stall| stall.worker).collect();
        stalled.extend(self.ports.silent(limit, now));
        stalled.extend(self.inquiries.mute());
        let hung: Vec<_> =
            self.pool.workers().filter(|view| view.state == State::Hung).map(|view| view.id).collect();
        for id in &stalled {
            self.tell(Input::Stalled { id: *id });
        }
        for id in hung.into_iter().filter(|id| !stalled.contains(id)) {
            // Where its replacement accepts from the same queue, that it moves says nothing.
            if !self.ports.is_succeeded(id) {
                self.tell(Input::Moving { id });
            }
        }
        self.inquire(limit);
    }

    /// Finds lanes that stand still because their worker has closed them: nobody will accept what waits there. So are those
    /// looked at whose path a worker has removed, which it may still be found by, and UDP sockets in which something waits. Not while
    /// the app stops: workers close what they have then.
    fn find_deserted(&mut self) {
        let now = self.now();
        if self.pool.is_stopping() || self.clock.next_look.is_none_or(|next| now < next) {
            return;
        }
        let stalls = self.ports.stalled(SUSPICIOUS, now).into_iter().map(|stall| (stall.worker, stall.lane));
        // One that is to go leaves its place to its successor.
        let stays = |id: &WorkerId| self.workers.get(id).is_some_and(|worker| !worker.is_retired);
        let removers = self.ports.removed().into_iter().filter(|(id, _)| stays(id));
        let suspects: Vec<_> = stalls.chain(removers).chain(self.ports.unread(now)).collect();
        if self.look_at(Purpose::Suspicion, suspects) {
            self.clock.next_look = None;
        }
    }
}

/// A little randomness, to spread the waits of primaries that start together.
pub(super) fn subsecond_nanos() -> u32 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.subsec_nanos())
}

/// How lanes are steered. The variables are for the benchmarks, which compare.
pub(super) fn tuning_from_env() -> Tuning {
    let micros = std::env::var("ALLCORES_STEER_TICK_US").ok().and_then(|text| text.parse().ok());
    Tuning {
        tick: micros.filter(|micros| *micros > 0).map_or(TICK, Duration::from_micros),
        is_on: std::env::var_os("ALLCORES_STEERING").is_none_or(|value| value != "off"),
    }
}
